"""Inspect's evaluation logs, as JSON or as `.eval` archives: a rollout for each sample, with what its scorers said.

A value `C` is a success, `I` and `N` (no answer) a failure, `P` half of one; numbers are scores.
"""

from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import SHAPE_ERRORS, Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import check, optional, optional_answer, optional_text, require
from negtraj_dagster.rollouts.formats.openai import read_messages
from negtraj_dagster.rollouts.formats.tool_calls import read_tools
from negtraj_dagster.schema import Rollout, json_as_recorded

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
ATTACHMENT = "attachment://"
"""In the place of a long text: its key among the sample's `attachments` follows."""


def read_file(task: str, document: "FileDocument") -> Reading:
    """The samples of a log.

    Raises:
        RolloutFormatError: the file is no log of samples.
    """
    if len(document.objects) != 1 or not {"eval", "samples"} <= document.objects[0].keys():
        raise RolloutFormatError("expected one log with eval and samples: an .eval file, or `inspect log convert --to json`")
    log = document.objects[0]
    evaluation = require(log, "eval", dict)
    rollouts: list[Rollout | RolloutFormatError] = []
    for index, value in enumerate(require(log, "samples", list)):
        try:
            rollouts.append(_rollout(task, check(value, f"samples[{index}]", dict), evaluation))
        except RolloutFormatError as error:
            rollouts.append(RolloutFormatError(f"samples[{index}]: {error}"))
        except SHAPE_ERRORS as error:
            rollouts.append(RolloutFormatError(f"samples[{index}]: of another shape than a log's ({type(error).__name__})"))
    return rollouts


def _rollout(task: str, sample: dict[str, Any], evaluation: dict[str, Any]) -> Rollout:
    recorded = [check(value, "messages", dict) for value in require(sample, "messages", list)]
    attachments = optional(sample, "attachments", dict) or {}
    says_source = any(message.get("source") == "generate" for message in recorded)
    messages = [_message(message, attachments, says_source=says_source) for message in recorded]
    turns, unread = read_messages(messages, "messages")
    prompt, agent_turns = split_prompt(turns, "messages")
    scores = {name: check(score, name, dict) for name, score in (optional(sample, "scores", dict) or {}).items()}
    reward, score = _outcome([score.get("value") for score in scores.values()])
    identifier = optional_text(sample, "id") or ""
    answers = {answer for score in scores.values() if (answer := optional_answer(score, "answer")) is not None}
    called = {call["name"] for turn in agent_turns for call in turn.get("tool_calls", ())}
    return Rollout(
        task=task,
        question_id=identifier,
        source=f"{evaluation.get('task') or 'inspect'}, epoch {sample.get('epoch', 1)}",
        turns=agent_turns,
        reward=reward,
        pred=answers.pop() if len(answers) == 1 else None,
        gold=optional_answer(sample, "target"),
        teacher=optional_text(evaluation, "model") or "",
        session=optional_text(sample, "uuid"),
        tools=_tools(sample, called, attachments),
        prompt=prompt,
        score=score,
        group=identifier or None,
        extra=extra_json({"scores": scores, "messages": unread, **{key: sample.get(key) for key in ("metadata", "error")}}),
    )


def _outcome(values: list[object]) -> tuple[bool | None, float | None]:
    """Success and score where all scorers agree; else the score of the only one that gives a number, without an outcome."""
    numbers = [_number(value) for value in values]
    if len(set(numbers)) == 1 and (number := numbers[0]) is not None:
        return (bool(number) if number in (0.0, 1.0) else None), number
    scores = [float(value) for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return None, scores[0] if len(scores) == 1 else None


def _number(value: object) -> float | None:
    if isinstance(value, (bool, int, float)):
        return float(value)
    return GRADES.get(value) if isinstance(value, str) else None


def _tools(sample: dict[str, Any], called: set[str], attachments: dict[str, Any]) -> str | None:
    """What the model's calls were offered, where it was the same in all; else the first offer with all that was called."""
    offers: dict[str, set[str]] = {}
    for value in optional(sample, "events", list) or []:
        event = check(value, "events", dict)
        if event.get("event") == "model" and event.get("tools"):
            offered = check(_attached(event["tools"], attachments), "events.tools", list)
            tools = [check(tool, "events.tools", dict) for tool in offered]
            functions = [{key: tool[key] for key in ("name", "description", "parameters") if key in tool} for tool in tools]
            schemas = [{"type": "function", "function": function} for function in functions]
            offers[json_as_recorded(schemas)] = {str(function.get("name")) for function in functions}
    if len(offers) > 1:
        offers = {text: names for text, names in offers.items() if called <= names}
    return read_tools(next(iter(offers), None), "events.tools")


def _message(message: dict[str, Any], attachments: dict[str, Any], *, says_source: bool) -> dict[str, Any]:
    """A message in chat completions' spelling, its attached texts in their places."""
    spelled: dict[str, Any] = {key: message[key] for key in ("role", "content", "tool_call_id") if key in message}
    error = message.get("error")
    if "content" in spelled:
        spelled["content"] = _attached(spelled["content"], attachments)
    if message.get("role") == "tool" and not spelled.get("content") and isinstance(error, dict):
        spelled["content"] = str(error.get("message") or "")
    calls = message.get("tool_calls") or []
    if calls:
        spelled["tool_calls"] = [
            {
                "id": call.get("id") or "",
                "name": call.get("function"),
                "arguments": call.get("arguments") or {},
            }
            for call in _attached(calls, attachments)
        ]
    if message.get("role") == "assistant" and (
        (says_source and message.get("source") != "generate") or any(call.get("parse_error") for call in calls)
    ):
        spelled["loss"] = False  # an example of the prompt's author, or a call that is not as the model wrote it
    return spelled


def _attached(value: Any, attachments: dict[str, Any]) -> Any:
    """A value with the texts that were put aside for their length, wherever they stand in it."""
    if isinstance(value, str):
        text = attachments.get(value.removeprefix(ATTACHMENT)) if value.startswith(ATTACHMENT) else None
        return text if isinstance(text, str) else value
    if isinstance(value, dict):
        return {key: _attached(inner, attachments) for key, inner in value.items()}
    return [_attached(inner, attachments) for inner in value] if isinstance(value, list) else value
