"""Codex's sessions (`~/.codex/sessions/**/*.jsonl`): `response_item` lines, with compactions.

Reasoning is read where its text is recorded. Where it is encrypted it is left out, and its summary, which the model did not
write, is kept in `extra`. Items of other kinds (a web search, whose result is not recorded) are counted there. After a
compaction the recorded history begins a rollout of its own.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import check, optional_text, require
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.rollouts.formats.openai import ROLES, read_content
from negtraj_dagster.rollouts.formats.segments import as_untrained, is_trained
from negtraj_dagster.schema import Rollout, Turn, json_as_recorded

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

CALLS = ("function_call", "custom_tool_call", "local_shell_call")
RESULTS = ("function_call_output", "custom_tool_call_output", "local_shell_call_output")


@dataclass
class _Part:
    """What was said up to a compaction, or to the end.

    Attributes:
        thought: reasoning that belongs to what the agent does next.
        summaries: of reasoning that is encrypted.
        n_left_out: items that are no turns, by kind.
        fault: why an item cannot be read; what was said after it is left out.
    """

    turns: list[Turn]
    thought: str = ""
    summaries: list[str] = field(default_factory=list)
    n_left_out: Counter[str] = field(default_factory=Counter)
    fault: RolloutFormatError | None = None

    def take(self, item: object, at: str) -> None:
        """Add an item."""
        if self.fault is None:
            try:
                _take(self, check(item, at, dict), at)
            except RolloutFormatError as error:
                self.fault = error


def read_file(task: str, document: "FileDocument") -> Reading:
    """One session: a rollout, and one more after each compaction.

    Raises:
        RolloutFormatError: no session_meta line.
    """
    meta = next((line["payload"] for line in document.objects if line.get("type") == "session_meta"), None)
    if not isinstance(meta, dict):
        raise RolloutFormatError("no line of type session_meta, expected a session of Codex")
    model, parts = "", [_Part(_instructions(meta))]
    for index, line in enumerate(document.objects):
        at, payload = f"line {index + 1}.payload", line.get("payload")
        if line.get("type") == "turn_context" and isinstance(payload, dict):
            model = model or optional_text(payload, "model", at=at) or ""
        elif line.get("type") == "response_item":
            parts[-1].take(payload, at)
        elif line.get("type") == "compacted":
            parts.append(_compacted(check(payload, at, dict), meta, at))
    session = optional_text(meta, "id") or optional_text(meta, "session_id") or ""
    names = [session if number == 0 else f"{session}, part {number}" for number in range(len(parts))]
    rollouts = [_rollout(task, part, names, number, model) for number, part in enumerate(parts) if is_trained(part.turns)]
    return [*rollouts, *(part.fault for part in parts if part.fault is not None)]


def _rollout(task: str, part: _Part, names: list[str], number: int, model: str) -> Rollout:
    prompt, agent_turns = split_prompt(part.turns, names[number])
    facts = {"segment": names[number], "reasoning_summaries": part.summaries, "left_out": dict(part.n_left_out)}
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
        extra=extra_json(facts),
    )


def _instructions(meta: dict[str, Any]) -> list[Turn]:
    base = meta.get("base_instructions")
    text = base.get("text") if isinstance(base, dict) else base or meta.get("instructions")
    return [{"role": "system", "content": text}] if isinstance(text, str) and text else []


def _compacted(payload: dict[str, Any], meta: dict[str, Any], at: str) -> _Part:
    part = _Part(_instructions(meta))
    history = payload.get("replacement_history") or []
    for index, item in enumerate(history):
        part.take(item, f"{at}.replacement_history[{index}]")
    if not history and payload.get("message"):
        part.turns.append({"role": "user", "content": str(payload["message"])})
    part.turns = [as_untrained(turn) for turn in part.turns]
    return part


def _take(part: _Part, item: dict[str, Any], at: str) -> None:
    """Add an item; what the agent says and calls without a result, or new reasoning, between is one turn."""
    kind = require(item, "type", str, at=at)
    if kind == "reasoning":
        _take_reasoning(part, item, at)
    elif kind == "message":
        role = ROLES.get(str(item.get("role")), item.get("role"))
        message = {"role": role, "content": read_content(item.get("content"), f"{at}.content") or ""}
        thought = _thought(part)  # what the user interrupted is of no turn
        part.turns.append(read_message({**message, **thought} if role == "assistant" else message, at))
    elif kind in CALLS:
        call = _call(item, kind, at)
        last = part.turns[-1] if part.turns else None
        if last is not None and last["role"] == "assistant" and last.get("loss", True) is not False and not part.thought:
            part.turns[-1] = read_message({**last, "tool_calls": [*last.get("tool_calls", []), call]}, at)
        else:
            part.turns.append(read_message({"role": "assistant", "content": "", "tool_calls": [call], **_thought(part)}, at))
    elif kind in RESULTS:
        output = item.get("output")
        text = read_content(output, at) if isinstance(output, (str, list)) else json_as_recorded(output)
        message = {"role": "tool", "content": text or "", "tool_call_id": str(item.get("call_id") or "")}
        part.turns.append(read_message(message, at))
    else:
        part.n_left_out[kind] += 1


def _take_reasoning(part: _Part, item: dict[str, Any], at: str) -> None:
    """Keep reasoning's text for what follows it; of encrypted reasoning its summary, beside the turns."""
    if content := _texts(item.get("content"), f"{at}.content"):
        part.thought = "\n".join([part.thought, *content]) if part.thought else "\n".join(content)
        return
    part.n_left_out["reasoning"] += 1
    part.summaries += _texts(item.get("summary"), f"{at}.summary")


def _texts(value: object, at: str) -> list[str]:
    parts = [check(part, at, dict) for part in check(value or [], at, list)]
    return [text for part in parts if (text := optional_text(part, "text", at=at))]


def _thought(part: _Part) -> dict[str, str]:
    """The reasoning before a turn, which is its own."""
    thought, part.thought = part.thought, ""
    return {"reasoning": thought} if thought else {}


def _call(item: dict[str, Any], kind: str, at: str) -> dict[str, Any]:
    call = {"id": optional_text(item, "call_id", at=at) or ""}
    if kind == "function_call":
        return {**call, "name": require(item, "name", str, at=at), "arguments": item.get("arguments") or "{}"}
    if kind == "custom_tool_call":
        return {**call, "name": require(item, "name", str, at=at), "arguments": json_as_recorded({"input": item.get("input")})}
    return {**call, "name": "local_shell", "arguments": json_as_recorded(item.get("action") or {})}
