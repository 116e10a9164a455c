"""AgentInstruct, AgentGym and ETO: conversations with an id. The prompt ends before the agent's first turn that carries loss.

AgentInstruct's instruction is answered by an `Ok.` that carries none; ETO's pairs (`prompt`, `chosen`, `rejected`) are two
rollouts of one prompt, a success and a failure.
"""

from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, as_context, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import optional_text, require
from negtraj_dagster.rollouts.formats.segments import as_untrained
from negtraj_dagster.rollouts.formats.speakers import outcome_of, read_speakers
from negtraj_dagster.schema import Rollout, Turn

KEYS = {"conversations", "id", "item_id", "reward", "source", "prompt", "chosen", "rejected"}


def read_record(task: str, record: dict[str, Any]) -> Reading:
    """One record: a rollout, or a pair of them.

    Raises:
        RolloutFormatError: no id, no turns of the agent's, or turns of another shape.
    """
    identifier = optional_text(record, "id") or optional_text(record, "item_id")
    if identifier is None:
        raise RolloutFormatError("neither id nor item_id, expected one of them")
    if "chosen" in record:
        return _pair(task, record, identifier)
    turns, unread = read_speakers(require(record, "conversations", list), "conversations")
    if not turns:
        raise RolloutFormatError("conversations is empty, expected the agent's turns")
    first = next((n for n, turn in enumerate(turns) if turn["role"] == "assistant" and turn.get("loss") is not False), None)
    if first is None:
        raise RolloutFormatError("conversations: no turn of the agent's carries loss, expected at least one")
    reward, score = outcome_of(record, "reward")
    return [
        Rollout(
            task=task,
            question_id=identifier,
            source=optional_text(record, "source") or "",
            turns=tuple(turns[first:]),
            reward=reward,
            score=score,
            prompt=tuple(as_context(turn) for turn in turns[:first]),
            extra=_extra(record, unread),
        )
    ]


def _pair(task: str, record: dict[str, Any], identifier: str) -> Reading:
    prompt, _ = read_speakers(require(record, "prompt", list), "prompt")
    rollouts: list[Rollout | RolloutFormatError] = []
    for side, reward in (("chosen", True), ("rejected", False)):
        try:
            turns, unread = read_speakers(require(record, side, list), side)
            split_prompt(turns, side)
        except RolloutFormatError as error:
            rollouts.append(error)
            continue
        context: list[Turn] = [as_untrained(turn) for turn in prompt]
        rollouts.append(
            Rollout(
                task=task,
                question_id=identifier,
                source=side,
                turns=tuple(turns),
                reward=reward,
                prompt=tuple(as_context(turn) for turn in context),
                extra=_extra(record, unread),
            )
        )
    return rollouts


def _extra(record: dict[str, Any], unread: dict[str, Any]) -> str | None:
    return extra_json({**{key: value for key, value in record.items() if key not in KEYS}, "messages": unread})
