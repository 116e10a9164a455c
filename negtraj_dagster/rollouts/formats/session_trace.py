"""Session traces of one header line and message lines: Pi's sessions (a tree) and the Session Trace Simple Format (a list).

    {"type": "session", "harness": "my-agent", "id": "b1a2c3"}
    {"type": "message", "message": {"role": "assistant", "content": "…"}}

Lines with `id` and `parentId` are a tree; without them each follows the one before. A compaction line begins a rollout of its
own.
"""

from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.blocks import read_blocks
from negtraj_dagster.rollouts.formats.fields import check, optional_text, require
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.rollouts.formats.openai import read_content, read_messages
from negtraj_dagster.rollouts.formats.segments import Message, branches, is_trained, message_before
from negtraj_dagster.schema import Rollout, Turn

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

RESULT_ROLES = ("toolResult", "tool")


def read_file(task: str, document: "FileDocument") -> Reading:
    """One session.

    Raises:
        RolloutFormatError: the first line is no header, or a message is of another shape.
    """
    header = document.objects[0]
    if header.get("type") != "session" or "id" not in header:
        raise RolloutFormatError("the first line is no header, expected an object of type session with an id")
    session = optional_text(header, "id") or ""
    messages: list[Message] = []
    names: set[str] = set()
    model, last, links = "", None, {}
    for index, line in enumerate(document.objects[1:], 2):
        at, name = f"line {index}", str(line.get("id") or f"line {index}")
        parent = line.get("parentId", last) if "id" in line else last
        links[name] = None if parent is None else str(parent)
        last = name
        if line.get("type") == "message":
            message = check(line.get("message"), f"{at}.message", dict)
            model = model or optional_text(message, "model", at=at) or ""
            messages.append(Message(name, message_before(links, name, names), _turns(message, f"{at}.message")))
            names.add(name)
        elif line.get("type") == "compaction":
            summary = require(line, "summary", str, at=at)
            messages.append(Message(name, None, [{"role": "user", "content": summary}]))
            names.add(name)
    rollouts: list[Rollout | RolloutFormatError] = []
    before = None
    for segment in branches(messages):
        if not is_trained(segment.turns):
            continue
        parent_name = segment.parent or before
        prompt, agent_turns = split_prompt(segment.turns, segment.name)
        rollouts.append(
            Rollout(
                task=task,
                question_id="",
                source=optional_text(header, "harness") or "pi",
                turns=agent_turns,
                reward=None,
                teacher=model,
                session=session,
                prompt=prompt,
                parent=f"{session}/{parent_name}" if parent_name else None,
                group=session,
                extra=extra_json({"segment": segment.name, "header": header}),
            )
        )
        before = segment.name
    return rollouts


def _turns(message: dict[str, Any], at: str) -> list[Turn]:
    role, content = require(message, "role", str, at=at), message.get("content")
    if role in RESULT_ROLES:
        called = message.get("toolCallId") or message.get("tool_call_id")
        text = read_content(content, f"{at}.content") or ""
        return [read_message({"role": "tool", "content": text, **({"tool_call_id": str(called)} if called else {})}, at)]
    if isinstance(content, list):
        return read_blocks(content, role, f"{at}.content")
    plain = {key: message[key] for key in ("role", "content", "tool_calls", "reasoning") if key in message}
    return read_messages([plain], at)[0]
