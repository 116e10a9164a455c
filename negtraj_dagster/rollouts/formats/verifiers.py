"""Results of verifiers' environments: `prompt` and `completion` as messages, `reward` as a number, `answer` as the gold."""

from typing import Any

from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import optional_answer, optional_text, require
from negtraj_dagster.rollouts.formats.openai import json_list, read_messages
from negtraj_dagster.rollouts.formats.speakers import outcome_of
from negtraj_dagster.rollouts.formats.tool_calls import read_tools
from negtraj_dagster.schema import Rollout

KEYS = {"prompt", "completion", "reward", "answer", "example_id", "id", "tools", "model", "task"}


def read_record(task: str, record: dict[str, Any]) -> Reading:
    """One record: one rollout. A text in the place of messages is one message.

    Raises:
        RolloutFormatError: no prompt or completion, or messages of another shape.
    """
    asked, completed = (require(record, key, object) for key in ("prompt", "completion"))
    prompt, in_prompt = read_messages(_messages(asked, "user", "prompt"), "prompt")
    answers, in_completion = read_messages(_messages(completed, "assistant", "completion"), "completion")
    before, agent_turns = split_prompt(answers, "completion")
    reward, score = outcome_of(record, "reward")
    identifier = optional_text(record, "example_id") or optional_text(record, "id") or ""
    rest = {key: value for key, value in record.items() if key not in KEYS}
    return [
        Rollout(
            task=task,
            question_id=identifier,
            source=optional_text(record, "task") or "",
            turns=agent_turns,
            reward=reward,
            gold=optional_answer(record, "answer"),
            teacher=optional_text(record, "model") or "",
            tools=read_tools(record.get("tools"), "tools"),
            prompt=(*prompt, *before),
            score=score,
            group=identifier or None,
            extra=extra_json({**rest, "prompt": in_prompt, "completion": in_completion}),
        )
    ]


def _messages(value: object, role: str, place: str) -> list[Any]:
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [{"role": role, "content": value}]
    return json_list(value, place)
