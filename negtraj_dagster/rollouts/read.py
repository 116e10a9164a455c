"""Reads landed files into typed rows, record by record: a record whose bytes were read before is not read again.

Three layers, each by content: a *record* (its bytes -> a row or a reason), a *piece* (which records a file holds, and where),
and the index of all rollouts. Conversations stay with their records; the index is narrow. Judging is not done here.
"""

import gc
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster.conversations import CONVERSATION_SCHEMA, PIECE_SCHEMA, RECORD_SCHEMA
from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.printable import visible_name
from negtraj_dagster.rollouts.arrays import Slice
from negtraj_dagster.rollouts.documents import absent_names, iter_documents, parse_document, read_parsed, redact_document
from negtraj_dagster.rollouts.formats import FORMATS, Reading
from negtraj_dagster.rollouts.index import write_index
from negtraj_dagster.rollouts.landing import LandedFile, find_landed_files, in_order_of_arrival
from negtraj_dagster.rollouts.plain import look_through
from negtraj_dagster.rollouts.recorded import with_recorded_question
from negtraj_dagster.rollouts.redact import Redactor, home_redactor
from negtraj_dagster.rollouts.remote_files import forget_fetched
from negtraj_dagster.rollouts.tombstones import read_tombstones
from negtraj_dagster.rollouts.walk import why_unlisted
from negtraj_dagster.schema import Rollout, canonical_json, digest, digest_json
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tables import RowCache

LOG = logging.getLogger(__name__)

INDEX_VERSION = 2
"""Rises when the index of all rollouts comes out differently from the same records."""
BATCH_RECORDS = 4096
"""Records published at a time: what a killed run has to read again at most."""
BATCH_PLACES = 20_000
"""Places of one file that are kept as tuples; what goes beyond goes into a table."""
BATCH_BYTES = 32_000_000
"""Bytes of records published at a time: what reading holds in memory, whatever the file's size."""
SEEN_DOCUMENTS = 256
"""Documents that trajtok is given at a time: their texts are held twice until secrets were looked for."""
ROW_FIELDS = (
    "question_id",
    "source",
    "teacher",
    "reward",
    "pred",
    "gold",
    "subject",
    "session",
    "licence",
    "origin_url",
    "score",
    "parent",
)
ROW_VALUES = attrgetter(*ROW_FIELDS)
"""What of a rollout stands in its index row under its own name."""


Place = tuple[str, int, str, str, str, int, str | None]
"""A row of `PIECE_SCHEMA`."""


@dataclass
class ReadWork:
    """What one call read."""

    files_read: int = 0
    records_seen: int = 0
    records_read: int = 0


def read_landed_files(store: Store, settings: Settings) -> Published:
    """Bring every landed file in, reading only records whose bytes were not read before.

    Raises:
        SettingsError: see `find_landed_files`.
        RolloutFormatError: a file changed while it was read.
    """
    try:
        return _read_landed_files(store, settings)
    finally:
        forget_fetched(store.home)


def _read_landed_files(store: Store, settings: Settings) -> Published:
    landed = find_landed_files(store, settings)
    files = in_order_of_arrival(store, landed.files)
    tombstones = read_tombstones(store)
    made_of = {
        "code": INDEX_VERSION,
        "files": digest(*(canonical_json([file.place, file.piece_key]) for file in files)),
        "ignored": digest_json([landed.ignored, landed.unread]),
        "tombstones": digest_json([tombstone.identity for tombstone in tombstones]),
    }

    def write(folder: Path) -> Built:
        work = read_new_files(store, files)
        built = write_index(
            store, folder, files, tombstones, read_again=lambda lost: read_new_files(store, lost, work, again=True)
        )
        entries = {"ignored": landed.ignored, "unread": landed.unread}
        return replace(built, details={**built.details, **entries}, work=vars(work))

    return store.build("raw_rollouts", made_of, write)


def read_new_files(store: Store, files: Sequence[LandedFile], work: ReadWork | None = None, *, again: bool = False) -> ReadWork:
    """Read what no earlier run has read: files by their bytes, and of those only records by theirs.

    Args:
        store: keeps records and pieces.
        files: what there is to read.
        work: counts to go on from.
        again: read files whose piece is there, too, since some of their records are gone.
    """
    work = work or ReadWork()
    with store.lock("segments/rollouts"):  # two runs that see the same new file read it once
        for table in sorted({file.table for file in files}):
            read_pieces = set(piece_cache(store, table).keys()["piece_key"].to_list())
            new = {
                file.piece_key: file for file in files if file.table == table and (again or file.piece_key not in read_pieces)
            }
            if new:
                is_redacted = next(iter(new.values())).is_redacted  # of all files of a table
                reader = _Reader(store, table, work, home_redactor(store) if is_redacted else None)
                for file in new.values():
                    reader.read(file)
                reader.flush()
    return work


def record_cache(store: Store, table: str) -> RowCache:
    """Records of one task and format by their bytes."""
    return RowCache(store, table, "record_key", RECORD_SCHEMA)


def piece_cache(store: Store, table: str) -> RowCache:
    """Which records the files of one task and format hold, by the files' bytes."""
    return RowCache(store, f"pieces/{table}", "piece_key", PIECE_SCHEMA)


class _Reader:
    """Reads files of one table in batches of new records. A file's piece follows its records, so it never names lost ones."""

    def __init__(self, store: Store, table: str, work: ReadWork, redactor: Redactor | None) -> None:
        self._store, self._table, self._work, self._redactor = store, table, work, redactor
        self._cache = record_cache(store, table)
        self._known = {bytes.fromhex(key) for key in self._cache.keys()["record_key"]}
        self._pieces = piece_cache(store, table)
        self._new: dict[str, tuple[LandedFile, Slice]] = {}
        self._n_new_bytes = 0
        self._read: list[str] = []
        self._places: list[Place] = []
        self._place_frames: list[pl.DataFrame] = []

    def read(self, file: LandedFile) -> None:
        """Take in one file."""
        places: list[Place] = []
        frames: list[pl.DataFrame] = []  # a tuple of each of a million places would take half a gigabyte
        layout: Counter[str] = Counter()
        prefix = hashlib.sha256(f"record {self._table}\n".encode())
        for number, part in enumerate(_iter_slices(file, layout)):
            key = ""
            if part.raw is not None:
                hasher = prefix.copy()
                hasher.update(part.raw)
                raw_key = hasher.digest()
                key = raw_key.hex()
                if raw_key not in self._known:
                    self._new[key] = (file, part)
                    self._known.add(raw_key)
                    self._n_new_bytes += len(part.raw)
            places.append((file.piece_key, number, key, part.place, part.fault, part.n_unread or len(part.raw or b""), None))
            if len(places) >= BATCH_PLACES:
                frames.append(pl.DataFrame(places, schema=PIECE_SCHEMA, orient="row"))
                places = []
            if len(self._new) >= BATCH_RECORDS or self._n_new_bytes >= BATCH_BYTES:
                self.flush()
        self._work.records_seen += len(places) + sum(frame.height for frame in frames)
        if layout and frames:
            is_first = pl.col("number") == 0
            frames[0] = frames[0].with_columns(layout=pl.when(is_first).then(pl.lit(canonical_json(layout))))
        elif layout and places:
            places[0] = (*places[0][:-1], canonical_json(layout))
        self._read.append(file.piece_key)
        self._places += places
        self._place_frames += frames
        self._work.files_read += 1

    def flush(self) -> None:
        """Publish new records, and then which of them the files hold that are read to their end."""
        if self._new:
            rows, conversations = [], {}
            with _without_collection():
                for row, conversation in _read_records(self._new, self._redactor):
                    rows.append(row)
                    if not row["fault"]:
                        conversations[row["base_key"]] = conversation
            table = pl.DataFrame(rows, schema=RECORD_SCHEMA)
            texts = pl.DataFrame([conversations[key] for key in sorted(conversations)], schema=CONVERSATION_SCHEMA)
            self._cache.add(table["record_key"], table, {"conversations.parquet": texts})
            self._work.records_read += len(rows)
            self._new, self._n_new_bytes = {}, 0
        if self._read:
            places = pl.concat([*self._place_frames, pl.DataFrame(self._places, schema=PIECE_SCHEMA, orient="row")])
            self._pieces.add(pl.Series(self._read, dtype=pl.String), places)
            self._read, self._places, self._place_frames = [], [], []


@contextmanager
def _without_collection() -> Iterator[None]:
    """Looks for no circles of objects meanwhile: records are trees, and a batch of them is bounded."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _iter_slices(file: LandedFile, layout: Counter[str]) -> Iterator[Slice]:
    """A file's documents; lines come one at a time, so that memory does not grow with the file.

    Args:
        file: to read.
        layout: takes its blank lines, line ends and marks.

    Raises:
        RolloutFormatError: the file cannot be read any more, or is not the one that was found.
    """
    for remote in file.remotes:
        if not remote.local.is_file():
            remote.fetch()
    try:
        read = yield from iter_documents(file.path, FORMATS[file.format], file.sidecar)
    except OSError as error:
        raise RolloutFormatError(f"{visible_name(str(file.path))}: {why_unlisted(error)}; run again") from error
    layout += read.layout
    if read.sha256s != (file.sha256, file.sidecar_sha256):
        raise RolloutFormatError(
            f"{visible_name(str(file.path))}: changed while it was read; land files by rename, and run again"
        )


def _read_records(
    new: dict[str, tuple[LandedFile, Slice]], redactor: Redactor | None
) -> Iterator[tuple[dict[str, Any], dict[str, str | None]]]:
    """Rows of records, all of one table."""
    documents = list(new.values())
    starts = range(0, len(documents), SEEN_DOCUMENTS)
    looked = (seen for start in starts for seen in look_through(documents[start : start + SEEN_DOCUMENTS], redactor))
    for (key, (file, part)), seen in zip(new.items(), looked, strict=True):
        if seen.plain is not None:
            yield {"record_key": key, "part": 0, "fault": "", **seen.plain[0]}, seen.plain[1]
            continue
        reading, counts, absent = _read_document(file, part, redactor, is_clean=seen.is_clean)
        if file.has_recorded_questions:
            reading = [_asked(rollout) for rollout in reading]
        for number, rollout in enumerate(reading):
            redacted = canonical_json(counts) if counts and number == 0 else None
            document_columns = {"record_key": key, "part": number, "redacted": redacted, "absent": absent}
            if isinstance(rollout, Rollout):
                row, conversation = _row(rollout)
                yield {**document_columns, "fault": "", **row}, conversation
            else:
                yield {**document_columns, "fault": str(rollout)}, {}


def _read_document(
    file: LandedFile, part: Slice, redactor: Redactor | None, *, is_clean: bool = False
) -> tuple[Reading, dict[str, int], str | None]:
    """What a document holds, how many secrets each rule took out of it, and what it lacks of what its source names, as JSON.

    Args:
        file: it is of.
        part: its bytes.
        redactor: takes its secrets out.
        is_clean: whether it was looked through already, and has none.
    """
    counts: dict[str, int] = {}
    document = parse_document(FORMATS[file.format], part.raw or b"", part.place, is_proper=is_clean)
    try:
        if redactor is not None and not is_clean:
            document, counts = redact_document(document, redactor)
    except RecursionError:
        return [RolloutFormatError("nested too deeply")], {}, None
    reading = read_parsed(FORMATS[file.format], file.task, document, file.mapping)
    absent = canonical_json(absent_names(document, reading, file.mapping)) if file.mapping else None
    return reading, counts, absent


def _asked(rollout: Rollout | RolloutFormatError) -> Rollout | RolloutFormatError:
    if not isinstance(rollout, Rollout):
        return rollout
    try:
        return with_recorded_question(rollout)
    except RolloutFormatError as error:
        return error


def _row(rollout: Rollout) -> tuple[dict[str, Any], dict[str, str | None]]:
    turns_json, prompt_json = rollout.turns_json, rollout.prompt_json
    base_key = rollout.base_key_of_texts(turns_json, prompt_json)
    row = {
        "base_key": base_key,
        "rollout_key": digest("rollout", base_key, "0"),
        "question_group": rollout.group,
        **dict(zip(ROW_FIELDS, ROW_VALUES(rollout), strict=True)),
    }
    conversation = {
        "base_key": base_key,
        "conversation": turns_json,
        "tools": rollout.tools,
        "tokenizer": rollout.tokenizer,
        "prompt": prompt_json,
        "extra": rollout.extra,
    }
    return row, conversation
