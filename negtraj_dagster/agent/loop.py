"""Runs ReAct episodes: a policy writes a turn, the loop parses it, runs the tool, and hands back the observation.

The same loop collects the teacher's rollouts and evaluates checkpoints, so both meet the same world. No torch here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from negtraj_dagster.reasoning import split_reasoning
from negtraj_dagster.schema import Question, Turn

ACTION = re.compile(r"(?:\A|\n)Action: *(?P<name>[A-Za-z_]\w*)\[(?P<argument>[^\n]*)\]\s*\Z")
INVALID_ACTION = "Invalid action. Write: Action: tool[argument]"

EpisodeStatus = Literal["finished", "turn_limit"]


class Tool(Protocol):
    """A pure function of its argument text; a failure is returned as text that starts with `Error:`."""

    def __call__(self, argument: str) -> str:
        """Run the tool."""
        ...


class Policy(Protocol):
    """Writes the next assistant turn of every conversation it is given."""

    def act(self, conversations: Sequence[Sequence[Turn]]) -> list[str]:
        """Return one assistant text per conversation, in order."""
        ...


@dataclass(frozen=True)
class Action:
    """A parsed `Action: name[argument]` line."""

    name: str
    argument: str


@dataclass
class Episode:
    """One question and all that happened; `turns` starts with the first prompt and ends with the last observation."""

    question_id: str
    turns: list[Turn]
    n_prompt_turns: int
    prediction: str | None = None
    status: EpisodeStatus = "turn_limit"
    n_assistant_turns: int = 0
    n_tool_calls: int = 0
    n_tool_errors: int = 0
    n_format_errors: int = 0
    n_unknown_tools: int = 0
    recorded: list[Turn] = field(default_factory=list)


def parse_action(text: str) -> Action | None:
    """The turn's single action, or None: no action line, several of them, or text after its bracket."""
    if text.count("Action:") != 1:
        return None
    match = ACTION.search(text)
    return Action(match["name"], match["argument"]) if match else None


def run_episodes(
    policy: Policy,
    questions: Sequence[Question],
    *,
    first_turns: Callable[[Question], list[Turn]],
    tools: Mapping[str, Tool],
    max_turns: int,
    terminal_action: str = "finish",
    on_turn: Callable[[int, int], None] | None = None,
) -> list[Episode]:
    """Play one episode per question, all in step, until each has finished or used its turns.

    Args:
        policy: who writes the assistant turns.
        questions: in the order of the episodes returned.
        first_turns: the prompt of a question (the inference side of a strategy).
        tools: name -> tool; the terminal action needs none.
        max_turns: assistant turns per episode, at most.
        terminal_action: the action whose argument is the prediction.
        on_turn: called with (turns done, episodes still live), for progress.
    """
    episodes = []
    for question in questions:
        prompt = first_turns(question)
        episodes.append(Episode(question.question_id, list(prompt), len(prompt)))
    live = list(episodes)
    for n_done in range(max_turns):
        if not live:
            break
        for episode, text in zip(live, policy.act([episode.turns for episode in live]), strict=True):
            _step(episode, text, tools, terminal_action)
        live = [episode for episode in live if episode.status != "finished"]
        if on_turn:
            on_turn(n_done + 1, len(live))
    return episodes


def _step(episode: Episode, text: str, tools: Mapping[str, Tool], terminal_action: str) -> None:
    reasoning, content = split_reasoning(text)
    turn: Turn = {"role": "assistant", "content": content}
    if reasoning:
        turn["reasoning"] = reasoning
    _record(episode, turn)
    episode.n_assistant_turns += 1
    action = parse_action(content)
    if action and action.name == terminal_action:
        episode.prediction, episode.status = action.argument, "finished"
        return
    _record(episode, {"role": "user", "content": f"Observation: {_observe(episode, action, tools)}"})


def _observe(episode: Episode, action: Action | None, tools: Mapping[str, Tool]) -> str:
    if action is None:
        episode.n_format_errors += 1
        return INVALID_ACTION
    tool = tools.get(action.name)
    if tool is None:
        episode.n_unknown_tools += 1
        return f"Unknown tool {action.name}. Tools: {', '.join(sorted(tools))}"
    observation = tool(action.argument)
    episode.n_tool_calls += 1
    episode.n_tool_errors += observation.startswith("Error:")
    return observation


def _record(episode: Episode, turn: Turn) -> None:
    episode.turns.append(turn)
    episode.recorded.append(turn)
