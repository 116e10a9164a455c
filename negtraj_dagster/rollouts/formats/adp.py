"""Agent Data Protocol v1: a list of observations and actions. Actions are calls of tools, observations their results.

`code_action` is a call of a tool that is named by the language, with the argument `code`; what an action's `description` says
stands before it, in the same turn.
"""

from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import NOTHING, check, optional_text, refusal, require
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.schema import Rollout, Turn

KINDS = ("text_observation", "code_action", "api_action", "message_action")
AGENT = ("agent", "assistant")
"""Sources of text that is the agent's own, though it stands as an observation."""
KEYS = {"schema_version", "id", "content"}
ITEM_KEYS = {
    "class_",
    "content",
    "name",
    "source",
    "language",
    "description",
    "function",
    "kwargs",
    "tool_call_id",
    "reasoning_content",
}


def read_record(task: str, record: dict[str, Any]) -> Reading:
    """One record: one rollout.

    Raises:
        RolloutFormatError: no content, an item of another class, such as an observation of a web page or an image.
    """
    items = require(record, "content", list)
    turns: list[Turn] = []
    unread = {}
    for index, value in enumerate(items):
        at = f"content[{index}]"
        item = check(value, at, dict)
        turns.append(
            _turn(item, at, follows_call=bool(turns) and bool(turns[-1].get("tool_calls") or turns[-1]["role"] == "tool"))
        )
        if not item.keys() <= ITEM_KEYS and (
            rest := {key: field for key, field in item.items() if key not in ITEM_KEYS and field not in NOTHING}
        ):
            unread[str(index)] = rest
    if not turns:
        raise RolloutFormatError("content is empty, expected observations and actions")
    prompt, agent_turns = split_prompt(turns, "content")
    return [
        Rollout(
            task=task,
            question_id="",
            source="adp",
            turns=agent_turns,
            reward=None,
            group=optional_text(record, "id"),
            prompt=prompt,
            extra=extra_json({**{key: value for key, value in record.items() if key not in KEYS}, "content": unread}),
        )
    ]


def _turn(item: dict[str, Any], at: str, *, follows_call: bool) -> Turn:
    if item.get("class_") == "text_observation":
        return _text(item, require(item, "content", str, at=at), at, follows_call=follows_call)
    kind = require(item, "class_", str, at=at)
    if kind not in KINDS:
        raise refusal(f"{at}.class_", kind, f"one of {', '.join(KINDS)}", "pages and images are unsupported")
    description = optional_text(item, "description", at=at) or ""
    message: dict[str, Any] = {"role": "assistant", "content": description}
    if reasoning := optional_text(item, "reasoning_content", at=at):
        message["reasoning"] = reasoning
    if kind == "message_action":
        content = require(item, "content", str, at=at)
        message["content"] = f"{description}\n\n{content}" if description else content
    elif kind == "code_action":
        arguments = {"code": require(item, "content", str, at=at)}
        message["tool_calls"] = [{"name": require(item, "language", str, at=at), "arguments": arguments, **_call_id(item, at)}]
    else:
        call = {"name": require(item, "function", str, at=at), **_call_id(item, at)}
        message["tool_calls"] = [{**call, "arguments": item.get("kwargs") or {}}]
    return read_message(message, at)


def _call_id(item: dict[str, Any], at: str) -> dict[str, str]:
    call_id = optional_text(item, "tool_call_id", at=at)
    return {"id": call_id} if call_id else {}


def _text(item: dict[str, Any], content: str, at: str, *, follows_call: bool) -> Turn:
    source = item.get("source")
    if source in AGENT:
        return read_message({"role": "assistant", "content": content}, at)
    if source == "user" or not (follows_call or item.get("name") == "system"):
        return {"role": "user", "content": content}
    if item.get("name") == "system":
        return {"role": "system", "content": content}
    turn: Turn = {"role": "tool", "content": content}
    if call_id := optional_text(item, "tool_call_id", at=at):
        turn["tool_call_id"] = call_id
    return turn
