"""Claude Code's sessions (`~/.claude/projects/**/*.jsonl`): a tree of messages, with side chains and compactions.

The system prompt and the tools are not recorded, nor is an outcome. A branch, a side chain (a sub-agent) and what follows a
compaction are rollouts of their own, with their parent's name.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.blocks import read_blocks
from negtraj_dagster.rollouts.formats.fields import check, require
from negtraj_dagster.rollouts.formats.segments import Message, Segment, branches, is_trained
from negtraj_dagster.schema import Rollout, Turn

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

SPOKEN = ("user", "assistant")
SYNTHETIC = "<synthetic>"
"""The model's name on messages that the program wrote in the agent's place."""


def read_file(task: str, document: "FileDocument") -> Reading:
    """One session.

    Raises:
        RolloutFormatError: no line of it is a message of the user or the agent.
    """
    entries = [entry for entry in document.objects if entry.get("type") in SPOKEN and "message" in entry]
    if not entries or not all("uuid" in entry and "parentUuid" in entry for entry in entries):
        raise RolloutFormatError(
            "no lines of type user and assistant with uuid and parentUuid, expected a session of Claude Code"
        )
    parts: list[Rollout | RolloutFormatError] = []
    messages = list(_messages(entries, _links(document.objects), parts))
    sidechains = {str(entry["uuid"]) for entry in entries if entry.get("isSidechain")}
    session = next((str(entry["sessionId"]) for entry in entries if entry.get("sessionId")), None)
    model = next((name for entry in entries if (name := entry["message"].get("model")) and name != SYNTHETIC), "")
    before: str | None = None
    for segment in branches(messages):
        if not is_trained(segment.turns):
            continue
        is_side = segment.calls[0] in sidechains
        parent = segment.parent or before
        parts.append(_rollout(task, segment, f"{session}/{parent}" if parent else None, session, model, is_side=is_side))
        if not is_side:
            before = segment.name
    return parts


def _rollout(task: str, segment: Segment, parent: str | None, session: str | None, model: str, *, is_side: bool) -> Rollout:
    prompt, agent_turns = split_prompt(segment.turns, f"messages up to {segment.name:.40}")
    return Rollout(
        task=task,
        question_id="",
        source="claude-code",
        turns=agent_turns,
        reward=None,
        teacher=model,
        session=session,
        prompt=prompt,
        parent=parent,
        group=session,
        extra=extra_json({"is_sidechain": is_side, "segment": segment.name}),
    )


def _links(objects: list[dict[str, Any]]) -> dict[str, str | None]:
    """Every line's parent: a line that holds no message only leads on."""
    return {
        str(line["uuid"]): None if line.get("parentUuid") is None else str(line["parentUuid"])
        for line in objects
        if line.get("uuid")
    }


def _messages(
    entries: list[dict[str, Any]], links: dict[str, str | None], parts: list[Rollout | RolloutFormatError]
) -> Iterator[Message]:
    """One message each; lines that hold pieces of one answer of the model (they share its id) are one turn.

    A message that cannot be read ends its branch: what stands below it begins without a prompt, and is refused with it.
    """
    pieces: dict[str, list[dict[str, Any]]] = {}
    name_of: dict[str, str] = {}
    for entry in entries:
        answer = entry["message"].get("id") if entry["type"] == "assistant" else None
        name = str(answer or entry["uuid"])
        pieces.setdefault(name, []).append(entry)
        name_of[str(entry["uuid"])] = name
    broken: set[str] = set()
    for name, lines in pieces.items():
        parent = _spoken_parent(lines[0], links, name_of, name)
        try:
            turns = _turns(lines)
        except RolloutFormatError as error:
            parts.append(RolloutFormatError(f"message {name:.40}: {error}"))
            broken.add(name)
            continue
        if parent in broken:
            broken.add(name)
            continue
        yield Message(name, parent, turns)


def _spoken_parent(entry: dict[str, Any], links: dict[str, str | None], name_of: dict[str, str], name: str) -> str | None:
    at = links.get(str(entry["uuid"]))
    passed_names: set[str] = set()
    while at is not None and at not in passed_names:
        passed_names.add(at)
        if name_of.get(at, name) != name:
            return name_of[at]
        at = links.get(at)
    return None


def _turns(lines: list[dict[str, Any]]) -> list[Turn]:
    role = lines[0]["type"]
    content: list[Any] = []
    for line in lines:
        content_value = require(check(line["message"], "message", dict), "content", object, at="message")
        content += (
            [{"type": "text", "text": content_value}]
            if isinstance(content_value, str)
            else check(content_value, "message.content", list)
        )
    turns = read_blocks(content, role, "message.content")
    if role == "assistant" and lines[0]["message"].get("model") == SYNTHETIC:
        return [{**turn, "loss": False} for turn in turns]
    return turns
