"""Claude Code's sessions (`~/.claude/projects/**/*.jsonl`): a tree of lines, with side chains and compactions.

An output of the model is written as a line for each of its blocks, with results of tools between and below them: the lines of
one message id are one turn, and the results of its calls stand together after it, in the calls' order.

The system prompt and the tools are not recorded, nor is an outcome. A branch, a side chain (a sub-agent) and what follows a
compaction are rollouts of their own, with their parent's name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.blocks import read_blocks
from negtraj_dagster.rollouts.formats.fields import check, require
from negtraj_dagster.rollouts.formats.segments import Segment, branches, is_trained, read_tree, segment_parents
from negtraj_dagster.schema import Rollout, Turn, canonical_json

if TYPE_CHECKING:
    from negtraj_dagster.rollouts.documents import FileDocument

SPOKEN = ("user", "assistant")
SYNTHETIC = "<synthetic>"
"""The model's name on messages that the program wrote in the agent's place."""
FEW_BLOCKS = 16
"""Up to so many blocks are compared each with each; more are compared by their texts."""
MAIN = ""
"""The thread of lines that are no side chain's."""
Line = dict[str, Any]


def read_file(task: str, document: "FileDocument") -> Reading:
    """One session.

    Raises:
        RolloutFormatError: no line of it is a message of the user or the agent.
    """
    candidates = [line for line in document.objects if line.get("type") in SPOKEN and "message" in line]
    entries = [line for line in candidates if isinstance(line["message"], dict)]
    if not entries or not all("uuid" in entry and "parentUuid" in entry for entry in entries):
        raise RolloutFormatError(
            "no lines of type user and assistant with uuid and parentUuid, expected a session of Claude Code"
        )
    tree = _Tree(document.objects)
    messages, errors = read_tree(tree.parents, lambda name: _turns(tree.nodes[name]))
    segments = branches(messages)
    parents = segment_parents(segments, tree.began_from)
    session = next((str(entry["sessionId"]) for entry in entries if entry.get("sessionId")), None)
    parts: list[Rollout | RolloutFormatError] = list(errors)
    if n_other := len(candidates) - len(entries):
        parts.append(
            RolloutFormatError(f"{n_other} lines of type user or assistant whose message is no object; leave them out")
        )
    for segment in segments:
        if is_trained(segment.turns):
            parent = parents[segment.name]
            parts.append(_rollout(task, segment, f"{session}/{parent}" if parent else None, session, tree))
    return parts


def _is_spoken(line: Line) -> bool:
    return line.get("type") in SPOKEN and isinstance(line.get("message"), dict)


def _rollout(task: str, segment: Segment, parent: str | None, session: str | None, tree: "_Tree") -> Rollout:
    prompt, agent_turns = split_prompt(segment.turns, f"messages up to {segment.name:.40}")
    is_side = tree.nodes[segment.name].thread != MAIN
    return Rollout(
        task=task,
        question_id="",
        source="claude-code",
        turns=agent_turns,
        reward=None,
        teacher=_model(segment, tree),
        session=session,
        prompt=prompt,
        parent=parent,
        group=session,
        extra=extra_json({"is_sidechain": is_side, "segment": segment.name}),
    )


def _model(segment: Segment, tree: "_Tree") -> str:
    """The model that wrote the last output: a sub-agent's, or that of a branch, may be another than the session's first."""
    models = (tree.nodes[name].lines[0]["message"].get("model") for name in reversed(segment.calls))
    return next((str(model) for model in models if model and model != SYNTHETIC), "")


@dataclass(eq=False)
class _Node:
    """Lines that are one message: an output, the results of its calls, or one line of the user.

    Attributes:
        lines: as they were written.
        thread: `MAIN`, or the sub-agent's.
        output: the output whose calls are answered; None for other messages.
        earlier: results of the same calls before, of which those that are not repeated still hold.
    """

    name: str
    thread: str
    lines: list[Line] = field(default_factory=list)
    output: "_Node | None" = None
    earlier: "_Node | None" = None


class _Tree:
    """A session's messages by name.

    Attributes:
        nodes: in the order in which they begin.
        parents: the message before, in the same thread; None begins a conversation.
        began_from: of messages that begin a conversation, the message that it was called, or goes on, from.
    """

    def __init__(self, objects: list[Line]) -> None:
        lines: dict[str, Line] = {}
        for line in objects:
            if line.get("uuid"):
                lines.setdefault(str(line["uuid"]), line)  # a line that is written again counts once
        self._lines = lines
        self._spoken = {uuid: line for uuid, line in lines.items() if _is_spoken(line)}
        self.nodes: dict[str, _Node] = {}
        self.parents: dict[str, str | None] = {}
        self.began_from: dict[str, str] = {}
        self._node_of: dict[str, _Node] = {}
        self._outputs: dict[str, _Node] = {}
        self._results: dict[str, list[_Node]] = {}
        self._join_outputs()
        self._join_results()
        self._join_words_between()
        self.nodes = {node.name: node for node in (self._node_of[uuid] for uuid in self._spoken)}
        self._link()

    def _join_outputs(self) -> None:
        for uuid, line in self._spoken.items():
            if line["type"] == "assistant":
                name = str(line["message"].get("id") or uuid)
                node = self._outputs.setdefault(name, _Node(name, _thread(line)))
                node.lines.append(line)
                self._node_of[uuid] = node

    def _join_results(self) -> None:
        """Give every output the results of its calls; calls that were answered anew (a rewound session) have them apart."""
        called_by: dict[str, list[_Node]] = {}
        for output in self._outputs.values():
            for call_id in _ids(output.lines, "tool_use", "id"):
                called_by.setdefault(call_id, []).append(output)
        for uuid, line in self._spoken.items():
            if line["type"] != "user":
                continue
            answered = _ids([line], "tool_result", "tool_use_id")
            callers = called_by.get(answered[0], []) if answered else []
            caller = callers[0] if len(callers) == 1 else self._output_above(line, callers)
            node = _Node(uuid, _thread(line)) if caller is None else self._results_node(caller, line, answered)
            node.lines.append(line)
            self._node_of[uuid] = node

    def _output_above(self, line: Line, callers: list[_Node]) -> _Node | None:
        """The nearest of several outputs whose calls have the same id."""
        if not callers:
            return None
        above = (self._node_of.get(uuid) for uuid in self._uuids_above(line))
        return next((node for node in above if node in callers), callers[0])

    def _results_node(self, output: _Node, line: Line, answered: list[str]) -> _Node:
        nodes = self._results.setdefault(output.name, [])
        last = nodes[-1] if nodes else None
        if last is not None:
            blocks = [canonical_json(block) for block in _found([line], "tool_result")]
            is_repeated = all(block in map(canonical_json, _found(last.lines, "tool_result")) for block in blocks)
            if is_repeated or not set(answered) & set(_ids(last.lines, "tool_result", "tool_use_id")):
                return last
        nodes.append(_Node(str(line["uuid"]), output.thread, output=output, earlier=last))
        return nodes[-1]

    def _join_words_between(self) -> None:
        """What the user said while the tools ran was sent with their results."""
        for uuid, line in self._spoken.items():
            node = self._node_of[uuid]
            output = node.output or node
            if results := self._results.get(output.name):
                holder = node if node.output else results[0]
                for between in self._words_between(line, [output, *results]):
                    self._node_of[between] = holder
                    holder.lines.append(self._spoken[between])

    def _words_between(self, line: Line, nodes: list[_Node]) -> list[str]:
        """Lines of the user above one, up to a line of the same output or of its results; none where there is no such line."""
        words: list[str] = []
        for uuid in self._uuids_above(line):
            node = self._node_of.get(uuid)
            if node is None:
                continue
            if node in nodes:
                return words[::-1]
            if node.name != uuid or node.output is not None or node.lines[0]["type"] != "user":
                return []
            words.append(uuid)
        return []

    def _link(self) -> None:
        """Say of every message what it follows; what nothing tells of began from the main thread's last message before."""
        last: str | None = None
        for node in self.nodes.values():
            parent, began_from = self._before(node)
            self.parents[node.name] = parent
            if parent is None and (name := began_from or last):
                self.began_from[node.name] = name
            last = node.name if node.thread == MAIN else last

    def _before(self, node: _Node) -> tuple[str | None, str | None]:
        """The message before one in its thread, and that of another thread, or before a compaction, which it began from."""
        if node.output is not None:
            return node.output.name, None
        own = {node.name, *(results.name for results in self._results.get(node.name, ()))}
        other_thread = None
        for uuid in self._uuids_above(node.lines[0]):
            line = self._lines.get(uuid, {})
            above = self._node_of.get(uuid)
            if line.get("subtype") == "compact_boundary":
                logical = self._node_of.get(str(line.get("logicalParentUuid") or line.get("parentUuid")))
                return None, other_thread or (logical.name if logical else None)
            if above is None or above.name in own:
                continue
            if above.thread == node.thread:
                results = self._results.get(above.name)
                return results[0].name if results else above.name, other_thread
            other_thread = other_thread or above.name
        return None, other_thread

    def _uuids_above(self, line: Line) -> Iterator[str]:
        passed: set[str] = set()
        at = line.get("parentUuid")
        while at is not None and str(at) not in passed:
            passed.add(str(at))
            yield str(at)
            at = self._lines.get(str(at), {}).get("parentUuid")


def _thread(line: Line) -> str:
    return str(line.get("agentId") or "side chain") if line.get("isSidechain") else MAIN


def _found(lines: list[Line], kind: str) -> list[dict[str, Any]]:
    """Blocks of a kind; lines of another shape are refused later, by their turns."""
    found = []
    for line in lines:
        content = line["message"].get("content") if isinstance(line["message"], dict) else None
        if isinstance(content, list):
            found += [block for block in content if isinstance(block, dict) and block.get("type") == kind]
    return found


def _ids(lines: list[Line], kind: str, key: str) -> list[str]:
    return [str(block_id) for block in _found(lines, kind) if (block_id := block.get(key))]


def _turns(node: _Node) -> list[Turn]:
    if node.output is not None:
        return _result_turns(node, node.output)
    role = node.lines[0]["type"]
    blocks = [block for line in node.lines for block in _content(line)] if len(node.lines) > 1 else _content(node.lines[0])
    turns = read_blocks(_distinct(blocks), role, "message.content")
    if role == "assistant" and node.lines[0]["message"].get("model") == SYNTHETIC:
        return [{**turn, "loss": False} for turn in turns]
    return turns


def _distinct(blocks: list[Any]) -> list[Any]:
    """Each block once: copied lines repeat theirs."""
    if len(blocks) == 1:
        return blocks
    if len(blocks) > FEW_BLOCKS:
        return list({canonical_json(block): block for block in blocks}.values())
    kept: list[Any] = []
    for block in blocks:  # which are hardly ever equal: their texts are not needed
        equal = (at for at, other in enumerate(kept) if block == other and canonical_json(block) == canonical_json(other))
        if (place := next(equal, None)) is None:
            kept.append(block)
        else:
            kept[place] = block  # its keys may stand in another order
    return kept


def _result_turns(node: _Node, output: _Node) -> list[Turn]:
    """Results in the order of their calls, then what the user said beside them."""
    if len(node.lines) == 1 and node.earlier is None:
        blocks = _content(node.lines[0])
        if len(blocks) == 1:
            return read_blocks(blocks, "user", "message.content")
    results: dict[str, dict[str, Any]] = {}
    turns: list[Turn] = []
    for line in node.lines:
        words = []
        for block in _content(line):
            if isinstance(block, dict) and block.get("type") == "tool_result":
                results.setdefault(str(block.get("tool_use_id")), block)
            else:
                words.append(block)
        if words:
            turns += read_blocks(words, "user", "message.content")
    before = node.earlier
    while before is not None:
        for block in _found(before.lines, "tool_result"):
            results.setdefault(str(block.get("tool_use_id")), block)
        before = before.earlier
    blocks = list(results.values())
    if len(results) > 1:
        place_of: dict[str, int] = {}
        for call_id in (*_ids(output.lines, "tool_use", "id"), *results):
            place_of.setdefault(call_id, len(place_of))
        blocks = [results[call_id] for call_id in sorted(results, key=place_of.__getitem__)]
    return [*read_blocks(blocks, "user", "message.content"), *turns]


def _content(line: Line) -> list[Any]:
    content = require(check(line["message"], "message", dict), "content", object, at="message")
    return [{"type": "text", "text": content}] if isinstance(content, str) else check(content, "message.content", list)
