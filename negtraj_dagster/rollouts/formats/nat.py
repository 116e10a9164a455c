"""NAT's trajectory files (arXiv 2402.11651's code): `conversations`, `id`, `info`, `source`; the question is not inside.

Legacy spellings of the same code are accepted: `items` for `conversations`, `from`/`value` for `role`/`content`, the
speakers human, gpt and ai, and a missing `loss` (then the agent's turns carry it).
"""

from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.fields import check, optional, require
from negtraj_dagster.schema import Role, Rollout, Turn, canonical_json

SPEAKERS: dict[str, Role] = {
    "assistant": "assistant",
    "gpt": "assistant",
    "ai": "assistant",
    "user": "user",
    "human": "user",
    "system": "system",
}


def read_record(task: str, record: dict[str, Any]) -> Rollout:
    """One record of a NAT file. Empty conversations are kept: a filter judges them, the reader does not.

    Raises:
        RolloutFormatError: a required key is missing or of another type, or a speaker is unknown.
    """
    key = "items" if "items" in record and "conversations" not in record else "conversations"
    info = optional(record, "info", dict) or {}
    return Rollout(
        task=task,
        question_id=require(record, "id", str),
        source=optional(record, "source", str) or "",
        turns=tuple(_turn(turn, f"{key}[{index}]") for index, turn in enumerate(require(record, key, list))),
        reward=optional(info, "reward", bool),
        pred=optional(info, "pred", str),
        gold=canonical_json(info["gt"]) if "gt" in info else None,
    )


def _turn(value: object, place: str) -> Turn:
    turn = check(value, place, dict)
    speaker_key, content_key = ("from", "value") if "from" in turn else ("role", "content")
    speaker = require(turn, speaker_key, str)
    if speaker not in SPEAKERS:
        raise RolloutFormatError(f"{place}.{speaker_key} = {speaker!r}; expected one of {', '.join(SPEAKERS)}")
    role = SPEAKERS[speaker]
    made: Turn = {"role": role, "content": require(turn, content_key, str)}
    loss = optional(turn, "loss", bool)
    if loss and role != "assistant":
        raise RolloutFormatError(f"{place}: a {speaker} turn has loss = true; only the agent's turns are trained")
    if loss is False and role == "assistant":
        made["loss"] = False
    return made
