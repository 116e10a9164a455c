"""Tool calls and tool schemas of a record, as JSON text that stays what the model wrote and was given."""

from functools import lru_cache
from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.fields import (
    MAYBE_TEXT,
    check,
    described,
    optional_text,
    refusal,
    refuse_unknown_keys,
    require,
)
from negtraj_dagster.rollouts.records import is_json_object, parse_text
from negtraj_dagster.schema import ToolCall, json_as_recorded

OUR_KEYS = frozenset({"id", "name", "arguments"})
OPENAI_KEYS = frozenset({"id", "type", "function", "index"})
"""`index` is the call's place in the answer, as streams number its parts."""
FUNCTION_KEYS = frozenset({"name", "arguments"})
MAX_KEPT_CHARS = 65_536
"""Longer schemas are parsed for every record: what was seen is kept in memory."""
NO_ARGUMENTS = ("", "null")
"""What servers write for a call without arguments; such a call is kept with `{}`, which every template writes alike."""


def read_tool_calls(value: object, place: str) -> list[ToolCall]:
    """A turn's calls, in our spelling {id?, name, arguments} or OpenAI's {id?, type?, function: {name, arguments}}.

    Raises:
        RolloutFormatError: another shape, or arguments that are no JSON.
    """
    if value is None:
        return []
    calls = check(value, place, list, "write a list of calls, or leave the key out")
    tool_calls = [plain_call(call) or _call(call, f"{place}[{index}]") for index, call in enumerate(calls)]
    _check_order(calls, place)
    return tool_calls


def _check_order(calls: list[dict[str, Any]], place: str) -> None:
    """Calls stand as their `index` orders them; some servers count other parts of the answer, too, and begin above 0."""
    last = -1
    for number, call in enumerate(calls):
        index = call.get("index")
        if index is None:
            continue
        if type(index) is not int or index <= last:
            raise refusal(f"{place}[{number}].index", index, f"a whole number above {last}", "put the calls in order")
        last = index


def read_tools(value: object, place: str) -> str | None:
    """JSON text of a list of tool schemas: text as it stands, a list in `json_as_recorded`'s spelling; None where it is empty.

    Raises:
        RolloutFormatError: it is no list of objects.
    """
    expected = "a list of objects, or JSON text of one"
    remedy = "write the list of schemas the agent was given, or leave the key out"
    if value in (None, ""):
        return None
    if isinstance(value, str) and len(value) <= MAX_KEPT_CHARS and _are_schemas(value):
        return value
    tools = _parsed(value, place, expected, remedy) if isinstance(value, str) else value
    if not isinstance(tools, list):
        raise refusal(place, value, expected, remedy)
    for index, tool in enumerate(tools):
        check(tool, f"{place}[{index}]", dict, remedy)
    if not tools:
        return None
    return value if isinstance(value, str) else json_as_recorded(value)


@lru_cache(maxsize=64)
def _are_schemas(text: str) -> bool:
    """Whether a text is JSON of tool schemas; asked of the same few texts for every record."""
    try:
        tools = parse_text(text)
    except ValueError:
        return False
    return isinstance(tools, list) and bool(tools) and all(isinstance(tool, dict) for tool in tools)


def plain_call(call: object) -> ToolCall | None:
    """A call whose name and id are texts and whose arguments an object, or JSON text of one; None for any other."""
    if type(call) is not dict:
        return None
    function = call if call.keys() <= OUR_KEYS else call.get("function")
    if type(function) is not dict or call.get("type") not in (None, "function"):
        return None
    if function is not call and not (function.keys() <= FUNCTION_KEYS and call.keys() <= OPENAI_KEYS):
        return None
    name, arguments, call_id = function.get("name"), function.get("arguments"), call.get("id")
    if not name or type(name) is not str or type(call_id) not in MAYBE_TEXT:
        return None
    if type(arguments) is dict:
        arguments = json_as_recorded(arguments)
    elif type(arguments) is not str or not is_json_object(arguments):
        return None
    tool_call: ToolCall = {"name": name, "arguments": arguments}
    if call_id:
        tool_call["id"] = call_id
    return tool_call


def _call(value: object, place: str) -> ToolCall:
    call = check(value, place, dict, "write {name, arguments}")
    refuse_unknown_keys(call, OPENAI_KEYS if "function" in call else OUR_KEYS, place)
    function, at = _function(call, place) if "function" in call else (call, place)
    name = require(function, "name", str, at=at, remedy="name the tool that was called")
    if not name:
        raise refusal(f"{at}.name", name, "a tool's name", "name the tool that was called")
    tool_call: ToolCall = {"name": name, "arguments": _arguments(function, at)}
    if call_id := optional_text(call, "id", at=place, remedy="write text, or leave the key out"):
        tool_call["id"] = call_id
    return tool_call


def _function(call: dict[str, Any], place: str) -> tuple[dict[str, Any], str]:
    if call.get("type") not in (None, "function"):
        raise refusal(f"{place}.type", call["type"], "'function'", "other calls cannot be trained; leave the record out")
    function, at = check(call["function"], f"{place}.function", dict, "write {name, arguments}"), f"{place}.function"
    refuse_unknown_keys(function, FUNCTION_KEYS, at)
    return function, at


def _arguments(function: dict[str, Any], at: str) -> str:
    value, place = function.get("arguments"), f"{at}.arguments"
    expected, remedy = "an object, or JSON text of one", "write {} for none; a call the agent misspelled belongs into content"
    if value is None or (isinstance(value, str) and value.strip() in NO_ARGUMENTS):
        return "{}"
    if isinstance(value, dict):
        return json_as_recorded(value)
    if not isinstance(value, str):
        raise refusal(place, value, expected, remedy)
    if not isinstance(parsed := _parsed(value, place, expected, remedy), dict):
        raise RolloutFormatError(f"{place}: found {described(parsed)} in JSON text, expected an object; {remedy}")
    return value


def _parsed(text: str, place: str, expected: str, remedy: str) -> Any:
    try:
        return parse_text(text)
    except ValueError as error:
        raise RolloutFormatError(f"{place}: {error}, expected {expected}; {remedy}") from error
