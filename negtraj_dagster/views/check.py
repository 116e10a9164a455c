"""Reads one file as a run would and tells what came of it, without writing anything: `negtraj check`."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from negtraj_dagster.errors import NegtrajError, RolloutFormatError, SettingsError
from negtraj_dagster.printable import visible
from negtraj_dagster.rollouts.arrays import Slice
from negtraj_dagster.rollouts.documents import Parsed, iter_documents, parse_document, read_parsed
from negtraj_dagster.rollouts.formats import FORMATS, Format, Reading
from negtraj_dagster.rollouts.walk import SUFFIXES, why_unlisted
from negtraj_dagster.schema import Rollout
from negtraj_dagster.settings import Settings, did_you_mean
from negtraj_dagster.tasks import Task, load_tasks

DIGITS = re.compile(r"\d+")
N_SHOWN_IDS = 3
UNITS = (("record",), ("object",), ("file",))


@dataclass
class FormatReading:
    """What one format makes of the file.

    Attributes:
        n_documents: how many records, or files that are read as one, it has.
        n_read: how many rollouts are in them.
        faults: the first record's place and fault of each kind, and how often the kind comes.
    """

    name: str
    n_documents: int = 0
    n_read: int = 0
    rewards: Counter[bool | None] = field(default_factory=Counter)
    n_scored: int = 0
    n_with_prompt: int = 0
    n_with_calls: int = 0
    n_with_tools: int = 0
    golds: set[str] = field(default_factory=set)
    question_ids: set[str] = field(default_factory=set)
    faults: dict[str, tuple[str, str, int]] = field(default_factory=dict)

    @property
    def n_refused(self) -> int:
        """How many records, or parts of a file, are refused."""
        return sum(count for _, _, count in self.faults.values())

    def take(self, place: str, reading: Reading) -> None:
        """What came of one document."""
        self.n_documents += 1
        for rollout in reading:
            if isinstance(rollout, Rollout):
                self.n_read += 1
                self.rewards[rollout.reward] += 1
                self.n_scored += rollout.score is not None
                self.n_with_prompt += bool(rollout.prompt)
                self.n_with_calls += any("tool_calls" in turn for turn in rollout.turns)
                self.n_with_tools += rollout.tools is not None
                self.golds |= set() if rollout.gold is None else {rollout.gold}
                self.question_ids |= {rollout.question_id} - {""}
            else:
                self._refuse(place, str(rollout))

    def _refuse(self, place: str, fault: str) -> None:
        """Faults that differ by numbers alone are of one kind."""
        kind = DIGITS.sub("0", fault)
        first_place, first_fault, n_before = self.faults.get(kind, (place, fault, 0))
        self.faults[kind] = (first_place, first_fault, n_before + 1)


@dataclass(frozen=True)
class CheckedFile:
    """What a file holds.

    Attributes:
        readings: by each format, the one that reads most records first.
        known_ids: by task that has questions here: how many of the file's question ids are its own.
    """

    path: Path
    readings: tuple[FormatReading, ...]
    known_ids: Mapping[str, int]

    @property
    def best(self) -> FormatReading:
        """The format that reads most with least refused."""
        return self.readings[0]

    @property
    def is_whole(self) -> bool:
        """Whether one format reads every record."""
        return self.best.n_read > 0 and not self.best.faults


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
    try:
        for units in UNITS:
            formats = [format_ for format_ in FORMATS.values() if format_.unit in units]
            for part in iter_documents(path, formats[0], _beside(path, formats)) if formats else ():
                document = _parse(formats[0], part)  # which is the same for all of a unit
                for format_ in formats:
                    readings[format_.name].take(part.place, read_parsed(format_, "task", document))
    except OSError as error:
        raise SettingsError(f"{path}: {why_unlisted(error)}") from error
    ranked = tuple(sorted(readings.values(), key=_rank))
    return CheckedFile(path, ranked, _known_ids(ranked[0].question_ids, settings, task))


def _rank(reading: FormatReading) -> tuple[bool, int, int]:
    """Sorts the format that reads most, and of equal ones the one that finds most outcomes, to the front."""
    n_outcomes = reading.rewards[True] + reading.rewards[False]
    return not reading.n_read, reading.n_refused - reading.n_read, -n_outcomes


def _beside(path: Path, formats: Sequence[Format]) -> Path | None:
    """The file that says the outcome, where one of the formats has such."""
    paths = (path.with_suffix(format_.sidecar) for format_ in formats if format_.sidecar is not None)
    return next((beside for beside in paths if beside.is_file()), None)


def _parse(format_: Format, part: Slice) -> Parsed:
    return RolloutFormatError(part.fault) if part.raw is None else parse_document(format_, part.raw, part.place)


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
        return None if task.fingerprint(settings) is None else {question.question_id for question in task.questions(settings)}
    except (NegtrajError, OSError):
        return None


def checked_lines(checked: CheckedFile, task: str | None) -> Iterator[str]:
    """What to print: what the file is, what passes, the first fault of each kind, whose questions it answers, what to do."""
    best = checked.best
    yield f"{checked.path}: {best.n_documents:,} {'record' if best.n_documents == 1 else 'records'}"
    for reading in checked.readings:
        if reading.n_read or reading is best:
            yield f"  {reading.n_read:,} rollouts are read as {reading.name}, {reading.n_refused:,} refused"
    if not best.n_read:
        yield "No format reads it. The first that each finds:"
        for reading in checked.readings:
            for place, fault, _ in list(reading.faults.values())[:1]:
                yield f"  {reading.name}: {visible(place)}: {visible(fault)}"
    elif best.faults:
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
        if n_known or (n_ids and len(checked.known_ids) == 1):
            yield f"Questions: {n_known:,} of {n_ids:,} ids are questions of {name}."
    if not any(checked.known_ids.values()) and checked.best.n_with_prompt == checked.best.n_read:
        yield (
            'Questions: every rollout brings its prompt, so a task of `kind = "recorded"` needs no question file: '
            f"`negtraj init-task NAME --from {checked.path}` writes it."
        )
    elif not any(checked.known_ids.values()):
        shown = ", ".join(repr(visible(identifier)) for identifier in sorted(checked.best.question_ids)[:N_SHOWN_IDS])
        yield (
            f"Questions: no task here knows these ids ({shown}, …): rollouts of unknown questions are dropped. Declare the "
            "task, with its question files, as [tasks.NAME] in negtraj.toml."
        )


def _owner(checked: CheckedFile) -> str | None:
    """The task that knows most of the ids."""
    known = {name: count for name, count in checked.known_ids.items() if count}
    return max(sorted(known), key=lambda name: known[name]) if known else None
