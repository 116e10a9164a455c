"""Splits a landed file into records, strictly: what is not proper JSON is rejected by place and reason, never guessed.

A file holds either JSON lines or one JSON array, told by its first character.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_RECORD_CHARS = 100_000_000
BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Record:
    """One record and where it stands (`line 3`, `index 17`); `fault` says why `value` is None."""

    place: str
    value: dict[str, Any] | None
    fault: str = ""


class _RefusedError(ValueError):
    """Valid for Python's parser, not for us."""


@dataclass(frozen=True)
class Slice:
    """One record's own bytes and where they stand; `fault` says why there are none."""

    place: str
    raw: bytes | None
    fault: str = ""


def iter_records(raw: bytes) -> Iterator[Record]:
    """Every record of a file's bytes, the bad ones with their fault."""
    for part in iter_slices(raw):
        yield Record(part.place, None, part.fault) if part.raw is None else parse_record(part.raw, part.place)


def iter_slices(raw: bytes) -> Iterator[Slice]:
    """Every record's own bytes. Lines are only split; an array is scanned to find where its records end."""
    body = raw.removeprefix(b"\xef\xbb\xbf")
    if body.lstrip()[:1] == b"[":
        try:
            yield from _array_slices(body.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield Slice("file", None, f"not UTF-8 at byte {error.start}; a JSON array cannot be read in part")
        return
    for number, line in enumerate(body.split(b"\n"), 1):
        if stripped := line.strip():
            yield Slice(f"line {number}", stripped)


def _array_slices(text: str) -> Iterator[Slice]:
    position, index = BLANK.match(text, text.index("[") + 1).end(), 0  # type: ignore[union-attr]
    while position < len(text) and text[position] != "]":
        start, place = position, f"index {index}"
        try:
            _, position = SCANNER.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, position) + 1
            yield Slice(place, None, f"{_reason(error)}; from line {line} on the array cannot be read")
            return
        yield Slice(place, text[start:position].encode())
        index += 1
        position = BLANK.match(text, position).end()  # type: ignore[union-attr]
        if text[position : position + 1] == ",":
            position = BLANK.match(text, position + 1).end()  # type: ignore[union-attr]
        elif text[position : position + 1] not in ("]", ""):
            line = text.count("\n", 0, position) + 1
            yield Slice(f"index {index}", None, f"line {line}: expected ',' or ']' after a record; nothing after it is read")
            return
    if position >= len(text):
        yield Slice(f"index {index}", None, "the array is not closed: the file is cut")
    elif rest := text[position + 1 :].strip():
        yield Slice("file", None, f"text after the array's end: {rest[:40]!r}")


def parse_record(raw: bytes, place: str) -> Record:
    """One record from its own bytes, strictly."""
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
        return Record(place, None, f"text after the record: {line[end : end + 40]!r}")
    return _checked(place, value)


def parse_text(text: str) -> Any:
    """The value of JSON text that stands inside a record, as strictly as the record itself.

    Raises:
        ValueError: why it is refused.
    """
    try:
        value = DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(_reason(error)) from error
    if fault := _unwritable(value):
        raise ValueError(fault)
    return value


def _checked(place: str, value: object) -> Record:
    if not isinstance(value, dict):
        return Record(place, None, f"found {type(value).__name__}, expected an object")
    fault = _unwritable(value)
    return Record(place, None, fault) if fault else Record(place, value)


def _unwritable(value: object) -> str:
    """Why a value that was parsed cannot be written as JSON again; empty where it can."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        return f"lone surrogate in a text ({error.object[max(error.start - 20, 0) : error.start]!r} …)"
    except (ValueError, RecursionError):
        return "a number too large for a float, or nested too deeply"
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at character {error.pos}"
    return str(error)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RefusedError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return made


def _constant(name: str) -> Any:
    raise _RefusedError(f"{name} is not JSON")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
SCANNER = json.JSONDecoder()
"""Only finds where a record ends; `DECODER` judges it."""
