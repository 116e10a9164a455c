"""A recipe's evaluation report as an object: the answers of its checkpoint to held-out questions, scored, counted and shown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.launch import RunChild
from negtraj_dagster.reports.answers import Answers, Respondent, ask, asked_digest
from negtraj_dagster.reports.metrics import by_family, score_rows, summarize_rows
from negtraj_dagster.reports.summarize import report_page
from negtraj_dagster.reports.trials import summarize_trials
from negtraj_dagster.schema import Question, canonical_json, digest_json
from negtraj_dagster.store import Built, Published, Store, file_sha256
from negtraj_dagster.tasks import Task

REPORT_VERSION = 4
"""Rises when a report counts or shows otherwise."""


@dataclass(frozen=True)
class Suite:
    """The questions of an evaluation, in order, and how often each is asked."""

    questions: Sequence[Question]
    trials: int = 1

    @property
    def digest(self) -> str:
        """Names what is asked and what is right."""
        return digest_json([[question.question_id, question.question_hash] for question in self.questions])

    @property
    def families(self) -> str | None:
        """Names which families the questions are of; None where there are none."""
        families = {question.question_id: question.family for question in self.questions if question.family is not None}
        return digest_json(families) if families else None


class _UnansweredError(Exception):
    """The infrastructure ended some episodes: what the report holds is to be asked again."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(f"{len(answers.unanswered)} episodes")
        self.answers = answers


def build_report(
    store: Store,
    recipe: str,
    *,
    checkpoint: Published,
    respondent: Respondent | None,
    suite: Suite,
    prompt_identity: str,
    task: Task,
    run_child: RunChild,
    trained_on: Sequence[str] | None = None,
) -> Published:
    """Play the recipe's checkpoint on held-out questions, unless this very evaluation exists.

    A report with episodes that the infrastructure ended is published, and its questions are asked again by the next run.

    Args:
        store: where the checkpoint lies and the report goes.
        recipe: its name.
        checkpoint: what is evaluated.
        respondent: the checkpoint as it is asked; None of an empty one.
        suite: what is asked.
        prompt_identity: names the prompt; must be the one the checkpoint was trained with.
        task: whose scoring rule applies.
        run_child: starts the evaluator.
        trained_on: of a contaminated checkpoint the ids of the suite's questions that training rollouts asked, where known.

    Raises:
        StoreError: the checkpoint was trained with other prompts or another template than it would be asked with.
    """
    asset = f"{recipe}/evaluation_report"
    if why := why_unjudged(task):
        made_of_nothing = {"code": REPORT_VERSION, "checkpoint": checkpoint.version, "unjudged": why}
        return store.build(asset, made_of_nothing, lambda _: Built(content={"status": "no_data", "reason": why}))
    if respondent is None:
        made_of_nothing = {"code": REPORT_VERSION, "checkpoint": checkpoint.version}
        return store.build(asset, made_of_nothing, lambda _: Built(content=checkpoint.content))
    card = checkpoint.details["card"]
    if (card["conditioning"], card["chat_template"]) != (prompt_identity, respondent.agent["template"]):
        raise StoreError(f"{recipe}/checkpoint was trained with another strategy or template; materialize it again first")
    contaminated = card.get("n_contaminated", 0) > 0
    made_of = {
        "code": REPORT_VERSION,
        "checkpoint": checkpoint.version,
        **respondent.identity,
        "scorer": task.version,
        "questions": suite.digest,
        "prompts": asked_digest(respondent, suite.questions, suite.trials),
        "trials": suite.trials,
        "conditioning": prompt_identity,
        "contaminated": contaminated,
        **({"families": suite.families} if suite.families else {}),
        **({"trained_on": digest_json(list(trained_on))} if trained_on else {}),
    }

    def write(folder: Path) -> Built:
        store.verify(checkpoint.folder)
        answers = ask(store, respondent, suite.questions, run_child, trials=suite.trials)
        if answers.unanswered:
            raise _UnansweredError(answers)
        return describe(folder, answers)

    def describe(folder: Path, answers: Answers) -> Built:
        rows = score_rows(answers.rows, suite.questions, task)
        return _describe(folder, recipe, checkpoint, respondent, suite, answers, rows, trained_on or ())

    try:
        return store.build(asset, made_of, write)
    except _UnansweredError as error:
        answers = error.answers
        return store.build(asset, {**made_of, "unanswered": answers.unanswered}, lambda folder: describe(folder, answers))


def why_unjudged(task: Task) -> str | None:
    """Why nothing of this task's can be evaluated here; None where it can."""
    if not task.scores_answers:
        return (
            f"outcomes of {task.name} are recorded by the system that ran the agent: no answer can be judged here, so its "
            f"checkpoints are evaluated there"
        )
    return None


def _describe(
    folder: Path,
    recipe: str,
    checkpoint: Published,
    respondent: Respondent,
    suite: Suite,
    answers: Answers,
    rows: Sequence[Mapping[str, Any]],
    trained_on: Sequence[str],
) -> Built:
    card = checkpoint.details["card"]
    metrics = summarize_rows(rows)
    extra: dict[str, Any] = {"families": by_family(rows)}
    if suite.trials > 1:
        extra["trials"] = summarize_trials(rows)
    if trained_on:
        extra["clean"] = summarize_rows([row for row in rows if row["question_id"] not in set(trained_on)])
    contaminated = card.get("n_contaminated", 0) > 0
    (folder / "episodes.jsonl").write_text("".join(f"{canonical_json(row)}\n" for row in rows), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps({**metrics, **extra}, indent=2) + "\n", encoding="utf-8")
    page = report_page(recipe, metrics, rows, contaminated=contaminated, **extra)
    (folder / "report.html").write_text(page, encoding="utf-8")
    content = {
        "metrics": metrics,
        **{name: value for name, value in extra.items() if value},
        "episodes": file_sha256(folder / "episodes.jsonl"),
        "suite": suite.digest,
        "rules": digest_json([respondent.rules, suite.trials]),
        "checkpoint": checkpoint.version,
        "contaminated": contaminated,
    }
    return Built(
        content=content,
        details={"result": dict(answers.result), "rules": respondent.rules},
        work={"questions_asked": answers.n_asked, "answers_scored": len(rows)},
        caches=answers.segments,
    )
