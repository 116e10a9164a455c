"""Codex's sessions (`~/.codex/sessions/**/*.jsonl`): `response_item` lines, with compactions.

Reasoning is recorded encrypted or as a summary that the model did not write: it is left out, so what is trained is what the
agent said and called. After a compaction the recorded history begins a rollout of its own.
"""

from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import check, optional_text, require
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.rollouts.formats.openai import ROLES, read_content
from negtraj_dagster.rollouts.formats.segments import as_untrained, is_trained
from negtraj_dagster.rollouts.formats.tool_calls import json_text
from negtraj_dagster.schema import Rollout, Turn

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

CALLS = ("function_call", "custom_tool_call", "local_shell_call")
RESULTS = ("function_call_output", "custom_tool_call_output", "local_shell_call_output")


def read_file(task: str, document: "FileDocument") -> Reading:
    """One session: a rollout, and one more after each compaction.

    Raises:
        RolloutFormatError: no session_meta line, or an item of another shape.
    """
    meta = next((line["payload"] for line in document.objects if line.get("type") == "session_meta"), None)
    if not isinstance(meta, dict):
        raise RolloutFormatError("no line of type session_meta, expected a session of Codex")
    model, turns = "", _instructions(meta)
    segments: list[list[Turn]] = [turns]
    for index, line in enumerate(document.objects):
        at, payload = f"line {index + 1}.payload", line.get("payload")
        if line.get("type") == "turn_context" and isinstance(payload, dict):
            model = model or optional_text(payload, "model", at=at) or ""
        elif line.get("type") == "response_item":
            _take(segments[-1], check(payload, at, dict), at)
        elif line.get("type") == "compacted":
            segments.append(_compacted(check(payload, at, dict), meta, at))
    session = optional_text(meta, "id") or ""
    names = [session if number == 0 else f"{session}, part {number}" for number in range(len(segments))]
    return [_rollout(task, turns, names, number, model) for number, turns in enumerate(segments) if is_trained(turns)]


def _rollout(task: str, turns: list[Turn], names: list[str], number: int, model: str) -> Rollout:
    prompt, agent_turns = split_prompt(turns, names[number])
    return Rollout(
        task=task,
        question_id="",
        source="codex",
        turns=agent_turns,
        reward=None,
        teacher=model,
        session=names[0],
        prompt=prompt,
        parent=names[number - 1] if number else None,
        group=names[0],
        extra=extra_json({"segment": names[number]}),
    )


def _instructions(meta: dict[str, Any]) -> list[Turn]:
    base = meta.get("base_instructions")
    text = base.get("text") if isinstance(base, dict) else base or meta.get("instructions")
    return [{"role": "system", "content": text}] if isinstance(text, str) and text else []


def _compacted(payload: dict[str, Any], meta: dict[str, Any], at: str) -> list[Turn]:
    turns = _instructions(meta)
    for index, item in enumerate(payload.get("replacement_history") or []):
        _take(turns, check(item, f"{at}.replacement_history[{index}]", dict), f"{at}.replacement_history[{index}]")
    if not payload.get("replacement_history") and payload.get("message"):
        turns.append({"role": "user", "content": str(payload["message"])})
    return [as_untrained(turn) for turn in turns]


def _take(turns: list[Turn], item: dict[str, Any], at: str) -> None:
    """Add an item; what the agent says and calls without a result between is one turn."""
    kind = require(item, "type", str, at=at)
    if kind == "message":
        role = ROLES.get(str(item.get("role")), item.get("role"))
        turn = read_message({"role": role, "content": read_content(item.get("content"), f"{at}.content") or ""}, at)
        turns.append(turn)
    elif kind in CALLS:
        call = _call(item, kind, at)
        last = turns[-1] if turns else None
        if last is not None and last["role"] == "assistant" and last.get("loss", True) is not False:
            merged = {"role": "assistant", "content": last["content"], "tool_calls": [*last.get("tool_calls", []), call]}
            turns[-1] = read_message(merged, at)
        else:
            turns.append(read_message({"role": "assistant", "content": "", "tool_calls": [call]}, at))
    elif kind in RESULTS:
        output = item.get("output")
        text = (
            output if isinstance(output, str) else read_content(output, at) if isinstance(output, list) else json_text(output)
        )
        turns.append(read_message({"role": "tool", "content": text or "", "tool_call_id": str(item.get("call_id") or "")}, at))


def _call(item: dict[str, Any], kind: str, at: str) -> dict[str, Any]:
    call = {"id": optional_text(item, "call_id", at=at) or ""}
    if kind == "function_call":
        return {**call, "name": require(item, "name", str, at=at), "arguments": item.get("arguments") or "{}"}
    if kind == "custom_tool_call":
        return {**call, "name": require(item, "name", str, at=at), "arguments": json_text({"input": item.get("input")})}
    return {**call, "name": "local_shell", "arguments": json_text(item.get("action") or {})}
