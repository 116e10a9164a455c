"""Builds the question sets: every task's typed questions with a hash each, in one table."""

import logging
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster.errors import NegtrajError, QuestionSetError
from negtraj_dagster.schema import EVALUATION_SPLITS, Question, digest, digest_json
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tasks import TASKS

LOG = logging.getLogger(__name__)

QUESTION_SETS_VERSION = 2
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


def build_question_sets(store: Store, settings: Settings) -> Published:
    """The questions of every task that has data here; the others are listed with what they need.

    A task whose questions cannot be read keeps no other from being built: it is listed as broken, and what is made of it
    refuses to be made.
    """
    fingerprints = {name: _fingerprint(name, settings) for name in sorted(TASKS)}
    made_of = {
        "code": QUESTION_SETS_VERSION,
        **{f"task/{name}": [task.version, digest_json(fingerprints[name])] for name, task in sorted(TASKS.items())},
    }
    return store.build("question_sets", made_of, lambda folder: _build(folder, settings, fingerprints))


def _build(folder: Path, settings: Settings, fingerprints: dict[str, dict[str, Any] | None]) -> Built:
    questions: list[Question] = []
    tasks: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    broken: dict[str, str] = {}
    for name, fingerprint in fingerprints.items():
        if fingerprint is None:
            missing[name] = TASKS[name].missing_data_hint()
            continue
        try:
            of_task = TASKS[name].questions(settings)
            _check_ids(name, of_task)
        except (NegtrajError, OSError, UnicodeDecodeError) as error:
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
    pl.DataFrame(rows, schema=QUESTION_SCHEMA, orient="row").write_parquet(folder / "questions.parquet")
    return Built(
        content={"tasks": tasks, **({"broken": broken} if broken else {})},
        details={"without_data": missing, "n_questions": len(questions)},
        work={"questions_read": len(questions)},
    )


def _fingerprint(name: str, settings: Settings) -> dict[str, Any] | None:
    """What a task's questions depend on; where even that cannot be read, the error, and the task is broken when it is built."""
    try:
        return TASKS[name].fingerprint(settings)
    except (NegtrajError, OSError) as error:
        return {"error": _message(name, error)}


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
    seen: dict[str, Question] = {}
    for question in questions:
        other = seen.setdefault(question.question_id, question)
        if other is not question:
            raise QuestionSetError(
                f"task {task}: question id {question.question_id!r} stands twice ({other.split} {other.question[:60]!r} and "
                f"{question.split} {question.question[:60]!r}); give each question its own id"
            )


def read_questions(store: Store, published: Published, task: str) -> list[Question]:
    """A task's questions from the published table, in its order."""
    table = pl.read_parquet(store.file(published.folder, "questions.parquet"), glob=False).filter(pl.col("task") == task)
    return [
        Question(row["task"], row["question_id"], row["split"], row["question"], row["answer"], tuple(row["facts"]))
        for row in table.iter_rows(named=True)
    ]
