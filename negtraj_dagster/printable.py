"""Text for a terminal: made safe to print, and put into aligned columns."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence

import polars as pl

MAX_CELL_CHARS = 100

JOINERS = "\u200c\u200d"
"""Invisible, but what emoji and several scripts are spelled with; they move nothing."""
UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of control and format characters, among them those that turn the writing's direction."""


def visible(text: str) -> str:
    r"""Text that is safe to print and to lay out: what a terminal would obey (`\x1b`) or what reorders a line (`\u202e`)
    stands as an escape; newlines and tabs stay."""
    return text if text.isprintable() else "".join(map(_visible_char, text))


def _visible_char(char: str) -> str:
    is_unsafe = unicodedata.category(char) in UNSAFE and char not in f"\n\t{JOINERS}"
    return char.encode("unicode_escape").decode("ascii") if is_unsafe else char


def toml_text(text: str) -> str:
    r"""A text as TOML quotes it, on one line; what a terminal would obey stands as an escape (`\u001b`), which TOML reads."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char) in UNSAFE and ord(char) <= 0xFFFF else char for char in quoted
    )


def visible_name(name: str) -> str:
    """A file's name that is safe to print and stays one line; what is not UTF-8 in it stands as an escape, too."""
    return visible(name).replace("\n", "\\n").replace("\t", "\\t")


MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|&~])")


def markdown_text(text: str) -> str:
    """Untrusted text within a line of Markdown: nothing of it is read as Markdown or HTML, and it stays one line."""
    return MARKDOWN.sub(r"\\\1", visible(text.replace("\n", "⏎").replace("\t", " ")))


def text_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as aligned plain text for a terminal."""
    if not rows:
        return "(nothing)"
    names = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    lines = ["  ".join(name.ljust(widths[name]) for name in names)]
    lines += ["  ".join(row[name].ljust(widths[name]) for name in names) for row in rows]
    return "\n".join(line.rstrip() for line in (lines[0], "-" * len(lines[0]), *lines[1:]))


def line_of(value: object) -> str:
    """A value as a cell of a table: in one line, cut where it is long, `-` for null."""
    if value is None:
        return "-"
    text = " ".join(visible(f"{value:.4g}" if isinstance(value, float) else str(value)).split())
    return f"{text[:MAX_CELL_CHARS]}…" if len(text) > MAX_CELL_CHARS else text


def frame_text(frame: pl.DataFrame) -> str:
    """A table as aligned plain text."""
    return text_table([{name: line_of(value) for name, value in row.items()} for row in frame.iter_rows(named=True)])


def csv_text(frame: pl.DataFrame) -> str:
    """A table as comma-separated values, control characters as escapes; null is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows(map(_csv_cell, row) for row in frame.iter_rows())
    return out.getvalue().rstrip("\n")


def _csv_cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return visible(value) if isinstance(value, str) else value
