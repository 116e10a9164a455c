"""Takes secrets out of what was read, before anything of it is written: keys, tokens, passwords become typed placeholders.

Which texts are secrets is `secret_scan`'s to say; here a record's texts are gathered for it, with the names they stand under,
and placeholders put in every place of what was found.
"""

import hmac
import json
import os
import re
import secrets
from collections import Counter
from functools import lru_cache
from typing import Any

import jiter

from negtraj_dagster.errors import StoreError
from negtraj_dagster.rollouts.secret_scan import JUDGED, PLACEHOLDER, SHORT, find_secrets, is_secret_value
from negtraj_dagster.store import Store

REDACTION_VERSION = 3
"""Rises when a rule of ours or Kingfisher's release changes: files are read again then."""
KEY_FILE = "redaction.key"
KEY_BYTES = 32
KEY = re.compile(r"[0-9a-f]{64}\s*\Z")
WORD = re.compile(r"[A-Za-z_.\-]+\Z")
NAMED = "named_secret"
TAG_CHARS = 8
PASSWORD_NAMES = (
    r"(?:pass(?:word|wd|phrase)|(?:db|user|smtp|mail|ftp|admin|root|auth|my)[_-]?pass|pwd|pw|secret|connection[_-]?string)"
)
"""What stands under these is secret if it is no word for what belongs there."""
KEY_NAMES = (
    r"(?:api[_-]?key|(?:access|secret|private|signing|encryption|account|readonly|master|admin|openai|app)[_-]?key|token"
    r"|credentials?|(?:proxy-)?authorization|cookie|set-cookie)"
)
"""What stands under these is secret if it looks like a key: `{"token": "running"}` is none."""
NAMES = f"(?:{PASSWORD_NAMES}|{KEY_NAMES})"
NAME = re.compile(
    rf"(?:^|[_\-.\s]){NAMES}\Z|(?:passwords|secrets|api_?keys|Password|Passwd|Secret|ApiKey|Token)\Z", re.IGNORECASE
)
"""Keys of objects whose values may be secrets; `max_tokens` and `tokenizer` are none."""
PASSWORD_NAME = re.compile(rf"(?:^|[_\-.\s]){PASSWORD_NAMES}\Z|(?:passwords|secrets|Password|Passwd|Secret)\Z", re.IGNORECASE)
JSON_BEGINNINGS = ("{", "[")
NUMBER_NAME = re.compile(r"(?:^|[_\-.])(?:password|passwd|passphrase|pwd)\Z", re.IGNORECASE)
"""Keys whose numbers are secrets."""
MIN_NUMBER = 1000
WORDS_OF_FORMATS = frozenset(
    {"", "role", "content", "type", "id", "function", "arguments", "tool_calls", "text", "value", "from"}
)
"""Keys that every message has: no names of secrets, and not worth scanning."""
PAIRED_KEYS = ("auth", "_auth")
"""Keys by which rules tell a secret that is else a word (`"auth": "none"`): gathered as code would write both."""
BESIDE = re.compile(
    rf"""{NAMES}["'\\\]]{{0,4}}\s{{0,4}}(?::\s{{0,4}}str\s{{0,4}}=|=>|:=|:|=)\s{{0,4}}(?:[rbuf]{{0,2}}\\{{0,4}}["'`])?"""
    rf"""(?P<value>[^"'`\\\s,;]{{1,400}})|<[\w:.\-]{{0,40}}{NAMES}>\s{{0,4}}(?P<in_tag>[^<>\s]{{1,400}})"""
    rf"""|--{NAMES}[ =]{{1,2}}["']?(?P<option>[^\s"'`;|<>]{{1,200}})|\s-p\s{{0,4}}["']?(?P<p_option>[^\s"'`;|<>&]{{1,200}})"""
    r"""|\b(?:value|plaintext)["'\\]{1,5}\s{0,4}:\s{0,4}["'\\]{1,5}(?:(?:bearer|basic|token|digest)\s{1,4})?"""
    r"""(?P<pair_value>[^"'\\\n]{1,400})|://[^\s:/@]{0,80}:(?P<in_url>[^\s:@]{1,200})@"""
    r"""|\s(?:-u|--user)[ =]{1,2}["']?[\w.@+\-]{1,80}:(?P<of_user>[^\s"'`;|<>&\\/][^\s"'`;|<>&\\]{0,199})""",
    re.IGNORECASE,
)
"""Where a short secret may stand: beside its name, in an option, or in a URL."""
SCHEME = re.compile(r"(?:bearer|basic|token|digest)\s+", re.IGNORECASE)
NAMED_BY = ("name", "key", "header", "variable")
"""Beside `value`, the key that says whose value it is, as lists of headers and of an environment's variables have it."""
VALUE_KEYS = ("value", "plaintext")
"""Keys of an object that stands under a telling name."""


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
        texts: list[str] = []
        named_values: list[str] = []
        _gather(record, "", texts, named_values)
        rule_of = {**find_secrets("\n".join(texts)), **dict.fromkeys(named_values, NAMED)}
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


def _gather(value: object, name: str, texts: list[str], named_values: list[str]) -> None:
    """Every text of a value, for one scan of all, and the values that stand under a telling key, whatever is in them.

    Args:
        value: JSON; text that is JSON of an object itself is looked into.
        name: the key it stands under.
        texts: takes keys and texts; beside a telling name the pair as code would write it.
        named_values: takes texts and numbers.
    """
    if type(value) is dict:
        is_probability = "logprob" in value  # of a token of text
        for key, inner in value.items():
            is_plain = key in WORDS_OF_FORMATS
            if not is_plain:
                if key[:1] in JSON_BEGINNINGS:
                    _gather(key, "", texts, named_values)
                else:
                    texts.append(key)
                is_plain = not _names_secret(key) and key not in PAIRED_KEYS
            kind = type(inner)
            if kind is str and is_plain and inner[:1] not in JSON_BEGINNINGS and key not in VALUE_KEYS:
                texts.append(inner)  # as most texts are: a call for each would take as long as scanning them
                continue
            if inner is None or kind is bool:
                continue
            _gather(inner, "" if is_probability else _name_of(key, value, name), texts, named_values)
    elif type(value) is list:
        for inner in value:
            _gather(inner, name, texts, named_values)
    elif type(value) is str:
        if value[:1] in JSON_BEGINNINGS and (inner := _json_inside(value)) is not None:
            _gather(inner, "", texts, named_values)
        elif name not in WORDS_OF_FORMATS and _names_secret(name):
            _gather_named(value, name, texts, named_values)
        else:
            texts.append(f'{name} = "{value}"' if name in PAIRED_KEYS else value)
    elif name and isinstance(value, (int, float)) and value >= MIN_NUMBER and NUMBER_NAME.search(name):
        named_values.append(json.dumps(value))


def _gather_named(value: str, name: str, texts: list[str], named_values: list[str]) -> None:
    texts.append(value if '"' in value else f'{name} = "{value}"')
    secret = value[match.end() :] if (match := SCHEME.match(value)) else value
    is_credential = match is not None and len(secret) >= SHORT and secret != secret.lower()
    if is_secret_value(secret, is_quoted=is_credential or PASSWORD_NAME.search(name) is not None):
        named_values.append(secret)


def _json_inside(text: str) -> Any:
    """The object or list that a text is JSON of; None for another text."""
    try:
        return jiter.from_json(text.encode(), cache_mode="keys")
    except ValueError:
        return None


def _name_of(key: str, owner: dict[str, Any], name: str) -> str:
    """Under which name a value of an object stands."""
    if key in VALUE_KEYS:
        given = next((owner[by] for by in NAMED_BY if type(owner.get(by)) is str), name)
        return given if _names_secret(given) else key
    return key


@lru_cache(maxsize=4096)
def _names_secret(key: str) -> bool:
    return NAME.search(key) is not None


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
            if self._short and NAME.search(name):
                scheme = match[0] if (match := SCHEME.match(value)) else ""
                if placeholder := self._short.get(value[len(scheme) :]):
                    return scheme + placeholder
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.value(inner, _name_of(key, value, name)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner, name) for inner in value]
        if type(value) in (int, float) and NUMBER_NAME.search(name):
            return self._all.get(json.dumps(value), value)
        return value

    def text(self, text: str) -> str:
        """One text."""
        kept = PLACEHOLDER.findall(text)
        parts = [self._part(part) for part in PLACEHOLDER.split(text)]
        return "".join(part + placeholder for part, placeholder in zip(parts, [*kept, ""], strict=True))

    def _part(self, text: str) -> str:
        is_json = text[:1] in JSON_BEGINNINGS
        for secret, placeholder in self._long:
            if secret in text:
                if is_json and secret.isdigit():  # a bare number: what stands for it is text
                    text = re.sub(rf'(?<![\w".]){secret}(?![\w".])', f'"{placeholder}"', text)
                text = text.replace(secret, placeholder)
        if not any(secret in text for secret in self._short):
            return text
        if is_json:  # JSON text: a short secret in it is a whole value
            for secret, placeholder in self._short.items():
                text = text.replace(f'"{secret}"', f'"{placeholder}"')
        return BESIDE.sub(self._short_value, text)

    def _short_value(self, match: re.Match[str]) -> str:
        group = str(match.lastgroup)
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
