"""SWE-agent's `.traj` files: the history that the agent saw, and `report.json` beside it for the outcome.

`a.traj` goes with `a.report.json`; without one the outcome is not known: what the agent submitted says nothing of it.
"""

from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import check, optional, optional_reward, optional_text, require
from negtraj_dagster.rollouts.formats.openai import read_messages
from negtraj_dagster.rollouts.formats.tool_calls import read_tools
from negtraj_dagster.schema import Rollout

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

SIDECAR = ".report.json"
SAID_TWICE = ("thought", "action", "agent", "message_type", "cache_control", "is_demo", "tool_call_ids", "tags")
"""What the history says of a message besides the message itself; `thought` and `action` are parts of its content."""


def read_file(task: str, document: "FileDocument") -> Reading:
    """One file: one rollout.

    Raises:
        RolloutFormatError: no history, a message of another shape, or a report that says another kind of outcome.
    """
    if len(document.objects) != 1:
        raise RolloutFormatError(f"found {len(document.objects)} objects, expected one trajectory a file")
    record = document.objects[0]
    require(record, "trajectory", list)
    history = require(record, "history", list)
    messages = [_message(message, f"history[{index}]") for index, message in enumerate(history)]
    turns, unread = read_messages(messages, "history")
    prompt, value = split_prompt(turns, "history")
    info = optional(record, "info", dict) or {}
    report = _own_report(document.beside or {})
    return [
        Rollout(
            task=task,
            question_id="",
            source="swe-agent",
            turns=value,
            reward=optional_reward(report, "resolved"),
            teacher=optional_text(report, "model_name_or_path") or "",
            group=optional_text(record, "environment"),
            tools=read_tools(record.get("tools"), "tools"),
            prompt=prompt,
            extra=extra_json({"info": info, "report": report, "history": unread, "replay_config": record.get("replay_config")}),
        )
    ]


def _message(value: object, at: str) -> dict[str, Any]:
    message = check(value, at, dict)
    message_fields = {key: content for key, content in message.items() if key not in SAID_TWICE}
    if isinstance(calls := message.get("tool_calls"), list):  # its `index` counts from 1 through the episode
        message_fields["tool_calls"] = [
            {key: value for key, value in call.items() if key != "index"} if isinstance(call, dict) else call for call in calls
        ]
    called = message.get("tool_call_ids")
    if message.get("role") == "tool" and isinstance(called, list) and len(called) == 1:
        message_fields["tool_call_id"] = called[0]
    if message.get("is_demo") and message.get("role") == "assistant":
        message_fields["loss"] = False
    return message_fields


def _own_report(report: dict[str, Any]) -> dict[str, Any]:
    """The report itself; SWE-bench's harness writes it under the instance's name."""
    inner = next(iter(report.values())) if len(report) == 1 else None
    return inner if isinstance(inner, dict) else report
