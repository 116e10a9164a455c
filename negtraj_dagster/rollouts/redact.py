"""Takes secrets out of what was read, before anything of it is written: keys, tokens, passwords become typed placeholders.

Two sets of rules, both asked in this process and offline: Kingfisher's, whose validators (these use the network) are never
called, and our own for what they leave: values beside a telling name, and some kinds of keys (`secret_rules.yaml`). Nothing is
a secret by its entropy alone: hashes, ids and encoded files of ordinary work stay.
"""

import contextlib
import hmac
import math
import re
import secrets
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from kingfisher_sdk.core import Finding
from kingfisher_sdk.rules import Rules
from kingfisher_sdk.scanner import Scanner

from negtraj_dagster.store import Store

REDACTION_VERSION = 1
"""Rises when a rule of ours or Kingfisher's release changes: files are read again then."""
KEY_FILE = "redaction.key"
TAG_CHARS = 8
SHORT = 8
"""A shorter secret is replaced where its name tells what it is, and nowhere else."""
MIN_BITS = 2.5
"""Per character, of a value that stands after `=` or `:` without quotes: words have less."""
NAMES = (
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|api[_-]?key|(?:access|secret|private|signing|encryption|account)[_-]?key|token"
    r"|credentials?|connection[_-]?string)"
)
NAME = re.compile(rf"(?:^|[_\-.\s]){NAMES}\Z|(?:Password|Passwd|Secret|ApiKey|Token)\Z", re.IGNORECASE)
"""Keys of objects whose values are secrets; `max_tokens` and `tokenizer` are none."""
BESIDE = re.compile(
    rf"""{NAMES}["'\\\]]*\s*(?::\s*str\s*=|=>|:=|:|=)\s*[rbuf]{{0,2}}\\*["']?(?P<value>[^"'\\\s,;]+)|://[^\s:/@]*:(?P<in_url>[^\s@]+)@""",
    re.IGNORECASE,
)
"""Where a short secret may stand: beside its name, or in a URL."""
NOT_SECRET = re.compile(
    r"""(?:[*x.\-_•]+|<.*|\$.*|%.*|\{.*|\[.*|.*\{\w*\}.*|(?:os|process|env|self|config|settings|args|kwargs|request)\b.*"""
    r"""|(?:none|null|true|false|undefined|str|string|int|bytes|optional|required|redacted|changeme|example|your[\w\- ]*"""
    r"""|my[_\- ]?\w*|test\w{0,4}|dummy|foo\w*|bar|placeholder|password\w{0,3}|passwd|secret|token|api[_-]?key|value|key"""
    r"""|user\w*|name)"""
    r"""|(?:[A-Za-z]+[_\- ])*(?:password|secret|token|key|name|field|input|type|id|ids|header|hash|file|path|url)s?)\Z""",
    re.IGNORECASE | re.DOTALL,
)
"""Values beside a telling name that are none themselves: placeholders, variables, words for what belongs there."""
BETWEEN = b"\n\n"
"""Stands between texts that are scanned at once."""
OWN_RULES = Path(__file__).parent / "secret_rules.yaml"


@cache
def _scanner() -> Scanner:
    """Kingfisher with its own rules and ours; compiled once, then from its cache on disk."""
    return Scanner(Rules([OWN_RULES]), base64=False)


class Redactor:
    """Replaces secrets by placeholders: `<secret:github_token:3fa91c02>`.

    Args:
        key: of this home. Equal secrets have equal placeholders under one key, and nobody without it can try guesses.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def redact_all(self, records: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], Counter[str]]]:
        """The records without their secrets, and how many values each rule found in each."""
        secrets_of = find_all_secrets(["\n".join(_lines(record)) for record in records])
        return [
            (self._replacer(rule_of).value(record), Counter(rule_of.values())) if rule_of else (record, Counter())
            for record, rule_of in zip(records, secrets_of, strict=True)
        ]

    def redact(self, record: dict[str, Any]) -> dict[str, Any]:
        """One record without its secrets."""
        return self.redact_all([record])[0][0]

    def redact_text(self, text: str) -> str:
        """A text without its secrets, such as the reason for which a record is refused."""
        return self._replacer(find_secrets(text)).text(text)

    def _replacer(self, rule_of: dict[str, str]) -> "_Replacer":
        return _Replacer({secret: self._placeholder(rule, secret) for secret, rule in rule_of.items()})

    def _placeholder(self, rule: str, secret: str) -> str:
        return f"<secret:{rule}:{hmac.new(self._key, secret.encode(), 'sha256').hexdigest()[:TAG_CHARS]}>"


def home_redactor(store: Store) -> Redactor:
    """With the key of this home, or of the store that several machines share; made once."""

    def keep(present: str | None) -> str:
        return present or secrets.token_hex(32) + "\n"

    key = store.read_text(KEY_FILE)
    if key is None:
        store.update_text(KEY_FILE, keep)
        key = store.read_text(KEY_FILE)
    assert key is not None
    with contextlib.suppress(OSError):
        (store.home / KEY_FILE).chmod(0o600)
    return Redactor(bytes.fromhex(key.strip()))


def find_secrets(text: str) -> dict[str, str]:
    """The secrets of a text, each with the rule that found it; our own rule where both know it."""
    return find_all_secrets([text])[0]


def find_all_secrets(texts: Sequence[str]) -> list[dict[str, str]]:
    """The secrets of each text. All are scanned at once: a finding belongs to the text in which it begins."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    starts = list(accumulate((len(raw) + len(BETWEEN) for raw in encoded), initial=0))
    rules_of: list[dict[str, str]] = [{} for _ in texts]
    for finding in _scanner().scan(BETWEEN.join(encoded)):
        number = bisect_right(starts, finding.location["start_offset"]) - 1
        if finding.visible and finding.secret in texts[number] and "<secret:" not in finding.secret:
            _take(rules_of[number], finding)
    return rules_of


def _take(rule_of: dict[str, str], finding: Finding) -> None:
    rule, secret = finding.rule_id.rpartition(".")[2].rpartition("/")[2].replace("-", "_"), finding.secret
    if rule.startswith("named_"):
        if is_secret_value(secret, is_quoted=rule == "named_secret"):
            rule_of.setdefault(secret, rule)
    elif finding.rule_id.startswith("negtraj."):
        rule_of[secret] = rule
    elif len(secret) >= SHORT:
        rule_of.setdefault(secret, rule)


def is_secret_value(value: str, *, is_quoted: bool) -> bool:
    """Whether a value beside a telling name is one, and no variable, type or placeholder.

    Args:
        value: the text after the name.
        is_quoted: in quotes; without them it must not look like a word or a piece of code.
    """
    text = value.strip()
    if NOT_SECRET.match(text):
        return False
    if is_quoted:
        return len(text) >= 4 and not (" " in text and text.count(" ") > 5)
    has_mark = any(not character.isalpha() and character not in "._-/:" for character in text)
    return has_mark and not text.replace(".", "").isdigit() and _bits_a_char(text) >= MIN_BITS


def _bits_a_char(text: str) -> float:
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def _lines(value: object, name: str = "") -> Iterator[str]:
    """Every text of a value, and beside a name the pair as code would write it, so that one scan sees all."""
    if isinstance(value, str):
        yield f'{name} = "{value}"' if name and NAME.search(name) and '"' not in value else value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _lines(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _lines(inner, name)


class _Replacer:
    """Puts placeholders in the place of secrets, the longest first, in every text of a value."""

    def __init__(self, placeholders: dict[str, str]) -> None:
        self._long = sorted((pair for pair in placeholders.items() if len(pair[0]) >= SHORT), key=lambda pair: -len(pair[0]))
        self._short = {secret: placeholder for secret, placeholder in placeholders.items() if len(secret) < SHORT}

    def value(self, value: Any, name: str = "") -> Any:
        """A value of JSON, its keys included."""
        if isinstance(value, str):
            if value in self._short and NAME.search(name):
                return self._short[value]
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.value(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner, name) for inner in value]
        return value

    def text(self, text: str) -> str:
        """One text."""
        for secret, placeholder in self._long:
            if secret in text:
                text = text.replace(secret, placeholder)
        return (
            BESIDE.sub(self._short_value, text)
            if self._short and any(short_secret in text for short_secret in self._short)
            else text
        )

    def _short_value(self, match: re.Match[str]) -> str:
        group = "value" if match["value"] is not None else "in_url"
        placeholder = self._short.get(match[group])
        if placeholder is None:
            return match[0]
        start, end = match.start(group) - match.start(), match.end(group) - match.start()
        return match[0][:start] + placeholder + match[0][end:]
