"""ReAct text: one `Action: name[argument]` line ends every turn, and its observation comes back as a user's message."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from negtraj_dagster.agent.episodes import Episode, Tool, Written
from negtraj_dagster.reasoning import split_reasoning
from negtraj_dagster.schema import Turn

ACTION = re.compile(r"(?:\A|\n)Action: *(?P<name>[A-Za-z_]\w*)\[(?P<argument>[^\n]*)\]\s*\Z")
INVALID_ACTION = "Invalid action. Write: Action: tool[argument]"


@dataclass(frozen=True)
class Action:
    """A parsed `Action: name[argument]` line."""

    name: str
    argument: str


def parse_action(text: str) -> Action | None:
    """The turn's single action, or None: no action line, several of them, or text after its bracket."""
    if text.count("Action:") != 1:
        return None
    match = ACTION.search(text)
    return Action(match["name"], match["argument"]) if match else None


def take_react_turn(episode: Episode, written: Written, tools: Mapping[str, Tool], terminal_action: str) -> None:
    """Record a turn and what comes of its action."""
    reasoning, content = split_reasoning(written.text)
    if written.reasoning:
        reasoning, content = written.reasoning, written.text
    turn: Turn = {"role": "assistant", "content": content}
    if reasoning:
        turn["reasoning"] = reasoning
    episode.record(turn)
    action = parse_action(content)
    if action and action.name == terminal_action:
        episode.finish(action.argument)
        return
    episode.record({"role": "user", "content": f"Observation: {_observe(episode, action, tools)}"})


def _observe(episode: Episode, action: Action | None, tools: Mapping[str, Tool]) -> str:
    if action is None:
        episode.n_format_errors += 1
        return INVALID_ACTION
    tool = tools.get(action.name)
    if tool is None:
        episode.n_unknown_tools += 1
        return f"Unknown tool {action.name}. Tools: {', '.join(sorted(tools))}"
    return episode.run_tool(tool, action.argument)
