"""Inspect's evaluation logs as JSON (`inspect log convert --to json`): a rollout for each sample, with what its scorers said.

`.eval` files are archives: convert them. A value `C` is a success and `I` a failure; numbers are scores.
"""

from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import check, optional, optional_answer, optional_text, require
from negtraj_dagster.rollouts.formats.openai import read_messages
from negtraj_dagster.rollouts.formats.tool_calls import json_text
from negtraj_dagster.schema import Rollout

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

GRADES = {"C": True, "I": False}


def read_file(task: str, document: "FileDocument") -> Reading:
    """The samples of a log.

    Raises:
        RolloutFormatError: the file is no log of samples.
    """
    if len(document.objects) != 1 or not {"eval", "samples"} <= document.objects[0].keys():
        raise RolloutFormatError("expected one log with eval and samples; convert .eval files with `inspect log convert`")
    log = document.objects[0]
    evaluation = require(log, "eval", dict)
    rollouts: list[Rollout | RolloutFormatError] = []
    for index, value in enumerate(require(log, "samples", list)):
        try:
            rollouts.append(_rollout(task, check(value, f"samples[{index}]", dict), evaluation))
        except RolloutFormatError as error:
            rollouts.append(RolloutFormatError(f"samples[{index}]: {error}"))
    return rollouts


def _rollout(task: str, sample: dict[str, Any], evaluation: dict[str, Any]) -> Rollout:
    messages = [_message(check(value, "messages", dict)) for value in require(sample, "messages", list)]
    turns, unread = read_messages(messages, "messages")
    prompt, agent_turns = split_prompt(turns, "messages")
    scores = {name: check(score, name, dict) for name, score in (optional(sample, "scores", dict) or {}).items()}
    values = [score.get("value") for score in scores.values()]
    graded = [value for value in values if not isinstance(value, (list, dict))]
    grades = {GRADES.get(value, value) if isinstance(value, str) else value for value in graded}
    outcomes = {bool(grade) for grade in grades if isinstance(grade, bool) or grade in (0, 1)}
    numbers = [float(value) for value in values if isinstance(value, (int, float))]
    identifier = optional_text(sample, "id") or ""
    answers = {answer for score in scores.values() if (answer := optional_answer(score, "answer")) is not None}
    return Rollout(
        task=task,
        question_id=identifier,
        source=f"{evaluation.get('task') or 'inspect'}, epoch {sample.get('epoch', 1)}",
        turns=agent_turns,
        reward=outcomes.pop() if len(outcomes) == 1 == len(grades) else None,
        pred=answers.pop() if len(answers) == 1 else None,
        gold=optional_answer(sample, "target"),
        teacher=optional_text(evaluation, "model") or "",
        session=optional_text(sample, "uuid"),
        prompt=prompt,
        score=numbers[0] if len(numbers) == 1 else None,
        group=identifier or None,
        extra=extra_json({"scores": scores, "messages": unread, **{key: sample.get(key) for key in ("metadata", "error")}}),
    )


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """A message in chat completions' spelling; reasoning that stands among the parts is taken apart."""
    spelled: dict[str, Any] = {key: message[key] for key in ("role", "content", "tool_call_id") if key in message}
    if isinstance(message.get("content"), list):
        are_thoughts = [isinstance(part, dict) and part.get("type") == "reasoning" for part in message["content"]]
        parts = list(zip(message["content"], are_thoughts, strict=True))
        thoughts = [str(part.get("reasoning") or "") for part, is_hidden in parts if is_hidden]
        spelled["content"] = [part for part, is_hidden in parts if not is_hidden]
        if any(thoughts):
            spelled["reasoning"] = "\n".join(thoughts)
    if calls := message.get("tool_calls"):
        spelled["tool_calls"] = [
            {"id": call.get("id") or "", "name": call.get("function"), "arguments": json_text(call.get("arguments") or {})}
            for call in calls
        ]
    return spelled
