"""Secrets of many kinds, as they stand in rollouts, and all that a folder holds to look for them in."""

import json
import random
import string
from collections.abc import Callable
from pathlib import Path

import polars as pl

RNG = random.Random(7)
LETTERS, HEX, UPPER = string.ascii_letters + string.digits, "0123456789abcdef", string.ascii_uppercase + string.digits


def made(n: int, alphabet: str = LETTERS) -> str:
    return "".join(RNG.choice(alphabet) for _ in range(n))


SECRETS: dict[str, Callable[[], tuple[str, str]]] = {  # name -> (text as it stands, the secret in it)
    "github pat": lambda: twice(f"ghp_{made(36)}"),
    "github app": lambda: twice(f"ghs_{made(36)}"),
    "github fine": lambda: twice(f"github_pat_{made(22)}_{made(59)}"),
    "gitlab": lambda: twice(f"glpat-{made(20)}"),
    "aws id": lambda: twice(f"AKIA{made(16, UPPER)}"),
    "aws secret": lambda: named("aws_secret_access_key = {}", made(40)),
    "openai": lambda: twice(f"sk-proj-{made(48)}"),
    "openai old": lambda: twice(f"sk-{made(48)}"),
    "anthropic": lambda: twice(f"sk-ant-api03-{made(80)}"),
    "openrouter": lambda: twice(f"sk-or-v1-{made(64, HEX)}"),
    "hugging face": lambda: twice(f"hf_{made(34)}"),
    "slack bot": lambda: twice(f"xoxb-{made(12, string.digits)}-{made(12, string.digits)}-{made(24)}"),
    "slack app": lambda: twice(f"xapp-1-{made(11, UPPER)}-{made(13, string.digits)}-{made(64, HEX)}"),
    "slack hook": lambda: twice(f"https://hooks.slack.com/services/T{made(8, UPPER)}/B{made(8, UPPER)}/{made(24)}"),
    "google": lambda: twice(f"AIza{made(35)}"),
    "google client": lambda: twice(f"GOCSPX-{made(28)}"),
    "google access": lambda: twice(f"ya29.{made(60)}"),
    "stripe": lambda: twice(f"sk_live_{made(24)}"),
    "stripe restricted": lambda: twice(f"rk_live_{made(24)}"),
    "stripe hook": lambda: twice(f"whsec_{made(32)}"),
    "npm": lambda: twice(f"npm_{made(36)}"),
    "pypi": lambda: twice(f"pypi-AgEIcHlwaS5vcmc{made(60)}"),
    "docker": lambda: twice(f"dckr_pat_{made(27)}"),
    "sendgrid": lambda: twice(f"SG.{made(22)}.{made(43)}"),
    "digitalocean": lambda: twice(f"dop_v1_{made(64, HEX)}"),
    "mailgun": lambda: twice(f"key-{made(32, HEX)}"),
    "shopify": lambda: twice(f"shpat_{made(32, HEX)}"),
    "databricks": lambda: twice(f"dapi{made(32, HEX)}"),
    "vault": lambda: twice(f"hvs.{made(60)}"),
    "grafana": lambda: twice(f"glsa_{made(32)}_{made(8, HEX)}"),
    "groq": lambda: twice(f"gsk_{made(52)}"),
    "replicate": lambda: twice(f"r8_{made(37)}"),
    "nvidia": lambda: twice(f"nvapi-{made(64)}"),
    "langsmith": lambda: twice(f"lsv2_pt_{made(32, HEX)}_{made(10, HEX)}"),
    "jwt": lambda: twice(f"eyJ{made(30)}.eyJ{made(60)}.{made(43)}"),
    "bearer": lambda: named("Authorization: Bearer {}", made(40)),
    "basic": lambda: named("Authorization: Basic {}", made(30) + "=="),
    "header": lambda: named("x-api-key: {}", made(32)),
    "url": lambda: named("postgres://bob:{}@db.internal/x", made(12)),
    "private key": lambda: named("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----", made(400)),
    "password": lambda: named('password = "{}"', made(10)),
    "bare password": lambda: named("PASSWORD={}", made(9) + "7!"),
    "yaml": lambda: named("db:\n  passwd: {}", made(10) + "3"),
    "json": lambda: named('{{"api_key": "{}"}}', made(20)),
    "escaped json": lambda: named('{{\\"client_secret\\": \\"{}\\"}}', made(20)),
    "python": lambda: named("client = Client(token='{}')", made(20)),
    "option": lambda: named("curl --token {} https://example.com", made(16) + "7"),
    "curl's user": lambda: named("curl -u bob:{} http://git.internal/x", made(9) + "7"),
    "url token": lambda: named("git clone https://{}@git.internal/x", made(30)),
    "url with marks": lambda: named("amqp://bob:{}@mq.internal", "p$" + made(8) + "{7}"),
    "cut key": lambda: named("-----BEGIN PRIVATE KEY-----\n{}", made(64)),
    "numbered key": lambda: named("  1\t-----BEGIN RSA PRIVATE KEY-----\n  2\t{}\n  3\tMII", made(64)),
    "listed key": lambda: named('["-----BEGIN RSA PRIVATE KEY-----", "{}", "-----END RSA PRIVATE KEY-----"]', made(64)),
    "word of an environment": lambda: named("export DB_PASSWORD={}", "correcthorse"),
    "tag": lambda: named("<server.password>{}</server.password>", made(9)),
    "backtick": lambda: named("the password: `{}`", made(9)),
    "with a dollar": lambda: named('{{"token": "{}"}}', "$" + made(8) + "!7"),
    "with a bracket": lambda: named('{{"token": "{}"}}', "%" + made(8) + "<7"),
    "mysql": lambda: named("mysql -h db -u root -p{} shop", made(9)),
    "sshpass": lambda: named("sshpass -p {} ssh host", made(9)),
    "header object": lambda: named('{{"Authorization": "Basic {}"}}', made(12)),
    "header pair": lambda: named('{{"name": "Authorization", "value": "{}"}}', made(12)),
    "variable pair": lambda: named('{{"name": "DB_PASSWORD", "value": "{}"}}', made(7)),
    "value object": lambda: named('{{"password": {{"value": "{}"}}}}', made(7)),
    "line of arguments": lambda: named('{{"content": "tokens:\\n{}"}}', "ghp_" + made(36)),
    "environment of arguments": lambda: named('{{"content": "x\\nDB_PASSWORD={}"}}', "correcthorse"),
    "pw": lambda: named("DB_PW={}", made(9) + "7"),
    "sql": lambda: named("CREATE USER bob IDENTIFIED BY '{}'", made(9)),
    "redis": lambda: named("redis-cli -h db -a {} ping", made(9) + "7"),
    "docker login": lambda: named("docker login -u bob -p {} reg.io", made(9) + "7"),
    "docker auth": lambda: named('{{"auths": {{"reg.io": {{"auth": "{}=="}}}}}}', made(26)),
    "setter": lambda: named('os.Setenv("API_TOKEN", "{}")', made(18) + "7"),
    "piped": lambda: named("echo '{}' | sudo -S apt update", made(9)),
    "told": lambda: named("the password is {}", made(9) + "7"),
    "short": lambda: named('"password": "{}"', "q7!x"),
}


def twice(secret: str) -> tuple[str, str]:
    return f"the value {secret} is used", secret


def named(form: str, secret: str) -> tuple[str, str]:
    return form.format(secret), secret


def everything(folder: Path) -> str:
    """All that is kept under a folder, tables as their text."""
    texts = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            texts.append(json.dumps(pl.read_parquet(path, glob=False).to_dicts(), default=str, ensure_ascii=False))
        elif path.is_file():
            texts.append(path.read_bytes().decode("utf-8", "replace"))
    return "\n".join(texts)
