"""Asks a model a suite of questions, each once: an answer is kept by all that decides it, and asked for again when that does
change.

Answers are append-only segments (`segments/answers/<rule>/<key>/answers.jsonl`) that reports, the comparison's row of the base
model, the gate and studies share. An episode that the infrastructure ended is no answer: it is told, and asked for again.
What an evaluator had written when it was killed lies in `asking/<rule>` and is taken over by the next run.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from negtraj_dagster.agent.decoding import DECODING
from negtraj_dagster.agent.tools import TOOL_VERSIONS
from negtraj_dagster.agent.tools.schemas import SCHEMAS_VERSION
from negtraj_dagster.errors import QuestionSetError
from negtraj_dagster.launch import RunChild
from negtraj_dagster.schema import Question, Turn, canonical_json, digest, digest_json
from negtraj_dagster.store import Built, Store, read_json_lines
from negtraj_dagster.tasks import Task, task_to_job

LOG = logging.getLogger(__name__)

ANSWER_VERSION = 1
"""Rises when the evaluator plays other episodes from the same inputs."""
EVALUATOR = "negtraj_dagster.reports.evaluate"
INFRASTRUCTURE = "infrastructure"
"""The status of an episode that ended for reasons that are not the model's: no answer."""
ASKING = "asking"
OF_THE_MACHINE = ("threads", "batch_size", "server")
"""Agent settings that no answer depends on; of a server its `extra_body` alone is a rule."""

Prompt = Callable[[Question], list[Turn]]


@dataclass(frozen=True)
class Respondent:
    """A model, and how it is asked.

    Attributes:
        version: names its weights.
        model_dir: Hugging Face layout.
        task: whose tools it has.
        agent: template, limits, decoding, client; see `EvaluationSettings`.
        passages: what its search tool looks things up in.
        prompt: the turns before its first one.
        sums_depend_on_batch: whether an answer may come out otherwise beside others: then the batch is part of what it is.
        checkpoint: the folder of the stored object that it is; every file is verified before it is asked anything.
    """

    version: str
    model_dir: Path
    task: Task
    agent: Mapping[str, Any]
    passages: Sequence[str]
    prompt: Prompt
    sums_depend_on_batch: bool = False
    checkpoint: Path | None = None

    @cached_property
    def rules(self) -> dict[str, Any]:
        """How a question is played, whoever answers it: only answers of equal rules are compared."""
        limits = {name: value for name, value in self.agent.items() if name not in (*OF_THE_MACHINE, "template")}
        return {
            "evaluator": ANSWER_VERSION,
            "task": self.task.name,
            "tools": {name: TOOL_VERSIONS[name] for name in self.task.tools},
            "terminal_action": self.task.terminal_action,
            "style": self.task.style,
            "decoding": dict(DECODING),
            "corpus": digest_json(list(self.passages)) if "search" in self.task.tools else None,
            "limits": limits,
            **({"schemas": SCHEMAS_VERSION} if self.task.style == "native" else {}),
            **({"extra_body": self.agent["server"]["extra_body"]} if self.agent.get("server") else {}),
        }

    @property
    def rules_of_any_client(self) -> dict[str, Any]:
        """The rules without who writes the turns: by these a served checkpoint meets the base model, which runs in process."""
        limits = {name: value for name, value in self.rules["limits"].items() if name != "client"}
        return {**{name: value for name, value in self.rules.items() if name != "extra_body"}, "limits": limits}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that an answer depends on but the question and its prompt."""
        batch = self.agent["batch_size"] if self.sums_depend_on_batch else None
        served = {"served_as": self.agent["server"]["model"]} if self.agent.get("server") else {}
        return {**self.rules, **served, "model": self.version, "template": self.agent["template"], "batch": batch}

    @cached_property
    def table(self) -> str:
        """Where its answers are kept."""
        return f"answers/{digest_json(self.identity)[:16]}"

    def answer_key(self, question: Question, trial: int) -> str:
        """Identity of one answer; what is right is no part of it."""
        return digest(self.table, question.question_id, canonical_json(self.prompt(question)), str(trial))


@dataclass(frozen=True)
class Answers:
    """One row per question and trial, in their order, and what it took.

    Attributes:
        rows: `answer_key`, `question_id`, `trial`, and the episode (`evaluate.episode_row`).
        n_asked: episodes played now.
        segments: names of the segments that the rows are of.
        result: of the evaluator: seconds, tokens a second; empty where nothing was asked.
    """

    rows: list[dict[str, Any]]
    n_asked: int
    segments: tuple[str, ...]
    result: Mapping[str, Any]

    @property
    def unanswered(self) -> list[str]:
        """Keys of the episodes that the infrastructure ended."""
        return [row["answer_key"] for row in self.rows if row["status"] == INFRASTRUCTURE]


def count_unasked(store: Store, respondent: Respondent, questions: Sequence[Question], *, trials: int = 1) -> int:
    """How many episodes `ask` would play."""
    answers = _read_answers(store, respondent.table)[0]
    return sum(key not in answers for key in answer_keys(respondent, questions, trials))


def ask(
    store: Store, respondent: Respondent, questions: Sequence[Question], run_child: RunChild, *, trials: int = 1
) -> Answers:
    """The answers to all questions; those that are not known yet are asked for.

    Args:
        store: keeps the answers.
        respondent: who answers.
        questions: the suite.
        run_child: starts the evaluator.
        trials: episodes per question.

    Raises:
        QuestionSetError: there are no questions.
        StoreError: the checkpoint is damaged.
    """
    if not questions:
        raise QuestionSetError(
            f"the task {respondent.task.name} has no questions in the split that is asked for; choose a split that has some, "
            "or give it questions"
        )
    wanted = answer_keys(respondent, questions, trials)
    with store.lock(f"segments/{respondent.table}"):  # two reports that want the same answers ask once
        _keep(store, respondent.table)
        answers, segments = _read_answers(store, respondent.table)
        missing = {key: episode for key, episode in wanted.items() if key not in answers}
        fresh: dict[str, dict[str, Any]] = {}
        result: dict[str, Any] = {}
        if missing:
            if respondent.checkpoint is not None:
                store.verify(respondent.checkpoint)
            folder = store.home / ASKING / respondent.table
            play(store, respondent, missing, folder, run_child)
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            fresh = _rows_of(folder)
            _keep(store, respondent.table)
            answers, segments = _read_answers(store, respondent.table)
    rows = [answers.get(key) or fresh[key] for key in wanted]
    return Answers(
        rows,
        len(missing),
        tuple(sorted({segments[row["answer_key"]] for row in rows if row["answer_key"] in segments})),
        result,
    )


def play(
    store: Store, respondent: Respondent, wanted: Mapping[str, tuple[Question, int]], folder: Path, run_child: RunChild
) -> None:
    """Have a child play episodes; `folder` gets answers-*.jsonl as they come and result.json at the end.

    The child is told no right answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with store.scratch() as scratch:
        jobs = [
            {"answer_key": key, "question_id": question.question_id, "trial": trial, "turns": respondent.prompt(question)}
            for key, (question, trial) in wanted.items()
        ]
        (scratch / "questions.jsonl").write_text("".join(f"{canonical_json(job)}\n" for job in jobs), encoding="utf-8")
        (scratch / "passages.json").write_text(json.dumps(list(respondent.passages)), encoding="utf-8")
        config = {
            "passages_path": str(scratch / "passages.json"),
            "out_dir": str(folder),
            "model_dir": str(respondent.model_dir),
            "model_version": respondent.version,
            "task": task_to_job(respondent.task),
            "questions_path": str(scratch / "questions.jsonl"),
            "template": respondent.agent["template"],
            "agent": {name: value for name, value in respondent.agent.items() if name != "template"},
        }
        config_path = scratch / "evaluate.json"
        config_path.write_text(json.dumps(config), encoding="utf-8")
        run_child(EVALUATOR, config_path, 1, int(respondent.agent["threads"]))


def answer_keys(respondent: Respondent, questions: Sequence[Question], trials: int) -> dict[str, tuple[Question, int]]:
    """By answer key the question and the trial, in the order in which they are asked."""
    return {respondent.answer_key(question, trial): (question, trial) for question in questions for trial in range(trials)}


def asked_digest(respondent: Respondent, questions: Sequence[Question], trials: int = 1) -> str:
    """Names a respondent and all that it is asked, prompts included; also where that is nothing."""
    return digest(respondent.table, *answer_keys(respondent, questions, trials))


def _keep(store: Store, table: str) -> None:
    """Publish what lies in the evaluator's folder, also of one that was killed, and clear it."""
    folder = store.home / ASKING / table
    if not folder.is_dir():
        return
    answers = _read_answers(store, table)[0]
    rows = [row for key, row in _rows_of(folder).items() if row["status"] != INFRASTRUCTURE and key not in answers]
    if rows:
        text = "".join(f"{canonical_json(row)}\n" for row in rows)

        def write(segment: Path) -> Built:
            (segment / "answers.jsonl").write_text(text, encoding="utf-8")
            return Built(content={"rows": digest(text), "n_answers": len(rows)})

        store.publish_segment(table, digest(*(row["answer_key"] for row in rows)), write)
    shutil.rmtree(folder)


def _rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("answers-*.jsonl")):
        try:
            rows |= {row["answer_key"]: row for row in read_json_lines(path)}
        except (ValueError, KeyError) as error:
            LOG.warning("%s: cannot be read (%s); its questions are asked again", path, error)
    return rows


def _read_answers(store: Store, table: str) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Every known answer by its key, and the name of its segment by the same."""
    rows: dict[str, dict[str, Any]] = {}
    segments: dict[str, str] = {}
    for folder in store.segments(table, check=("answers.jsonl",)):
        of_segment = {row["answer_key"]: row for row in read_json_lines(folder / "answers.jsonl")}
        rows |= of_segment
        segments |= dict.fromkeys(of_segment, store.name(folder))
    return rows, segments
