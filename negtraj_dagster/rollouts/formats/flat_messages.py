"""A message of OpenInference's flat keys becomes a turn at once, where nothing in it has to be looked at, as in most.

What it reads is what `unflattened` and the reader of chat messages would: tests of the formats hold them equal.
"""

from functools import lru_cache
from typing import Any, NamedTuple, cast

from negtraj_dagster.reasoning import CLOSE
from negtraj_dagster.rollouts.formats.attributes import Flat
from negtraj_dagster.rollouts.formats.messages import PLAIN_KEYS
from negtraj_dagster.rollouts.formats.tool_calls import plain_call
from negtraj_dagster.schema import ToolCall, Turn

PART = ("message", "contents", "0", "message_content")
TEXTS = {
    ("message", "role"): "role",
    ("message", "content"): "content",
    (*PART, "text"): "part",
    (*PART, "type"): "kind",
    ("message", "tool_call_id"): "tool_call_id",
}
CALL_TEXTS = {("id",): "id", ("function", "name"): "name", ("function", "arguments"): "arguments"}


class _Layout(NamedTuple):
    """Where in a message's values its texts stand, and those of its calls, and which keys of a chat message these make."""

    texts: dict[str, int]
    calls: list[dict[str, int]]
    keys: set[str]


def plain_turn(flat: Flat) -> Turn | None:
    """The turn of a message of texts and of calls that are plain; None for any other."""
    layout = _layout(tuple(flat))
    if layout is None:
        return None
    values = list(flat.values())
    texts = {name: values[index] for name, index in layout.texts.items()}
    role, content = texts["role"], texts.get("part", texts.get("content", ""))
    if type(role) is not str or not layout.keys <= PLAIN_KEYS.get(role, set()) or texts.get("kind", "text") != "text":
        return None
    if type(content) is not str or (role == "assistant" and CLOSE in content):
        return None
    turn: dict[str, Any] = {"role": role, "content": content}
    if "tool_call_id" in texts:
        if type(texts["tool_call_id"]) is not str:
            return None
        turn |= {"tool_call_id": texts["tool_call_id"]} if texts["tool_call_id"] else {}
    if layout.calls:
        calls = [_call(places, values) for places in layout.calls]
        if None in calls:
            return None
        turn["tool_calls"] = calls
    return cast("Turn", turn)


def _call(places: dict[str, int], values: list[Any]) -> ToolCall | None:
    call = {name: values[index] for name, index in places.items()}
    return plain_call({"id": call.pop("id", None), "function": call})


@lru_cache(maxsize=256)
def _layout(paths: tuple[tuple[str, ...], ...]) -> _Layout | None:
    """The layout of a message whose values have these paths; None where any of them is another's, or parts are missing."""
    texts: dict[str, int] = {}
    calls: dict[str, dict[str, int]] = {}
    for index, path in enumerate(paths):
        if path in TEXTS:
            texts[TEXTS[path]] = index
        elif path[:2] == ("message", "tool_calls") and path[3:4] == ("tool_call",) and path[4:] in CALL_TEXTS:
            calls.setdefault(path[2], {})[CALL_TEXTS[path[4:]]] = index
        else:
            return None
    if "role" not in texts or ("part" in texts) != ("kind" in texts) or {"part", "content"} <= texts.keys():
        return None
    if not all(map(str.isdigit, calls)) or not all({"name", "arguments"} <= places.keys() for places in calls.values()):
        return None
    keys = {"content" if name in ("part", "kind") else name for name in texts} | ({"tool_calls"} if calls else set())
    return _Layout(texts, [calls[number] for number in sorted(calls, key=int)], keys)
