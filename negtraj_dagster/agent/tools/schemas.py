"""The tools as a native agent is offered them: OpenAI's schemas, JSON text that stands in prompts as rows' tools do."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from negtraj_dagster.agent.call_syntax import CallSyntax, argument_types
from negtraj_dagster.agent.native import NativeRules
from negtraj_dagster.errors import SettingsError
from negtraj_dagster.schema import json_as_recorded

REACT_TERMINAL_ACTION = "finish"
"""How ReAct text ends. A native agent answers by a turn without a call, so this name alone is not offered as a tool; a call of
it ends the episode all the same."""
ANSWER_ARGUMENT = "answer"


def _schema(name: str, description: str, argument: str, meaning: str) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {argument: {"type": "string", "description": meaning}},
        "required": [argument],
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


SCHEMAS: Mapping[str, dict[str, Any]] = {
    "calculator": _schema(
        "calculator",
        "Evaluate + - * / and parentheses over decimal numbers.",
        "expression",
        "The arithmetic expression, such as (2+3)*4.",
    ),
    "search": _schema("search", "Look passages up.", "query", "What to look up."),
    "think": _schema("think", "Take note of a thought. Nothing is looked up or changed.", "thought", "The thought."),
}
"""Of every tool in `TOOLS`, and `search`."""
SCHEMAS_VERSION = 1
"""Rises when a schema is worded otherwise: it is part of what a native agent is asked."""


def tool_schemas(names: Iterable[str], *, terminal_action: str = REACT_TERMINAL_ACTION) -> str:
    """The schemas of a task's tools as JSON text, as `conditioned_json(turns, tools)` takes it.

    Args:
        names: of the task's tools, in its order.
        terminal_action: offered as a last tool unless it is the name that ReAct text ends by.

    Raises:
        SettingsError: a tool has no schema.
    """
    tool_names = list(names)
    if unknown := sorted(set(tool_names) - SCHEMAS.keys()):
        raise SettingsError(
            f"tools without a schema {unknown}; those that have one: {sorted(SCHEMAS)}; add them to agent/tools"
        )
    schemas = [SCHEMAS[name] for name in tool_names]
    if terminal_action != REACT_TERMINAL_ACTION and terminal_action not in tool_names:
        schemas.append(_schema(terminal_action, "Give the answer and end.", ANSWER_ARGUMENT, "The answer alone."))
    return json_as_recorded(schemas)


def native_rules(
    syntax: CallSyntax | None,
    names: Iterable[str],
    *,
    terminal_action: str = REACT_TERMINAL_ACTION,
    plain_answer: Callable[[str], str] = str,
) -> NativeRules:
    """How a task's native turns are read.

    Args:
        syntax: of the chat template (`find_call_syntax`); None where a server reads the calls.
        names: of the task's tools.
        terminal_action: the task's.
        plain_answer: the task's.

    Raises:
        SettingsError: a tool has no schema.
    """
    tool_names = list(names)
    types = argument_types(tool_schemas(tool_names, terminal_action=terminal_action))
    arguments = {name: next(iter(types[name])) for name in tool_names} | {terminal_action: ANSWER_ARGUMENT}
    return NativeRules(syntax, arguments, types, terminal_action, plain_answer)
