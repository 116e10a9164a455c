"""Reads arguments that are not JSON: Python's keyword arguments (LFM2), and Gemma's objects with strings between tokens."""

import ast
import json
import re
from typing import Any

MAX_CHARS = 20_000
MAX_DEPTH = 50
"""A longer or deeper text is no call that anybody means; Python's own parser recurses."""
CONSTANTS = {"true": True, "false": False, "null": None}
QUOTE = '<|"|>'
BARE = re.compile(r"[^,{}\[\]<>]+")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
KEY = re.compile(r"([^\s:{}\[\],]+):")


def read_python_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The calls of `[name(key=value, …), …]`: names and arguments.

    Raises:
        ValueError: it is anything else.
    """
    if len(text) > MAX_CHARS:
        raise ValueError(f"the calls are longer than {MAX_CHARS} characters")
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the calls are no list in Python's form ({type(error).__name__})") from error
    if not isinstance(body, ast.List) or not body.elts:
        raise ValueError("expected a list of calls")
    return [_read_call(node) for node in body.elts]


def _read_call(node: ast.expr) -> tuple[str, dict[str, Any]]:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("expected name(key=value)")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise ValueError("expected name(key=value) with every key once")
        arguments[keyword.arg] = _literal(keyword.value, 0)
    return ast.unparse(node.func), arguments


def _literal(node: ast.expr, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"a value of more than {MAX_DEPTH} levels")
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, type(None))):
        return node.value
    if isinstance(node, ast.Name) and node.id in CONSTANTS:
        return CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        if isinstance(value, (int, float)):
            return -value
    if isinstance(node, ast.List):
        return [_literal(child, depth + 1) for child in node.elts]
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in node.keys):
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        return dict(zip(map(str, keys), (_literal(child, depth + 1) for child in node.values), strict=True))
    raise ValueError("a value that is no JSON value")


def read_gemma_object(text: str, at: int) -> tuple[dict[str, Any], int]:
    """The object that starts at `{`, and where it ends: bare keys, strings between `<|"|>`.

    Raises:
        ValueError: it is none.
    """
    value, end = _gemma_value(text, at, 0)
    if not isinstance(value, dict):
        raise ValueError("the arguments are no object")
    return value, end


def _gemma_value(text: str, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"a value of more than {MAX_DEPTH} levels")
    if text.startswith(QUOTE, at):
        end = text.find(QUOTE, at + len(QUOTE))
        if end < 0:
            raise ValueError(f"a text without its second {QUOTE}")
        return text[at + len(QUOTE) : end], end + len(QUOTE)
    if text[at : at + 1] in ("{", "["):
        return _gemma_items(text, at, depth)
    match = BARE.match(text, at)
    if not match:
        raise ValueError("an argument without a value")
    return _bare(match[0].strip()), match.end()


def _gemma_items(text: str, at: int, depth: int) -> tuple[Any, int]:
    is_object = text[at] == "{"
    end_char = "}" if is_object else "]"
    items: dict[str, Any] = {}
    at += 1
    while text[at : at + 1] != end_char:
        if items:
            if text[at : at + 1] != ",":
                raise ValueError("expected a comma between two values")
            at += 1
        key = str(len(items))
        if is_object:
            match = KEY.match(text, at)
            if not match or match[1] in items:
                raise ValueError("expected key:value with every key once")
            key, at = match[1], match.end()
        items[key], at = _gemma_value(text, at, depth + 1)
    return (items if is_object else list(items.values())), at + 1


def _bare(text: str) -> Any:
    if text in CONSTANTS:
        return CONSTANTS[text]
    if NUMBER.fullmatch(text):
        return json.loads(text)
    raise ValueError(f"{text!r} is neither a number nor true, false or null")
