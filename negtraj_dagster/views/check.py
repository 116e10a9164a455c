"""Reads one file as a run would and tells what came of it, without writing anything: `negtraj check`."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import NegtrajError, RolloutFormatError, SettingsError
from negtraj_dagster.printable import visible
from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.rollouts.read import file_slices
from negtraj_dagster.rollouts.records import parse_record
from negtraj_dagster.rollouts.walk import SUFFIXES, why_unlisted
from negtraj_dagster.schema import Rollout
from negtraj_dagster.settings import Settings, did_you_mean
from negtraj_dagster.tasks import Task, load_tasks

DIGITS = re.compile(r"\d+")
N_SHOWN_IDS = 3
MAX_OBJECT_BYTES = 100_000_000
SHAPES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("an inspect log", ("eval", "samples")),
    ("a SWE-agent trajectory", ("trajectory", "history")),
    ("an ATIF trajectory", ("schema_version", "steps")),
    ("OpenAI chat messages", ("messages",)),
    ("ShareGPT conversations", ("conversations",)),
)
"""Public layouts by the keys of their records, for a file that no format reads; the first that fits is told."""


@dataclass
class FormatReading:
    """What one format makes of the file.

    Attributes:
        faults: the first record's place and fault of each kind, and how often the kind comes.
    """

    name: str
    n_read: int = 0
    rewards: Counter[bool | None] = field(default_factory=Counter)
    question_ids: set[str] = field(default_factory=set)
    faults: dict[str, tuple[str, str, int]] = field(default_factory=dict)

    def take(self, rollout: Rollout) -> None:
        """A record that it read."""
        self.n_read += 1
        self.rewards[rollout.reward] += 1
        self.question_ids.add(rollout.question_id)

    def refuse(self, place: str, fault: str) -> None:
        """A record that it refused. Faults that differ by numbers alone are of one kind."""
        kind = DIGITS.sub("0", fault)
        first_place, first_fault, n_before = self.faults.get(kind, (place, fault, 0))
        self.faults[kind] = (first_place, first_fault, n_before + 1)


@dataclass(frozen=True)
class CheckedFile:
    """What a file holds.

    Attributes:
        readings: by each format, the one that reads most records first.
        looks_like: a public layout, where no format reads a record.
        known_ids: by task that has questions here: how many of the file's question ids are its own.
    """

    path: Path
    n_records: int
    readings: tuple[FormatReading, ...]
    looks_like: str | None
    known_ids: Mapping[str, int]

    @property
    def best(self) -> FormatReading:
        """The format that reads most."""
        return self.readings[0]

    @property
    def is_whole(self) -> bool:
        """Whether one format reads every record."""
        return 0 < self.n_records == self.best.n_read


def check_file(path: Path, settings: Settings, *, task: str | None = None) -> CheckedFile:
    """Read every record of a file by every format.

    Args:
        path: is read only.
        settings: of the deployment, whose tasks may know the questions.
        task: whose questions to look in; None = every task's.

    Raises:
        SettingsError: the file cannot be read, or there is no such task.
    """
    if not path.name.endswith(SUFFIXES):
        raise SettingsError(f"{path}: only {', '.join(SUFFIXES)} files are read; convert or rename it")
    readings = {name: FormatReading(name) for name in FORMATS}
    n_records, shapes = 0, Counter[str]()
    try:
        for place, value, fault in _records(path):
            n_records += 1
            shapes[_shape_of(value) or ""] += 1
            for name, reading in readings.items():
                _read(reading, name, place, value, fault)
    except OSError as error:
        raise SettingsError(f"{path}: {why_unlisted(error)}") from error
    ranked = tuple(sorted(readings.values(), key=lambda reading: (-reading.n_read, reading.name)))
    looks_like = None
    if not ranked[0].n_read:
        looks_like = next((name for name, _ in shapes.most_common() if name), None) or _shape_of_object(path)
    return CheckedFile(path, n_records, ranked, looks_like, _known_ids(ranked[0].question_ids, settings, task))


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any] | None, str]]:
    for part in file_slices(path):
        if part.raw is None:
            yield part.place, None, part.fault
        else:
            record = parse_record(part.raw, part.place)
            yield record.place, record.value, record.fault


def _read(reading: FormatReading, name: str, place: str, value: dict[str, Any] | None, fault: str) -> None:
    if value is None:
        reading.refuse(place, fault)
        return
    try:
        reading.take(FORMATS[name]("task", value))
    except RolloutFormatError as error:
        reading.refuse(place, str(error))


def _shape_of(value: Mapping[str, Any] | None) -> str | None:
    return next((name for name, keys in SHAPES if value is not None and set(keys) <= value.keys()), None)


def _shape_of_object(path: Path) -> str | None:
    """The layout of a file that is one object over many lines, as trajectories are often written."""
    if path.stat().st_size > MAX_OBJECT_BYTES:
        return None
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    return _shape_of(value) if isinstance(value, dict) else None


def _known_ids(question_ids: set[str], settings: Settings, task: str | None) -> dict[str, int]:
    tasks = load_tasks(settings)
    if task is not None and task not in tasks:
        raise SettingsError(f"no task {task!r}{did_you_mean(task, tasks)}")
    counts = {}
    for name in [task] if task else sorted(tasks):
        if (ids := _ids_of(tasks[name], settings)) is not None:
            counts[name] = len(question_ids & ids)
    return counts


def _ids_of(task: Task, settings: Settings) -> set[str] | None:
    """The ids of a task's questions; None where it has no data here, or its files cannot be read."""
    try:
        return None if task.fingerprint(settings) is None else {each.question_id for each in task.questions(settings)}
    except (NegtrajError, OSError):
        return None


def checked_lines(checked: CheckedFile, task: str | None) -> Iterator[str]:
    """What to print: what the file is, what passes, the first fault of each kind, whose questions it answers, what to do."""
    best = checked.best
    yield f"{checked.path}: {checked.n_records:,} records"
    for reading in checked.readings:
        yield f"  {reading.n_read:,} of them are read as {reading.name}"
    if not best.n_read:
        yield f"No format reads it{f'; it looks like {checked.looks_like}' if checked.looks_like else ''}."
    if best.faults:
        yield f"\nNot read as {best.name}, the first of each kind:"
        for place, fault, count in sorted(best.faults.values(), key=lambda kind: -kind[2]):
            yield f"  {count:,} x  {visible(place)}: {visible(fault)}"
    if best.n_read:
        yield ""
        right, wrong, unknown = (best.rewards[reward] for reward in (True, False, None))
        yield f"Outcomes: {right:,} right, {wrong:,} wrong, {unknown:,} not recorded."
        yield from _question_lines(checked)
        owner = task or _owner(checked) or "TASK"
        yield f"\nTo have it read: copy it to landing/{owner}/{best.name}/ of NEGTRAJ_HOME, or write into negtraj.toml:\n"
        yield "    [sources.NAME]"
        yield f'    task = "{owner}"'
        yield f'    format = "{best.name}"'
        yield f'    path = "{checked.path.resolve().parent}"'
    else:
        yield "\ndocs/rollout_formats.md has the formats' keys."


def _question_lines(checked: CheckedFile) -> Iterator[str]:
    n_ids = len(checked.best.question_ids)
    for name, n_known in checked.known_ids.items():
        if n_known or len(checked.known_ids) == 1:
            yield f"Questions: {n_known:,} of {n_ids:,} ids are questions of {name}."
    if not any(checked.known_ids.values()):
        shown = ", ".join(repr(visible(identifier)) for identifier in sorted(checked.best.question_ids)[:N_SHOWN_IDS])
        yield (
            f"Questions: no task here knows these ids ({shown}, …): rollouts of unknown questions are dropped. Declare the "
            "task, with its question files, as [tasks.NAME] in negtraj.toml."
        )


def _owner(checked: CheckedFile) -> str | None:
    """The task that knows most of the ids."""
    known = {name: count for name, count in checked.known_ids.items() if count}
    return max(sorted(known), key=lambda name: known[name]) if known else None
