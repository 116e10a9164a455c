"""LLaMA-Factory's and ms-swift's fine-tuning data: `conversations` or `messages`, calls and results as turns, pairs, labels.

A pair (`chosen`, `rejected`, or ms-swift's `rejected_response`) is two rollouts of one prompt.
"""

from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, as_context, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import optional, optional_reward, optional_text, require
from negtraj_dagster.rollouts.formats.speakers import read_speakers
from negtraj_dagster.rollouts.formats.tool_calls import read_tools
from negtraj_dagster.schema import Rollout, Turn

TURNS = ("conversations", "messages")
OUTCOMES = ("kto_tag", "label")
SIDES = (("chosen", True), ("rejected", False))
KEYS = {*TURNS, *OUTCOMES, "system", "tools", "chosen", "rejected", "rejected_response", "question_id", "id", "source"}
UNSUPPORTED = ("images", "videos", "audios")


def read_record(task: str, record: dict[str, Any]) -> Reading:
    """One record: a rollout, or a pair of them.

    Raises:
        RolloutFormatError: images, sound or video, no turns, or turns of another shape.
    """
    if medium := next((key for key in UNSUPPORTED if record.get(key)), None):
        raise RolloutFormatError(f"{medium}: found values, expected none; images, sound and video are unsupported")
    name = next((key for key in TURNS if key in record), TURNS[0])
    turns, unread = read_speakers(require(record, name, list), name)
    if system := optional_text(record, "system"):
        turns = [{"role": "system", "content": system}, *turns]
    if "chosen" in record or "rejected" in record:
        return [_side(task, record, turns, unread, side, reward) for side, reward in SIDES]
    rewards = [reward for key in OUTCOMES if (reward := optional_reward(record, key)) is not None]
    rollouts: list[Rollout | RolloutFormatError] = [_rollout(task, record, turns, unread, rewards[0] if rewards else None)]
    if rejected := optional(record, "rejected_response", str):
        turns_before = turns[: next(n for n in range(len(turns), -1, -1) if n == 0 or turns[n - 1]["role"] != "assistant")]
        answer: Turn = {"role": "assistant", "content": rejected}
        rollouts = [
            _rollout(task, record, turns, unread, reward=True),
            _rollout(task, record, [*turns_before, answer], {}, reward=False),
        ]
    return rollouts


def _side(
    task: str, record: dict[str, Any], turns: list[Turn], unread: dict[str, Any], side: str, reward: bool
) -> Rollout | RolloutFormatError:
    try:
        value = require(record, side, object)
        answers, _ = read_speakers(value if isinstance(value, list) else [value], side)
        return _rollout(task, record, [*turns, *answers], unread, reward)
    except RolloutFormatError as error:
        return error


def _rollout(task: str, record: dict[str, Any], turns: list[Turn], unread: dict[str, Any], reward: bool | None) -> Rollout:
    if record.get("chosen") is not None or record.get("rejected") is not None:  # only the last answer is of the pair
        last = max(n for n, turn in enumerate(turns) if turn["role"] == "assistant")
        prompt, agent_turns = tuple(as_context(turn) for turn in turns[:last]), tuple(turns[last:])
    else:
        prompt, agent_turns = split_prompt(turns, "messages")
    rest = {key: value for key, value in record.items() if key not in KEYS}
    return Rollout(
        task=task,
        question_id=optional_text(record, "question_id") or optional_text(record, "id") or "",
        source=optional_text(record, "source") or "",
        turns=agent_turns,
        reward=reward,
        tools=read_tools(record.get("tools"), "tools"),
        prompt=prompt,
        extra=extra_json({**rest, "messages": unread}),
    )
