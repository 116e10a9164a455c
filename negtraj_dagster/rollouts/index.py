"""The index of all rollouts: one narrow row each in order of arrival, quarantine and counts. Conversations stay apart."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster.conversations import INDEX_SCHEMA, PIECE_SCHEMA, PLACES_SCHEMA, RECORD_SCHEMA
from negtraj_dagster.errors import StoreError
from negtraj_dagster.rollouts.landing import LandedFile
from negtraj_dagster.rollouts.tombstones import Tombstone, is_refused
from negtraj_dagster.schema import canonical_json, digest
from negtraj_dagster.store import REMEDY, Built, Store, write_text_durably
from negtraj_dagster.tables import RowCache, frame_digest

LOG = logging.getLogger(__name__)
OUTCOME = ("reward", "pred", "gold")
PROVENANCE = ("subject", "session", "licence", "origin_url")
NOT_IDENTITY = ("ingest_seq", "origin_file", "origin_place")
"""Where a rollout stands and is kept: two homes that hold the same rollouts in the same order have one version."""


def write_index(
    store: Store,
    folder: Path,
    files: Sequence[LandedFile],
    ignored: Sequence[dict[str, str]],
    tombstones: Sequence[Tombstone],
    *,
    read_again: Callable[[Sequence[LandedFile]], object],
) -> Built:
    """Write rollouts.parquet (`INDEX_SCHEMA`) and quarantine.jsonl from records that are all read.

    Args:
        store: holds records and pieces.
        folder: where the files go.
        files: in order of arrival.
        ignored: files passed over, with the reason.
        tombstones: what stays out.
        read_again: reads files anew whose records are gone from the store (a segment was damaged and set aside).

    Raises:
        StoreError: a file's records are gone and reading it again does not bring them back.
    """
    placed, segments, pieces = _placed_records(store, files)
    if (lost := _lost(placed)).height:
        names = set(lost["origin_file"])
        LOG.warning("%d records of %d files are gone from the store: their files are read again", lost.height, len(names))
        read_again([file for file in files if file.place in names])
        placed, segments, pieces = _placed_records(store, files)
        if (lost := _lost(placed)).height:
            raise StoreError(f"{lost.height} records of {lost['origin_file'][0]} cannot be read again; {REMEDY}")
    bad = placed.filter(pl.col("fault") != "")
    rows = _with_occurrences(placed.filter(pl.col("fault") == ""))
    forgotten = rows.filter(is_refused(tombstones))["base_key"].unique()  # one copy that names the subject is enough
    n_read, n_conflicts = rows.height, 0  # occurrences are numbered: a file has each key once
    if rows["rollout_key"].n_unique() < rows.height:
        n_conflicts, rows = _count_conflicts(rows), _one_row_a_key(rows)
    is_forgotten = pl.col("base_key").is_in(forgotten.implode()) | is_refused(tombstones)  # the key of a twin, too
    refused = rows.filter(is_forgotten)
    rows = rows.filter(~is_forgotten).with_row_index("ingest_seq")
    index = rows.select(INDEX_SCHEMA.names()).cast(INDEX_SCHEMA).rechunk()  # type: ignore[arg-type]
    index.write_parquet(folder / "rollouts.parquet")
    rows.select(PLACES_SCHEMA.names()).unique().sort("base_key").write_parquet(folder / "places.parquet")
    _write_quarantine(folder, bad)
    reasons = Counter(bad["fault"].to_list())
    return Built(
        content={"n_rollouts": index.height, "rows": frame_digest(index.drop(NOT_IDENTITY))},
        details={
            "files": _summaries(files, placed),
            "ignored": list(ignored),
            "n_files": len(files),
            "n_quarantined": bad.height,
            "n_repeated_keys": n_read - rows.height - refused.height,
            "n_label_conflicts": n_conflicts,
            "n_refused_by_tombstones": refused.height,
            "quarantine_reasons": dict(reasons.most_common(20)),
            "per_task": _per_task(index),
        },
        volatile=("places.parquet",),
        refers=store.refer([*segments, *pieces]),
    )


def _lost(placed: pl.DataFrame) -> pl.DataFrame:
    """Places whose record no segment holds."""
    return placed.filter((pl.col("slice_fault") == "") & pl.col("segment").is_null())


def _placed_records(store: Store, files: Sequence[LandedFile]) -> tuple[pl.DataFrame, list[Path], list[Path]]:
    """Every record of every file at its place, joined with what it was read to; each distinct piece once."""
    pieces: dict[str, Path] = {}
    frames = [PIECE_SCHEMA.to_frame().with_columns(file=pl.lit(0, dtype=pl.Int32))]
    for number, file in enumerate(files):
        if file.piece_key not in pieces:
            pieces[file.piece_key] = store.folder(f"segments/pieces/{file.table}/{file.piece_key}")
            records = pl.read_parquet(store.file(pieces[file.piece_key], "records.parquet"), glob=False)
            frames.append(records.with_columns(file=pl.lit(number, dtype=pl.Int32)))
    named = pl.DataFrame(
        [(number, file.task, file.place) for number, file in enumerate(files)],
        schema={"file": pl.Int32, "task": pl.String, "origin_file": pl.String},
        orient="row",
    )
    placed = pl.concat(frames).rename({"fault": "slice_fault", "place": "origin_place"})
    placed = placed.join(named, on="file", how="left", maintain_order="left")
    read, segments = _read_records(store, sorted({file.table for file in files}))
    joined = placed.join(read, on="record_key", how="left", maintain_order="left")
    fault = pl.when(pl.col("slice_fault") != "").then("slice_fault").otherwise("fault")
    used = set(joined["segment"].drop_nulls().unique())
    return joined.with_columns(fault=fault), [path for path in segments if store.name(path) in used], list(pieces.values())


def _read_records(store: Store, tables: Sequence[str]) -> tuple[pl.DataFrame, list[Path]]:
    """Everything that was ever read, a row a record (its key tells the table, too), and the segments that hold it."""
    segments = [each for table in tables for each in RowCache(store, table, "record_key", RECORD_SCHEMA).segments()]
    frames = [RECORD_SCHEMA.to_frame().with_columns(segment=pl.lit(""))]
    for segment in segments:
        rows = pl.read_parquet(segment / "rows.parquet", glob=False)
        frames.append(rows.with_columns(segment=pl.lit(store.name(segment))))
    return pl.concat(frames).unique("record_key", keep="first", maintain_order=True), segments


def _with_occurrences(rows: pl.DataFrame) -> pl.DataFrame:
    """Number equal conversations within a file, and key each: the same file twice adds nothing, twins in one file stay two."""
    if not rows.select(pl.struct("file", "base_key").is_duplicated().any()).item():
        return rows.with_columns(occurrence=pl.lit(0, dtype=pl.Int32))
    numbered = rows.with_columns(occurrence=pl.int_range(pl.len(), dtype=pl.Int32).over("file", "base_key"))
    twins = numbered.filter(pl.col("occurrence") > 0).select("base_key", "occurrence").unique()
    keys = [digest("rollout", base_key, str(occurrence)) for base_key, occurrence in twins.rows()]
    twins = twins.with_columns(pl.Series("twin_key", keys, dtype=pl.String))
    return (
        numbered.join(twins, on=["base_key", "occurrence"], how="left", maintain_order="left")
        .with_columns(rollout_key=pl.coalesce("twin_key", "rollout_key"))
        .drop("twin_key")
    )


def _one_row_a_key(rows: pl.DataFrame) -> pl.DataFrame:
    """Each rollout at its first place, with the outcome and the provenance that the newest file gives that gives any."""
    first = rows.unique("rollout_key", keep="first", maintain_order=True)
    by_outcome = rows.sort(pl.col("reward").is_not_null(), maintain_order=True)
    newest = by_outcome.unique("rollout_key", keep="last", maintain_order=True).select("rollout_key", *OUTCOME)
    told = rows.group_by("rollout_key").agg(pl.col(name).drop_nulls().last() for name in PROVENANCE)
    joined = first.drop(OUTCOME + PROVENANCE).join(newest, on="rollout_key", how="left", maintain_order="left")
    return joined.join(told, on="rollout_key", how="left", maintain_order="left").select(rows.columns)


def _count_conflicts(rows: pl.DataFrame) -> int:
    """Rollouts that some file calls a success and another a failure."""
    known = rows.drop_nulls("reward").group_by("rollout_key").agg(pl.col("reward").n_unique())
    return known.filter(pl.col("reward") > 1).height


def _write_quarantine(folder: Path, bad: pl.DataFrame) -> None:
    lines = [
        canonical_json({"file": file, "place": place, "reason": reason})
        for file, place, reason in bad.select("origin_file", "origin_place", "fault").rows()
    ]
    write_text_durably(folder / "quarantine.jsonl", "".join(f"{line}\n" for line in lines))


def _summaries(files: Sequence[LandedFile], placed: pl.DataFrame) -> list[dict[str, Any]]:
    counts = placed.group_by("file").agg(n_quarantined=(pl.col("fault") != "").sum(), n_rollouts=(pl.col("fault") == "").sum())
    by_number = {row["file"]: row for row in counts.iter_rows(named=True)}
    by_piece: dict[str, dict[str, Any]] = {}
    made = []
    for number, file in enumerate(files):
        row = by_piece.setdefault(file.piece_key, by_number.get(number, {"n_rollouts": 0, "n_quarantined": 0}))
        made.append(
            {
                "file": file.place,
                "task": file.task,
                "format": file.format,
                "sha256": file.sha256,
                "size_bytes": file.size_bytes,
                "n_rollouts": row["n_rollouts"],
                "n_quarantined": row["n_quarantined"],
            }
        )
    return made


def _per_task(rows: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "n_rollouts": group.height,
            "n_reward_true": int(group["reward"].sum() or 0),
            "n_reward_false": int((~group["reward"]).sum() or 0),
            "n_reward_missing": group["reward"].null_count(),
        }
        for (task,), group in sorted(rows.group_by(["task"]), key=lambda pair: str(pair[0]))
    ]
