"""Session traces of one header line and message lines: Pi's sessions (a tree) and the Session Trace Simple Format (a list).

    {"type": "session", "harness": "my-agent", "id": "b1a2c3"}
    {"type": "message", "message": {"role": "assistant", "content": "…"}}

Lines with `id` and `parentId` are a tree; without them each follows the one before. A compaction line begins a rollout of its
own: its summary and the messages that were kept are the prompt.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.blocks import read_blocks
from negtraj_dagster.rollouts.formats.fields import check, optional_text, require
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.rollouts.formats.openai import read_content, read_messages
from negtraj_dagster.rollouts.formats.segments import (
    as_untrained,
    branches,
    is_trained,
    message_before,
    read_tree,
    segment_parents,
)
from negtraj_dagster.schema import Rollout, Turn

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

RESULT_ROLES = ("toolResult", "tool")
INSERTED_ROLES = ("custom", "hookMessage")
"""Whose messages an extension wrote; the model is sent them as the user's."""
UNFINISHED = ("aborted", "error")
"""Answers with such a `stopReason` are not sent again: the model did not end them."""


@dataclass
class _Lines:
    """A session's lines after its header, by name.

    Attributes:
        places: where they stand.
        links: every line's parent.
        spoken: names of those that the model is sent or wrote.
        n_left_out: messages that are neither, by the reason.
    """

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    links: dict[str, str | None] = field(default_factory=dict)
    spoken: dict[str, None] = field(default_factory=dict)
    n_left_out: Counter[str] = field(default_factory=Counter)


def read_file(task: str, document: "FileDocument") -> Reading:
    """One session.

    Raises:
        RolloutFormatError: the first line is no header.
    """
    header = document.objects[0]
    if header.get("type") != "session" or "id" not in header:
        raise RolloutFormatError("the first line is no header, expected an object of type session with an id")
    session = optional_text(header, "id") or ""
    lines = _read_lines(document.objects[1:])
    before = {name: message_before(lines.links, name, lines.spoken) for name in lines.spoken}
    compacted = {name for name in lines.spoken if lines.objects[name]["type"] == "compaction"}
    messages, errors = read_tree(
        {name: None if name in compacted else parent for name, parent in before.items()},
        lambda name: _kept_turns(name, lines) if name in compacted else _line_turns(name, lines),
    )
    segments = branches(messages)
    written_before = dict(zip(list(before)[1:], before, strict=False))
    began_from = {name: parent or written_before.get(name, "") for name, parent in before.items()}
    parents = segment_parents(segments, began_from)
    rollouts: list[Rollout | RolloutFormatError] = list(errors)
    for segment in segments:
        if not is_trained(segment.turns):
            continue
        parent_name = parents[segment.name]
        prompt, agent_turns = split_prompt(segment.turns, segment.name)
        rollouts.append(
            Rollout(
                task=task,
                question_id="",
                source=optional_text(header, "harness") or "pi",
                turns=agent_turns,
                reward=None,
                teacher=_model(segment.name, lines) or optional_text(header, "modelId") or "",
                session=session,
                prompt=prompt,
                parent=f"{session}/{parent_name}" if parent_name else None,
                group=session,
                extra=extra_json({"segment": segment.name, "header": header, "left_out": dict(lines.n_left_out)}),
            )
        )
    return rollouts


def _read_lines(objects: list[dict[str, Any]]) -> _Lines:
    lines, last = _Lines(), None
    for index, line in enumerate(objects, 2):
        name = str(line.get("id") or f"line {index}")
        if name not in lines.objects:  # a line that is written again counts once
            parent = line.get("parentId", last) if "id" in line else last
            lines.objects[name], lines.places[name] = line, f"line {index}"
            lines.links[name] = None if parent is None else str(parent)
            if reason := _why_left_out(line):
                lines.n_left_out[reason] += 1
            elif line.get("type") in ("message", "custom_message", "branch_summary", "compaction"):
                lines.spoken[name] = None
        last = name
    return lines


def _why_left_out(line: dict[str, Any]) -> str | None:
    message = line.get("message")
    if line.get("type") != "message" or not isinstance(message, dict):
        return None
    if message.get("role") == "assistant" and message.get("stopReason") in UNFINISHED:
        return str(message["stopReason"])
    return "excludeFromContext" if message.get("excludeFromContext") else None


def _model(name: str, lines: _Lines) -> str:
    """The model that a line's branch names last: the one that wrote an answer, or that was chosen."""
    passed: dict[str, None] = {}
    at: str | None = name
    while at is not None and at not in passed:
        passed[at] = None
        line = lines.objects.get(at, {})
        message = line.get("message")
        if model := (message.get("model") if isinstance(message, dict) else None) or line.get("modelId"):
            return str(model)
        at = lines.links.get(at)
    return ""


def _kept_turns(name: str, lines: _Lines) -> list[Turn]:
    """What the model is sent after a compaction: the summary, then the messages from the first that was kept on."""
    kept: dict[str, None] = {}
    first, at = lines.objects[name].get("firstKeptEntryId"), lines.links[name]
    while at is not None and at not in kept and first not in kept:
        kept[at] = None
        at = lines.links.get(at)
    spoken = [each for each in reversed(kept) if each in lines.spoken] if first in kept else []
    turns = [turn for each in spoken for turn in _line_turns(each, lines)]
    return [*_line_turns(name, lines), *map(as_untrained, turns)]


def _line_turns(name: str, lines: _Lines) -> list[Turn]:
    line, at = lines.objects[name], lines.places[name]
    if line["type"] == "message":
        return _turns(check(line.get("message"), f"{at}.message", dict), f"{at}.message")
    if line["type"] == "custom_message":
        return _turns({"role": "custom", "content": line.get("content")}, at)
    return [{"role": "user", "content": require(line, "summary", str, at=at)}]


def _turns(message: dict[str, Any], at: str) -> list[Turn]:
    role, content = require(message, "role", str, at=at), message.get("content")
    if role in RESULT_ROLES:
        called = message.get("toolCallId") or message.get("tool_call_id")
        text = read_content(content, f"{at}.content") or ""
        return [read_message({"role": "tool", "content": text, **({"tool_call_id": str(called)} if called else {})}, at)]
    if role == "bashExecution":
        return [{"role": "user", "content": _command_text(message, at)}]
    role = "user" if role in INSERTED_ROLES else role
    if isinstance(content, list):
        return read_blocks(content, role, f"{at}.content")
    plain = {key: message[key] for key in ("tool_calls", "reasoning") if key in message}
    return read_messages([{**plain, "role": role, "content": content or ""}], at)[0]


def _command_text(message: dict[str, Any], at: str) -> str:
    """A command that the user ran, as Pi tells the model of it."""
    output = optional_text(message, "output", at=at)
    text = f"Ran `{require(message, 'command', str, at=at)}`\n" + (f"```\n{output}\n```" if output else "(no output)")
    if message.get("cancelled"):
        return f"{text}\n\n(command cancelled)"
    return f"{text}\n\nCommand exited with code {message['exitCode']}" if message.get("exitCode") else text
