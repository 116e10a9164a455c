"""Secrets never reach the store: every kind, in every field, in every format, and nothing of ordinary work is taken for one."""

import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster.errors import StoreError
from negtraj_dagster.rollouts.read import read_landed_files
from negtraj_dagster.rollouts.redact import Redactor
from negtraj_dagster.rollouts.secret_scan import OVERLAP_CHARS, WINDOW_CHARS, windows
from negtraj_dagster.settings import RedactionSettings, RolloutSource, Settings
from negtraj_dagster.store import Published, Store
from tests.conftest import SAMPLE_DATA
from tests.support.secrets import SECRETS, everything, made, twice


def records_of(text: str) -> dict[str, list[dict[str, Any]]]:
    """By format: records that hold the text in every field that can hold any."""
    call = {"id": "c", "name": "run", "arguments": json.dumps({"command": text})}
    messages = [
        {"role": "assistant", "content": text, "reasoning": f"Hm. {text}", "tool_calls": [call]},
        {"role": "tool", "content": text, "tool_call_id": "c"},
        {"role": "assistant", "content": "Done."},
    ]
    kept = {"source": text, "teacher": text, "session": text, "subject": text, "licence": text, "origin_url": text}
    answers = {
        "pred": text,
        "gold": {"right": text},
        "tools": [{"type": "function", "function": {"name": "run", "description": text}}],
    }
    prompt = [{"role": "system", "content": text}, {"role": "user", "content": text}]
    asked = [{"role": "user", "content": f"q {text}"}]
    return {
        "negtraj": [
            {
                "question_id": f"q {text}",
                "messages": messages,
                **kept,
                **answers,
                "prompt": prompt,
                "parent": text,
                "group": text,
            },
            {"question_id": "q", "messages": [], text: 1},
            {"question_id": "q", "messages": [{"role": text, "content": "x"}]},
        ],
        "openai": [
            {"messages": [*prompt, *messages], **kept, **answers, "patch": text, "meta": {text: [text, {"deep": text}]}},
            {"messages": [*asked, {"role": "assistant", "content": [{"type": text}]}]},
        ],
        "nat": [
            {
                "id": f"q {text}",
                "conversations": [{"role": "assistant", "content": text}, {"role": "user", "content": text}],
                "info": {"reward": True, "pred": text, "gt": text},
                "source": text,
            }
        ],
    }


def read(settings: Settings, folder: Path, records: dict[str, list[dict[str, Any]]]) -> Published:
    sources = {}
    for name, rows in records.items():
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        sources[name] = RolloutSource(task="strategyqa", format=name, path=path)
    return read_landed_files(Store(settings.home), settings.model_copy(update={"sources": sources}))


def test_no_kind_of_secret_in_any_field_of_any_format_reaches_the_store(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_secrets = {name: make() for name, make in SECRETS.items()}
    assert len(made_secrets) >= 40
    records: dict[str, list[dict[str, Any]]] = {}
    for text, _ in made_secrets.values():
        for name, rows in records_of(text).items():
            records.setdefault(name, []).extend(rows)
    with monkeypatch.context() as patch:

        def refuse(*_args: object, **_kwargs: object) -> None:
            raise AssertionError("redaction asked the network")

        patch.setattr(socket, "socket", refuse)
        patch.setattr(socket, "create_connection", refuse)
        raw = read(settings, tmp_path / "records", records)
    kept = everything(settings.home)
    leaked = [name for name, (_, secret) in made_secrets.items() if secret in kept or json.dumps(secret)[1:-1] in kept]
    assert leaked == []
    assert raw.content["n_rollouts"] == 3 * len(SECRETS)
    assert raw.details["n_quarantined"] == 3 * len(SECRETS)
    assert sum(raw.details["redacted"].values()) >= 6 * len(SECRETS)


def test_equal_secrets_have_one_placeholder_in_a_home_and_another_elsewhere() -> None:
    record = {"a": 'password = "hunter2hunter2"', "b": "echo hunter2hunter2"}
    here, again, elsewhere = (Redactor(key).redact(dict(record))[0] for key in (b"1" * 32, b"1" * 32, b"2" * 32))
    placeholder = here["b"].removeprefix("echo ")
    assert placeholder.startswith("<secret:named_secret:")
    assert here == again == {"a": f'password = "{placeholder}"', "b": f"echo {placeholder}"}
    assert elsewhere["b"] != here["b"]


@pytest.mark.parametrize(
    "text",
    [
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "id 123e4567-e89b-12d3-a456-426614174000",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==",
        "token = tokenizer.next_token()",
        "def login(user: str, password: str = None) -> Token:",
        "password = os.environ['DB_PASSWORD']",
        "client = Client(api_key=api_key, token=settings.token)",
        '{"password": "your-password-here"}',
        "max_tokens: 4096, n_tokens = 12000",
        "the secret of good bread: patience",
        'api_key = "<YOUR_API_KEY>"',
        "https://example.com/a?page=2#token",
        "key: value, keys = sorted(tokens)",
        "eos_token='<|im_end|>' bos_token = \"<|begin_of_text|>\"",
        '{"logprobs": {"content": [{"token": " information", "logprob": -0.1}]}}',
        '{"token": "Paris Hilton"}',
        '{"token": "running", "next_token": "page_two"}',
        "from typing import Optional; authorization: Optional[str] = Header(None)",
        "Authorization: AWS4-HMAC-SHA256 Credential=x",
        'password="<%= env %>" pw="$obj->pw" a="$env:TOKEN" token = "%s:%s"',
        "Password: \nroot@web01:~# whoami",
        "sk-toggleable__label-arrow sk-parallel-item",
        "ALLOW_EMPTY_PASSWORD=yesplease",
        "mysqldump -parallel --token refresh <token>expr</token>",
        '{"key": "token", "value": "red_square"} {"name": "max_token", "default": "unlimited"}',
        "pass: src/utils/helper2.test.ts bypass: skip2main token: https://github.com/settings/tokens/new",
        "PWD=/home/u1/work OLDPWD=/home/u2",
        'token = make2("abcdefgh1")',
        'curl -H "Authorization: Bearer $TOKEN" -u "$USER1:${PASSWORD}"',
        '{"properties": {"password": {"type": "string"}, "token": {"default": "value"}}}',
        '{"name": "token", "type": "string", "description": "the token to use"}',
        "mysql -u root -p && mysqldump -p$PASS shop",
        "PASSWORD=$1 PASSWORD=${PASSWORD:-x} PASSWORD=getpass()",
        'input type="password" name="password" id="password"',
    ],
)
def test_ordinary_work_is_left_as_it_is(text: str) -> None:
    assert Redactor(b"k" * 32).redact({"content": text})[0] == {"content": text}


def test_switched_off_it_leaves_text_and_switched_on_it_reads_again(tmp_path: Path, settings: Settings) -> None:
    text, secret = twice(f"ghp_{made(36)}")
    records = {"negtraj": [{"question_id": "q", "messages": [{"role": "assistant", "content": text}]}]}
    off = settings.model_copy(update={"redaction": RedactionSettings(enabled=False)})
    plain = read(off, tmp_path / "r", records)
    assert secret in everything(settings.home / "segments")
    redacted = read(settings, tmp_path / "r", records)
    assert (plain.details["redacted"], redacted.details["redacted"]) == ({}, {"github_token": 1})
    assert redacted.work["records_read"] == 1
    assert redacted.version != plain.version


def test_another_version_of_the_rules_reads_again_and_rollouts_without_secrets_stay(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = {"negtraj": [{"question_id": "q", "messages": [{"role": "assistant", "content": "Nothing to hide."}]}]}
    first = read(settings, tmp_path / "r", records)
    monkeypatch.setattr("negtraj_dagster.rollouts.landing.REDACTION_VERSION", 99)
    second = read(settings, tmp_path / "r", records)
    assert second.work["records_read"] == 1
    assert first.version == second.version


def test_the_key_is_made_once_and_is_nobody_elses(tmp_path: Path, settings: Settings) -> None:
    records = {"negtraj": [{"question_id": "q", "messages": []}]}
    read(settings, tmp_path / "r", records)
    key = settings.home / "redaction.key"
    before = key.read_text()
    assert key.stat().st_mode & 0o077 == 0
    assert len(bytes.fromhex(before.strip())) == 32
    read(settings, tmp_path / "other", records)
    assert key.read_text() == before


def test_real_rollouts_are_left_as_they_are() -> None:
    folder = SAMPLE_DATA / "formats"
    if not folder.is_dir():
        pytest.skip("no sample data")
    found: Counter[str] = Counter()
    n_bytes = 0
    for path in [*sorted(folder.glob("*/*.json*")), *sorted((SAMPLE_DATA / "nat").glob("strategyqa/*.json*"))]:
        text = path.read_text(encoding="utf-8")
        n_bytes += len(text)
        rows = [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else json.loads(text)
        for row in rows if isinstance(rows, list) else [rows]:
            found.update(Redactor(b"k" * 32).redact(row)[1])
    print(f"{n_bytes / 1e6:.1f} MB of real rollouts: {dict(found)} taken for secrets")
    assert sum(found.values()) == 0


@pytest.mark.parametrize(
    "value", ['a"b9', "it's4me", "back\\slash9", "two\nlines9", "long" + "x1" * 400, "mySecretPw99x", "userXk92ppQ", "test1234"]
)
def test_a_value_under_a_telling_key_goes_whatever_is_in_it(value: str) -> None:
    record = {"password": value, "arguments": json.dumps({"password": value}), "passwords": [value], "n_tokens": 12, "token": 7}
    redacted, _ = Redactor(b"k" * 32).redact(record)
    kept = json.dumps(redacted)
    assert value not in kept
    assert json.dumps(value)[1:-1] not in kept
    assert json.dumps(json.dumps(value))[2:-2] not in kept
    assert (redacted["n_tokens"], redacted["token"]) == (12, 7)


def test_a_number_under_a_password_goes_too() -> None:
    redacted, counts = Redactor(b"k" * 32).redact({"password": 84719238, "port": 8471})
    assert str(redacted["password"]).startswith("<secret:")
    assert (redacted["port"], counts) == (8471, {"named_secret": 1})


def test_what_was_redacted_stays_as_it_is() -> None:
    for make in SECRETS.values():
        text, _ = make()
        once, _ = Redactor(b"k" * 32).redact({"content": text, "password": text})
        assert Redactor(b"k" * 32).redact(once)[0] == once


def test_a_key_that_lost_its_end_hides_no_other_records_key() -> None:
    cut = {"content": "-----BEGIN RSA PRIVATE KEY-----\nshort"}
    text, secret = SECRETS["private key"]()
    for record in (cut, {"content": text}):
        redacted, _ = Redactor(b"k" * 32).redact(record)
    assert secret not in json.dumps(redacted)


@pytest.mark.parametrize("text", ["", "not hex"])
def test_a_damaged_key_is_named_with_the_remedy(tmp_path: Path, settings: Settings, text: str) -> None:
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "redaction.key").write_text(text + "\n")
    with pytest.raises(StoreError, match=r"redaction.key: holds no key, expected 64 digits"):
        read(settings, tmp_path / "r", {"negtraj": [{"question_id": "q", "messages": []}]})


@pytest.mark.parametrize("word", ["resolved", "tool_calls", "assistant", "messages", "sunshine"])
def test_a_word_that_is_a_secret_beside_its_name_is_a_word_elsewhere(word: str) -> None:
    record = {word: True, "messages": [{"role": "assistant", "content": f'secret = "{word}"; a {word}ful {word}'}]}
    redacted, _ = Redactor(b"k" * 32).redact(record)
    assert redacted[word] is not None
    assert redacted["messages"][0]["role"] == "assistant"
    content = redacted["messages"][0]["content"]
    assert content.startswith('secret = "<secret:named_secret:')
    assert content.endswith(f"a {word}ful {word}")


def test_a_deep_record_with_a_secret_is_refused_and_stops_nothing(tmp_path: Path, settings: Settings) -> None:
    deep: Any = "password = hunter22x"
    for _ in range(900):
        deep = [deep]
    records = {
        "openai": [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "meta": deep}]
    }
    raw = read(settings, tmp_path / "r", records)
    assert raw.content["n_rollouts"] + raw.details["n_quarantined"] == 1


def test_a_secret_of_one_line_of_a_session_is_one_in_all_of_them(tmp_path: Path, settings: Settings) -> None:
    lines: list[dict[str, Any]] = [
        {"type": "session", "id": "s"},
        {"type": "message", "message": {"role": "user", "content": "export DB_PASSWORD=hunter2-Zx9q"}},
        {"type": "message", "message": {"role": "assistant", "content": "it is hunter2-Zx9q"}},
    ]
    read(settings, tmp_path / "r", {"session_trace": lines})
    assert "hunter2-Zx9q" not in everything(settings.home)


def test_a_text_made_to_be_slow_comes_to_an_end() -> None:
    redacted, _ = Redactor(b"k" * 32).redact({"a": "hunt3r " + "://:" * 20_000, "password": "hunt3r"})
    assert redacted["password"].startswith("<secret:")


def test_a_secret_on_the_border_of_two_windows_is_found() -> None:
    secret = "ghp_" + made(36)
    for place in (WINDOW_CHARS - 20, WINDOW_CHARS - OVERLAP_CHARS - 20, WINDOW_CHARS):
        text = "x " * (place // 2) + secret + " y" * 40_000
        redacted, _ = Redactor(b"k" * 32).redact({"a": text})
        assert secret not in redacted["a"]
        assert redacted["a"].count("<secret:github_token:") == 1


@pytest.mark.parametrize(
    "piece", ["password = ", "password='", "eyJaaaaaaaa.", "-----BEGIN RSA PRIVATE KEY-----\nMIIEabcdefghijklmnop\n"]
)
def test_a_long_text_is_scanned_in_windows_that_together_grow_with_its_length(piece: str) -> None:
    def n_scanned(n_chars: int) -> int:
        return sum(map(len, windows(piece * (n_chars // len(piece)))))

    assert max(map(len, windows(piece * 40_000))) <= WINDOW_CHARS
    assert n_scanned(1_000_000) < 15 * n_scanned(100_000)


def test_numbers_that_are_no_passwords_stay_numbers() -> None:
    record = {
        "pass": 1,
        "n_pass": 5,
        "spin": 0.5,
        "pin": 13,
        "password": 0,
        "bypass": 1,
        "arguments": '{"pass": 12, "pin": 4821}',
    }
    assert Redactor(b"k" * 32).redact(dict(record))[0] == record


def test_a_number_in_json_text_gives_place_to_text() -> None:
    record = {"arguments": '{"password": 84719238, "port": 84}', "content": "it is 84719238"}
    redacted, _ = Redactor(b"k" * 32).redact(record)
    assert json.loads(redacted["arguments"])["password"].startswith("<secret:named_secret:")
    assert "84719238" not in redacted["content"]


def test_words_between_the_marks_of_a_key_stay_words_elsewhere() -> None:
    text = "-----BEGIN PRIVATE KEY-----\nprivateKeyBodyInBase64Format\n================\n-----END PRIVATE KEY-----"
    redacted, _ = Redactor(b"k" * 32).redact({"a": text, "b": "base64EncodedInformation ================"})
    assert redacted["b"] == "base64EncodedInformation ================"


def test_a_long_key_at_a_windows_border_goes_whole() -> None:
    body = "\n".join(made(64) for _ in range(260))
    key = f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{body}\n-----END PGP PRIVATE KEY BLOCK-----"
    redacted, _ = Redactor(b"k" * 32).redact({"a": "x " * ((WINDOW_CHARS - 12_000) // 2) + key + " y" * 40_000})
    assert not any(line in redacted["a"] for line in body.split("\n"))


@pytest.mark.parametrize("before", ["a\0" * 1000, "\0" * 5000, "I ran curl", "curl http://x", "sort -u foo:false"])
@pytest.mark.parametrize("after", ["", "curl -u $USER:$PASS x", "b\0" * 1000])
def test_no_neighbour_in_a_record_hides_a_secret(before: str, after: str) -> None:
    redactor = Redactor(b"k" * 32)
    for name, make in SECRETS.items():
        made_of_kind = [make() for _ in range(20)]  # what by chance has no digit may be a word
        found = [(text, secret) for text, secret in made_of_kind if secret not in redactor.redact({"a": text})[0]["a"]]
        assert found, name
        for text, secret in found[:2]:
            redacted, _ = redactor.redact({"a": before, "b": text, "c": after})
            assert secret not in redacted["b"], (name, before)


def test_credentials_of_a_registry_are_found_in_objects_and_in_json_text() -> None:
    secret = "dXNlcjpwYXNzd29yZDE3MjYz" + "Zm9v="
    for key in ("auth", "_auth"):
        config = {"auths": {"reg.io": {key: secret}}}
        redacted, _ = Redactor(b"k" * 32).redact({"a": json.dumps(config), "b": config, "c": {"auth": "oauth2"}})
        assert secret not in json.dumps(redacted)
        assert redacted["c"] == {"auth": "oauth2"}


def test_what_a_user_option_has_in_other_commands_stays() -> None:
    texts = ["docker run -u 1000:1000 x", "sort -u foo:false", "chown -u www-data:www-data", "run --user app:staff2"]
    texts += ["gobuster -u http://10.0.0.7:8080/a1", "curl --user https://x.internal/v2 y"]
    for text in texts:
        assert Redactor(b"k" * 32).redact({"a": text})[0] == {"a": text}
