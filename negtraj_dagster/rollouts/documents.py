"""The documents of a file, as its format takes them: its records, its rows, or the file as a whole with what lies beside it."""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.arrays import Slice, array_slices
from negtraj_dagster.rollouts.eval_archive import archive_slices
from negtraj_dagster.rollouts.formats import Format, Reading
from negtraj_dagster.rollouts.formats.base import SHAPE_ERRORS
from negtraj_dagster.rollouts.formats.fields import key_names
from negtraj_dagster.rollouts.mapping import ColumnMap, fields_of
from negtraj_dagster.rollouts.packed import MAX_LINE_BYTES, PACKINGS, LandedBytes, PackedError, packed_array, packed_lines
from negtraj_dagster.rollouts.records import (
    holds_array,
    iter_records,
    key_name,
    line_slices,
    parse_proper_lines,
    parse_record,
    parse_text,
    text_of_array,
)
from negtraj_dagster.rollouts.redact import Redactor
from negtraj_dagster.schema import Rollout
from negtraj_dagster.store import file_sha256

BUFFER_BYTES = 1 << 20
"""Read at a time; the first so many tell an array from lines."""
PARQUET, CSV, EVAL = ".parquet", ".csv", ".eval"
MAX_CELL_CHARS = 100_000_000
NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?\Z")
TABLE_ROWS = 256
TABLE_BYTES = 32_000_000
"""Rows of a table that are decoded at a time, and their bytes."""
SIDECAR = b"\n\0beside:\0"
"""Stands between a file's bytes and those of the one beside it: no JSON text holds it."""


@dataclass(frozen=True)
class FileDocument:
    """A file that is one document.

    Attributes:
        objects: of a JSON object, itself; of an array or of JSON lines, all of them.
        faults: of its lines that hold none.
        beside: the object of the file that belongs to it, if there is one.
    """

    objects: list[dict[str, Any]]
    faults: list[RolloutFormatError] = field(default_factory=list)
    beside: dict[str, Any] | None = None


@dataclass(frozen=True)
class FileRead:
    """What was read of a file.

    Attributes:
        sha256s: of the file, and of the one beside it, "" where there is none.
        layout: blank lines, line ends as on Windows and byte order marks of JSON lines, where there were any.
    """

    sha256s: tuple[str, str]
    layout: Counter[str] = field(default_factory=Counter)


def iter_documents(path: Path, format_: Format, sidecar: Path | None = None) -> Generator[Slice, None, FileRead]:
    """A file's documents, and in the end what was read of it.

    Raises:
        OSError: it cannot be read.
    """
    beside = b"" if sidecar is None else sidecar.read_bytes()
    beside_sha256 = "" if sidecar is None else hashlib.sha256(beside).hexdigest()
    if slices := {PARQUET: _rows, CSV: _csv_rows, EVAL: archive_slices}.get(path.suffix):
        sha256 = file_sha256(path)
        yield from slices(path)
        return FileRead((sha256, beside_sha256))
    if format_.unit == "file" and path.suffix not in PACKINGS and path.stat().st_size <= MAX_LINE_BYTES:
        raw = path.read_bytes()  # a trace may be a file of a few kB, and there may be many
        yield _whole(raw, beside)
        return FileRead((hashlib.sha256(raw).hexdigest(), beside_sha256))
    layout: Counter[str] = Counter()
    with LandedBytes(path) as source:
        handle = io.BufferedReader(source, BUFFER_BYTES)
        try:
            if format_.unit == "file" or (
                format_.unit == "object" and handle.peek(BUFFER_BYTES).lstrip()[:2] in (b"{\n", b"{\r")
            ):
                yield _whole(handle.read(MAX_LINE_BYTES + 1), beside)
            else:
                yield from _records(handle, layout, is_packed=source.is_packed)
        except PackedError as error:
            yield Slice("file", None, str(error), path.stat().st_size)
        handle.detach()  # or it closes the source when it goes
        return FileRead((source.sha256(), beside_sha256), layout)


def _records(handle: "io.BufferedReader[LandedBytes]", layout: Counter[str], *, is_packed: bool) -> Iterator[Slice]:
    if not holds_array(handle.peek(BUFFER_BYTES)):
        yield from line_slices(packed_lines(handle) if is_packed else handle, layout)
        return
    raw = packed_array(handle) if is_packed else handle.read()
    text = text_of_array(raw)
    del raw  # the array's text is as large
    yield from array_slices(text)


def _whole(raw: bytes, beside: bytes) -> Slice:
    if len(raw) > MAX_LINE_BYTES:
        fault = f"more than {MAX_LINE_BYTES:,} bytes, which this format reads as one document; split it by session or trace"
        return Slice("file", None, fault, len(raw))
    return Slice("file", raw.strip() + SIDECAR + beside if beside else raw.strip())


def _rows(path: Path) -> Iterator[Slice]:
    """Rows of a Parquet file as JSON text."""
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=rows_at_a_time(file.metadata), use_threads=False):
                for row in batch.to_pylist():
                    yield _row(row, f"row {number}")
                    number += 1
    except (pa.ArrowException, ValueError) as error:
        yield Slice("file", None, f"no Parquet file that can be read ({error}); land it again", path.stat().st_size)


def rows_at_a_time(metadata: pq.FileMetaData) -> int:
    """So many that they come to `TABLE_BYTES` in the row group whose rows are largest."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    row_bytes = max((group.total_byte_size // group.num_rows for group in groups if group.num_rows), default=0)
    return max(1, min(TABLE_ROWS, TABLE_BYTES // max(row_bytes, 1)))


def _csv_rows(path: Path) -> Iterator[Slice]:
    """Rows of a CSV file under the names of its first line; an empty cell is none."""
    csv.field_size_limit(MAX_CELL_CHARS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = Counter(reader.fieldnames or ())
            if twice := [name for name, count in names.items() if count > 1]:
                fault = f"columns {key_names(twice)} stand twice in the first line; rename one of each"
                yield Slice("file", None, fault, path.stat().st_size)
                return
            for number, row in enumerate(reader):
                if None in row or None in row.values():
                    expected = len(reader.fieldnames or ())
                    yield Slice(f"row {number}", None, f"other than {expected} cells, as the first line has; quote the text")
                    continue
                yield _row({name: _cell(text) for name, text in row.items()}, f"row {number}")
    except (csv.Error, UnicodeDecodeError) as error:
        yield Slice("file", None, f"no CSV file that can be read ({error}); land it again", path.stat().st_size)


def _cell(text: str) -> object:
    """What a cell says: true, false, a number as others write it, or text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if NUMBER.match(text):
        return float(text) if "." in text else int(text)
    return text or None


def _row(row: dict[str, Any], place: str) -> Slice:
    try:
        return Slice(place, json.dumps(_without_nulls(row), ensure_ascii=False, default=_as_text).encode())
    except (ValueError, RecursionError, UnicodeError) as error:
        return Slice(place, None, f"cannot be written as JSON ({type(error).__name__}); mend the row")


def _without_nulls(value: Any) -> Any:
    """A value without keys that say nothing: a table gives every object the keys of all others."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _as_text(value: object) -> str:
    """Dates, decimals and the like as their text; bytes where they are text."""
    return value.decode() if isinstance(value, bytes) else str(value)


Parsed = dict[str, Any] | FileDocument | RolloutFormatError
"""A document's value, or why it has none."""


def parse_document(format_: Format, raw: bytes, place: str, *, is_proper: bool = False) -> Parsed:
    """A document of its bytes: a record, or a file's objects.

    Args:
        format_: whose document it is.
        raw: its bytes.
        place: where they stand.
        is_proper: see `records.parse_record`.
    """
    try:
        if format_.unit == "file":
            return _parse_file(raw, is_proper=is_proper)
        record = parse_record(raw, place, is_proper=is_proper)
        return RolloutFormatError(record.fault) if record.value is None else record.value
    except RolloutFormatError as error:
        return error


def redact_document(document: Parsed, redactor: Redactor) -> tuple[Parsed, dict[str, int]]:
    """The document without its secrets, and how many values each rule found."""
    if isinstance(document, RolloutFormatError):
        return RolloutFormatError(redactor.redact_text(str(document))), {}
    if not isinstance(document, FileDocument):
        record, counts = redactor.redact(document)
        return record, dict(sorted(counts.items()))
    whole, counts = redactor.redact({"objects": document.objects, "beside": document.beside})  # a secret is one in every line
    faults = [RolloutFormatError(redactor.redact_text(str(fault))) for fault in document.faults]
    return FileDocument(whole["objects"], faults, whole["beside"]), dict(sorted(counts.items()))


def read_parsed(format_: Format, task: str, document: Parsed, mapping: ColumnMap | None = None) -> Reading:
    """What a document holds: its rollouts, and why there are none in a part of it, or in all.

    Args:
        format_: reads it.
        task: whose rollouts they are.
        document: as `parse_document` gives it.
        mapping: gives a record's keys the format's names, and says what an outcome is.
    """
    if isinstance(document, RolloutFormatError):
        return [document]
    try:
        if isinstance(document, FileDocument):
            reading = format_.read(task, document) or [_no_rollout()]
            return [*(_judged(rollout, mapping) for rollout in reading), *document.faults]
        return format_.read(task, mapping.apply(document) if mapping else document) or [_no_rollout()]
    except RolloutFormatError as error:
        absent = mapping.absent_from(document) if mapping and isinstance(document, dict) else []
        names = f" (and no {', '.join(map(key_name, absent))}, which columns or outcome of the source names)" if absent else ""
        return [RolloutFormatError(f"{error}{names}")]
    except SHAPE_ERRORS as error:  # one record of a layout that its reader did not foresee stops no run
        return [RolloutFormatError(f"is of another shape than {format_.name} has ({type(error).__name__}); leave it out")]


def _judged(rollout: Rollout | RolloutFormatError, mapping: ColumnMap | None) -> Rollout | RolloutFormatError:
    if mapping is None or not isinstance(rollout, Rollout):
        return rollout
    try:
        return mapping.judge(rollout)
    except RolloutFormatError as error:
        return error


def absent_names(document: Parsed, reading: Reading, mapping: ColumnMap) -> list[str]:
    """What a source names and nothing of this document has; nothing of one that holds no rollout."""
    if isinstance(document, dict):
        return mapping.absent_from(document)
    absent = [set(mapping.absent_from(fields_of(rollout))) for rollout in reading if isinstance(rollout, Rollout)]
    return sorted(set.intersection(*absent)) if absent else []


def _no_rollout() -> RolloutFormatError:
    return RolloutFormatError("holds no rollout, expected at least one; leave it out")


def _parse_file(raw: bytes, *, is_proper: bool) -> FileDocument:
    raw, _, beside = raw.partition(SIDECAR)
    beside_object = parse_record(beside.strip(), "beside").value if beside else None
    if beside and beside_object is None:
        raise RolloutFormatError("the file beside it, which says its outcome, is no JSON object; mend or remove it")
    if (proper_lines := parse_proper_lines(raw, is_proper=is_proper)) is not None:
        return FileDocument(proper_lines, [], beside_object)
    try:
        value = parse_text(raw.decode("utf-8-sig").strip(), is_proper=is_proper)
    except ValueError:  # JSON lines, or none at all
        records = list(iter_records(raw))
        faults = [RolloutFormatError(f"{item.place}: {item.fault}") for item in records if item.value is None]
        objects = [item.value for item in records if item.value is not None]
        if not objects:
            raise (faults or [RolloutFormatError("an empty file, expected a session or a trace")])[0] from None
        return FileDocument(objects, faults, beside_object)
    objects = value if isinstance(value, list) else [value]
    if wrong := next((item for item in objects if not isinstance(item, dict)), None):
        raise RolloutFormatError(f"found {type(wrong).__name__}, expected an object, or a list of objects")
    return FileDocument(objects, [], beside_object)
