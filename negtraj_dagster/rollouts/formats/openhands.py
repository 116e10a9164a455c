"""OpenHands' events: actions of the agent, observations, messages of the user; a file of feedback records, or of one list.

An action is a call: by its tool's name where the event records it, else by the action's own, with the event's arguments.
What users said of the episode (`feedback`, `polarity`) is its outcome.
"""

from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import check, optional_text
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.rollouts.formats.tool_calls import json_text, read_tools
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
    if not all("trajectory" in record for record in records):
        if not all({"action", "observation", "status", "error"} & event.keys() or "source" in event for event in records):
            raise RolloutFormatError("neither records with a trajectory nor a list of events, expected OpenHands' events")
        records = [{"trajectory": records}]
    rollouts: list[Rollout | RolloutFormatError] = []
    for number, record in enumerate(records):
        try:
            rollouts.append(_rollout(task, record))
        except RolloutFormatError as error:
            rollouts.append(RolloutFormatError(f"record {number}: {error}"))
    return rollouts


def _rollout(task: str, record: dict[str, Any]) -> Rollout:
    turns: list[Turn] = []
    tools = None
    for index, value in enumerate(check(record["trajectory"], "trajectory", list)):
        at = f"trajectory[{index}]"
        event = check(value, at, dict)
        if event.get("action") == "system":
            tools = tools or read_tools(_said(event).get("tools"), f"{at}.args.tools")
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
        call_id = (event.get("tool_call_metadata") or {}).get("tool_call_id")
        message = {"role": "tool", "content": _text(event), **({"tool_call_id": call_id} if call_id else {})}
        return read_message(message, at)
    return None


def _call(event: dict[str, Any], action: str, at: str) -> Turn:
    metadata = event.get("tool_call_metadata") or {}
    arguments = {key: value for key, value in _said(event).items() if key not in THOUGHTS and value not in (None, "")}
    call = {"name": metadata.get("function_name") or action, "arguments": json_text(arguments)}
    if metadata.get("tool_call_id"):
        call["id"] = metadata["tool_call_id"]
    thought = _said(event).get("thought")
    return read_message({"role": "assistant", "content": thought if isinstance(thought, str) else "", "tool_calls": [call]}, at)


def _said(event: dict[str, Any]) -> dict[str, Any]:
    """The action's arguments, which older events keep under `extras`."""
    value = event.get("args") or event.get("extras")
    return value if isinstance(value, dict) else {}


def _text(event: dict[str, Any]) -> str:
    texts = (event.get("content"), _said(event).get("content"), event.get("message"))
    return next((text for text in texts if isinstance(text, str) and text), "")
