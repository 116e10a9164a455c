"""Finds where the records of a JSON array end, and where the next one begins after one that is broken.

A record is found by its brackets and strings alone, so what is unreadable inside of it (a number too long, a missing comma,
bytes that are no UTF-8, any depth) costs that record and no other. Where even the brackets do not fit, reading goes on at the
next line that begins as records' lines do: a line break cannot stand inside a JSON string.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

BLANK = re.compile(r"[ \t\r\n]*")
TOKEN = re.compile(r'"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"?|[][{},]')
OBJECT_LINE = re.compile(r"\n[ \t]*\{")
SCANNER = json.JSONDecoder(parse_int=str, parse_float=str)
"""Only finds where a record ends, whatever its numbers; `records.DECODER` judges it."""


@dataclass(frozen=True)
class Slice:
    """One record's own bytes and where they stand; `fault` says why there are none, `n_unread` how many bytes that leaves."""

    place: str
    raw: bytes | None
    fault: str = ""
    n_unread: int = 0


def array_slices(text: str) -> Iterator[Slice]:
    """The records of one or more arrays that follow each other.

    Args:
        text: the file's bytes decoded as latin-1, a character a byte: what is no UTF-8 must not keep others from being read.
    """
    position, index = BLANK.match(text).end(), 0  # type: ignore[union-attr]
    lines = _RecordLines(text)
    while position < len(text) and text[position] == "[":
        position = _skip_blank(text, position + 1)
        while position < len(text) and text[position] != "]":
            start, place = position, f"index {index}"
            index += 1
            end = lines.record_end(start)
            if end is None:
                position = lines.next_start(start)
                yield lines.broken(place, start, position)
                if position == len(text):
                    return
                continue
            yield (
                Slice(place, text[start:end].encode("latin-1"))
                if end > start
                else Slice(place, None, "no record at this place")
            )
            position = _skip_blank(text, end)
            if text[position : position + 1] == ",":
                position = _skip_blank(text, position + 1)
            elif text[position : position + 1] not in ("]", "[", "{", ""):  # two objects without a comma are still two
                after = lines.next_start(position)
                yield lines.broken(f"after index {index - 1}", position, after)
                if (position := after) == len(text):
                    return
        if position >= len(text):
            yield Slice("file", None, f"the array is not closed after index {index - 1}: the file is cut")
            return
        position = _skip_blank(text, position + 1)
    if rest := len(text) - position:
        yield Slice("file", None, f"{rest} bytes after the array's end are not read; one file holds one array", rest)


def balanced_end(text: str, start: int, limit: int) -> int | None:
    """The place after the value that begins at `start`, by its brackets and strings alone; None where they do not fit."""
    closing: list[str] = []
    for token in TOKEN.finditer(text, start, limit):
        char = token[0][0]
        if char == '"':
            if len(token[0]) == 1 or token[0][-1] != '"':  # a string that never ends: brackets behind it may be text
                return None
        elif char in "[{":
            closing.append("]" if char == "[" else "}")
        elif char == ",":
            if not closing:  # a bare value, a number or a word, ends here
                return token.start()
        elif not closing:
            return token.start() if char == "]" else None
        elif closing.pop() != char:
            return None
        elif not closing:
            return token.end()
    return None


def _skip_blank(text: str, position: int) -> int:
    return BLANK.match(text, position).end()  # type: ignore[union-attr]


class _RecordLines:
    """Lines that begin as the first record's that begins one, by indentation and bracket; looked for when one is broken."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._pattern: re.Pattern[str] | None = None
        self._has_looked = False
        self._next = (0, -1)
        self._counted = (0, 1)

    def record_end(self, start: int) -> int | None:
        """The place after the value that begins at `start`; None where its brackets or strings do not fit."""
        if not self._has_looked:  # later not: its error counts every line before, and where a record ends it does not know
            try:
                return int(SCANNER.raw_decode(self._text, start)[1])
            except (ValueError, RecursionError):
                pass
        return balanced_end(self._text, start, self.next_start(start))

    def next_start(self, position: int) -> int:
        """Where the next record's line begins behind a place; the text's end where that cannot be told."""
        if not self._has_looked:
            self._pattern, self._has_looked = self._find_pattern(), True
        from_byte, answer = self._next
        if not from_byte <= position < answer:
            match = self._pattern.search(self._text, position) if self._pattern else None
            self._next = (position, match.end() - 1 if match else len(self._text))
        return self._next[1]

    def broken(self, place: str, start: int, end: int) -> Slice:
        """What stands between two places and is not read."""
        fault = f"not JSON: brackets or quotes of what begins at line {self._line(start)} do not fit"
        if end < len(self._text):
            return Slice(place, None, f"{fault}; reading goes on at line {self._line(end)}", end - start)
        return Slice(place, None, f"{fault}; {end - start} bytes from there to the end are not read", end - start)

    def _line(self, position: int) -> int:
        before, line = self._counted
        self._counted = (position, line + self._text.count("\n", before, position))
        return self._counted[1]

    def _find_pattern(self) -> re.Pattern[str] | None:
        text = self._text
        first = _skip_blank(text, text.index("[") + 1)
        if (start := self._first_on_its_line(first)) is None:
            return self._guess_pattern(first)
        if text[start : start + 1] != "{":
            return None
        indentation = self._indentation(start)
        key_line = re.compile(rf'\n{indentation}"[^"\n]*"[ \t]*:')  # keys as far left as records: any object could start there
        return None if key_line.search(text) else re.compile(rf"\n{indentation}\{{")

    def _first_on_its_line(self, first: int) -> int | None:
        """The first record that begins a line: the first one may stand behind the array's bracket."""
        position: int | None = first
        while position is not None:
            if self._indentation(position) is not None:
                return position
            position = self._following(position)
        return None

    def _guess_pattern(self, first: int) -> re.Pattern[str] | None:
        """Behind a broken record on the bracket's line: the objects furthest left, if they go on to the array's end."""
        text = self._text
        lines = [match.end() - 1 for match in OBJECT_LINE.finditer(text, first)]
        position = min(lines, key=lambda line: len(self._indentation(line) or ""), default=len(text))
        indentation = self._indentation(position) or ""
        has_keys_further_left = re.search(rf'\n[ \t]{{0,{len(indentation)}}}"[^"\n]*"[ \t]*:', text)
        if not text[first:position].rstrip().endswith(",") or has_keys_further_left:
            return None
        # a guess is only taken if it explains everything to the array's end: a wrong one would invent records
        pattern = re.compile(rf"\n{indentation}\{{")
        while position < len(text):
            limit = match.end() - 1 if (match := pattern.search(text, position)) else len(text)
            end = balanced_end(text, position, limit)
            position = limit if end is None else _skip_blank(text, end)
            if text[position : position + 1] == ",":
                position = _skip_blank(text, position + 1)
            elif text[position : position + 1] != "{":
                is_arrays_end = text[position : position + 1] == "]" and _skip_blank(text, position + 1) == len(text)
                return pattern if is_arrays_end else None
        return None

    def _following(self, start: int) -> int | None:
        """Where the record after this one begins; None behind the last one, and where its end cannot be told."""
        if (end := balanced_end(self._text, start, len(self._text))) is None or end == start:
            return None
        position = _skip_blank(self._text, end)
        if self._text[position : position + 1] == ",":
            return _skip_blank(self._text, position + 1)
        return position if self._text[position : position + 1] == "{" else None

    def _indentation(self, start: int) -> str | None:
        """What stands before a record that is the first thing on its line; None for any other."""
        line_start = start
        while line_start and self._text[line_start - 1] in " \t":
            line_start -= 1
        return self._text[line_start:start] if line_start and self._text[line_start - 1] == "\n" else None
