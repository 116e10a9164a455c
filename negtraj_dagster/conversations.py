"""The columns of rollouts on disk, and how a stage gets at conversations: only those it needs, by key.

The index of all rollouts is narrow and rewritten whenever something lands; conversations lie in append-only segments
beside the records they were read from, and are never copied.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from negtraj_dagster.errors import StoreError
from negtraj_dagster.store import REMEDY, Published, Store

RECORD_SCHEMA = pl.Schema(
    {
        "record_key": pl.String,
        "part": pl.Int32,
        "redacted": pl.String,
        "absent": pl.String,
        "fault": pl.String,
        "base_key": pl.String,
        "rollout_key": pl.String,
        "question_id": pl.String,
        "source": pl.String,
        "teacher": pl.String,
        "reward": pl.Boolean,
        "pred": pl.String,
        "gold": pl.String,
        "subject": pl.String,
        "session": pl.String,
        "licence": pl.String,
        "origin_url": pl.String,
        "score": pl.Float64,
        "parent": pl.String,
        "question_group": pl.String,
    }
)
"""What a document (a record, or a file) was read to: a row for each `part`, or a `fault` and nothing else. Older rows have no
`part`: they are their record's only one. `redacted` is JSON text of how many secrets each rule took out of the document,
`absent` of the columns and keys that its source names and it has not.
`rollout_key` is that of its first occurrence."""

PIECE_SCHEMA = pl.Schema(
    {
        "piece_key": pl.String,
        "number": pl.Int32,
        "record_key": pl.String,
        "place": pl.String,
        "fault": pl.String,
        "n_unread": pl.Int64,
        "layout": pl.String,
    }
)
"""Which records a file holds, by their `number`; `fault` where there was none to be had at that place, and then no key.
`n_unread` counts the file's bytes that stand there, and are lost where it is refused. `layout` is JSON text of the
file's blank lines, line ends and marks, at its first record; older rows have none."""

CONVERSATION_SCHEMA = pl.Schema(dict.fromkeys(("base_key", "conversation", "tools", "tokenizer", "prompt", "extra"), pl.String))
"""`conversation` and `prompt` are canonical JSON text of turns; all but the key and the conversation is null where the rollout
has none, and in older segments, which lack the column."""

INDEX_SCHEMA = pl.Schema(
    {
        "ingest_seq": pl.UInt32,
        "rollout_key": pl.String,
        "task": pl.String,
        "question_id": pl.String,
        "source": pl.String,
        "teacher": pl.String,
        "occurrence": pl.Int32,
        "reward": pl.Boolean,
        "pred": pl.String,
        "gold": pl.String,
        "subject": pl.String,
        "session": pl.String,
        "licence": pl.String,
        "origin_url": pl.String,
        "base_key": pl.String,
        "origin_file": pl.String,
        "origin_place": pl.String,
        "score": pl.Float64,
        "parent": pl.String,
        "question_group": pl.String,
    }
)
"""One rollout of `raw_rollouts`. `base_key` finds its conversation; `origin_place` says `line 3` of `origin_file`."""

PLACES_SCHEMA = pl.Schema({"base_key": pl.String, "segment": pl.String})
"""In which segment a conversation lies; depends on how the rollouts arrived, so it is no part of any version."""

BATCH_ROWS = 512
"""Rows of a segment that are decoded at a time."""


def read_index(store: Store, raw: Published, *, without: Collection[str] = ()) -> pl.DataFrame:
    """All rollouts of `raw_rollouts`, one narrow row each (`INDEX_SCHEMA`); a column that came later is null in older ones.

    Args:
        store: holds it.
        raw: the present `raw_rollouts`.
        without: columns that are not read.
    """
    path = store.file(raw.folder, "rollouts.parquet")
    names = [name for name in INDEX_SCHEMA.names() if name not in without]
    present = [name for name in pq.read_schema(path).names if name in names]
    index = pl.read_parquet(path, columns=present, glob=False)
    return pl.concat([INDEX_SCHEMA.to_frame().select(names), index], how="diagonal").select(names)


def read_places(store: Store, raw: Published) -> pl.DataFrame:
    """In which segment each conversation lies (`PLACES_SCHEMA`, the segments' names as categories)."""
    places = pl.read_parquet(store.file(raw.folder, "places.parquet"), glob=False)
    return places.with_columns(pl.col("segment").cast(pl.Categorical))


def read_conversations(store: Store, raw: Published, base_keys: pl.Series, places: pl.DataFrame | None = None) -> pl.DataFrame:
    """The conversations of some rollouts (`CONVERSATION_SCHEMA`), from the segments that hold them.

    Args:
        store: holds the segments.
        raw: the present `raw_rollouts`.
        base_keys: whose.
        places: what `read_places` gives, where a stage asks many times.

    Raises:
        StoreError: one is gone or damaged.
    """
    base_key_rows = pl.DataFrame({"base_key": base_keys.unique()})
    all_places = read_places(store, raw) if places is None else places
    asked = all_places.join(base_key_rows, on="base_key", how="semi").cast({"segment": pl.String})
    frames = [CONVERSATION_SCHEMA.to_frame()]
    for (segment,), segment_places in sorted(asked.group_by("segment"), key=lambda pair: str(pair[0])):
        path = store.file(store.folder(str(segment)), "conversations.parquet")
        frames.append(pl.read_parquet(path, glob=False).join(segment_places, on="base_key", how="semi"))
    rows = pl.concat(frames, how="diagonal")
    rows = rows.unique("base_key", keep="first", maintain_order=True).select(CONVERSATION_SCHEMA.names())
    if (absent := base_key_rows.join(rows, on="base_key", how="anti")).height:
        raise StoreError(f"{absent.height} conversations are gone from the store, e.g. {absent['base_key'][0]}; {REMEDY}")
    return rows


def iter_conversations(store: Store, raw: Published, base_keys: pl.Series, *, max_bytes: int) -> Iterator[pl.DataFrame]:
    """The conversations of some rollouts, a frame (`CONVERSATION_SCHEMA`) at a time, so that memory is bounded.

    Args:
        store: holds the segments.
        raw: the present `raw_rollouts`.
        base_keys: whose; each comes once.
        max_bytes: of conversation text in a frame; one that is longer comes alone.

    Raises:
        StoreError: one is gone or damaged.
    """
    base_key_rows = pl.DataFrame({"base_key": base_keys.unique()})
    places = pl.read_parquet(store.file(raw.folder, "places.parquet"), glob=False).join(
        base_key_rows, on="base_key", how="semi"
    )
    first_places = places.unique("base_key", keep="first").sort("segment", "base_key")
    held: list[pl.DataFrame] = []
    n_bytes = n_found = 0
    for (segment,), segment_places in first_places.group_by("segment", maintain_order=True):
        path = store.file(store.folder(str(segment)), "conversations.parquet")
        for batch in _batches(path, segment_places):
            for part in _split(batch, max_bytes):
                size = _n_bytes(part)
                if held and n_bytes + size > max_bytes:
                    yield pl.concat(held, how="diagonal").select(CONVERSATION_SCHEMA.names())
                    held, n_bytes = [], 0
                held.append(pl.concat([CONVERSATION_SCHEMA.to_frame(), part], how="diagonal"))
                n_bytes, n_found = n_bytes + size, n_found + part.height
    if held:
        yield pl.concat(held, how="diagonal").select(CONVERSATION_SCHEMA.names())
    if n_found < base_key_rows.height:
        raise StoreError(f"{base_key_rows.height - n_found} conversations are gone from the store; {REMEDY}")


def _batches(path: Path, wanted: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The wanted rows of a Parquet file, each once, without holding all of the file."""
    remaining = wanted.select("base_key")
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            rows = (
                pl.DataFrame(batch)
                .join(remaining, on="base_key", how="semi")
                .unique("base_key", keep="first", maintain_order=True)
            )
            if rows.height:
                remaining = remaining.join(rows, on="base_key", how="anti")
                yield rows


def _n_bytes(rows: pl.DataFrame) -> int:
    return int(rows["conversation"].str.len_bytes().sum() or 0)


def _split(rows: pl.DataFrame, max_bytes: int) -> Iterator[pl.DataFrame]:
    """The rows in halves until a part is small enough, or a single row."""
    if rows.height == 1 or _n_bytes(rows) <= max_bytes:
        yield rows
        return
    half = rows.height // 2
    yield from _split(rows[:half], max_bytes)
    yield from _split(rows[half:], max_bytes)
