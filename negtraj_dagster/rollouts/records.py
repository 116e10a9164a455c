"""Splits a landed file into records, strictly: what is not proper JSON is rejected by place and reason, never guessed.

A file holds either JSON lines or JSON arrays, told by its first character. No reason quotes a value: a secret in a bad record
would get into quarantine, metadata and logs.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jiter

from negtraj_dagster import _trajtok  # noqa: TID251 - looks through a value faster
from negtraj_dagster.rollouts.arrays import Slice, array_slices

BLANK_LINES, CRLF_LINES, BYTE_ORDER_MARKS = LAYOUT = ("blank_lines", "crlf_lines", "byte_order_marks")
"""What is counted of a file of JSON lines."""
ONE_A_LINE = "write one record a line, or all of them as a JSON array"
MAX_RECORD_CHARS = 100_000_000
BOM = b"\xef\xbb\xbf"
FOREIGN = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"PAR1": "Parquet"}
"""What files begin with that hold no text in UTF-8."""
MAX_KEY_CHARS = 40


@dataclass(frozen=True)
class Record:
    """One record and where it stands (`line 3`, `index 17`); `fault` says why `value` is None."""

    place: str
    value: dict[str, Any] | None
    fault: str = ""


class _RefusedError(ValueError):
    """Valid for Python's parser, not for us."""


def iter_records(raw: bytes) -> Iterator[Record]:
    """Every record of a file's bytes, the bad ones with their fault."""
    for part in iter_slices(raw):
        yield Record(part.place, None, part.fault) if part.raw is None else parse_record(part.raw, part.place)


def iter_slices(raw: bytes) -> Iterator[Slice]:
    """Every record's own bytes. Lines are only split; an array is scanned to find where its records end."""
    return array_slices(text_of_array(raw)) if holds_array(raw) else line_slices(raw.split(b"\n"))


def holds_array(beginning: bytes) -> bool:
    """Whether a file is an array, told by its first bytes that are not blank."""
    return beginning.removeprefix(BOM).lstrip()[:1] == b"["


def text_of_array(raw: bytes) -> str:
    """A file's bytes as `array_slices` reads them."""
    return str(raw, "latin-1")[len(BOM) if raw[: len(BOM)] == BOM else 0 :]


def line_slices(lines: Iterable[bytes], layout: Counter[str] | None = None) -> Iterator[Slice]:
    """Records of JSON lines, with or without their line breaks; an object over several lines is one record, and refused.

    Args:
        lines: of the file.
        layout: counts blank lines, lines that end as on Windows, and the byte order mark.
    """
    splitter = _LineSplitter()
    layout = Counter() if layout is None else layout
    for number, line in enumerate(lines, 1):
        if number == 1 and line.startswith(BOM):
            layout[BYTE_ORDER_MARKS] += 1
        if line.endswith(b"\r\n"):
            layout[CRLF_LINES] += 1
        if line.isspace():
            layout[BLANK_LINES] += 1
        yield from splitter.take(number, line)
        if splitter.is_over:
            return
    yield from splitter.end()


class _LineSplitter:
    """Holds back lines from one that is `{` alone until the line that begins with its `}`: an object written for people."""

    def __init__(self) -> None:
        self.is_over = False
        self._open: list[tuple[int, bytes]] = []

    def take(self, number: int, line: bytes) -> Iterator[Slice]:
        """One line of the file."""
        if number == 1:
            line = line.removeprefix(BOM)
            if foreign := _foreign(line):
                self.is_over = True
                yield Slice("file", None, f"{foreign}, expected JSON in UTF-8; convert the file", len(line))
                return
        if self._open and line[:1] == b"{":
            yield from self.end()
        stripped = line.strip()
        if self._open and line[:1] == b"}":
            first = self._open[0][0]
            fault = f"one object over lines {first} to {number}; write it on one line, or all objects as a JSON array"
            self._open = []
            yield Slice(f"line {first}", None, fault)
        elif self._open or line.rstrip() == b"{":
            self._open.append((number, stripped))
        elif stripped:
            yield Slice(f"line {number}", stripped)

    def end(self) -> Iterator[Slice]:
        """What was held back in vain."""
        held, self._open = self._open, []
        for number, line in held:
            if line:
                yield Slice(f"line {number}", line)


def parse_record(raw: bytes, place: str, *, is_proper: bool = False) -> Record:
    """One record from its own bytes, strictly.

    Args:
        raw: its bytes.
        place: where they stand.
        is_proper: whether trajtok has read them: then no key of an object stands twice, and no number is beyond a float.
    """
    try:
        return _as_record(place, _parse_quickly(raw, is_proper=is_proper))
    except ValueError:  # the slow parser knows better why, or reads what the quick one does not
        pass
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Record(place, None, f"not UTF-8 at byte {error.start} of the line")
    if len(line) > MAX_RECORD_CHARS:
        return Record(place, None, f"record of {len(line)} characters, at most {MAX_RECORD_CHARS} are read")
    try:
        value, end = DECODER.raw_decode(line)
    except (ValueError, RecursionError) as error:
        return Record(place, None, _reason(error))
    if end != len(line):
        return Record(place, None, f"text after the record: {len(line) - end} characters from character {end} on; {ONE_A_LINE}")
    fault = _unwritable(value) if isinstance(value, dict) else ""
    return Record(place, None, fault) if fault else _as_record(place, value)


def parse_proper_lines(raw: bytes, *, is_proper: bool = False) -> list[dict[str, Any]] | None:
    """The objects of JSON lines that are beyond doubt, two or more; None of anything else.

    Args:
        raw: the lines.
        is_proper: see `parse_record`.
    """
    lines = raw.split(b"\n")
    if len(lines) == 1 or not all(line[:2] == b'{"' for line in lines):
        return None
    try:
        objects = [_parse_quickly(line, is_proper=is_proper) for line in lines]
    except ValueError:
        return None
    return objects if all(type(value) is dict for value in objects) else None


def parse_text(text: str, *, is_proper: bool = False) -> Any:
    """The value of JSON text that stands inside a record, as strictly as the record itself. For `is_proper` see `parse_record`.

    Raises:
        ValueError: why it is refused.
    """
    try:
        return _parse_quickly(text.encode(), is_proper=is_proper)
    except ValueError:
        pass
    try:
        value = DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(_reason(error)) from error
    if fault := _unwritable(value):
        raise ValueError(fault)
    return value


def is_json_object(text: str) -> bool:
    """Whether `parse_text` certainly gives an object; False where it has to be asked."""
    try:
        return text[:1] == "{" and type(_parse_quickly(text.encode())) is dict
    except ValueError:
        return False


def _parse_quickly(raw: bytes, *, is_proper: bool = False) -> Any:
    """The value of JSON text that is beyond doubt: `DECODER` and `_unwritable` let it pass with equal value.

    Raises:
        ValueError: it is not beyond doubt.
    """
    if len(raw) > MAX_RECORD_CHARS:
        raise ValueError("to be looked at closely")
    value = jiter.from_json(raw, allow_inf_nan=False, cache_mode="keys", catch_duplicate_keys=not is_proper)
    if not is_proper and _trajtok.has_infinity(value):  # 1e999
        raise ValueError("to be looked at closely")
    return value


def _as_record(place: str, value: object) -> Record:
    if not isinstance(value, dict):
        return Record(place, None, f"found {type(value).__name__}, expected an object; {ONE_A_LINE}")
    return Record(place, value)


def _unwritable(value: object) -> str:
    """Why a value that was parsed cannot be written as JSON again; empty where it can."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        return f"lone surrogate in a text, at character {error.start} of the record as it is written anew"
    except (ValueError, RecursionError):
        return "a number too large for a float, or nested too deeply"
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at character {error.pos}"
    return "a whole number of too many digits" if "int_max_str_digits" in str(error) else str(error)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keyed = dict(pairs)
    if len(keyed) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RefusedError(f"key {key_name(next(key for key in keys if keys.count(key) > 1))} stands twice in one object")
    return keyed


def _constant(name: str) -> Any:
    raise _RefusedError(f"{name} is not JSON")


def key_name(key: str) -> str:
    """A key of a record as messages name it: a long one is no name, and is cut."""
    return repr(key if len(key) <= MAX_KEY_CHARS else f"{key[:MAX_KEY_CHARS]}…")


def _foreign(beginning: bytes) -> str:
    format_name = next((name for magic, name in FOREIGN.items() if beginning.startswith(magic)), "")
    return format_name or ("bytes with NUL among them" if b"\0" in beginning[:4] else "")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
