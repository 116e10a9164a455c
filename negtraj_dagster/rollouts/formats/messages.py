"""One message of the project's own format -> a turn in its one canonical spelling: what says nothing is left out."""

from typing import Any, cast

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.reasoning import CLOSE, split_reasoning
from negtraj_dagster.rollouts.formats.fields import MAYBE_TEXT, check, optional, refusal, refuse_unknown_keys, require
from negtraj_dagster.rollouts.formats.tool_calls import read_tool_calls
from negtraj_dagster.rollouts.formats.weights import read_loss, read_ranges, read_token_ids
from negtraj_dagster.schema import ROLES, Role, Turn

ROLE_OF: dict[str, Role] = {
    "reasoning": "assistant",
    "tool_calls": "assistant",
    "ranges": "assistant",
    "token_ids": "assistant",
    "tool_call_id": "tool",
    "name": "tool",
}
"""Keys that only one role's turns have."""
MESSAGE_KEYS = frozenset({"role", "content", "loss", "reasoning_content", *ROLE_OF})
PLAIN_KEYS: dict[Any, set[str]] = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls"},
    "tool": {"role", "content", "tool_call_id", "name"},
}
TEXT_REMEDY = "write text, or leave the key out"
CONTENT_REMEDY = 'write what was said, "" for nothing; only an assistant turn with tool_calls may have null'


def read_message(value: object, place: str) -> Turn:
    """One message.

    Raises:
        RolloutFormatError: an unknown key or role, a value of another type or out of bounds, or a key of another role.
    """
    message = check(value, place, dict, "write an object with role and content")
    if (plain := _plain_turn(message, place)) is not None:
        return plain
    refuse_unknown_keys(message, MESSAGE_KEYS, place)
    role = _role(message, place)
    calls = read_tool_calls(message.get("tool_calls"), f"{place}.tool_calls")
    content = _content(message, place, may_be_null=role == "assistant" and bool(calls))
    reasoning = _reasoning(message, place)
    if role == "assistant" and not reasoning:
        reasoning, content = _split(content, message, place)
    turn: dict[str, Any] = {
        "loss": read_loss(message.get("loss"), role, f"{place}.loss"),
        "reasoning": reasoning,
        "tool_calls": calls,
        "tool_call_id": optional(message, "tool_call_id", str, at=place, remedy=TEXT_REMEDY),
        "name": optional(message, "name", str, at=place, remedy=TEXT_REMEDY),
        "ranges": read_ranges(message.get("ranges"), {"content": content, "reasoning": reasoning}, f"{place}.ranges"),
        "token_ids": read_token_ids(message.get("token_ids"), f"{place}.token_ids"),
    }
    turn = {key: field_value for key, field_value in turn.items() if field_value not in (None, "", [])}
    _refuse_keys_of_other_roles(turn, role, place)
    return cast("Turn", {"role": role, "content": content, **turn})


def _plain_turn(message: dict[str, Any], place: str) -> Turn | None:
    """The turn of a message that has nothing to look at but texts and calls, as most have; None for any other."""
    role, content = message.get("role"), message.get("content")
    if type(role) is not str or role not in PLAIN_KEYS or not message.keys() <= PLAIN_KEYS[role]:
        return None
    if content is None and message.get("tool_calls"):
        content = ""
    if type(content) is not str:
        return None
    turn: dict[str, Any] = {"role": role, "content": content}
    if role == "assistant" and CLOSE in content:
        return None
    if role == "tool":
        call_id, name = message.get("tool_call_id"), message.get("name")
        if type(call_id) not in MAYBE_TEXT or type(name) not in MAYBE_TEXT:
            return None
        turn |= {key: text for key, text in (("tool_call_id", call_id), ("name", name)) if text}
    elif (recorded_calls := message.get("tool_calls")) is not None and (
        calls := read_tool_calls(recorded_calls, f"{place}.tool_calls")
    ):
        turn["tool_calls"] = calls
    return cast("Turn", turn)


def _role(message: dict[str, Any], place: str) -> Role:
    role = require(message, "role", str, at=place, remedy="say who speaks")
    if role not in ROLES:
        raise refusal(f"{place}.role", role, f"one of {', '.join(ROLES)}")
    return role


def _content(message: dict[str, Any], place: str, *, may_be_null: bool) -> str:
    if may_be_null and message.get("content") is None:
        return ""
    return require(message, "content", str, at=place, remedy=CONTENT_REMEDY)


def _reasoning(message: dict[str, Any], place: str) -> str:
    spellings = ("reasoning", "reasoning_content")
    first, other = (optional(message, key, str, at=place, remedy=TEXT_REMEDY) or "" for key in spellings)
    if first and other and first != other:
        raise RolloutFormatError(
            f"{place}: reasoning ({len(first)} characters) and reasoning_content ({len(other)}) differ, "
            f"expected one text; keep one key"
        )
    return first or other


def _split(content: str, message: dict[str, Any], place: str) -> tuple[str, str]:
    reasoning, answer = split_reasoning(content)
    if answer != content and message.get("ranges"):
        raise RolloutFormatError(
            f"{place}.ranges: found ranges beside a content that holds reasoning ({len(reasoning)} characters), "
            f"expected the reasoning "
            f"apart, since the ranges count characters of either; move it to the key reasoning and count anew"
        )
    return reasoning, answer


def _refuse_keys_of_other_roles(said: dict[str, Any], role: Role, place: str) -> None:
    for key, owner in ROLE_OF.items():
        if key in said and role != owner:
            raise RolloutFormatError(
                f"{place}.{key}: found on a turn of role {role}, expected on {owner} turns only; leave the key out"
            )
