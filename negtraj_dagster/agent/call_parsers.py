"""Reads tool calls out of generated text, a parser for each way in which chat templates write them.

A parser takes a turn's text without reasoning and end tokens, and the arguments' declared types. It returns the content and the
calls; a text without any sign of a call is content alone. What looks like a call and is none raises: nothing is dropped. Which
parser is a template's is not decided here (`call_syntax.py`).
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from negtraj_dagster.agent.literals import MAX_DEPTH, read_gemma_object, read_python_calls
from negtraj_dagster.schema import ToolCall, json_as_recorded

ArgumentTypes = Mapping[str, Mapping[str, Sequence[str]]]
"""tool -> argument -> the JSON types that its schema names; formats without quotes need them to tell "7" from 7."""
Parser = Callable[[str, ArgumentTypes], tuple[str, list[ToolCall]]]
BodyReader = Callable[[str, int, ArgumentTypes], tuple[list[ToolCall], int]]
"""(text, start of a call's body, types) -> its calls, and where the body ends."""

MAX_INTEGER = 2**127
"""trajtok's template engine has numbers up to it."""
SPACE = re.compile(r"\s*")
NAME = re.compile(r"[^\s<>{}\[\]()\"']+")


class CallFormatError(ValueError):
    """The text is no call of this syntax; the message, which the agent reads, says why."""


def tagged(opening: str, closing: str, read_body: BodyReader, *, is_content_behind: bool = False) -> Parser:
    """A parser of calls between tags, one pair after another at the end of the turn.

    Args:
        opening: the tag before a call.
        closing: the tag behind it.
        read_body: reads what is between.
        is_content_behind: whether what is said stands behind the calls.
    """

    def parse(text: str, types: ArgumentTypes) -> tuple[str, list[ToolCall]]:
        content, is_call, _ = text.partition(opening)
        if not is_call:
            return _without_sign(text, closing), []
        calls: list[ToolCall] = []
        at = len(content)
        while text.startswith(opening, at):
            body_calls, at = read_body(text, _behind_space(text, at + len(opening)), types)
            calls += body_calls
            at = _behind_space(text, at)
            if not text.startswith(closing, at):
                raise CallFormatError(f"expected {closing} behind the call")
            at = _behind_space(text, at + len(closing))
        rest = text[at:]
        if rest and not (is_content_behind and not content.strip()):
            raise CallFormatError("text behind the call")
        return _without_sign(content + rest, opening, closing), calls

    return parse


def parse_llama_json(text: str, types: ArgumentTypes) -> tuple[str, list[ToolCall]]:
    """`{"name": …, "parameters": …}` as the whole turn, behind `<|python_tag|>` or between and behind Llama 4's python tags."""
    content, behind = "", text.strip().removeprefix("<|python_tag|>").lstrip()
    if behind.startswith("<|python_start|>"):
        content, is_closed, behind = behind.removeprefix("<|python_start|>").partition("<|python_end|>")
        behind = behind.strip() if is_closed else content
        if not behind:
            return content, []
    elif not re.match(r'\{\s*"(?:name|type|parameters|function)"', behind):
        return _without_sign(text, "<|python_tag|>", "<|python_end|>"), []
    calls, at = [], 0
    while at < len(behind):
        value, at = _read_json(behind, at)
        calls.append(_call_of(value, "parameters"))
        at = _behind_space(behind, at)
        if behind[at : at + 1] == ";":
            at = _behind_space(behind, at + 1)
    return content, calls


def parse_mistral(text: str, types: ArgumentTypes) -> tuple[str, list[ToolCall]]:
    """`[TOOL_CALLS] [{"name": …, "arguments": …, "id": …}]` at the end of the turn."""
    content, is_call, rest = text.partition("[TOOL_CALLS]")
    if not is_call:
        return text, []
    calls, at = _read_json_list(rest, _behind_space(rest, 0), types)
    if rest[at:].strip():
        raise CallFormatError("text behind the calls")
    return content, calls


def parse_deepseek(text: str, types: ArgumentTypes) -> tuple[str, list[ToolCall]]:
    """Between `<｜tool▁calls▁begin｜>` and its end, one call or several."""
    begin, end = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
    content, is_call, rest = text.partition(begin)
    if not is_call:
        return _without_sign(text, end, "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"), []
    body, is_closed, behind = rest.rpartition(end)
    if not is_closed or behind.strip():
        raise CallFormatError(f"expected {end} at the end")
    words, calls = _DEEPSEEK_CALL(body.strip(), types)
    if words.strip() or not calls:
        raise CallFormatError("text between the calls")
    return content, calls


def check_arguments(arguments: str) -> None:
    """Hold a call's arguments, JSON text, to what a chat template can be handed.

    Raises:
        CallFormatError: they are no JSON object, or cannot be written again.
    """
    value, end = _read_json(arguments, _behind_space(arguments, 0))
    if arguments[end:].strip():
        raise CallFormatError("text behind the arguments")
    _make_call("name", value)


def _read_json_call(text: str, at: int, types: ArgumentTypes) -> tuple[list[ToolCall], int]:
    value, at = _read_json(text, at)
    return [_call_of(value, "arguments")], at


def _read_json_list(text: str, at: int, types: ArgumentTypes) -> tuple[list[ToolCall], int]:
    value, at = _read_json(text, at)
    if not isinstance(value, list) or not value:
        raise CallFormatError("expected a JSON list of calls")
    return [_call_of(entry, "arguments") for entry in value], at


PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>(?=\s*(?:<parameter=|</function>))", re.DOTALL)


def _read_function(text: str, at: int, types: ArgumentTypes) -> tuple[list[ToolCall], int]:
    head = re.compile(r"<function=([^>\n]+)>").match(text, at)
    if not head:
        raise CallFormatError("expected <function=NAME>")
    return _read_pairs(text, head.end(), head[1], PARAMETER, re.compile(r"\s*</function>"), types)


ARGUMENT = re.compile(r"\s*<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>(?=\s*(?:<arg_key>|</tool_call>))", re.DOTALL)


def _read_glm_call(text: str, at: int, types: ArgumentTypes) -> tuple[list[ToolCall], int]:
    head = NAME.match(text, at)
    if not head:
        raise CallFormatError("expected a tool's name")
    return _read_pairs(text, head.end(), head[0], ARGUMENT, re.compile(""), types)


def _read_pairs(
    text: str, at: int, name: str, pair: re.Pattern[str], end: re.Pattern[str], types: ArgumentTypes
) -> tuple[list[ToolCall], int]:
    arguments: dict[str, Any] = {}
    while match := pair.match(text, at):
        key = match[1].strip()
        if key in arguments:
            raise CallFormatError(f"argument {key} stands twice")
        arguments[key] = _typed(match[2], types.get(name, {}).get(key, ("string",)))
        at = match.end()
    behind = end.match(text, at)
    if not behind:
        raise CallFormatError("an argument that is not closed")
    return [_make_call(name, arguments)], behind.end()


def _read_python(text: str, at: int, types: ArgumentTypes) -> tuple[list[ToolCall], int]:
    end = text.find("<|tool_call_end|>", at)
    body = text[at : len(text) if end < 0 else end]
    try:
        calls = read_python_calls(body)
    except ValueError as error:
        raise CallFormatError(str(error)) from error
    return [_make_call(name, arguments) for name, arguments in calls], at + len(body)


def _read_gemma_call(text: str, at: int, types: ArgumentTypes) -> tuple[list[ToolCall], int]:
    head = re.compile(r"call:([^\s{]+)(?=\{)").match(text, at)
    if not head:
        raise CallFormatError("expected call:NAME{")
    try:
        arguments, end = read_gemma_object(text, head.end())
    except ValueError as error:
        raise CallFormatError(str(error)) from error
    return [_make_call(head[1], arguments)], end


def _read_deepseek_call(text: str, at: int, types: ArgumentTypes) -> tuple[list[ToolCall], int]:
    name, is_parted, _ = text[at:].partition("<｜tool▁sep｜>")
    at += len(name) + len("<｜tool▁sep｜>")
    if not is_parted:
        raise CallFormatError("expected <｜tool▁sep｜> behind the tool's name")
    if fenced := re.compile(r"([^\s`]+)\n```json\n").match(text, at):  # the name of a first kind is `function`
        name, at = fenced[1], fenced.end()
    value, at = _read_json(text, at)
    if fenced:
        at = _behind_space(text, at)
        if not text.startswith("```", at):
            raise CallFormatError("expected ``` behind the arguments")
        at += len("```")
    return [_make_call(name, value)], at


_DEEPSEEK_CALL = tagged("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", _read_deepseek_call)

PARSERS: Mapping[str, Parser] = {
    "hermes": tagged("<tool_call>", "</tool_call>", _read_json_call),
    "function_xml": tagged("<tool_call>", "</tool_call>", _read_function),
    "glm": tagged("<tool_call>", "</tool_call>", _read_glm_call),
    "llama_json": parse_llama_json,
    "mistral": parse_mistral,
    "pythonic": tagged("<|tool_call_start|>", "<|tool_call_end|>", _read_python),
    "jamba": tagged("<tool_calls>", "</tool_calls>", _read_json_list),
    "gemma": tagged("<|tool_call>", "<tool_call|>", _read_gemma_call, is_content_behind=True),
    "deepseek": parse_deepseek,
}
"""By the name that messages use; the order is that in which they are tried."""
CALL_SIGNS: Mapping[str, str] = {
    "hermes": "<tool_call>",
    "function_xml": "<tool_call>",
    "glm": "<tool_call>",
    "llama_json": '{"name"',
    "mistral": "[TOOL_CALLS]",
    "pythonic": "<|tool_call_start|>",
    "jamba": "<tool_calls>",
    "gemma": "<|tool_call>",
    "deepseek": "<｜tool▁calls▁begin｜>",
}
"""What calls begin with, by parser: a tag of reasoning behind it is an argument's text."""


def _behind_space(text: str, at: int) -> int:
    match = SPACE.match(text, at)
    return at if match is None else match.end()


def _without_sign(content: str, *tags: str) -> str:
    if tag := next((tag for tag in tags if tag in content), None):
        raise CallFormatError(f"{tag} without a call")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return dict(pairs)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text} is too large")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)


def _read_json(text: str, at: int) -> tuple[Any, int]:
    try:
        return DECODER.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        raise CallFormatError(f"the call is not JSON ({error})") from error


def _call_of(value: Any, arguments_key: str) -> ToolCall:
    if not isinstance(value, dict) or "name" not in value or arguments_key not in value:
        raise CallFormatError(f'expected a JSON object with "name" and "{arguments_key}"')
    if extra := sorted(value.keys() - {"name", arguments_key, "id"}):
        raise CallFormatError(f"unknown keys {extra} beside name and {arguments_key}")
    call = _make_call(value["name"], value[arguments_key])
    return {**call, "id": value["id"]} if isinstance(value.get("id"), str) else call


def _make_call(name: Any, arguments: Any) -> ToolCall:
    if not isinstance(name, str) or not NAME.fullmatch(name.strip()):
        raise CallFormatError("the tool's name is no name")
    if not isinstance(arguments, dict):
        raise CallFormatError("the arguments are no JSON object")
    _check_value(arguments, 0)
    try:
        json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # an infinite number, half of a surrogate pair, thousands of digits or levels
        raise CallFormatError(f"the arguments cannot be written as JSON ({type(error).__name__})") from error
    text = json_as_recorded(arguments)
    return {"name": name.strip(), "arguments": text}


def _check_value(value: Any, depth: int) -> None:
    """Refuse what templates are not rendered with: an agent's slip would end the whole evaluation."""
    if depth > MAX_DEPTH:
        raise CallFormatError(f"the arguments have more than {MAX_DEPTH} levels")
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise CallFormatError("a whole number of more than 127 bits stands in the arguments")
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_value(child, depth + 1)


WORDS_OF_PYTHON = {"True": True, "False": False, "None": None}
"""How some templates write `true`, `false` and `null`."""


def _typed(text: str, types: Sequence[str]) -> Any:
    """An argument that is written without quotes; as text where its schema allows text or is not known."""
    if "string" in types:
        return text
    if text in WORDS_OF_PYTHON:
        return WORDS_OF_PYTHON[text]
    value, end = _read_json(text, 0)
    if text[end:].strip():
        raise CallFormatError(f"an argument of type {' or '.join(types)} is not JSON")
    return value
