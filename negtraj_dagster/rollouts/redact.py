"""Takes secrets out of what was read, before anything of it is written: keys, tokens, passwords become typed placeholders.

Two sets of rules, both asked in this process and offline: Kingfisher's, whose validators (these use the network) are never
called, and our own for what they leave: values beside a telling name, and some kinds of keys (`secret_rules.yaml`). Nothing is
a secret by its entropy alone: hashes, ids and encoded files of ordinary work stay.
"""

import contextlib
import hmac
import json
import math
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.store import Store

if TYPE_CHECKING:
    from kingfisher_sdk.core import Finding
    from kingfisher_sdk.scanner import Scanner

REDACTION_VERSION = 1
"""Rises when a rule of ours or Kingfisher's release changes: files are read again then."""
KEY_FILE = "redaction.key"
KEY_BYTES = 32
KEY = re.compile(r"[0-9a-f]{64}\s*\Z")
WORD = re.compile(r"[A-Za-z_.\-]+\Z")
PLACEHOLDER = re.compile(r"<secret:[a-z0-9_]+:[0-9a-f]{8}>")
NAMED = "named_secret"
JUDGED = ("named_secret", "named_value", "url_password", "option")
"""Rules whose findings may be variables or placeholders."""
TAG_CHARS = 8
SHORT = 8
"""A shorter secret is replaced where its name tells what it is, and nowhere else."""
MIN_BITS = 2.5
"""Per character, of a value that stands after `=` or `:` without quotes: words have less."""
NAMES = (
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|api[_-]?key|(?:access|secret|private|signing|encryption|account)[_-]?key|token"
    r"|credentials?|connection[_-]?string)"
)
NAME = re.compile(
    rf"(?:^|[_\-.\s]){NAMES}\Z|(?:passwords|secrets|api_?keys|Password|Passwd|Secret|ApiKey|Token)\Z", re.IGNORECASE
)
"""Keys of objects whose values are secrets; `max_tokens` and `tokenizer` are none."""
PASSWORD = re.compile(r"(?:pass(?:word|wd|phrase)?|pwd|pin)\Z", re.IGNORECASE)
MAY_NAME = re.compile(NAMES, re.IGNORECASE)
BESIDE = re.compile(
    rf"""{NAMES}["'\\\]]{{0,4}}\s{{0,4}}(?::\s{{0,4}}str\s{{0,4}}=|=>|:=|:|=)\s{{0,4}}[rbuf]{{0,2}}\\{{0,4}}["']?"""
    r"""(?P<value>[^"'\\\s,;]{1,400})|://[^\s:/@]{0,80}:(?P<in_url>[^\s:@]{1,200})@""",
    re.IGNORECASE,
)
"""Where a short secret may stand: beside its name, or in a URL."""
NOT_SECRET = re.compile(
    r"""(?:[*x.\-_•]+|<.*|\$.*|%.*|\{.*|\[.*|.*\{\w*\}.*|(?:os|process|env|self|config|settings|args|kwargs|request)[.\[(].*"""
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


class Redactor:
    """Replaces secrets by placeholders: `<secret:github_token:3fa91c02>`.

    Args:
        key: of this home. Equal secrets have equal placeholders under one key; a placeholder alone tells nobody without it
            whether a guess is right.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def redact(self, record: dict[str, Any]) -> tuple[dict[str, Any], Counter[str]]:
        """The record without its secrets, and how many values each rule found.

        Each record is scanned by itself: what is found in it must not depend on its neighbours.
        """
        rule_of = {**find_secrets("\n".join(_lines(record))), **dict.fromkeys(_named_values(record), NAMED)}
        if not rule_of:
            return record, Counter()
        redacted: dict[str, Any] = self._replacer(rule_of).value(record)
        return redacted, Counter(rule_of.values())

    def redact_text(self, text: str) -> str:
        """A text without its secrets, such as the reason for which a record is refused."""
        return self._replacer(find_secrets(text)).text(text)

    def _replacer(self, rule_of: dict[str, str]) -> "_Replacer":
        return _Replacer({secret: self._placeholder(rule, secret) for secret, rule in rule_of.items()})

    def _placeholder(self, rule: str, secret: str) -> str:
        return f"<secret:{rule}:{hmac.new(self._key, secret.encode(), 'sha256').hexdigest()[:TAG_CHARS]}>"


def home_redactor(store: Store) -> Redactor:
    """With the key of this home, or of the store that several machines share; made once.

    Raises:
        StoreError: the file of the key holds none.
    """

    def keep(present: str | None) -> str:
        return present or secrets.token_hex(KEY_BYTES) + "\n"

    key = store.read_text(KEY_FILE)
    if key is None:
        mask = os.umask(0o077)  # nobody else's from its first moment on
        try:
            store.update_text(KEY_FILE, keep)
        finally:
            os.umask(mask)
        key = store.read_text(KEY_FILE)
    if key is None or not KEY.match(key):
        raise StoreError(
            f"{store.place(KEY_FILE)}: holds no key, expected {2 * KEY_BYTES} digits of 0-9 and a-f; put it back from a copy, "
            f"or delete it: placeholders of secrets are then others"
        )
    return Redactor(bytes.fromhex(key.strip()))


def find_secrets(text: str) -> dict[str, str]:
    """The secrets of a text, each with the rule that found it; our own rule where both know it."""
    text = PLACEHOLDER.sub("", text)
    rule_of: dict[str, str] = {}
    for finding in _scanner().scan(text.encode("utf-8", "replace")):
        if finding.visible and finding.secret in text:
            _take(rule_of, finding)
    return rule_of


def _named_values(value: object, name: str = "") -> Iterator[str]:
    """Texts and numbers that stand under a telling key, whatever is in them; JSON text of an object is looked into."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _named_values(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_values(inner, name)
    elif isinstance(value, str):
        if NAME.search(name) and is_secret_value(value, is_quoted=True):
            yield value
        elif value[:1] in ("{", "[") and MAY_NAME.search(value):
            with contextlib.suppress(ValueError, RecursionError):
                yield from _named_values(json.loads(value))
    elif PASSWORD.search(name) and not isinstance(value, bool) and value is not None:
        yield json.dumps(value)


def _take(rule_of: dict[str, str], finding: "Finding") -> None:
    rule, secret = finding.rule_id.rpartition(".")[2].rpartition("/")[2].replace("-", "_"), finding.secret
    if rule in JUDGED:
        if is_secret_value(secret, is_quoted=rule != "named_value"):
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
    """Puts placeholders in the place of secrets, the longest first, in every text of a value; placeholders stay as they are."""

    def __init__(self, placeholders: dict[str, str]) -> None:
        spelled = {form: placeholder for secret, placeholder in placeholders.items() for form in _spellings(secret)}
        self._all = spelled
        self._long = sorted((pair for pair in spelled.items() if _is_no_word(*pair)), key=lambda pair: -len(pair[0]))
        self._short = {secret: placeholder for secret, placeholder in spelled.items() if not _is_no_word(secret, placeholder)}

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
        if PASSWORD.search(name) and not isinstance(value, bool) and value is not None:
            return self._all.get(json.dumps(value), value)
        return value

    def text(self, text: str) -> str:
        """One text."""
        kept = PLACEHOLDER.findall(text)
        parts = [self._part(part) for part in PLACEHOLDER.split(text)]
        return "".join(part + placeholder for part, placeholder in zip(parts, [*kept, ""], strict=True))

    def _part(self, text: str) -> str:
        for secret, placeholder in self._long:
            if secret in text:
                text = text.replace(secret, placeholder)
        if not any(secret in text for secret in self._short):
            return text
        if text[:1] in ("{", "["):  # JSON text: a short secret in it is a whole value
            for secret, placeholder in self._short.items():
                text = text.replace(f'"{secret}"', f'"{placeholder}"')
        return BESIDE.sub(self._short_value, text)

    def _short_value(self, match: re.Match[str]) -> str:
        group = "value" if match["value"] is not None else "in_url"
        placeholder = self._short.get(match[group])
        if placeholder is None:
            return match[0]
        start, end = match.start(group) - match.start(), match.end(group) - match.start()
        return match[0][:start] + placeholder + match[0][end:]


def _is_no_word(secret: str, placeholder: str) -> bool:
    """Whether a secret is replaced wherever it stands: not where it is short, or a word that other text may well hold."""
    is_word = WORD.match(secret) is not None and placeholder.split(":")[1] in JUDGED
    return len(secret) >= SHORT and not is_word


def _spellings(secret: str) -> set[str]:
    """A secret as it stands, and as JSON text of it reads, once and twice inside of such text."""
    once = json.dumps(secret, ensure_ascii=False)[1:-1]
    return {secret, once, json.dumps(secret)[1:-1], json.dumps(once, ensure_ascii=False)[1:-1]}
