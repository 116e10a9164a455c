"""OpenHands' events: actions of the agent, observations, messages of the user; a file of feedback records, or of one list.

An action is a call: by its tool's name where the event records it, else by the action's own, with the event's arguments.
What users said of the episode (`feedback`, `polarity`) is its outcome.
"""

from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import check, optional, optional_text, require
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.rollouts.formats.tool_calls import read_tools
from negtraj_dagster.schema import Rollout, Turn

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

POLARITY = {"positive": True, "negative": False}
NO_ACTIONS = ("initialize", "change_agent_state", "recall", "null", "start")
NO_OBSERVATIONS = ("agent_state_changed", "recall", "null")
KEYS = {"trajectory", "feedback", "polarity", "id"}
THOUGHTS = ("thought", "final_thought")


def read_file(task: str, document: "FileDocument") -> Reading:
    """The episodes of a file of feedback records, or the one of a list of events.

    Raises:
        RolloutFormatError: neither.
    """
    records = document.objects
    if not any("trajectory" in record for record in records):
        if not all({"action", "observation", "status", "error"} & event.keys() or "source" in event for event in records):
            raise RolloutFormatError("neither records with a trajectory nor a list of events, expected OpenHands' events")
        records = [{"trajectory": records}]
    rollouts: list[Rollout | RolloutFormatError] = []
    for number, record in enumerate(records):
        try:
            require(record, "trajectory", list)
            rollouts.append(_rollout(task, record))
        except RolloutFormatError as error:
            rollouts.append(RolloutFormatError(f"record {number}: {error}"))
    return rollouts


def _rollout(task: str, record: dict[str, Any]) -> Rollout:
    turns: list[Turn] = []
    tools = None
    answered: set[str] = set()
    for index, value in enumerate(record["trajectory"]):
        at = f"trajectory[{index}]"
        event = check(value, at, dict)
        if _said(event).get("image_urls"):
            raise RolloutFormatError(f"{at}: found images, expected text; they are unsupported")
        if event.get("action") == "system":
            tools = tools or read_tools(_said(event).get("tools"), f"{at}.args.tools")
        response = _response_id(event, at)
        if response in answered:  # a further call of one answer, which its turn has already
            continue
        if response is not None:
            answered.add(response)
        if (turn := _turn(event, at)) is not None:
            turns.append(turn)
    prompt, agent_turns = split_prompt(turns, "trajectory")
    feedback = optional_text(record, "feedback") or optional_text(record, "polarity") or ""
    return Rollout(
        task=task,
        question_id="",
        source="openhands",
        turns=agent_turns,
        reward=POLARITY.get(feedback.lower()),
        session=optional_text(record, "id"),
        tools=tools,
        prompt=prompt,
        extra=extra_json({key: value for key, value in record.items() if key not in KEYS}),
    )


def _turn(event: dict[str, Any], at: str) -> Turn | None:
    action, observation = event.get("action"), event.get("observation")
    if action is not None and action not in NO_ACTIONS:
        if action == "system":
            return read_message({"role": "system", "content": _text(event)}, at)
        if action == "message":
            role = "user" if event.get("source") == "user" else "assistant"
            return read_message({"role": role, "content": _text(event)}, at) if _text(event) else None
        if event.get("source") == "agent":
            return _call(event, str(action), at)
    elif observation is not None and observation not in NO_OBSERVATIONS:
        call_id = (optional(event, "tool_call_metadata", dict, at=at) or {}).get("tool_call_id")
        message = {"role": "tool", "content": _text(event), **({"tool_call_id": call_id} if call_id else {})}
        return read_message(message, at)
    return None


def _call(event: dict[str, Any], action: str, at: str) -> Turn:
    metadata = optional(event, "tool_call_metadata", dict, at=at) or {}
    if (answer := _answer(metadata)) is not None:
        calls = [{"id": call.get("id") or "", **call["function"]} for call in answer["tool_calls"]]
        content = answer.get("content")
        content_text = content if isinstance(content, str) else ""
        return read_message({"role": "assistant", "content": content_text, "tool_calls": calls}, at)
    thought = _said(event).get("thought")
    arguments = {key: value for key, value in _said(event).items() if key not in THOUGHTS and value is not None}
    call = {"name": metadata.get("function_name") or action, "arguments": arguments}
    if metadata.get("tool_call_id"):
        call["id"] = metadata["tool_call_id"]
    content_text = thought if isinstance(thought, str) else ""
    message: dict[str, Any] = {"role": "assistant", "content": content_text, "tool_calls": [call]}
    if metadata:  # a call that the model wrote otherwise: its arguments are the program's
        message["loss"] = False
    return read_message(message, at)


def _answer(metadata: dict[str, Any]) -> dict[str, Any] | None:
    """The model's answer as it wrote it, with all of its calls, where the event holds it."""
    response = metadata.get("model_response")
    choices = response.get("choices") if isinstance(response, dict) else None
    message = choices[0].get("message") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    return message if isinstance(message, dict) and message.get("tool_calls") else None


def _response_id(event: dict[str, Any], at: str) -> str | None:
    """The answer that an action is of; None where the event is no action, or does not say."""
    metadata = optional(event, "tool_call_metadata", dict, at=at) or {}
    response = metadata.get("model_response")
    if event.get("action") is None or not isinstance(response, dict) or not response.get("id"):
        return None
    return str(response["id"])


def _said(event: dict[str, Any]) -> dict[str, Any]:
    """The action's arguments, which older events keep under `extras`."""
    value = event.get("args") or event.get("extras")
    return value if isinstance(value, dict) else {}


def _text(event: dict[str, Any]) -> str:
    texts = (event.get("content"), _said(event).get("content"), event.get("message"))
    return next((text for text in texts if isinstance(text, str) and text), "")
