"""Runs episodes: a policy writes a turn, its style's rules read it, run the tool, and hand back the observation.

The same loop collects the teacher's rollouts and evaluates checkpoints, so both meet the same world. No torch here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from negtraj_dagster.agent.episodes import Episode, Failure, Policy, SamplingPolicy, Tool, Written
from negtraj_dagster.agent.native import NativeRules, take_native_turn
from negtraj_dagster.agent.react import Action, parse_action, take_react_turn
from negtraj_dagster.errors import ModelError
from negtraj_dagster.schema import Question, Turn, digest

__all__ = ["Action", "Episode", "Failure", "Policy", "Tool", "Written", "parse_action", "run_episodes", "turn_seed"]

SEED_HEX_DIGITS = 15
"""60 bits: a seed that every random generator takes."""


def run_episodes(
    policy: Policy | SamplingPolicy,
    questions: Sequence[Question],
    *,
    first_turns: Callable[[Question], list[Turn]],
    tools: Mapping[str, Tool],
    max_turns: int,
    terminal_action: str = "finish",
    on_turn: Callable[[int, int], None] | None = None,
    native: NativeRules | None = None,
    trials: Sequence[int] | None = None,
) -> list[Episode]:
    """Play one episode per question, all in step, until each has ended or used its turns.

    Args:
        policy: who writes the assistant turns.
        questions: in the order of the episodes returned; one that is played several times stands there as often.
        first_turns: the prompt of a question (the inference side of a strategy).
        tools: name -> tool; the terminal action needs none.
        max_turns: assistant turns per episode, at most.
        terminal_action: the action whose argument is the prediction.
        on_turn: called with (turns done, episodes still live), for progress.
        native: how native tool calls are read; None = ReAct text.
        trials: parallel to the questions, for a policy that samples: which trial of its question an episode is. Question,
            trial and turn decide the policy's seed.

    Raises:
        ModelError: in one step the machines failed every episode that was live, and it was not the last one of several.
    """
    episodes = []
    for question, trial in zip(questions, trials or [0] * len(questions), strict=True):
        prompt = first_turns(question)
        episodes.append(Episode(question.question_id, list(prompt), len(prompt), trial=trial))
    live = list(episodes)
    for n_done in range(max_turns):
        if not live:
            break
        replies = _act(policy, live, is_seeded=trials is not None)
        _check_machines(replies, n_episodes=len(episodes))
        for episode, reply in zip(live, replies, strict=True):
            if isinstance(reply, Failure):
                episode.fail(reply)
                continue
            written = Written(reply) if isinstance(reply, str) else reply
            episode.n_assistant_turns += 1
            episode.n_generated_tokens += written.n_tokens
            episode.stops.append(written.stop)
            if native is None:
                take_react_turn(episode, written, tools, terminal_action)
            else:
                take_native_turn(episode, written, tools, native)
        live = [episode for episode in live if not episode.has_ended]
        if on_turn:
            on_turn(n_done + 1, len(live))
    return episodes


def turn_seed(question_id: str, trial: int, n_turns: int) -> int:
    """The seed of the assistant turn behind `n_turns` others, in this trial of the question."""
    return int(digest("turn seed", question_id, str(trial), str(n_turns))[:SEED_HEX_DIGITS], 16)


def _act(policy: Policy | SamplingPolicy, live: Sequence[Episode], *, is_seeded: bool) -> Sequence[str | Written | Failure]:
    keywords: dict[str, Any] = {}
    if is_seeded:
        keywords["seeds"] = [turn_seed(episode.question_id, episode.trial, episode.n_assistant_turns) for episode in live]
    return cast(Policy, policy).act([episode.turns for episode in live], **keywords)


def _check_machines(replies: Sequence[str | Written | Failure], *, n_episodes: int) -> None:
    """Where nothing answers any more, a report would be of nothing; the last of many episodes may fail alone.

    Raises:
        ModelError: all replies are failures of the machines.
    """
    messages = [reply.message for reply in replies if isinstance(reply, Failure) and reply.status == "infrastructure"]
    if len(messages) == len(replies) and (len(replies) > 1 or n_episodes == 1):
        raise ModelError(
            f"the model wrote none of {len(replies)} turns, since the machines failed all of them; the first: {messages[0]}; "
            "mend what it names, and evaluate again"
        )
