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


def iter_records(raw: bytes) -> Iterator[Record]:
    """Every record of a file's bytes, the bad ones with their fault."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if raw.lstrip()[:1] == b"[":
            yield Record("file", None, f"not UTF-8 at byte {error.start}; a JSON array cannot be read in part")
            return
        yield from _decode_lines(raw)
        return
    if text.lstrip()[:1] == "[":
        yield from _array_records(text)
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield _parse(f"line {number}", line)


def _decode_lines(raw: bytes) -> Iterator[Record]:
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield Record(f"line {number}", None, f"not UTF-8 at byte {error.start} of the line")
            continue
        if text.strip():
            yield _parse(f"line {number}", text)


def _array_records(text: str) -> Iterator[Record]:
    position, index = BLANK.match(text, text.index("[") + 1).end(), 0  # type: ignore[union-attr]
    while position < len(text) and text[position] != "]":
        place = f"index {index}"
        try:
            value, position = DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, position) + 1
            yield Record(place, None, f"{_reason(error)}; from line {line} on the array cannot be read")
            return
        yield _checked(place, value)
        index += 1
        position = BLANK.match(text, position).end()  # type: ignore[union-attr]
        if text[position : position + 1] == ",":
            position = BLANK.match(text, position + 1).end()  # type: ignore[union-attr]
        elif text[position : position + 1] not in ("]", ""):
            line = text.count("\n", 0, position) + 1
            yield Record(f"index {index}", None, f"line {line}: expected ',' or ']' after a record; nothing after it is read")
            return
    if position >= len(text):
        yield Record(f"index {index}", None, "the array is not closed: the file is cut")
    elif rest := text[position + 1 :].strip():
        yield Record("file", None, f"text after the array's end: {rest[:40]!r}")


def _parse(place: str, line: str) -> Record:
    if len(line) > MAX_RECORD_CHARS:
        return Record(place, None, f"record of {len(line)} characters, at most {MAX_RECORD_CHARS} are read")
    try:
        value, end = DECODER.raw_decode(line.strip())
    except (ValueError, RecursionError) as error:
        return Record(place, None, _reason(error))
    if end != len(line.strip()):
        return Record(place, None, f"text after the record: {line.strip()[end : end + 40]!r}")
    return _checked(place, value)


def _checked(place: str, value: object) -> Record:
    if not isinstance(value, dict):
        return Record(place, None, f"found {type(value).__name__}, expected an object")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        return Record(place, None, f"lone surrogate in a text ({error.object[max(error.start - 20, 0) : error.start]!r} …)")
    except (ValueError, RecursionError):
        return Record(place, None, "a number too large for a float, or nested too deeply")
    return Record(place, value)


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
