"""The index of all rollouts: one narrow row each in order of arrival, quarantine and counts. Conversations stay apart."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
PLACE_COLUMNS = ("number", "n_unread", "layout", "fault", "redacted", "absent")
"""What is said of a record's place and reading, and is no part of the index."""
REPEATED = ("fault", "source", "teacher", "segment")
"""Columns with few texts in many rows: each is held once while rows are put together."""
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
    details = _describe_places(files, places)
    _write_quarantine(folder, files, places.filter(pl.col("fault") != ""))
    good = places.filter(pl.col("fault") == "").drop(PLACE_COLUMNS)
    del places  # of a million rows every column that lives on costs tens of megabytes
    rows, counts = _distinct_rollouts(good, tombstones)
    del good
    rows.select(PLACES_SCHEMA.names()).unique().cast(PLACES_SCHEMA).sort("base_key").write_parquet(folder / "places.parquet")  # type: ignore[arg-type]
    index = _as_index(rows.drop("segment"), files)
    del rows
    index.write_parquet(folder / "rollouts.parquet")
    return Built(
        content={"n_rollouts": index.height, "rows": frame_digest(_identity(index))},
        details={**details, **counts, "per_task": _per_task(index)},
        volatile=("places.parquet",),
        refers=store.refer([*segments, *pieces]),
    )


def _describe_places(files: Sequence[LandedFile], places: pl.DataFrame) -> dict[str, Any]:
    bad = places.filter(pl.col("fault") != "").select("fault", "n_unread")
    return {
        "files": _summaries(files, places),
        "n_files": len(files),
        "n_quarantined": bad.height,
        "n_bytes": sum(file.size_bytes for file in files),
        "n_unread_bytes": int(bad["n_unread"].sum()),
        "redacted": _count_redacted(places["redacted"]),
        "absent": _absent_everywhere(places, files),
        "quarantine_reasons": dict(Counter(bad["fault"].to_list()).most_common(20)),
    }


def _distinct_rollouts(rows: pl.DataFrame, tombstones: Sequence[Tombstone]) -> tuple[pl.DataFrame, dict[str, int]]:
    """Each rollout once, in order of arrival, without those that tombstones refuse; and how many were left out why."""
    n_places, n_conflicts, n_refused = rows.height, 0, 0
    if rows["base_key"].n_unique() == rows.height:
        rows = rows.with_columns(occurrence=pl.lit(0, dtype=pl.Int32))
        forgotten = _forgotten(rows, tombstones)
    else:
        rows = _with_occurrences(rows)
        forgotten = _forgotten(rows, tombstones)
        if rows["rollout_key"].n_unique() < rows.height:
            n_conflicts, rows = _count_conflicts(rows), _one_row_a_key(rows)
    n_distinct = rows.height
    if tombstones:
        rows = rows.filter(~(pl.col("base_key").is_in(forgotten.implode()) | is_refused(tombstones)))
        n_refused = n_distinct - rows.height
    counts = {
        "n_repeated_keys": n_places - n_distinct,
        "n_label_conflicts": n_conflicts,
        "n_refused_by_tombstones": n_refused,
    }
    return rows, counts


def _forgotten(rows: pl.DataFrame, tombstones: Sequence[Tombstone]) -> pl.Series:
    """Base keys that a tombstone refuses: one copy that names the subject is enough, and the key of a twin is one, too."""
    return rows.filter(is_refused(tombstones))["base_key"].unique()


def _as_index(rows: pl.DataFrame, files: Sequence[LandedFile]) -> pl.DataFrame:
    """One row a rollout, numbered in order of arrival, with its task and its file's name."""
    names = {"task": {number: file.task for number, file in enumerate(files)}}
    names["origin_file"] = {number: file.place for number, file in enumerate(files)}
    of_file = {name: pl.col("file").replace_strict(known, return_dtype=pl.String) for name, known in names.items()}
    index = rows.with_row_index("ingest_seq").with_columns(**of_file)
    return index.select(INDEX_SCHEMA.names()).cast(INDEX_SCHEMA)  # type: ignore[arg-type]


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
    with_lost = placed.filter(pl.col("number").is_not_null() & pl.col("fault").is_null())["file"].unique()
    present_keys = {files[number].piece_key for number in placed["file"].unique()}
    return {files[number].piece_key for number in with_lost} | {file.piece_key for file in files} - present_keys


def _placed_records(store: Store, files: Sequence[LandedFile]) -> tuple[pl.DataFrame, list[Path], list[Path]]:
    """Every record of every file at its place, with what it was read to; each distinct piece once. `file` counts `files`.

    A file without a record has one row all the same, without a place. What is gone from the store has no `fault`, not even "".
    """
    tables = sorted({file.table for file in files})
    number_of: dict[str, int] = {}
    for number, file in enumerate(files):
        number_of.setdefault(file.piece_key, number)
    places, piece_segments = _read_places(store, tables, number_of)
    read, segments = _read_records(store, tables)
    matched = _matched(places["record_id"], read["record_id"])
    places, read = places.drop("record_id"), read.drop("record_id")
    if matched.height > places.height:  # documents of several rollouts
        places = places[matched["place"]]
    placed = places.hstack(read[matched["read"]])
    del places, read, matched
    empty = {name: pl.lit(None, dtype=kind) for name, kind in RECORD_SCHEMA.items() if name not in placed.columns}
    fault = pl.when(pl.col("slice_fault") != "").then("slice_fault").otherwise("fault")
    placed = placed.with_columns(**empty, fault=fault).drop("slice_fault")
    segment_names = set(placed["segment"].drop_nulls().unique())
    return placed, [path for path in segments if store.name(path) in segment_names], piece_segments


def _matched(wanted: pl.Series, present: pl.Series) -> pl.DataFrame:
    """Row numbers of a left join by ids, in the order of both: `place` of the wanted, `read` of the present or null.

    A join of whole ids holds them all once more in its hash table; their first eight bytes tell a million of them apart.
    """
    beginning = pl.col("id").bin.slice(0, 8).bin.reinterpret(dtype=pl.UInt64)
    left = pl.DataFrame({"id": wanted}).with_row_index("place").with_columns(beginning=beginning)
    right = pl.DataFrame({"id": present}).with_row_index("read").with_columns(beginning=beginning)
    matched = left.join(right, on="beginning", how="left", maintain_order="left_right")
    if matched.select((pl.col("id") != pl.col("id_right")).any()).item():
        matched = left.join(right, on="id", how="left", maintain_order="left_right")
    return matched.select("place", "read")


def _read_places(store: Store, tables: Sequence[str], number_of: Mapping[str, int]) -> tuple[pl.DataFrame, list[Path]]:
    """Lists of records of the files of these piece keys, by file and number, and the segments that hold them.

    A file without a record has one row, of nulls.
    """
    no_rows = PIECE_SCHEMA.to_frame().drop("piece_key", "record_key")
    no_rows = no_rows.with_columns(file=pl.lit(0, dtype=pl.Int32), record_id=pl.lit(b"", dtype=pl.Binary))
    frames = [no_rows.cast({"fault": pl.Categorical})]
    segments = []
    for table in tables:
        cache = RowCache(store, f"pieces/{table}", "piece_key", PIECE_SCHEMA)
        for segment in cache.segments():
            keys = set(pl.read_parquet(segment / "keys.parquet", glob=False)["piece_key"]) & number_of.keys()
            if keys:
                segments.append(segment)
                of_segment = _places_of_segment(segment, number_of)
                empty = {number_of[key] for key in keys}.difference(of_segment["file"].unique())
                frames += [of_segment, pl.DataFrame({"file": sorted(empty)}, schema={"file": pl.Int32})]
    places = pl.concat(frames, how="diagonal").rename({"fault": "slice_fault", "place": "origin_place"})
    place = pl.col("file").cast(pl.Int64) * 2**32 + pl.col("number").fill_null(0)
    if not places.select(place).to_series().is_sorted():
        places = places.sort(place, maintain_order=True)
    if places.select((place.diff() == 0).any()).item():  # a file was read again since its records were gone
        places = places.unique(("file", "number"), keep="first", maintain_order=True)
    return places, segments


def _places_of_segment(segment: Path, number_of: Mapping[str, int]) -> pl.DataFrame:
    """Rows of `PIECE_SCHEMA` by the number of their file, records by the bytes of their key; other files' are left out."""
    path = segment / "rows.parquet"
    file = pl.col("piece_key").replace_strict(number_of, default=None, return_dtype=pl.Int32)
    keys = pl.read_parquet(path, columns=["piece_key", "record_key"], glob=False).select(file=file, record_id=_record_id())
    columns = pl.read_parquet(path, n_rows=0, glob=False).columns
    present = [name for name in columns if name not in ("piece_key", "record_key")]
    places = keys.hstack(pl.read_parquet(path, columns=present, glob=False)).cast({"fault": pl.Categorical})
    return places.filter(pl.col("file").is_not_null()) if keys["file"].null_count() else places


def _record_id() -> pl.Expr:
    """A record's key as 32 bytes: half of its digits' memory, for every record that there is; null where there is no key."""
    return pl.col("record_key").replace("", None).str.decode("hex")


def _read_records(store: Store, tables: Sequence[str]) -> tuple[pl.DataFrame, list[Path]]:
    """Everything that was ever read, a row a record (its key tells the table, too), and the segments that hold it.

    Columns in which nobody has anything are left out: there may be a million rows, and a dozen of such columns.
    """
    segments = [folder for table in tables for folder in RowCache(store, table, "record_key", RECORD_SCHEMA).segments()]
    no_rows = RECORD_SCHEMA.to_frame().select(*NEVER_LEFT_OUT)
    no_rows = no_rows.with_columns(segment=pl.lit(""), record_id=_record_id()).drop("record_key")
    frames = [no_rows.cast(dict.fromkeys(("fault", "segment"), pl.Categorical))]
    for segment in segments:
        rows = pl.read_parquet(segment / "rows.parquet", glob=False)
        rows = rows.drop(
            [column.name for column in rows if column.null_count() == rows.height and column.name not in NEVER_LEFT_OUT]
        )
        placed = rows.with_columns(segment=pl.lit(store.name(segment)), part=_part_of(rows), record_id=_record_id())
        frames.append(placed.drop("record_key").cast({name: pl.Categorical for name in REPEATED if name in placed.columns}))
    read = pl.concat(frames, how="diagonal")
    if read["record_id"].n_unique() < read.height:  # a record of several rollouts, or one that two runs have read
        read = read.unique(["record_id", "part"], keep="first", maintain_order=True).sort("record_id", "part")
    return read.drop("part"), segments


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


def _write_quarantine(folder: Path, files: Sequence[LandedFile], bad: pl.DataFrame) -> None:
    lines = [
        canonical_json({"file": visible_name(files[number].place), "place": place, "reason": reason})
        for number, place, reason in bad.select("file", "origin_place", "fault").rows()
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
