"""Reads landed files into typed rows: one content-addressed piece per file (rows and quarantine), then one list of rows.

Which files exist is asked of the landing folder by content: a renamed file is the same file. Judging is not done here.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster.errors import RolloutFormatError, SettingsError
from negtraj_dagster.rollouts.formats import FORMAT_VERSIONS, FORMATS
from negtraj_dagster.rollouts.records import iter_records
from negtraj_dagster.schema import Rollout, canonical_json, digest
from negtraj_dagster.settings import Settings, did_you_mean
from negtraj_dagster.store import Built, Published, Store, file_sha256, read_json_lines, write_text_durably
from negtraj_dagster.tasks import TASKS

READER_VERSION = 1
SUFFIXES = (".json", ".jsonl")
ROLLOUT_SCHEMA = pl.Schema(
    {
        "rollout_key": pl.String,
        "task": pl.String,
        "question_id": pl.String,
        "source": pl.String,
        "teacher": pl.String,
        "occurrence": pl.Int32,
        "reward": pl.Boolean,
        "pred": pl.String,
        "gold": pl.String,
        "conversation": pl.String,
        "subject": pl.String,
        "session": pl.String,
        "licence": pl.String,
        "origin_url": pl.String,
        "origin_place": pl.String,
    }
)
"""`schema.ROLLOUT_COLUMNS` as polars types. `conversation` is canonical JSON text of the turns."""


@dataclass(frozen=True)
class LandedFile:
    """A file to read, by content. `name` is its path inside its source folder."""

    task: str
    format: str
    path: Path
    name: str
    sha256: str
    size_bytes: int

    @property
    def piece_key(self) -> str:
        """Identity of what reading this file gives: its bytes, its task, and the reader's and format's versions."""
        versions = f"{READER_VERSION}.{FORMAT_VERSIONS[self.format]}"
        return digest("rollouts", self.task, self.format, versions, self.sha256)


def find_landed_files(settings: Settings) -> tuple[list[LandedFile], list[dict[str, str]]]:
    """All files to read, in a fixed order, and those passed over with the reason.

    Raises:
        SettingsError: a landing folder whose task or format is unknown.
    """
    files: list[LandedFile] = []
    ignored: list[dict[str, str]] = []
    for task, format_name, root, pattern in _folders(settings):
        for path in sorted(path for path in root.glob(pattern) if path.is_file()):
            if path.suffix not in SUFFIXES or path.name.startswith("."):
                ignored.append(
                    {"path": path.relative_to(root).as_posix(), "reason": f"not a visible {' or '.join(SUFFIXES)} file"}
                )
                continue
            name = path.relative_to(root).as_posix()
            files.append(LandedFile(task, format_name, path, name, file_sha256(path), path.stat().st_size))
    return files, ignored


def _folders(settings: Settings) -> Iterator[tuple[str, str, Path, str]]:
    for folder in sorted(settings.landing.glob("*/*")):
        if folder.is_dir() and not folder.name.startswith("."):
            yield (*_known(folder.parent.name, folder.name, str(folder)), folder, "**/*")
    loose = (*settings.landing.glob("[!.]*"), *settings.landing.glob("*/[!.]*"))
    if stray := sorted(path for path in loose if path.is_file()):
        raise SettingsError(f"{stray[0]}: files belong in {settings.landing}/<task>/<format>/; move it there")
    if settings.nat_dir is not None:
        yield "strategyqa", "nat", settings.nat_dir / "strategyqa", "*_positive.json"
        yield "strategyqa", "nat", settings.nat_dir / "strategyqa", "*_negative.json"
    for name, source in sorted(settings.sources.items()):
        if not source.path.is_dir():
            raise SettingsError(f"[sources.{name}] path = {source.path}: no such folder")
        yield (*_known(source.task, source.format, f"[sources.{name}]"), source.path, source.pattern)


def _known(task: str, format_name: str, place: str) -> tuple[str, str]:
    if task not in TASKS:
        raise SettingsError(f"{place}: unknown task {task!r}{did_you_mean(task, TASKS)}")
    if format_name not in FORMATS:
        raise SettingsError(f"{place}: unknown rollout format {format_name!r}{did_you_mean(format_name, FORMATS)}")
    return task, format_name


def read_landed_files(store: Store, settings: Settings) -> Published:
    """Bring every landed file in, reading only files whose bytes were not read before.

    Raises:
        SettingsError: see `find_landed_files`.
    """
    files, ignored = find_landed_files(settings)
    files = _in_order_of_arrival(files, store.current("raw_rollouts"))
    by_piece = {file.piece_key: file for file in reversed(files)}
    unique = [file for file in files if by_piece[file.piece_key] is file]
    names = [[file.task, file.name, file.piece_key] for file in files]
    key = digest("raw_rollouts", canonical_json(names), canonical_json(ignored))
    return store.build("raw_rollouts", key, lambda folder: _assemble(store, folder, unique, files, ignored))


def _in_order_of_arrival(files: list[LandedFile], previous: Published | None) -> list[LandedFile]:
    """Files of the last run first, in its order; a renamed or edited file keeps its place; new ones follow by name.

    Limits and duplicates go by this order, so what lands later never pushes out what was chosen before.
    """
    earlier = previous.details["files"] if previous else []
    by_piece = {entry["piece"]: place for place, entry in reversed(list(enumerate(earlier)))}
    by_name = {(entry["task"], entry["format"], entry["name"]): place for place, entry in enumerate(earlier)}

    def place(file: LandedFile) -> int:
        known = by_piece.get(file.piece_key, by_name.get((file.task, file.format, file.name)))
        return len(earlier) if known is None else known

    return sorted(files, key=place)


def _assemble(
    store: Store, folder: Path, unique: list[LandedFile], files: list[LandedFile], ignored: list[dict[str, str]]
) -> Built:
    known = {path.name for path in store.segments("rollouts")}
    n_records = 0
    for file in unique:
        if file.piece_key not in known:
            n_records += _read_file(store, file)
    pieces = [store.home / "segments" / "rollouts" / file.piece_key for file in unique]
    rows = pl.concat(
        [pl.read_parquet(piece / "rollouts.parquet", glob=False) for piece in pieces] or [ROLLOUT_SCHEMA.to_frame()]
    )
    n_read, n_conflicts = rows.height, _count_conflicts(rows)
    rows = _one_row_a_key(rows).with_row_index("ingest_seq")
    rows.write_parquet(folder / "rollouts.parquet")
    quarantine = [
        {"file": file.name, **row}
        for file, piece in zip(unique, pieces, strict=True)
        for row in read_json_lines(piece / "quarantine.jsonl")
    ]
    write_text_durably(folder / "quarantine.jsonl", "".join(f"{canonical_json(row)}\n" for row in quarantine))
    summaries = [_summary(store, file) for file in files]
    reasons = Counter(row["reason"] for row in quarantine)
    identity = rows.drop("ingest_seq", "origin_place", "conversation").rows()  # the key covers the conversation
    return Built(
        content={"n_rollouts": rows.height, "rows": digest(*(canonical_json(row) for row in identity))},
        details={
            "files": summaries,
            "ignored": ignored,
            "n_files": len(files),
            "n_quarantined": len(quarantine),
            "n_repeated_keys": n_read - rows.height,
            "n_label_conflicts": n_conflicts,
            "quarantine_reasons": dict(reasons.most_common(20)),
            "per_task": _per_task(rows),
        },
        work={"files_read": sum(file.piece_key not in known for file in unique), "records_read": n_records},
    )


OUTCOME = ("reward", "pred", "gold")


def _one_row_a_key(rows: pl.DataFrame) -> pl.DataFrame:
    """Each rollout at its first place, with the outcome of the newest file that gives one."""
    first = rows.unique("rollout_key", keep="first", maintain_order=True)
    by_outcome = rows.sort(pl.col("reward").is_not_null(), maintain_order=True)
    newest = by_outcome.unique("rollout_key", keep="last", maintain_order=True).select("rollout_key", *OUTCOME)
    return first.drop(OUTCOME).join(newest, on="rollout_key", how="left", maintain_order="left").select(rows.columns)


def _count_conflicts(rows: pl.DataFrame) -> int:
    """Rollouts that some file calls a success and another a failure."""
    known = rows.drop_nulls("reward").group_by("rollout_key").agg(pl.col("reward").n_unique())
    return known.filter(pl.col("reward") > 1).height


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


def _summary(store: Store, file: LandedFile) -> dict[str, Any]:
    piece = store.home / "segments" / "rollouts" / file.piece_key
    counts = json.loads((piece / "counts.json").read_text())
    return {**asdict(file), "path": str(file.path), "piece": file.piece_key, **counts}


def _read_file(store: Store, file: LandedFile) -> int:
    rows: list[dict[str, Any]] = []
    quarantine: list[dict[str, str]] = []
    occurrences: Counter[str] = Counter()
    raw = file.path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != file.sha256:
        raise RolloutFormatError(f"{file.path}: changed while it was read; land files by rename, and run again")
    for record in iter_records(raw):
        try:
            if record.value is None:
                raise RolloutFormatError(record.fault)
            rollout = FORMATS[file.format](file.task, record.value)
        except RolloutFormatError as error:
            quarantine.append({"place": record.place, "reason": str(error)})
            continue
        base = rollout.base_key()
        rows.append(_row(rollout, base, occurrences[base], record.place))
        occurrences[base] += 1

    def write(folder: Path) -> Built:
        pl.DataFrame(rows, schema=ROLLOUT_SCHEMA).write_parquet(folder / "rollouts.parquet")
        write_text_durably(folder / "quarantine.jsonl", "".join(f"{canonical_json(row)}\n" for row in quarantine))
        counts = {"n_rollouts": len(rows), "n_quarantined": len(quarantine)}
        write_text_durably(folder / "counts.json", canonical_json(counts))
        return Built(content=counts)

    store.publish_segment("rollouts", file.piece_key, write)
    return len(rows) + len(quarantine)


def _row(rollout: Rollout, base_key: str, occurrence: int, place: str) -> dict[str, Any]:
    return {
        "rollout_key": digest("rollout", base_key, str(occurrence)),
        "task": rollout.task,
        "question_id": rollout.question_id,
        "source": rollout.source,
        "teacher": rollout.teacher,
        "occurrence": occurrence,
        "reward": rollout.reward,
        "pred": rollout.pred,
        "gold": rollout.gold,
        "conversation": canonical_json(list(rollout.turns)),
        "subject": rollout.subject,
        "session": rollout.session,
        "licence": rollout.licence,
        "origin_url": rollout.origin_url,
        "origin_place": place,
    }
