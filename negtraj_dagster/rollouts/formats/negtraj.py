"""The project's own JSON-lines format: one object a line with question_id, messages and, if known, the outcome.

    {"question_id": "q1", "messages": [{"role": "assistant", "content": "…"}, …], "source": "gpt", "reward": true, "pred": "42"}

The first prompt is not in `messages`; it is joined from the question set. Only question_id and messages are required.
"""

from collections.abc import Sequence
from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.fields import optional, require
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.rollouts.formats.tool_calls import read_tools
from negtraj_dagster.schema import Rollout, Turn

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
    "tools",
    "tokenizer",
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
    turns = tuple(read_message(message, f"messages[{index}]") for index, message in enumerate(messages))
    if turns and turns[0]["role"] != "assistant":
        raise RolloutFormatError(
            f"messages[0].role = {turns[0]['role']!r}; expected 'assistant': leave the first prompt out, it is joined from the "
            f"question set by question_id"
        )
    tokenizer = optional(record, "tokenizer", str, remedy="write the sha256 of its tokenizer.json or a model's name") or None
    _check_token_ids_have_a_tokenizer(turns, tokenizer)
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
        tools=read_tools(record.get("tools"), "tools"),
        tokenizer=tokenizer,
    )


def _check_token_ids_have_a_tokenizer(turns: Sequence[Turn], tokenizer: str | None) -> None:
    """Ids mean nothing without the tokenizer they are of."""
    for index, turn in enumerate(turns):
        if "token_ids" in turn and not tokenizer:
            raise RolloutFormatError(
                f"messages[{index}].token_ids: found ids, but no key 'tokenizer' in the record, expected the sha256 of the "
                f"tokenizer.json or the model's name; give it, or leave token_ids out"
            )
