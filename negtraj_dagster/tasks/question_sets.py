"""Builds the question sets: every task's typed questions with a hash each, in one table."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from negtraj_dagster.errors import NegtrajError, QuestionSetError
from negtraj_dagster.schema import EVALUATION_SPLITS, Question, digest, digest_json
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tasks import EMBEDDED, Task, load_tasks
from negtraj_dagster.tasks.recorded import RecordedQuestions

LOG = logging.getLogger(__name__)

QUESTION_SETS_VERSION = 3
UNREAD = "error"
"""In place of a fingerprint: why a task's questions, or what they depend on, could not be read."""
QUESTION_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "task": pl.String,
    "question_id": pl.String,
    "split": pl.String,
    "question": pl.String,
    "answer": pl.String,
    "facts": pl.List(pl.String()),
    "question_hash": pl.String,
}
QUESTION_SCHEMA = pl.Schema(QUESTION_TYPES)
OPTIONAL_COLUMNS = ("prompt", "family")
"""A table has each of these besides where any question has it."""


def build_question_sets(store: Store, settings: Settings, raw: Published | None = None) -> Published:
    """The questions of every task that has data here; the others are listed with what they need.

    A task whose questions cannot be read keeps no other from being built: it is listed as broken, and what is made of it
    refuses to be made. What the machine refused is asked again by the next run: it is published under a key of its own.

    Args:
        store: where they go.
        settings: say which tasks there are, and where their questions lie.
        raw: the present `raw_rollouts`, whose prompts are the questions of some tasks; None where there are no such tasks.
    """
    tasks = load_tasks(settings)
    sources: dict[str, _Source] = {
        name: RecordedQuestions.find(store, raw, task) if task.has_recorded_questions and raw else _OfFiles(task, settings)
        for name, task in sorted(tasks.items())
    }
    return _publish(store, tasks, sources, {name: _fingerprint(name, source) for name, source in sources.items()})


class _Source(Protocol):
    """Where a task's questions come from."""

    def fingerprint(self) -> dict[str, Any] | None:
        """What they depend on; None = there are none here."""

    def questions(self) -> list[Question]:
        """All of them."""


@dataclass(frozen=True)
class _OfFiles:
    """Questions that a task reads or makes itself."""

    task: Task
    settings: Settings

    def fingerprint(self) -> dict[str, Any] | None:
        """The task's own."""
        return self.task.fingerprint(self.settings)

    def questions(self) -> list[Question]:
        """The task's own."""
        return self.task.questions(self.settings)


def _publish(
    store: Store, tasks: Mapping[str, Task], sources: Mapping[str, _Source], fingerprints: dict[str, dict[str, Any] | None]
) -> Published:
    made_of = {
        "code": QUESTION_SETS_VERSION,
        **{
            f"task/{name}": [task.version, digest_json(fingerprints[name])]
            for name, task in sorted(tasks.items())
            if name in EMBEDDED or fingerprints[name] is not None
        },
    }
    try:
        return store.build("question_sets", made_of, lambda folder: _build(folder, tasks, sources, fingerprints))
    except _UnreadError as error:
        return _publish(store, tasks, sources, {**fingerprints, error.task: {UNREAD: str(error)}})


class _UnreadError(QuestionSetError):
    """The machine refused to read a task's questions: nothing of what they hold is known."""

    def __init__(self, task: str, message: str) -> None:
        super().__init__(message)
        self.task = task


def _build(
    folder: Path,
    tasks_by_name: Mapping[str, Task],
    sources: Mapping[str, _Source],
    fingerprints: dict[str, dict[str, Any] | None],
) -> Built:
    questions: list[Question] = []
    tasks: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    broken: dict[str, str] = {}
    for name, fingerprint in fingerprints.items():
        if fingerprint is None:
            missing[name] = tasks_by_name[name].missing_data_hint()
            continue
        try:
            of_task = _read_questions(name, sources[name], fingerprint)
        except _UnreadError:
            raise
        except (NegtrajError, UnicodeDecodeError) as error:
            broken[name] = _message(name, error)
            LOG.warning("the task %s has no questions in this run: %s", name, broken[name])
            continue
        questions += of_task
        splits = sorted({question.split for question in of_task})
        tasks[name] = {
            "rows": digest(*(f"{q.question_id} {q.split} {q.question_hash}" for q in of_task)),
            "asked": digest(*(f"{q.question_id} {q.question_hash}" for q in of_task if q.split not in EVALUATION_SPLITS)),
            **{f"n_{split}": sum(question.split == split for question in of_task) for split in splits},
        }
    rows = [(q.task, q.question_id, q.split, q.question, q.answer, list(q.facts), q.question_hash) for q in questions]
    table = pl.DataFrame(rows, schema=QUESTION_SCHEMA, orient="row")
    for name in OPTIONAL_COLUMNS:
        values = pl.Series(name, [getattr(q, name) for q in questions], dtype=pl.String)
        if values.null_count() < len(values):
            table = table.with_columns(values)
    table.write_parquet(folder / "questions.parquet")
    return Built(
        content={"tasks": tasks, **({"broken": broken} if broken else {})},
        details={"without_data": missing, "n_questions": len(questions)},
        work={"questions_read": len(questions)},
    )


def _read_questions(name: str, source: _Source, fingerprint: dict[str, Any]) -> list[Question]:
    if UNREAD in fingerprint:
        raise QuestionSetError(fingerprint[UNREAD])
    try:
        of_task = source.questions()
    except Exception as error:
        if _is_unread(error):
            raise _UnreadError(name, _message(name, error)) from error
        raise
    _check_ids(name, of_task)
    return of_task


def _is_unread(error: BaseException | None) -> bool:
    """Whether the machine refused, also where a task says so in its own words."""
    return error is not None and (isinstance(error, OSError) or _is_unread(error.__cause__))


def _fingerprint(name: str, source: _Source) -> dict[str, Any] | None:
    """What a task's questions depend on; where even that cannot be read, the reason, and the task is broken."""
    try:
        return source.fingerprint()
    except (NegtrajError, OSError) as error:
        return {UNREAD: _message(name, error)}


def _message(name: str, error: Exception) -> str:
    if isinstance(error, NegtrajError):
        return str(error)
    return f"the question files of the task {name} cannot be read ({error}); mend or restore them, then materialize again"


def refuse_broken_task(question_sets: Published, task: str) -> None:
    """Stop what would be made of a task whose questions could not be read.

    Raises:
        QuestionSetError: they could not; says why.
    """
    if message := question_sets.content.get("broken", {}).get(task):
        raise QuestionSetError(message)


def _check_ids(task: str, questions: list[Question]) -> None:
    first_of_id: dict[str, Question] = {}
    for question in questions:
        other = first_of_id.setdefault(question.question_id, question)
        if other is not question:
            raise QuestionSetError(
                f"task {task}: question id {question.question_id!r} stands twice ({other.split} {other.question[:60]!r} and "
                f"{question.split} {question.question[:60]!r}); give each question its own id"
            )


def read_questions(store: Store, published: Published, task: str) -> list[Question]:
    """A task's questions from the published table, in its order."""
    table = pl.read_parquet(store.file(published.folder, "questions.parquet"), glob=False).filter(pl.col("task") == task)
    columns = ("task", "question_id", "split", "question", "answer")
    return [
        Question(
            **{name: row[name] for name in columns},
            facts=tuple(row["facts"]),
            prompt=row.get("prompt"),
            family=row.get("family"),
        )
        for row in table.iter_rows(named=True)
    ]
