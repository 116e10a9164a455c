"""Plays a checkpoint on held-out questions and counts: model folder + prompts -> episodes, metrics, result.

Run as a child: `python -m negtraj_dagster.reports.evaluate CONFIG.json`. Files in `out_dir`: `episodes.jsonl` and
`metrics.json` (no clock in them: same inputs, same bytes) and `result.json` last. A failure raises; it is never accuracy 0.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from negtraj_dagster import launch
from negtraj_dagster.agent.clients import TransformersPolicy, chat_encoder
from negtraj_dagster.agent.loop import Episode, run_episodes
from negtraj_dagster.agent.tools import make_tools
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.errors import QuestionSetError
from negtraj_dagster.progress import open_progress
from negtraj_dagster.reports.stats import wilson
from negtraj_dagster.schema import Question, Turn, canonical_json
from negtraj_dagster.store import read_json_lines, replace_text
from negtraj_dagster.tasks import Score, task_from_job

Scorer = Callable[[str | None, str], Score]


@dataclass(frozen=True)
class AgentLimits:
    """How far an episode may go, and how many are played together."""

    max_turns: int
    max_new_tokens_per_turn: int
    batch_size: int
    threads: int


def main(config_path: Path) -> None:
    """Evaluate what a config file describes.

    Raises:
        QuestionSetError: no questions, or one without a prompt.
        ModelError: the model folder lacks a file.
        SettingsError: the task names an unknown tool.
    """
    started_s = time.monotonic()
    config = json.loads(config_path.read_text(encoding="utf-8"))
    limits = AgentLimits(**config["agent"])
    torch.set_num_threads(limits.threads)
    task = task_from_job(config["task"])
    questions = read_questions(Path(config["questions_path"]), task=task.name)
    prompts = read_prompts(Path(config["prompts_path"]), questions)
    tools = make_tools(task.tools, passages=json.loads(Path(config["passages_path"]).read_text(encoding="utf-8")))
    model_dir = Path(config["model_dir"])
    policy = load_policy(model_dir, template=ChatTemplate.from_json(config["template"]), limits=limits)
    with open_progress() as say:
        playing_s = time.monotonic()
        episodes = run_episodes(
            policy,
            questions,
            first_turns=lambda question: list(prompts[question.question_id]),
            tools=tools,
            max_turns=limits.max_turns,
            terminal_action=task.terminal_action,
            on_turn=lambda n, n_live: say(f"turn {n}/{limits.max_turns}: {n_live} of {len(questions)} episodes go on"),
        )
        seconds = time.monotonic() - playing_s
        if config.get("is_scored", True):
            metrics = write_report(Path(config["out_dir"]), episodes, questions, score=task.score, counts=_counts(policy))
            say(f"{metrics['n_strict']} of {metrics['n']} right ({metrics['accuracy_strict']:.1%})", always=True)
        else:
            write_rows(Path(config["out_dir"]), [_episode_row(episode) for episode in episodes])
    result = {
        "seconds": round(time.monotonic() - started_s, 3),
        "episode_seconds": round(seconds, 3),
        "startup_seconds": round(launch.seconds_since_start() - seconds, 3),
        "generated_tokens_per_s": policy.n_generated_tokens / max(seconds, 1e-9),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device": str(policy.device),
    }
    replace_text(Path(config["out_dir"]) / "result.json", json.dumps(result, indent=2) + "\n")  # last: where it is, all is


def load_policy(model_dir: Path, *, template: ChatTemplate, limits: AgentLimits) -> TransformersPolicy:
    """The checkpoint as a policy, its prompts encoded as its training rows were."""
    # prompts are never cut here: the policy itself refuses one that fills the model's positions
    chat = chat_encoder(model_dir / "tokenizer.json", template=template, max_tokens=2**31 - 1)
    return TransformersPolicy(
        model_dir,
        chat=chat,
        max_new_tokens_per_turn=limits.max_new_tokens_per_turn,
        batch_size=limits.batch_size,
    )


def read_questions(path: Path, *, task: str) -> list[Question]:
    """The suite, sorted by question id.

    Raises:
        QuestionSetError: it is empty, or an id comes twice.
    """
    rows = read_json_lines(path)
    questions = [
        Question(task, row["question_id"], row["split"], row["question"], row["answer"], tuple(row["facts"])) for row in rows
    ]
    if not questions:
        raise QuestionSetError(f"{path}: no questions, expected at least one; choose a split that has some")
    if len({question.question_id for question in questions}) < len(questions):
        raise QuestionSetError(f"{path}: a question id comes twice; ids are unique within a suite")
    return sorted(questions, key=lambda question: question.question_id)


def read_prompts(path: Path, questions: Sequence[Question]) -> dict[str, list[Turn]]:
    """First turns by question id.

    Raises:
        QuestionSetError: a question has none.
    """
    prompts = {row["question_id"]: row["turns"] for row in read_json_lines(path)}
    if missing := [question.question_id for question in questions if question.question_id not in prompts]:
        raise QuestionSetError(f"{path}: no prompt for {len(missing)} questions ({', '.join(missing[:5])}); write one each")
    return prompts


def write_report(
    out_dir: Path, episodes: Sequence[Episode], questions: Sequence[Question], *, score: Scorer, counts: Mapping[str, int]
) -> dict[str, Any]:
    """Score the episodes, write episodes.jsonl and metrics.json, return the metrics.

    Args:
        out_dir: where the files go.
        episodes: one per question, in the same order.
        questions: with their answers.
        score: (prediction, answer) -> Score.
        counts: what the policy counted, copied into the metrics.
    """
    rows = []
    for episode, question in zip(episodes, questions, strict=True):
        verdict = score(episode.prediction, question.answer)
        rows.append({**_episode_row(episode), "strict": verdict.strict, "lenient": verdict.lenient})
    metrics = {**summarize_rows(rows), **counts}
    write_rows(out_dir, rows)
    (out_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


def write_rows(out_dir: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write episodes.jsonl."""
    out_dir.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{canonical_json(row)}\n" for row in rows)
    (out_dir / "episodes.jsonl").write_text(lines, encoding="utf-8")


def summarize_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts, accuracies with Wilson 95 % intervals, and rates per assistant turn (`_rate`) or per tool call."""
    n, n_turns = len(rows), sum(row["n_assistant_turns"] for row in rows)
    n_calls = sum(row["n_tool_calls"] for row in rows)
    metrics: dict[str, Any] = {"n": n}
    for kind in ("strict", "lenient"):
        n_right = sum(row[kind] for row in rows)
        low, high = wilson(n_right, n)
        metrics |= {
            f"n_{kind}": n_right,
            f"accuracy_{kind}": n_right / n,
            f"accuracy_{kind}_low": low,
            f"accuracy_{kind}_high": high,
        }
    return {
        **metrics,
        "finished_share": sum(row["status"] == "finished" for row in rows) / n,
        "format_error_rate": sum(row["n_format_errors"] for row in rows) / max(n_turns, 1),
        "unknown_tool_rate": sum(row["n_unknown_tools"] for row in rows) / max(n_turns, 1),
        "tool_error_rate": sum(row["n_tool_errors"] for row in rows) / max(n_calls, 1),
        "mean_turns": n_turns / n,
    }


def _episode_row(episode: Episode) -> dict[str, Any]:
    return {
        "question_id": episode.question_id,
        "turns": episode.turns,
        "prediction": episode.prediction,
        "status": episode.status,
        "n_assistant_turns": episode.n_assistant_turns,
        "n_tool_calls": episode.n_tool_calls,
        "n_tool_errors": episode.n_tool_errors,
        "n_format_errors": episode.n_format_errors,
        "n_unknown_tools": episode.n_unknown_tools,
    }


def _counts(policy: TransformersPolicy) -> dict[str, int]:
    return {
        "generated_tokens": policy.n_generated_tokens,
        "n_unstopped": policy.n_unstopped,
        "n_overlong": policy.n_overlong,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
