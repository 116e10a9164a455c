"""Reads one file as a run would and tells what came of it, without writing anything: `negtraj check`."""

import contextlib
import glob
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from negtraj_dagster.errors import NegtrajError, SettingsError
from negtraj_dagster.printable import toml_text, visible
from negtraj_dagster.rollouts.detect import UNITS, candidate_formats, parsed_documents
from negtraj_dagster.rollouts.documents import read_parsed
from negtraj_dagster.rollouts.formats import FORMATS, Format
from negtraj_dagster.rollouts.mapping import ColumnMap
from negtraj_dagster.rollouts.records import parse_text
from negtraj_dagster.rollouts.walk import SUFFIXES, why_unlisted
from negtraj_dagster.settings import Settings, did_you_mean
from negtraj_dagster.tasks import Task, load_tasks
from negtraj_dagster.views.format_reading import FormatReading

N_SHOWN_IDS = 3
NO_OUTCOME = (
    "No rollout says whether it succeeded, so none would be trained: give the source an `outcome` rule on one of its keys, the "
    "task a `min_score`, or write labels into overrides.csv (docs/quality.md)."
)


@dataclass(frozen=True)
class CheckedFile:
    """What a file holds.

    Attributes:
        readings: by each format, the one that reads most records first.
        mapping: what the source would say of its columns and outcome.
        absent: what the mapping names and no record has.
        is_one_chat: whether its records are messages, and the file is a list of them.
        chats_at: keys of the records that hold lists of messages, where no format reads them.
        known_ids: by task that has questions here: how many of the file's question ids are its own.
    """

    path: Path
    readings: tuple[FormatReading, ...]
    known_ids: Mapping[str, int]
    mapping: ColumnMap | None = None
    chats_at: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    is_one_chat: bool = False

    @property
    def best(self) -> FormatReading:
        """The format that reads most with least refused."""
        return self.readings[0]

    @property
    def is_whole(self) -> bool:
        """Whether one format reads every record, and a task knows its questions or can take them from its prompts."""
        if self.absent:
            return False
        has_questions = any(self.known_ids.values()) or not self.best.n_with_prompt or not self.best.n_asking_nothing
        return self.best.n_read > 0 and not self.best.faults and has_questions


def check_file(path: Path, settings: Settings, *, task: str | None = None, mapping: ColumnMap | None = None) -> CheckedFile:
    """Read every record of a file by every format.

    Args:
        path: is read only.
        settings: of the deployment, whose tasks may know the questions.
        task: whose questions to look in; None = every task's.
        mapping: columns and outcome, as a source would have them.

    Raises:
        SettingsError: the file cannot be read, or there is no such task.
    """
    if not path.name.endswith(SUFFIXES):
        raise SettingsError(f"{path}: only {', '.join(SUFFIXES)} files are read; convert or rename it")
    readings = {format_.name: FormatReading(format_.name) for format_ in candidate_formats(mapping)}
    chats_at: Counter[str] = Counter()
    absent: set[str] | None = None
    are_messages: set[bool] = set()
    try:
        for unit in UNITS:
            formats = [FORMATS[name] for name in readings if FORMATS[name].unit == unit]
            for place, document in parsed_documents(path, formats, _beside(path, formats)):
                if isinstance(document, dict):
                    chats_at.update(_keys_of_chats(document))
                    are_messages.add({"role", "content"} <= document.keys())
                    if mapping is not None:
                        names = set(mapping.absent_from(document))
                        absent = names if absent is None else absent & names
                for format_ in formats:
                    readings[format_.name].take(place, read_parsed(format_, "task", document, mapping))
    except OSError as error:
        raise SettingsError(f"{path}: {why_unlisted(error)}") from error
    ranked = tuple(sorted(readings.values(), key=_rank))
    keys = () if ranked[0].n_read else tuple(key for key, _ in chats_at.most_common(N_SHOWN_IDS) if key != "messages")
    return CheckedFile(
        path,
        ranked,
        _known_ids(ranked[0].question_ids, settings, task),
        mapping,
        keys,
        tuple(sorted(absent or ())),
        are_messages == {True},
    )


def _rank(reading: FormatReading) -> tuple[bool, int, int, bool]:
    """Sorts the format that reads most, and of equal ones the one that finds most outcomes, to the front; where none reads
    anything, `openai`, and then other formats of records."""
    n_outcomes = reading.rewards[True] + reading.rewards[False]
    if not reading.n_read:
        return True, reading.name != "openai", 0, not _takes_columns(reading.name)
    return False, reading.n_refused - reading.n_read, -n_outcomes, False


def _takes_columns(name: str) -> bool:
    return FORMATS[name].unit != "file"


def _keys_of_chats(record: Mapping[str, object], place: str = "") -> Iterator[str]:
    """Keys, dots into objects, under which a list of messages stands, or JSON text of one."""
    for key, value in record.items():
        if isinstance(value, str) and value[:1] in ("[", "{") and "role" in value:
            with contextlib.suppress(ValueError):
                value = parse_text(value)
        if isinstance(value, dict) and not place:
            yield from _keys_of_chats(value, f"{key}.")
        elif isinstance(value, list) and value and all(isinstance(turn, dict) and "role" in turn for turn in value):
            yield f"{place}{key}"


def _beside(path: Path, formats: Sequence[Format]) -> Path | None:
    """The file that says the outcome, where one of the formats has such."""
    paths = (path.with_suffix(format_.sidecar) for format_ in formats if format_.sidecar is not None)
    return next((beside for beside in paths if beside.is_file()), None)


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
    yield f"{visible(str(checked.path))}: {best.n_documents:,} {'record' if best.n_documents == 1 else 'records'}"
    for reading in checked.readings:
        if reading.n_read or reading is best:
            yield f"  {reading.n_read:,} rollouts are read as {reading.name}, {reading.n_refused:,} refused"
    if not best.n_read:
        yield "No format reads it. The first that each finds:"
        for reading in checked.readings:
            for place, fault, _ in list(reading.faults.values())[:1]:
                yield f"  {reading.name}: {visible(place)}: {visible(fault)}"
        yield "docs/rollout_formats.md has the formats' keys."
        if checked.is_one_chat:
            yield 'Each record is a message: a chat is a record `{"messages": [...]}` of them, one a line.'
        for key in checked.chats_at:
            command = f"negtraj check {visible(shlex.quote(str(checked.path)))} --columns messages={visible(key)}"
            yield f"\nA list of messages stands under {visible(key)}: try `{command}`."
    elif best.faults:
        yield f"\nNot read as {best.name}, the first of each kind:"
        for place, fault, count in sorted(best.faults.values(), key=lambda kind: -kind[2]):
            yield f"  {count:,} x  {visible(place)}: {visible(fault)}"
    if best.n_read:
        yield ""
        right, wrong, unknown = (best.rewards[reward] for reward in (True, False, None))
        yield f"Outcomes: {right:,} right, {wrong:,} wrong, {unknown:,} not recorded."
        if checked.absent:
            yield f"No record has {', '.join(map(visible, checked.absent))}, which --columns or --outcome names."
        elif not right + wrong:
            yield NO_OUTCOME
        yield from _question_lines(checked, task)
        owner = task or _owner(checked) or "TASK"
        yield f"\nTo have it read: copy it to landing/{owner}/{best.name}/ of NEGTRAJ_HOME, or write into negtraj.toml:\n"
        yield from (f"    {visible(line)}" for line in source_lines("NAME", owner, checked))


def source_lines(name: str, task: str, checked: CheckedFile) -> Iterator[str]:
    """The table of settings by which this file is read where it lies, and no other file beside it."""
    path = checked.path.resolve()
    yield f"[sources.{name}]"
    values = {"task": task, "format": checked.best.name, "path": str(path.parent), "pattern": glob.escape(path.name)}
    yield from (f"{key} = {toml_text(value)}" for key, value in values.items())
    yield from mapping_lines(checked.mapping)


def _question_lines(checked: CheckedFile, task: str | None) -> Iterator[str]:
    n_ids = len(checked.best.question_ids)
    for name, n_known in checked.known_ids.items():
        if n_known or (n_ids and name == task):
            yield f"Questions: {n_known:,} of {n_ids:,} ids are questions of {name}."
    if not any(checked.known_ids.values()) and checked.best.n_with_prompt and checked.best.n_asking_nothing:
        yield (
            f"Questions: {checked.best.n_asking_nothing:,} of {checked.best.n_read:,} rollouts have no user turn before the "
            "agent's first one: a task of recorded prompts refuses them."
        )
    elif not any(checked.known_ids.values()) and checked.best.n_with_prompt == checked.best.n_read:
        yield (
            'Questions: every rollout brings its prompt, so a task of `kind = "recorded"` needs no question file: '
            f"`negtraj init-task NAME --from {visible(shlex.quote(str(checked.path)))}"
            f"{_mapping_arguments(checked.mapping)}` writes it."
        )
    elif not any(checked.known_ids.values()):
        shown = ", ".join(repr(visible(identifier)) for identifier in sorted(checked.best.question_ids)[:N_SHOWN_IDS])
        ids = f"these ids ({shown}, …)" if shown else "them, for they name no question"
        yield (
            f"Questions: no task here knows {ids}: rollouts of unknown questions are dropped. Declare the "
            "task, with its question files, as [tasks.NAME] in negtraj.toml."
        )


def _mapping_arguments(mapping: ColumnMap | None) -> str:
    if mapping is None:
        return ""
    columns = [f" --columns {shlex.quote(f'{ours}={theirs}')}" for ours, theirs in mapping.columns]
    return "".join(columns) + (f" --outcome {shlex.quote(mapping.outcome)}" if mapping.outcome else "")


def mapping_lines(mapping: ColumnMap | None) -> Iterator[str]:
    """What a source says of its columns and outcome, as TOML."""
    if mapping and mapping.columns:
        yield "columns = {" + ", ".join(f"{ours} = {toml_text(theirs)}" for ours, theirs in mapping.columns) + "}"
    if mapping and mapping.outcome:
        yield f"outcome = {toml_text(mapping.outcome)}"


def _owner(checked: CheckedFile) -> str | None:
    """The task that knows most of the ids."""
    known = {name: count for name, count in checked.known_ids.items() if count}
    return max(sorted(known), key=lambda name: known[name]) if known else None
