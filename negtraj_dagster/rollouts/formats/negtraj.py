"""The project's own JSON-lines format: one object a line with question_id, messages and, if known, the outcome.

    {"question_id": "q1", "messages": [{"role": "assistant", "content": "…"}, …], "source": "gpt", "reward": true, "pred": "42"}

The first prompt is not in `messages`: it is joined from the question set, or stands in `prompt`. Only question_id and messages
are required, and with a prompt the messages alone.
"""

from collections.abc import Sequence
from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, as_context
from negtraj_dagster.rollouts.formats.fields import (
    optional,
    optional_answer,
    optional_reward,
    optional_text,
    read_score,
    refuse_unknown_keys,
    require,
    require_text,
)
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
    "prompt",
    "score",
    "parent",
    "group",
}


def read_records(task: str, record: dict[str, Any]) -> Reading:
    """One record as a list of the one rollout that it is; see `read_record`."""
    return [read_record(task, record)]


def read_record(task: str, record: dict[str, Any]) -> Rollout:
    """One record of the project's own format.

    Raises:
        RolloutFormatError: unknown or missing keys, wrong types, an unknown role, or an evaluation episode.
    """
    refuse_unknown_keys(record, KEYS)
    if optional(record, "is_evaluation", bool):
        raise RolloutFormatError("an evaluation episode must not enter training (is_evaluation = true)")
    prompt = optional(record, "prompt", list, remedy="write the turns before the agent's first one") or []
    messages = require(record, "messages", list)
    turns = tuple(read_message(message, f"messages[{index}]") for index, message in enumerate(messages))
    if turns and turns[0]["role"] != "assistant":
        raise RolloutFormatError(
            f"messages[0] is a {turns[0]['role']} turn, expected the agent's: leave the first prompt out, it is joined from "
            f"the question set by question_id, or write it into the key prompt"
        )
    tokenizer = optional(record, "tokenizer", str, remedy="write the sha256 of its tokenizer.json or a model's name") or None
    _check_token_ids_have_a_tokenizer(turns, tokenizer)
    return Rollout(
        task=task,
        question_id=optional_text(record, "question_id") or "" if prompt else require_text(record, "question_id"),
        source=optional_text(record, "source") or "",
        turns=turns,
        reward=optional_reward(record, "reward"),
        pred=optional_answer(record, "pred"),
        gold=optional_answer(record, "gold"),
        teacher=optional_text(record, "teacher") or "",
        subject=optional_text(record, "subject"),
        session=optional_text(record, "session"),
        licence=optional_text(record, "licence"),
        origin_url=optional_text(record, "origin_url"),
        tools=read_tools(record.get("tools"), "tools"),
        tokenizer=tokenizer,
        prompt=tuple(as_context(read_message(message, f"prompt[{index}]")) for index, message in enumerate(prompt)),
        score=read_score(record.get("score"), "score"),
        parent=optional_text(record, "parent"),
        group=optional_text(record, "group"),
    )


def _check_token_ids_have_a_tokenizer(turns: Sequence[Turn], tokenizer: str | None) -> None:
    """Ids mean nothing without the tokenizer they are of."""
    for index, turn in enumerate(turns):
        if "token_ids" in turn and not tokenizer:
            raise RolloutFormatError(
                f"messages[{index}].token_ids: found ids, but no key 'tokenizer' in the record, expected the sha256 of the "
                f"tokenizer.json or the model's name; give it, or leave token_ids out"
            )
