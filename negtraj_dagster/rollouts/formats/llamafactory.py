"""LLaMA-Factory's and ms-swift's fine-tuning data: `conversations` or `messages`, calls and results as turns, pairs, labels.

A pair (`chosen`, `rejected`, or ms-swift's `rejected_response`) is two rollouts of one prompt.
"""

from collections.abc import Sequence
from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, as_context, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import optional, optional_reward, optional_text, require
from negtraj_dagster.rollouts.formats.openai import refuse_media
from negtraj_dagster.rollouts.formats.speakers import read_speakers
from negtraj_dagster.rollouts.formats.tool_calls import read_tools
from negtraj_dagster.schema import Rollout, Turn

TURNS = ("conversations", "messages")
OUTCOMES = ("kto_tag", "label")
SIDES = (("chosen", True), ("rejected", False))
KEYS = {
    *TURNS,
    *OUTCOMES,
    "chosen_messages",
    "rejected_messages",
    "system",
    "tools",
    "chosen",
    "rejected",
    "rejected_response",
    "question_id",
    "id",
    "source",
}
WHOLE_SIDES = {"chosen_messages": True, "rejected_messages": False}
"""Pairs in which each side is a conversation of its own."""


def read_record(task: str, record: dict[str, Any]) -> Reading:
    """One record: a rollout, or a pair of them.

    Raises:
        RolloutFormatError: images, sound or video, no turns, or turns of another shape.
    """
    refuse_media(record)
    if any(record.get(key) is not None for key in WHOLE_SIDES):
        return [_whole_side(task, record, key, reward) for key, reward in WHOLE_SIDES.items()]
    name = next((key for key in TURNS if key in record), TURNS[0])
    turns, unread = read_speakers(require(record, name, list), name)
    if system := optional_text(record, "system"):
        turns = [{"role": "system", "content": system}, *turns]
    if record.get("chosen") is not None or record.get("rejected") is not None:
        return [_side(task, record, turns, record.get(side), reward) for side, reward in SIDES]
    if (rejected := optional(record, "rejected_response", str)) is not None:
        last = _last_answer(turns)
        rejected_turns: list[Turn] = [{"role": "assistant", "content": rejected}]
        sides = ((turns[last:], True), (rejected_turns, False))
        return [_rollout(task, record, turns[:last], answers, unread, reward) for answers, reward in sides]
    rewards = [reward for key in OUTCOMES if (reward := optional_reward(record, key)) is not None]
    prompt, answers = split_prompt(turns, name)
    return [_rollout(task, record, prompt, answers, unread, rewards[0] if rewards else None)]


def _whole_side(task: str, record: dict[str, Any], key: str, reward: bool) -> Rollout | RolloutFormatError:
    try:
        turns, unread = read_speakers(require(record, key, list), key)
        prompt, answers = split_prompt(turns, key)
        return _rollout(task, record, prompt, answers, unread, reward)
    except RolloutFormatError as error:
        return error


def _last_answer(turns: list[Turn]) -> int:
    """Where the agent's last answer begins, with the calls and results in it: after the last turn that is not the agent's."""
    asked = [index for index, turn in enumerate(turns) if turn["role"] in ("user", "system")]
    last = asked[-1] + 1 if asked else 0
    if not any(turn["role"] == "assistant" for turn in turns[last:]):
        raise RolloutFormatError("messages: the last turn is not the agent's, expected the answer that is right")
    return last


def _side(task: str, record: dict[str, Any], turns: list[Turn], value: object, reward: bool) -> Rollout | RolloutFormatError:
    side = "chosen" if reward else "rejected"
    try:
        answers, unread = read_speakers(value if isinstance(value, list) else [value], side)
        prompt, agent_turns = split_prompt(answers, side)
        return _rollout(task, record, [*turns, *prompt], agent_turns, unread, reward)
    except RolloutFormatError as error:
        return error


def _rollout(
    task: str,
    record: dict[str, Any],
    prompt: Sequence[Turn],
    answers: Sequence[Turn],
    unread: dict[str, Any],
    reward: bool | None,
) -> Rollout:
    rest = {key: value for key, value in record.items() if key not in KEYS}
    return Rollout(
        task=task,
        question_id=optional_text(record, "question_id") or optional_text(record, "id") or "",
        source=optional_text(record, "source") or "",
        turns=tuple(answers),
        reward=reward,
        tools=read_tools(record.get("tools"), "tools"),
        prompt=tuple(as_context(turn) for turn in prompt),
        extra=extra_json({**rest, "messages": unread}),
    )
