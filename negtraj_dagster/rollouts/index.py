"""The index of all rollouts: one narrow row each in order of arrival, quarantine and counts. Conversations stay apart."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster.conversations import INDEX_SCHEMA, PIECE_SCHEMA, PLACES_SCHEMA, RECORD_SCHEMA
from negtraj_dagster.errors import StoreError
from negtraj_dagster.printable import visible_name
from negtraj_dagster.rollouts.landing import LandedFile
from negtraj_dagster.rollouts.tombstones import Tombstone, is_refused
from negtraj_dagster.schema import canonical_json, digest
from negtraj_dagster.store import REMEDY, Built, Store, write_text_durably
from negtraj_dagster.tables import RowCache, frame_digest

LOG = logging.getLogger(__name__)
OUTCOME = ("reward", "pred", "gold", "score")
PROVENANCE = ("subject", "session", "licence", "origin_url", "parent")
NOT_IDENTITY = ("ingest_seq", "origin_file", "origin_place")
"""Where a rollout stands and is kept: two homes that hold the same rollouts in the same order have one version."""


EMPTY_FILE: dict[str, Any] = {"n_rollouts": 0, "n_quarantined": 0, "n_unread": 0, "layout": None}
NEVER_LEFT_OUT = ("record_key", "fault", "part")
LATER_COLUMNS = ("score", "parent", "question_group")


def write_index(
    store: Store,
    folder: Path,
    files: Sequence[LandedFile],
    tombstones: Sequence[Tombstone],
    *,
    read_again: Callable[[Sequence[LandedFile]], object],
) -> Built:
    """Write rollouts.parquet (`INDEX_SCHEMA`) and quarantine.jsonl from records that are all read.

    Args:
        store: holds records and pieces.
        folder: where the files go.
        files: in order of arrival.
        tombstones: what stays out.
        read_again: reads files anew whose records are gone from the store (a segment was damaged and set aside).

    Raises:
        StoreError: a file's records are gone and reading it again does not bring them back.
    """
    places, segments, pieces = _whole_places(store, files, read_again)
    bad = places.filter(pl.col("fault") != "")
    rows = _with_occurrences(places.filter(pl.col("fault") == ""))
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
        content={"n_rollouts": index.height, "rows": frame_digest(_identity(index))},
        details={
            "files": _summaries(files, places),
            "n_files": len(files),
            "n_quarantined": bad.height,
            "n_bytes": sum(file.size_bytes for file in files),
            "n_unread_bytes": int(bad["n_unread"].sum()),
            "n_repeated_keys": n_read - rows.height - refused.height,
            "n_label_conflicts": n_conflicts,
            "n_refused_by_tombstones": refused.height,
            "redacted": _count_redacted(places["redacted"]),
            "absent": _absent_everywhere(places, files),
            "quarantine_reasons": dict(reasons.most_common(20)),
            "per_task": _per_task(index),
        },
        volatile=("places.parquet",),
        refers=store.refer([*segments, *pieces]),
    )


def _whole_places(
    store: Store, files: Sequence[LandedFile], read_again: Callable[[Sequence[LandedFile]], object]
) -> tuple[pl.DataFrame, list[Path], list[Path]]:
    """`_placed_records` of all files, after reading those again whose records are gone."""
    placed = _placed_records(store, files)
    names = _lost_files(files, placed[0])
    if not names:
        return placed
    LOG.warning("records of %d files are gone from the store: these files are read again", len(names))
    read_again([file for file in files if file.piece_key in names])
    placed = _placed_records(store, files)
    if names := _lost_files(files, placed[0]):
        file = next(file for file in files if file.piece_key in names)
        raise StoreError(f"records of {visible_name(file.place)} cannot be read again; {REMEDY}")
    return placed


def _identity(index: pl.DataFrame) -> pl.DataFrame:
    """What makes two indexes one; a column that came later counts only where a rollout has something in it."""
    empty = [name for name in LATER_COLUMNS if index[name].null_count() == index.height]
    return index.drop(*NOT_IDENTITY, *empty)


def _count_redacted(counts: pl.Series) -> dict[str, int]:
    """How many secrets each rule took out."""
    total: Counter[str] = Counter()
    for text, n_records in counts.drop_nulls().value_counts().rows():
        total.update({rule: n * n_records for rule, n in json.loads(text).items()})
    return dict(sorted(total.items()))


def _absent_everywhere(places: pl.DataFrame, files: Sequence[LandedFile]) -> list[dict[str, Any]]:
    """By task and format of a source: what it names and no record of any of its files has."""
    mapped = places.filter(pl.col("absent").is_not_null()).select("file", "absent").unique()
    absent_of: dict[tuple[str, str, str], set[str]] = {}
    for number, text in mapped.rows():
        file = files[number]
        names = set(json.loads(text))
        key = (file.task, file.format, file.mapping.identity if file.mapping else "")
        absent_of[key] = absent_of.get(key, names) & names
    return [
        {"task": task, "format": format_, "absent": sorted(names)} for (task, format_, _), names in absent_of.items() if names
    ]


def _lost_files(files: Sequence[LandedFile], placed: pl.DataFrame) -> set[str]:
    """Piece keys of files whose list of records is gone, or one of these records."""
    is_lost = (pl.col("slice_fault") == "") & (pl.col("record_key") != "") & pl.col("segment").is_null()
    present_keys = set(placed["piece_key"])
    return set(placed.filter(is_lost)["piece_key"]) | {file.piece_key for file in files if file.piece_key not in present_keys}


def _placed_records(store: Store, files: Sequence[LandedFile]) -> tuple[pl.DataFrame, list[Path], list[Path]]:
    """Every record of every file at its place, joined with what it was read to; each distinct piece once.

    A file without a record has one row all the same, without a place.
    """
    tables = sorted({file.table for file in files})
    file_rows = pl.DataFrame(
        [(number, file.task, file.place, file.piece_key) for number, file in enumerate(files)],
        schema={"file": pl.Int32, "task": pl.String, "origin_file": pl.String, "piece_key": pl.String},
        orient="row",
    ).unique("piece_key", keep="first", maintain_order=True)
    pieces, piece_segments = _read_pieces(store, tables, file_rows)
    places = pieces.join(file_rows, on="piece_key", how="inner").sort("file", "number")
    places = places.rename({"fault": "slice_fault", "place": "origin_place"})
    read, segments = _read_records(store, tables)
    empty = {name: kind for name, kind in RECORD_SCHEMA.items() if name not in read.columns}
    joined = places.join(read, on="record_key", how="left", maintain_order="left_right")
    joined = joined.with_columns(**{name: pl.lit(None, dtype=kind) for name, kind in empty.items()})
    fault = pl.when(pl.col("slice_fault") != "").then("slice_fault").otherwise("fault")
    segment_names = set(joined["segment"].drop_nulls().unique())
    return joined.with_columns(fault=fault), [path for path in segments if store.name(path) in segment_names], piece_segments


def _read_pieces(store: Store, tables: Sequence[str], named: pl.DataFrame) -> tuple[pl.DataFrame, list[Path]]:
    """Lists of records of the named files, and the segments that hold them."""
    frames, segments = [PIECE_SCHEMA.to_frame()], []
    for table in tables:
        cache = RowCache(store, f"pieces/{table}", "piece_key", PIECE_SCHEMA)
        for segment in cache.segments():
            present = pl.read_parquet(segment / "keys.parquet", glob=False)
            keys = present.join(named, on="piece_key", how="semi")
            if keys.height:
                segments.append(segment)
                rows = cache.rows_of([segment])
                if keys.height < present.height:
                    rows = rows.join(keys, on="piece_key", how="semi", maintain_order="left")
                empty = keys.join(rows, on="piece_key", how="anti")
                frames += [rows, empty.select("piece_key").pipe(_without_records)]
    pieces = pl.concat(frames)
    is_doubled = pl.len() > pl.col("number").n_unique()  # of a file that was read again since its records were gone
    if pieces.group_by("piece_key").agg(is_doubled.alias("is_doubled"))["is_doubled"].any():
        pieces = pieces.unique(("piece_key", "number"), keep="first", maintain_order=True)
    return pieces, segments


def _without_records(keys: pl.DataFrame) -> pl.DataFrame:
    columns = {name: pl.lit(None, dtype=kind) for name, kind in PIECE_SCHEMA.items() if name != "piece_key"}
    return keys.with_columns(**columns).select(PIECE_SCHEMA.names())


def _read_records(store: Store, tables: Sequence[str]) -> tuple[pl.DataFrame, list[Path]]:
    """Everything that was ever read, a row a record (its key tells the table, too), and the segments that hold it.

    Columns in which nobody has anything are left out: there may be a million rows, and a dozen of such columns.
    """
    segments = [folder for table in tables for folder in RowCache(store, table, "record_key", RECORD_SCHEMA).segments()]
    frames = [RECORD_SCHEMA.to_frame().select(*NEVER_LEFT_OUT).with_columns(segment=pl.lit(""))]
    for segment in segments:
        rows = pl.read_parquet(segment / "rows.parquet", glob=False)
        rows = rows.drop(
            [column.name for column in rows if column.null_count() == rows.height and column.name not in NEVER_LEFT_OUT]
        )
        frames.append(rows.with_columns(segment=pl.lit(store.name(segment)), part=_part_of(rows)))
    read = pl.concat(frames, how="diagonal")
    if read["record_key"].n_unique() < read.height:  # a record of several rollouts, or one that two runs have read
        read = read.unique(["record_key", "part"], keep="first", maintain_order=True).sort("record_key", "part")
    return read, segments


def _part_of(rows: pl.DataFrame) -> pl.Expr:
    return pl.col("part").fill_null(0) if "part" in rows.columns else pl.lit(0, dtype=RECORD_SCHEMA["part"])


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
    by_outcome = rows.sort(pl.any_horizontal(pl.col("reward", "score").is_not_null()), maintain_order=True)
    newest = by_outcome.unique("rollout_key", keep="last", maintain_order=True).select("rollout_key", *OUTCOME)
    provenance = rows.group_by("rollout_key").agg(pl.col(name).drop_nulls().last() for name in PROVENANCE)
    joined = first.drop(OUTCOME + PROVENANCE).join(newest, on="rollout_key", how="left", maintain_order="left")
    return joined.join(provenance, on="rollout_key", how="left", maintain_order="left").select(rows.columns)


def _count_conflicts(rows: pl.DataFrame) -> int:
    """Rollouts that some file calls a success and another a failure."""
    rewards = rows.drop_nulls("reward").group_by("rollout_key").agg(pl.col("reward").n_unique())
    return rewards.filter(pl.col("reward") > 1).height


def _write_quarantine(folder: Path, bad: pl.DataFrame) -> None:
    lines = [
        canonical_json({"file": visible_name(file), "place": place, "reason": reason})
        for file, place, reason in bad.select("origin_file", "origin_place", "fault").rows()
    ]
    write_text_durably(folder / "quarantine.jsonl", "".join(f"{line}\n" for line in lines))


def _summaries(files: Sequence[LandedFile], placed: pl.DataFrame) -> list[dict[str, Any]]:
    counts = placed.group_by("file").agg(
        n_quarantined=(pl.col("fault") != "").sum(),
        n_rollouts=(pl.col("fault") == "").sum(),
        n_unread=pl.col("n_unread").filter(pl.col("fault") != "").sum(),
        layout=pl.col("layout").drop_nulls().first(),
    )
    by_number = {row["file"]: row for row in counts.iter_rows(named=True)}
    by_piece: dict[str, dict[str, Any]] = {}
    summaries = []
    for number, file in enumerate(files):
        row = by_piece.setdefault(file.piece_key, by_number.get(number, dict(EMPTY_FILE)))
        summaries.append(
            {
                "file": file.place,
                "task": file.task,
                "format": file.format,
                "sha256": file.sha256,
                "size_bytes": file.size_bytes,
                "n_rollouts": row["n_rollouts"],
                "n_quarantined": row["n_quarantined"],
                "n_unread_bytes": row["n_unread"],
                **({} if file.confidence is None else {"confidence": file.confidence}),
                **json.loads(row["layout"] or "{}"),
            }
        )
    return summaries


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
