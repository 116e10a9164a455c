"""Langfuse's exports (`observations_v2`, with `scores` in the same file): generations become rollouts, trace by trace.

What a generation was sent is a list of messages, or an object with `messages` and `tools`; what it answered a message, or text.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import optional_text
from negtraj_dagster.rollouts.formats.openai import json_list, read_messages
from negtraj_dagster.rollouts.formats.segments import Call, Segment, merge_calls
from negtraj_dagster.rollouts.formats.tool_calls import read_tools
from negtraj_dagster.rollouts.records import parse_text
from negtraj_dagster.schema import Rollout

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

BOOLEAN = "BOOLEAN"


def read_file(task: str, document: "FileDocument") -> Reading:
    """The traces of a file of observations and scores.

    Raises:
        RolloutFormatError: no line of it is a generation with what it was sent and answered.
    """
    traces: dict[str, list[dict[str, Any]]] = {}
    for line in document.objects:
        if trace := line.get("traceId") or line.get("trace_id"):
            traces.setdefault(str(trace), []).append(line)
    rollouts: list[Rollout | RolloutFormatError] = []
    for name, lines in traces.items():
        generations = [line for line in lines if line.get("type") == "GENERATION"]
        scores = [line for line in lines if "value" in line and "name" in line and "type" not in line]
        rollouts += _trace(task, name, generations, scores)
    if not rollouts:
        raise RolloutFormatError("no line of type GENERATION with a traceId, expected Langfuse's observations")
    return rollouts


def _trace(task: str, name: str, generations: list[dict[str, Any]], scores: list[dict[str, Any]]) -> Reading:
    calls, faults, tools = [], [], None
    ordered = sorted(generations, key=lambda line: str(line.get("startTime") or line.get("start_time") or ""))
    for number, line in enumerate(ordered):
        generation = str(line.get("id") or f"generation {number}")
        try:
            call, tools_sent = _call(line, generation)
        except RolloutFormatError as error:
            faults.append(RolloutFormatError(f"trace {name:.40}, {generation:.60}: {error}"))
            continue
        calls.append(call)
        tools = tools or tools_sent
    model = next((text for line in ordered for key in ("model", "providedModelName") if (text := optional_text(line, key))), "")
    verdict = replace(_verdict(scores), teacher=model, tools=tools)
    return [*(_rollout(task, name, segment, verdict) for segment in merge_calls(calls)), *faults]


@dataclass(frozen=True)
class _Verdict:
    """What is known of all rollouts of a trace."""

    reward: bool | None
    score: float | None
    names: tuple[str, ...]
    teacher: str = ""
    tools: str | None = None


def _verdict(scores: list[dict[str, Any]]) -> _Verdict:
    """The outcome where the boolean scores agree, and the score where there is one number."""
    values = {str(score["name"]): score for score in scores}
    outcomes = {bool(score["value"]) for score in values.values() if score.get("dataType") == BOOLEAN}
    numbers = [float(score["value"]) for score in values.values() if _is_number(score)]
    reward = next(iter(outcomes)) if len(outcomes) == 1 else None
    return _Verdict(reward, numbers[0] if len(numbers) == 1 else None, tuple(sorted(values)))


def _is_number(score: dict[str, Any]) -> bool:
    return isinstance(score["value"], (int, float)) and score.get("dataType") != BOOLEAN


def _rollout(task: str, name: str, segment: Segment, verdict: _Verdict) -> Rollout | RolloutFormatError:
    try:
        prompt, agent_turns = split_prompt(segment.turns, f"trace {name:.40}")
    except RolloutFormatError as error:
        return error
    return Rollout(
        task=task,
        question_id="",
        source="langfuse",
        turns=agent_turns,
        reward=verdict.reward,
        teacher=verdict.teacher,
        session=name,
        tools=verdict.tools,
        prompt=prompt,
        score=verdict.score,
        parent=f"{name}/{segment.parent}" if segment.parent else None,
        group=name,
        extra=extra_json({"segment": segment.name, "scores": list(verdict.names)}),
    )


def _call(line: dict[str, Any], name: str) -> tuple[Call, str | None]:
    sent, answered = _value(line.get("input"), "input"), _value(line.get("output"), "output")
    tools = None
    if isinstance(sent, dict):
        tools = read_tools(sent.get("tools"), "input.tools")
        sent = sent.get("messages")
    turns, _ = read_messages(json_list(sent, "input"), "input")
    if isinstance(answered, str):
        answered = {"role": "assistant", "content": answered}
    answers, _ = read_messages(answered if isinstance(answered, list) else [answered], "output")
    return Call(name, turns, answers), tools


def _value(value: Any, place: str) -> Any:
    """A value, or what JSON text of a list or an object says; other text as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return parse_text(value)
    except ValueError as error:
        if place == "output":
            return value
        raise RolloutFormatError(f"{place}: {error}, expected a list of messages") from error
