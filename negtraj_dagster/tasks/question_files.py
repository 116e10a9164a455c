"""Reads question files of any common kind into rows: JSON lines, a JSON array, CSV, Parquet."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster.errors import QuestionSetError
from negtraj_dagster.tasks.base import read_json_lines

KINDS = (".jsonl", ".json", ".csv", ".parquet")


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows with their place for messages (`file, line 3`).

    Raises:
        QuestionSetError: the file is missing, of another kind, or cannot be read; names file and place.
    """
    if not path.is_file():
        raise QuestionSetError(f"{path}: no such file; [tasks.NAME] questions must name a file that is there")
    if path.suffix == ".parquet":
        yield from _numbered(path, "row", _read_parquet(path))
    elif path.suffix == ".csv":
        yield from _numbered(path, "row", _read_csv(path))
    elif path.suffix == ".json":
        yield from _numbered(path, "element", _read_array(path))
    elif path.suffix == ".jsonl":
        yield from _numbered(path, "question", read_json_lines(path))
    else:
        raise QuestionSetError(f"{path}: expected one of {', '.join(KINDS)}; convert it, or rename it to what it is")


def _numbered(path: Path, word: str, rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in enumerate(rows, 1):
        yield f"{path}, {word} {number}", row


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        return pl.read_parquet(path, glob=False).to_dicts()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise QuestionSetError(f"{path}: not a readable Parquet file ({error}); write it again") from error


def _read_csv(path: Path) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    rows = list(reader)
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise QuestionSetError(f"{path}, row {number}: has not as many fields as the first line; quote texts with commas")
    return rows


def _read_array(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise QuestionSetError(f"{path}: not JSON ({error}); JSON lines belong in a .jsonl file") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise QuestionSetError(f"{path}: expected a JSON array of objects")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise QuestionSetError(f"{path}: not UTF-8 (byte {error.start}); convert it") from error
