"""What an episode is, and what policies and tools are to the loop that plays it. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from negtraj_dagster.schema import ToolCall, Turn

EpisodeStatus = Literal["finished", "turn_limit", "overlong", "infrastructure"]
"""`overlong`: no room for another turn behind the conversation; `infrastructure`: the machines failed, not the agent."""
StopCause = Literal["end_token", "length"]


class Tool(Protocol):
    """A pure function of its argument text; a failure is returned as text that starts with `Error:`."""

    def __call__(self, argument: str) -> str:
        """Run the tool."""
        ...


@dataclass(frozen=True)
class Written:
    """A turn as a policy wrote it.

    Attributes:
        text: all of it, or what is beside the reasoning and the calls that a server took out.
        reasoning: that a server took out of the text.
        tool_calls: that a server took out of the text; None where calls stand in the text.
        stop: what ended the turn: its own end token, or the limit.
        n_tokens: generated, the end token included; 0 where the policy does not know.
    """

    text: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] | None = None
    stop: StopCause = "end_token"
    n_tokens: int = 0


@dataclass(frozen=True)
class Failure:
    """Why a policy wrote no turn: it ends the episode, and is no wrong answer of the agent's."""

    status: Literal["overlong", "infrastructure"]
    message: str


class Policy(Protocol):
    """Writes the next assistant turn of every conversation it is given.

    One that samples takes `seeds`, too: an integer per conversation, which decides the turn whatever else is in the batch.
    """

    def act(self, conversations: Sequence[Sequence[Turn]]) -> Sequence["str | Written | Failure"]:
        """Return one assistant turn per conversation, in order; a text alone is a turn that ended by itself."""
        ...


class SamplingPolicy(Protocol):
    """A policy whose turns depend on a seed."""

    def act(self, conversations: Sequence[Sequence[Turn]], *, seeds: Sequence[int]) -> Sequence[str | Written | Failure]:
        """As `Policy.act`; `seeds` are parallel to the conversations."""
        ...


@dataclass
class Episode:
    """One question and all that happened; `turns` starts with the first prompt and ends with the last observation.

    Attributes:
        error: why the episode ended `overlong` or `infrastructure`.
        trial: which of several episodes of the question it is.
        n_generated_tokens: as far as the policy counts them.
        stops: what ended each assistant turn, in order.
    """

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
    error: str | None = None
    trial: int = 0
    n_generated_tokens: int = 0
    stops: list[StopCause] = field(default_factory=list)
    has_ended: bool = False

    def record(self, turn: Turn) -> None:
        """Append a turn that the agent or its world wrote."""
        self.turns.append(turn)
        self.recorded.append(turn)

    def finish(self, prediction: str) -> None:
        """End it with an answer."""
        self.prediction, self.status, self.has_ended = prediction, "finished", True

    def fail(self, failure: Failure) -> None:
        """End it without one."""
        self.status, self.error, self.has_ended = failure.status, failure.message, True

    def run_tool(self, tool: Tool, argument: str) -> str:
        """The tool's observation, counted."""
        observation = tool(argument)
        self.n_tool_calls += 1
        self.n_tool_errors += observation.startswith("Error:")
        return observation
