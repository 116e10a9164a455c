"""The project's own JSON-lines format: one object a line with question_id, messages and, if known, the outcome.

    {"question_id": "q1", "messages": [{"role": "assistant", "content": "…"}, …], "source": "gpt", "reward": true, "pred": "42"}

The first prompt is not in `messages`; it is joined from the question set. Only question_id and messages are required.
"""

from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.fields import check, optional, require
from negtraj_dagster.schema import ROLES, Rollout, Turn

KEYS = {
    "question_id",
    "messages",
    "source",
    "teacher",
    "reward",
    "pred",
    "gold",
    "subject",
    "session",
    "licence",
    "origin_url",
    "is_evaluation",
}


def read_record(task: str, record: dict[str, Any]) -> Rollout:
    """One record of the project's own format.

    Raises:
        RolloutFormatError: unknown or missing keys, wrong types, an unknown role, or an evaluation episode.
    """
    if unknown := sorted(record.keys() - KEYS):
        raise RolloutFormatError(f"unknown keys {unknown}; known: {sorted(KEYS)}")
    if optional(record, "is_evaluation", bool):
        raise RolloutFormatError("an evaluation episode must not enter training (is_evaluation = true)")
    messages = require(record, "messages", list)
    turns = tuple(_turn(turn, index) for index, turn in enumerate(messages))
    if turns and turns[0]["role"] != "assistant":
        raise RolloutFormatError(
            f"messages[0].role = {turns[0]['role']!r}; expected 'assistant': leave the first prompt out, it is joined from the "
            f"question set by question_id"
        )
    return Rollout(
        task=task,
        question_id=require(record, "question_id", str),
        source=optional(record, "source", str) or "",
        turns=turns,
        reward=optional(record, "reward", bool),
        pred=optional(record, "pred", str),
        gold=optional(record, "gold", str),
        teacher=optional(record, "teacher", str) or "",
        subject=optional(record, "subject", str),
        session=optional(record, "session", str),
        licence=optional(record, "licence", str),
        origin_url=optional(record, "origin_url", str),
    )


def _turn(value: object, index: int) -> Turn:
    turn = check(value, f"messages[{index}]", dict)
    if unknown := sorted(turn.keys() - {"role", "content", "loss"}):
        raise RolloutFormatError(f"messages[{index}]: unknown keys {unknown}; known: content, loss, role")
    role, content = require(turn, "role", str), require(turn, "content", str)
    if role not in ROLES:
        raise RolloutFormatError(f"messages[{index}].role = {role!r}; expected one of {', '.join(ROLES)}")
    made: Turn = {"role": role, "content": content}
    loss = optional(turn, "loss", bool)
    if loss is not None and loss != (role == "assistant"):
        made["loss"] = loss
    if made.get("loss") and role != "assistant":
        raise RolloutFormatError(f"messages[{index}]: a {role} turn cannot carry loss; only assistant turns are trained")
    return made
