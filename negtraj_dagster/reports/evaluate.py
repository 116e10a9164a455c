"""Plays a model on questions: model folder + prompts -> answers. It is told no right answer; scores are `metrics`' part.

Run as a child: `python -m negtraj_dagster.reports.evaluate CONFIG.json`. Files in `out_dir`: `answers-NNNNN.jsonl`, whole ones,
as they come, and `result.json` last. A failure raises; it is never a wrong answer.
"""

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from negtraj_dagster import launch
from negtraj_dagster.agent.call_syntax import find_call_syntax
from negtraj_dagster.agent.clients import Dtype, TransformersPolicy, chat_encoder
from negtraj_dagster.agent.loop import Episode, run_episodes
from negtraj_dagster.agent.tools import make_tools
from negtraj_dagster.agent.tools.schemas import native_rules, tool_schemas
from negtraj_dagster.agent.url_client import Server, UrlPolicy
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.errors import QuestionSetError
from negtraj_dagster.progress import Say, open_progress
from negtraj_dagster.schema import Question, Turn, canonical_json
from negtraj_dagster.store import read_json_lines, replace_text
from negtraj_dagster.tasks import Task, task_from_job

CHUNK = 256
"""Episodes played in step and written together: what a killed evaluation has to play again at most."""


@dataclass(frozen=True)
class AgentLimits:
    """How far an episode may go, how turns are decoded, and how many are played together; see `EvaluationSettings`."""

    max_turns: int
    max_new_tokens_per_turn: int
    batch_size: int
    threads: int
    temperature: float = 0.0
    dtype: Dtype = "fp32"
    keeps_caches: bool = False
    client: Literal["model", "url"] = "model"
    server: Mapping[str, Any] | None = None


def main(config_path: Path) -> None:
    """Play what a config file describes.

    Raises:
        QuestionSetError: no questions, or a key twice.
        ModelError: the model folder lacks a file, a native agent's template writes calls that nothing here reads, or a server
            refuses what it is asked.
        SettingsError: the task names an unknown tool, or the server's address or key cannot be used.
    """
    started_s = time.monotonic()
    config = json.loads(config_path.read_text(encoding="utf-8"))
    limits = AgentLimits(**config["agent"])
    torch.set_num_threads(limits.threads)
    task = task_from_job(config["task"])
    jobs = read_jobs(Path(config["questions_path"]))
    tools = make_tools(task.tools, passages=json.loads(Path(config["passages_path"]).read_text(encoding="utf-8")))
    model_dir, out_dir = Path(config["model_dir"]), Path(config["out_dir"])
    template = ChatTemplate.from_json(config["template"])
    policy = load_policy(model_dir, task, template=template, limits=limits)
    native = None
    if task.style == "native":  # a server takes the calls out of the text itself
        syntax = find_call_syntax(template, model_dir / "tokenizer.json") if limits.client == "model" else None
        native = native_rules(syntax, task.tools, terminal_action=task.terminal_action, plain_answer=task.plain_answer)
    n_chunk = max(CHUNK, limits.batch_size)
    first_free = len(list(out_dir.glob("answers-*.jsonl")))
    with open_progress() as say:
        playing_s = time.monotonic()
        for number, start in enumerate(range(0, len(jobs), n_chunk)):
            chunk = jobs[start : start + n_chunk]
            prompts = {str(job["question_id"]): job["turns"] for job in chunk}
            episodes = run_episodes(
                policy,
                [Question(task.name, str(job["question_id"]), "test", "", "null") for job in chunk],
                first_turns=partial(_first_turns, prompts),
                tools=tools,
                max_turns=limits.max_turns,
                terminal_action=task.terminal_action,
                on_turn=partial(_tell, say, f"questions {start + 1} to {start + len(chunk)} of {len(jobs)}", limits.max_turns),
                native=native,
                trials=[int(job["trial"]) for job in chunk] if limits.temperature > 0 else None,
            )
            write_answers(out_dir / f"answers-{first_free + number:05}.jsonl", episodes, chunk)
        seconds = time.monotonic() - playing_s
        say(f"{len(jobs)} episodes in {seconds:.0f} s", always=True)
    result = {
        "seconds": round(time.monotonic() - started_s, 3),
        "episode_seconds": round(seconds, 3),
        "seconds_per_episode": round(seconds / len(jobs), 4),
        "startup_seconds": round(launch.seconds_since_start() - seconds, 3),
        "generated_tokens_per_s": policy.n_generated_tokens / max(seconds, 1e-9),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device": str(policy.device),
        "n_unstopped": policy.n_unstopped,
        "n_overlong": policy.n_overlong,
    }
    replace_text(out_dir / "result.json", json.dumps(result, indent=2) + "\n")  # last: where it is, all is


def _first_turns(prompts: Mapping[str, Sequence[Turn]], question: Question) -> list[Turn]:
    return list(prompts[question.question_id])


def _tell(say: Say, questions: str, n_turns: int, n_done: int, n_live: int) -> None:
    say(f"{questions}, turn {n_done}/{n_turns}: {n_live} go on")


def load_policy(model_dir: Path, task: Task, *, template: ChatTemplate, limits: AgentLimits) -> TransformersPolicy | UrlPolicy:
    """Who writes the turns: the checkpoint, its prompts encoded as its training rows were, or the server that has it."""
    tools = tool_schemas(task.tools, terminal_action=task.terminal_action) if task.style == "native" else None
    if limits.client == "url":
        return UrlPolicy(
            Server(**(limits.server or {})),
            max_new_tokens_per_turn=limits.max_new_tokens_per_turn,
            batch_size=limits.batch_size,
            tools=tools,
            temperature=limits.temperature,
        )
    # prompts are never cut here: the policy itself refuses one that fills the model's positions
    chat = chat_encoder(model_dir / "tokenizer.json", template=template, max_tokens=2**31 - 1, tools=tools)
    return TransformersPolicy(
        model_dir,
        chat=chat,
        max_new_tokens_per_turn=limits.max_new_tokens_per_turn,
        batch_size=limits.batch_size,
        dtype=limits.dtype,
        temperature=limits.temperature,
        keeps_caches=limits.keeps_caches,
    )


def read_jobs(path: Path) -> list[dict[str, Any]]:
    """What is asked, sorted by question id and trial: `answer_key`, `question_id`, `trial`, `turns`.

    Raises:
        QuestionSetError: it is empty, or a key comes twice.
    """
    jobs = read_json_lines(path)
    if not jobs:
        raise QuestionSetError(f"{path}: no questions, expected at least one; choose a split that has some")
    if len({job["answer_key"] for job in jobs}) < len(jobs):
        raise QuestionSetError(f"{path}: a question id comes twice; ids are unique within a suite")
    return sorted(jobs, key=lambda job: (job["question_id"], job["trial"]))


def write_answers(path: Path, episodes: Sequence[Episode], jobs: Sequence[Mapping[str, Any]]) -> None:
    """One line per episode, in one step: its job's key, question and trial, and what happened.

    Args:
        path: of the new file.
        episodes: parallel to the jobs.
        jobs: of `read_jobs`.
    """
    rows = []
    for episode, job in zip(episodes, jobs, strict=True):
        identity = {name: job[name] for name in ("answer_key", "question_id", "trial")}
        rows.append({**episode_row(episode), **identity})
    replace_text(path, "".join(f"{canonical_json(row)}\n" for row in rows))


def episode_row(episode: Episode) -> dict[str, Any]:
    """An episode as it is kept; `stops` says of each assistant turn whether its end token or the limit ended it."""
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
        "n_generated_tokens": episode.n_generated_tokens,
        "stops": episode.stops,
        **({"error": episode.error} if episode.error else {}),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
