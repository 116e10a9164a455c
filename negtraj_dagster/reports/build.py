"""A recipe's evaluation report as an object: made by an evaluator child once per (checkpoint, questions, agent limits)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from negtraj_dagster.agent.decoding import DECODING
from negtraj_dagster.agent.tools import TOOL_VERSIONS
from negtraj_dagster.errors import StoreError
from negtraj_dagster.launch import RunChild
from negtraj_dagster.reports.summarize import report_page
from negtraj_dagster.schema import Question, Turn, canonical_json, digest_json
from negtraj_dagster.store import Built, Published, Store, file_sha256, read_json_lines
from negtraj_dagster.tasks import Task, task_to_job

EVALUATE_VERSION = 3
"""Rises when the evaluator plays other episodes from the same inputs."""
EVALUATOR = "negtraj_dagster.reports.evaluate"


def build_report(
    store: Store,
    recipe: str,
    *,
    checkpoint: Published,
    task: Task,
    questions: Sequence[Question],
    passages: Sequence[str],
    prompt: Callable[[Question], list[Turn]],
    prompt_identity: str,
    agent: Mapping[str, Any],
    run_child: RunChild,
) -> Published:
    """Play the recipe's checkpoint on held-out questions, unless this very evaluation exists.

    Args:
        store: where the checkpoint lies and the report goes.
        recipe: its name.
        checkpoint: what is evaluated.
        task: whose tools and scoring rule apply.
        questions: the suite, in order.
        passages: what the agent's search tool looks things up in.
        prompt: the inference side of the strategy the checkpoint was trained with.
        prompt_identity: names `prompt`; must be the one the checkpoint was trained with.
        agent: template, max_turns, max_new_tokens_per_turn, batch_size, threads.
        run_child: starts the evaluator.

    Raises:
        StoreError: the checkpoint was trained with other prompts or another template than it would be asked with.
    """
    asset = f"{recipe}/evaluation_report"
    if why := why_unjudged(task):
        made_of_nothing = {"code": EVALUATE_VERSION, "checkpoint": checkpoint.version, "unjudged": why}
        return store.build(asset, made_of_nothing, lambda _: Built(content={"status": "no_data", "reason": why}))
    card = checkpoint.details.get("card", {})
    if not checkpoint.is_empty and (card["conditioning"], card["chat_template"]) != (prompt_identity, agent["template"]):
        raise StoreError(f"{recipe}/checkpoint was trained with another strategy or template; materialize it again first")
    contaminated = card.get("n_contaminated", 0) > 0
    suite = digest_json([[question.question_id, question.question_hash] for question in questions])
    untold = ("threads",) if sums_depend_on_batch(checkpoint) else ("threads", "batch_size")
    limits = {name: value for name, value in agent.items() if name not in untold}
    corpus = digest_json(list(passages))
    rules_of_play = {"task": task.name, "rules": task_identity(task), "decoding": dict(DECODING)}
    bounds = {name: value for name, value in agent.items() if name not in ("template", "threads", "batch_size")}
    rules = digest_json([EVALUATE_VERSION, rules_of_play, corpus, bounds])
    made_of = {
        "code": EVALUATE_VERSION,
        "checkpoint": checkpoint.version,
        **rules_of_play,
        "questions": suite,
        "passages": corpus,
        "conditioning": prompt_identity,
        "agent": limits,
        "contaminated": contaminated,
    }

    def write(folder: Path) -> Built:
        if checkpoint.is_empty:
            return Built(content=checkpoint.content)
        store.verify(checkpoint.folder)
        play(store, folder, checkpoint.folder / "model", task, questions, passages, prompt, agent, run_child)
        return _describe(folder, recipe, checkpoint, suite, rules, contaminated)

    return store.build(asset, made_of, write)


def why_unjudged(task: Task) -> str | None:
    """Why nothing of this task's can be evaluated here; None where it can."""
    if not task.scores_answers:
        return (
            f"outcomes of {task.name} are recorded by the system that ran the agent: no answer can be judged here, so its "
            f"checkpoints are evaluated there"
        )
    return None


def sums_depend_on_batch(checkpoint: Published) -> bool:
    """Whether a turn may come out otherwise in a batch of another size: sums of short numbers depend on their order."""
    return not checkpoint.is_empty and checkpoint.details["result"].get("dtype", "fp32") != "fp32"


def task_identity(task: Task) -> dict[str, Any]:
    """What of a task decides episodes and scores beside its questions: scorers, tools, the action that ends, the style."""
    return {
        "version": task.version,
        "tools": {name: TOOL_VERSIONS[name] for name in task.tools},
        "terminal_action": task.terminal_action,
        "style": task.style,
    }


def play(
    store: Store,
    folder: Path,
    model_dir: Path,
    task: Task,
    questions: Sequence[Question],
    passages: Sequence[str],
    prompt: Callable[[Question], list[Turn]],
    agent: Mapping[str, Any],
    run_child: RunChild,
    *,
    is_scored: bool = True,
) -> None:
    """Have a child play a model on questions; `folder` gets episodes.jsonl and, where they are scored, metrics.json."""
    with store.scratch() as scratch:
        rows = [
            {
                "question_id": question.question_id,
                "split": question.split,
                "question": question.question,
                "answer": question.answer,
                "facts": list(question.facts),
            }
            for question in questions
        ]
        prompts = [{"question_id": question.question_id, "turns": prompt(question)} for question in questions]
        for name, lines in (("questions", rows), ("prompts", prompts)):
            (scratch / f"{name}.jsonl").write_text("".join(f"{canonical_json(line)}\n" for line in lines))
        (scratch / "passages.json").write_text(json.dumps(list(passages)))
        config = {
            "passages_path": str(scratch / "passages.json"),
            "out_dir": str(folder),
            "model_dir": str(model_dir),
            "task": task_to_job(task),
            "questions_path": str(scratch / "questions.jsonl"),
            "prompts_path": str(scratch / "prompts.jsonl"),
            "template": agent["template"],
            "agent": {name: value for name, value in agent.items() if name != "template"},
            "is_scored": is_scored,
        }
        config_path = scratch / "evaluate.json"
        config_path.write_text(json.dumps(config))
        run_child(EVALUATOR, config_path, 1, int(agent["threads"]))


def _describe(folder: Path, recipe: str, checkpoint: Published, suite: str, rules: str, contaminated: bool) -> Built:
    metrics = json.loads((folder / "metrics.json").read_text())
    result = json.loads((folder / "result.json").read_text())
    episodes = read_json_lines(folder / "episodes.jsonl")
    page = report_page(recipe, metrics, episodes, contaminated=contaminated)
    (folder / "report.html").write_text(page, encoding="utf-8")
    content = {
        "metrics": metrics,
        "episodes": file_sha256(folder / "episodes.jsonl"),
        "suite": suite,
        "rules": rules,
        "checkpoint": checkpoint.version,
        "contaminated": contaminated,
    }
    return Built(
        content=content, details={"result": result}, work={"questions_evaluated": metrics["n"]}, volatile=("result.json",)
    )
