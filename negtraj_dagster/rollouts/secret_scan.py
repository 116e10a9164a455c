"""Finds secrets in text: keys, tokens, passwords.

Two sets of rules, both asked in this process and offline: Kingfisher's, whose validators (these use the network) are never
called, and our own for what they leave: values beside a telling name, and some kinds of keys (`secret_rules.yaml`). Nothing is
a secret by its entropy alone: hashes, ids and encoded files of ordinary work stay.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kingfisher_sdk.scanner import Scanner

PLACEHOLDER_BEGINS = "<secret:"
PLACEHOLDER = re.compile(PLACEHOLDER_BEGINS + r"[a-z0-9_]+:[0-9a-f]{8}>")
BARE = (
    "named_value",
    "named_value_pwd",
    "named_key",
    "named_pair",
    "key_tag",
    "key_option",
    "mysql_password",
    "client_password",
    "told_password",
    "authorization",
    "setter",
    "user_option",
)
"""Rules of values beside which words and pieces of code stand, too: a value has to have a digit."""
JUDGED = (*BARE, "named_secret", "named_tag", "env_password", "sshpass", "url_password", "option", "piped_password")
"""Rules whose findings may be variables or placeholders."""
WITH_DIGIT = ("api_key",)
"""Rules of keys that begin as words may, and then go on in letters alone."""
WINDOW_CHARS, OVERLAP_CHARS = 65_536, 24_576
MAX_KEY_CHARS = 20_000
MIN_KEY = 6
NAME_OF_THING = re.compile(r"(?:[a-z]+[-_.])+(?:[a-z]+|\d{1,4}|[a-z0-9]{1,5})\Z|[a-z_]+\.[A-Za-z_]+\d?[!?]*\Z")
"""`my-app-tls-2024`, `it.token2`."""
DIGIT = re.compile(r"\d")
KEY_LINES = re.compile(r"[A-Za-z0-9+/=]{16,}")
SHORT = 8
"""A shorter secret is replaced where its name tells what it is, and nowhere else."""
MIN_BITS = 2.5
"""Per character, of a value that stands after `=` or `:` without quotes: words have less."""
POLICY = re.compile(r"(?:ALLOW|REQUIRE|ASK|DISABLE|ENABLE|EMPTY|NO|USE|HAS|IS|SHOW|RESET|CHANGE|WITH)_[A-Z0-9_]*\Z")
"""Variables that say what is done about passwords."""
NOT_SECRET = re.compile(
    r"""(?:[*x.\-_•]+|<.*>|<%.*|<[\w .:/\-]*|\$[A-Za-z_]+\d?(?:\W.*)?|\$\{.*|\$\(.*|\$\d"""
    r"""|%\w+%|%[sdr](?:\W.*)?|%\(\w+\)[sdr].*|\{.*|\[.*|.*\{\w*\}.*|https?://[^@]*|aws4-hmac-sha256"""
    r"""|(?:os|process|env|self|config|settings|args|kwargs|request)[.\[(].*"""
    r"""|(?:none|null|true|false|undefined|str|string|int|bytes|optional|required|redacted|changeme|example|test|dummy|foo|bar"""
    r"""|your[\w\- ]*|my[_\- ]?(?:pass\w*|secret|token|key)|placeholder|passwd|secret|token|api[_-]?key|value"""
    r"""|key|user(?:name)?|name)"""
    r"""|(?:[A-Za-z]+[_\- ])*(?:password|secret|token|key|name|field|input|type|id|ids|header|hash|file|path|url)s?)\Z""",
    re.IGNORECASE | re.DOTALL,
)
"""Values beside a telling name that are none themselves: placeholders, variables, words for what belongs there."""
OWN_RULES = Path(__file__).parent / "secret_rules.yaml"


@cache
def _scanner() -> "Scanner":
    """Kingfisher with its own rules and ours; compiled once, then from its cache on disk. Loaded only where there is something
    to read: every command and code location imports this module."""
    from kingfisher_sdk.rules import Rules
    from kingfisher_sdk.scanner import Scanner

    return Scanner(Rules([OWN_RULES]), base64=False)


def find_secrets(text: str) -> dict[str, str]:
    """The secrets of a text, each with the rule that found it; our own rule where both know it."""
    text = PLACEHOLDER.sub("", text) if PLACEHOLDER_BEGINS in text else text
    text = text.replace("\0", " ")  # of many NULs Kingfisher takes a text for one in UTF-16, and finds nothing in it
    rule_of: dict[str, str] = {}
    findings: dict[tuple[str, str], None] = {}
    for window in windows(text):
        for finding in _scanner().scan(window.encode("utf-8", "replace")):
            if finding.visible:
                findings[finding.rule_id, finding.secret] = None
    for rule_id, secret in findings:
        if secret in text:
            _take(rule_of, rule_id, secret, text)
    return rule_of


def windows(text: str) -> Iterator[str]:
    """A long text in parts that overlap, so that no secret is cut in all of them: Kingfisher's time grows with the square."""
    for start in range(0, max(len(text) - OVERLAP_CHARS, 1), WINDOW_CHARS - OVERLAP_CHARS):
        yield text[start : start + WINDOW_CHARS]


def _take(rule_of: dict[str, str], rule_id: str, secret: str, text: str) -> None:
    rule = rule_id.rpartition(".")[2].rpartition("/")[2].replace("-", "_")
    if (rule == "env_password" and _is_policy(secret, text)) or (rule in WITH_DIGIT and not DIGIT.search(secret)):
        return
    if rule in JUDGED:
        if is_secret_value(secret, is_quoted=rule not in BARE):
            rule_of.setdefault(secret, rule)
    elif rule in ("private_key", "private_key_cut"):
        lines = KEY_LINES.findall(secret) if len(secret) <= MAX_KEY_CHARS else []  # which may be texts of their own
        lines = [line for line in lines if DIGIT.search(line) and line.upper() != line != line.lower()]
        rule_of |= dict.fromkeys([secret, *lines], "private_key")
    elif rule_id.startswith("negtraj."):
        rule_of[secret] = rule
    elif len(secret) >= SHORT:
        rule_of.setdefault(secret, rule)


def _is_policy(secret: str, text: str) -> bool:
    """Whether variables that say what is done about passwords alone have this value."""
    names = re.findall(rf"([A-Z0-9_]*)={re.escape(secret)}", text)
    return bool(names) and all(POLICY.match(name) for name in names)


def is_secret_value(value: str, *, is_quoted: bool) -> bool:
    """Whether a value beside a telling name is one, and no variable, type or placeholder.

    Args:
        value: the text after the name.
        is_quoted: in quotes beside the name of a password, say; else it must look like a key, and not like a word or code.
    """
    text = value.strip()
    if NOT_SECRET.match(text):
        return False
    if is_quoted:
        return len(text) >= 4 and not (" " in text and text.count(" ") > 5)
    is_word = not DIGIT.search(text) or any(map(str.isspace, text)) or NAME_OF_THING.match(text) is not None
    return not is_word and len(text) >= MIN_KEY and not text.replace(".", "").isdigit() and _bits_a_char(text) >= MIN_BITS


def _bits_a_char(text: str) -> float:
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
