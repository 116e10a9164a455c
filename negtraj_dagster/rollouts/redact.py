"""Takes secrets out of what was read, before anything of it is written: keys, tokens, passwords become typed placeholders.

Two sets of rules, both asked in this process and offline: Kingfisher's, whose validators (these use the network) are never
called, and our own for what they leave: values beside a telling name, and some kinds of keys (`secret_rules.yaml`). Nothing is
a secret by its entropy alone: hashes, ids and encoded files of ordinary work stay.
"""

import hmac
import json
import math
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jiter

from negtraj_dagster.errors import StoreError
from negtraj_dagster.store import Store

if TYPE_CHECKING:
    from kingfisher_sdk.scanner import Scanner

REDACTION_VERSION = 2
"""Rises when a rule of ours or Kingfisher's release changes: files are read again then."""
KEY_FILE = "redaction.key"
KEY_BYTES = 32
KEY = re.compile(r"[0-9a-f]{64}\s*\Z")
WORD = re.compile(r"[A-Za-z_.\-]+\Z")
PLACEHOLDER = re.compile(r"<secret:[a-z0-9_]+:[0-9a-f]{8}>")
NAMED = "named_secret"
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
TAG_CHARS = 8
SHORT = 8
"""A shorter secret is replaced where its name tells what it is, and nowhere else."""
MIN_BITS = 2.5
"""Per character, of a value that stands after `=` or `:` without quotes: words have less."""
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
POLICY = re.compile(r"(?:ALLOW|REQUIRE|ASK|DISABLE|ENABLE|EMPTY|NO|USE|HAS|IS|SHOW|RESET|CHANGE|WITH)_[A-Z0-9_]*\Z")
"""Variables that say what is done about passwords."""
BESIDE = re.compile(
    rf"""{NAMES}["'\\\]]{{0,4}}\s{{0,4}}(?::\s{{0,4}}str\s{{0,4}}=|=>|:=|:|=)\s{{0,4}}(?:[rbuf]{{0,2}}\\{{0,4}}["'`])?"""
    rf"""(?P<value>[^"'`\\\s,;]{{1,400}})|<[\w:.\-]{{0,40}}{NAMES}>\s{{0,4}}(?P<in_tag>[^<>\s]{{1,400}})"""
    rf"""|--{NAMES}[ =]{{1,2}}["']?(?P<option>[^\s"'`;|<>]{{1,200}})|\s-p\s{{0,4}}["']?(?P<p_option>[^\s"'`;|<>&]{{1,200}})"""
    r"""|\b(?:value|plaintext)["'\\]{1,5}\s{0,4}:\s{0,4}["'\\]{1,5}(?:(?:bearer|basic|token|digest)\s{1,4})?"""
    r"""(?P<pair_value>[^"'\\\n]{1,400})|://[^\s:/@]{0,80}:(?P<in_url>[^\s:@]{1,200})@""",
    re.IGNORECASE,
)
"""Where a short secret may stand: beside its name, in an option, or in a URL."""
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
SCHEME = re.compile(r"(?:bearer|basic|token|digest)\s+", re.IGNORECASE)
NAMED_BY = ("name", "key", "header", "variable")
"""Beside `value`, the key that says whose value it is, as lists of headers and of an environment's variables have it."""
VALUE_KEYS = ("value", "plaintext")
"""Keys of an object that stands under a telling name."""
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


def find_secrets(text: str) -> dict[str, str]:
    """The secrets of a text, each with the rule that found it; our own rule where both know it."""
    text = PLACEHOLDER.sub("", text)
    rule_of: dict[str, str] = {}
    findings: dict[tuple[str, str], None] = {}
    for window in windows(text):
        scanned = _scanner().scan(window.encode("utf-8", "replace"))
        findings |= {(finding.rule_id, finding.secret): None for finding in scanned if finding.visible}
    for rule_id, secret in findings:
        if secret in text:
            _take(rule_of, rule_id, secret, text)
    return rule_of


def windows(text: str) -> Iterator[str]:
    """A long text in parts that overlap, so that no secret is cut in all of them: Kingfisher's time grows with the square."""
    for start in range(0, max(len(text) - OVERLAP_CHARS, 1), WINDOW_CHARS - OVERLAP_CHARS):
        yield text[start : start + WINDOW_CHARS]


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
                is_plain = not _names_secret(key)
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
            texts.append(value)
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
