"""Native tool calls: each call of a turn is run, and its result comes back as a tool's message; a turn without one answers.

An episode ends with a turn that calls nothing (its content is the prediction), or with a call of the task's terminal action
(its argument is). Calls behind that one are not run. A turn that was cut at its limit is no answer.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from negtraj_dagster.agent.call_parsers import CALL_SIGNS, ArgumentTypes, CallFormatError, check_arguments
from negtraj_dagster.agent.call_syntax import AgentTurn, CallSyntax
from negtraj_dagster.agent.episodes import Episode, Tool, Written
from negtraj_dagster.reasoning import split_reasoning
from negtraj_dagster.schema import ToolCall, Turn

CALL_ID = re.compile(r"[A-Za-z0-9]{9}")
"""What Mistral's templates insist on; others take anything."""


@dataclass(frozen=True)
class NativeRules:
    """How an agent's native turns are read, and what is made of its calls.

    Attributes:
        syntax: the chat template's; None where a server takes the calls out of the text.
        arguments: tool -> the argument that the tool is given, the terminal action's among them.
        types: see `ArgumentTypes`.
        terminal_action: the tool whose call ends the episode.
        plain_answer: the terminal call's argument -> the prediction (`Task.plain_answer`).
    """

    syntax: CallSyntax | None
    arguments: Mapping[str, str]
    types: ArgumentTypes
    terminal_action: str = "finish"
    plain_answer: Callable[[str], str] = str


def take_native_turn(episode: Episode, written: Written, tools: Mapping[str, Tool], rules: NativeRules) -> None:
    """Record a turn and what comes of its calls."""
    read = _read(written, rules)
    calls = _with_ids(read.tool_calls, episode)
    turn: Turn = {"role": "assistant", "content": read.content}
    if read.reasoning:
        turn["reasoning"] = read.reasoning
    if calls:
        turn["tool_calls"] = calls
    episode.record(turn)
    if read.fault is not None or (written.stop == "length" and not calls):
        fault = read.fault or "the message was cut before its end"
        episode.n_format_errors += 1
        episode.record({"role": "user", "content": f"Error: {fault}. Call a tool in the format you were shown, or answer."})
        return
    if not calls:
        episode.finish(read.content.strip())
        return
    for call in calls:
        if call["name"] == rules.terminal_action and (answer := _argument(call, rules)) is not None:
            episode.finish(rules.plain_answer(answer))
            return
        observation = _observe(episode, call, tools, rules)
        episode.record({"role": "tool", "content": observation, "tool_call_id": call["id"], "name": call["name"]})


def _read(written: Written, rules: NativeRules) -> AgentTurn:
    if written.tool_calls is None and rules.syntax is not None:
        return rules.syntax.read(written.text, rules.types)
    for call in written.tool_calls or ():
        try:
            check_arguments(call["arguments"])
        except CallFormatError as error:
            return AgentTurn(
                written.text, written.reasoning, fault=f"in the call {call['name']} {call['arguments'][:200]}, {error}"
            )
    reasoning, content = split_reasoning(written.text) if not written.reasoning else (written.reasoning, written.text)
    is_unread = not written.tool_calls and any(sign in content for sign in CALL_SIGNS.values())
    fault = "the server took no call out of what looks like one" if is_unread else None
    return AgentTurn(content, reasoning, written.tool_calls or (), fault)


def _with_ids(calls: tuple[ToolCall, ...], episode: Episode) -> list[ToolCall]:
    """The calls with ids of their own: the agent's where they are in the usual form and new in the episode."""
    ids = {call.get("id", "") for turn in episode.turns for call in turn.get("tool_calls", ())}
    numbered: list[ToolCall] = []
    for call in calls:
        call_id = call.get("id", "")
        if not CALL_ID.fullmatch(call_id) or call_id in ids:
            call_id = next(name for number in range(len(ids) + 1) if (name := f"call{number:05d}") not in ids)
        ids.add(call_id)
        numbered.append({**call, "id": call_id})
    return numbered


def _argument(call: ToolCall, rules: NativeRules) -> str | None:
    """What the tool is given: a text as it is, any other value as JSON text; None where the call has no such argument."""
    value = json.loads(call["arguments"]).get(rules.arguments.get(call["name"], ""))
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _observe(episode: Episode, call: ToolCall, tools: Mapping[str, Tool], rules: NativeRules) -> str:
    name = call["name"]
    tool = tools.get(name)
    if tool is None and name != rules.terminal_action:
        episode.n_unknown_tools += 1
        return f"Error: unknown tool {name}. Tools: {', '.join(sorted(rules.types))}"
    argument = _argument(call, rules)
    if argument is None or tool is None:
        episode.n_format_errors += 1
        return f'Error: the call of {name} lacks its argument "{rules.arguments.get(name)}"'
    return episode.run_tool(tool, argument)
