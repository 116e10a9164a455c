"""NAT's trajectory files (arXiv 2402.11651's code): `conversations`, `id`, `info`, `source`; the question is not inside.

Legacy spellings of the same code are accepted: `items` for `conversations`, `from`/`value` for `role`/`content`, the
speakers human, gpt and ai, and a missing `loss` (then the agent's turns carry it).
"""

from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.reasoning import split_reasoning
from negtraj_dagster.rollouts.formats.base import Reading
from negtraj_dagster.rollouts.formats.fields import (
    check,
    described,
    optional,
    optional_answer,
    optional_reward,
    optional_text,
    require,
    require_text,
)
from negtraj_dagster.schema import Role, Rollout, Turn, canonical_json

SPEAKERS: dict[str, Role] = {
    "assistant": "assistant",
    "gpt": "assistant",
    "ai": "assistant",
    "user": "user",
    "human": "user",
    "system": "system",
}


def read_records(task: str, record: dict[str, Any]) -> Reading:
    """One record as a list of the one rollout that it is; see `read_record`."""
    return [read_record(task, record)]


def read_record(task: str, record: dict[str, Any]) -> Rollout:
    """One record of a NAT file. Empty conversations are kept: a filter judges them, the reader does not.

    Raises:
        RolloutFormatError: a required key is missing or of another type, a speaker is unknown, or the first turn is not the
            agent's.
    """
    _refuse_both(record, "conversations", "items", "the record")
    key = "items" if "items" in record else "conversations"
    info = optional(record, "info", dict) or {}
    if stray := sorted({"reward", "pred", "gt"} & record.keys() - info.keys()):
        raise RolloutFormatError(f"{stray[0]} stands beside info, where nobody reads it; expected info.{stray[0]}")
    turns = tuple(_turn(turn, f"{key}[{index}]") for index, turn in enumerate(require(record, key, list)))
    if turns and turns[0]["role"] != "assistant":
        raise RolloutFormatError(
            f"{key}[0] is a {turns[0]['role']} turn, expected the agent's: leave the first prompt out, it is joined from the "
            f"question set by id"
        )
    return Rollout(
        task=task,
        question_id=require_text(record, "id"),
        source=optional_text(record, "source") or "",
        turns=turns,
        reward=optional_reward(info, "reward"),
        pred=optional_answer(info, "pred"),
        gold=canonical_json(info["gt"]) if "gt" in info else None,
    )


def _refuse_both(keyed: dict[str, Any], one: str, other: str, place: str) -> None:
    if one in keyed and other in keyed and keyed[one] != keyed[other]:
        raise RolloutFormatError(f"{place}: has {one} and {other}, and they differ; keep the one that is meant")


def _loss(turn: dict[str, Any], place: str) -> bool | None:
    """True and false, or 1 and 0."""
    loss = turn.get("loss")
    if loss is None or isinstance(loss, bool):
        return loss
    if isinstance(loss, int | float) and loss in (0, 1):
        return bool(loss)
    raise RolloutFormatError(f"{place}.loss: found {described(loss)}, expected true, false, 1 or 0")


def _turn(value: object, place: str) -> Turn:
    turn = check(value, place, dict)
    for legacy, other in (("from", "role"), ("value", "content")):
        _refuse_both(turn, legacy, other, place)
    speaker_key, content_key = ("from", "value") if "from" in turn else ("role", "content")
    speaker = require(turn, speaker_key, str)
    if speaker not in SPEAKERS:
        raise RolloutFormatError(f"{place}.{speaker_key}: found {described(speaker)}, expected one of {', '.join(SPEAKERS)}")
    role = SPEAKERS[speaker]
    reasoning, content = "", require(turn, content_key, str)
    if role == "assistant":
        reasoning, content = split_reasoning(content)
    message: Turn = {"role": role, "content": content}
    if reasoning:
        message["reasoning"] = reasoning
    loss = _loss(turn, place)
    if loss and role != "assistant":
        raise RolloutFormatError(f"{place}: a {speaker} turn has loss = true; only the agent's turns are trained")
    if loss is False and role == "assistant":
        message["loss"] = False
    return message
