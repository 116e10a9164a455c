"""Trees and spans become rollouts, so that every prompt is exact and each output of the model is trained once.

A system records calls (what the model was sent, what it answered) or a tree of messages. A call that was sent all that was said
before goes on with its segment; a retry, a branch, a sub-agent or a compaction begins a segment of its own, with a parent. What
an earlier segment trains stands in a later one as context.
"""

from bisect import insort
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.schema import SaidTurn, Turn, canonical_json


@dataclass(frozen=True)
class Call:
    """One call of a model: what it was sent, and what it answered."""

    name: str
    sent: Sequence[Turn]
    answered: Sequence[Turn]


@dataclass
class Segment:
    """Turns of one conversation, from its prompt to its last answer.

    Attributes:
        name: of the call, or message, that it begins with.
        parent: the segment that it went on from, or was called by.
        calls: names of those in it.
    """

    name: str
    turns: list[Turn]
    parent: str | None = None
    calls: list[str] = field(default_factory=list)


def merge_calls(calls: Sequence[Call]) -> list[Segment]:
    """Segments of the calls of one trace, in order.

    A call goes on with the longest segment that what it was sent begins with, whole; else it begins a segment, whose parent is
    the one with which it has most turns in common.
    """
    if len(calls) == 1:  # as most traces of small tasks are: nothing to compare
        (call,) = calls
        return [Segment(call.name, [*map(as_untrained, call.sent), *call.answered], calls=[call.name])]
    segments: list[Segment] = []
    begun = _Begun()
    for call in calls:
        sent, answered = begun.texts(call.sent), begun.texts(call.answered)
        place = begun.take_whole(sent)
        if place is None:
            parent = begun.nearest(sent)
            place = len(segments)
            segments.append(Segment(call.name, [], None if parent is None else segments[parent].name))
        segment = segments[place]
        segment.turns += [as_untrained(turn) for turn in call.sent[len(segment.turns) :]]
        segment.turns += call.answered
        segment.calls.append(call.name)
        begun.put(place, [*sent, *answered])
    return segments


class _Begun:
    """Segments by the turns that they begin with, as a tree of turns: a trace of thousands of calls is read in one pass.

    A node is a beginning; node 0 is that of no turn.
    """

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._nodes: dict[tuple[int, str], int] = {}
        self._first: list[int] = []
        """Of each node the first segment that begins so."""
        self._ends: dict[int, list[int]] = {}
        """Of each node the segments that hold no more, in order."""

    def texts(self, turns: Sequence[Turn]) -> list[str]:
        """What turns are compared by; the same turn, which may stand in every later call, is written once."""
        texts = self._texts
        return [texts.get(id(turn)) or texts.setdefault(id(turn), canonical_json(_compared(turn))) for turn in turns]

    def take_whole(self, texts: Sequence[str]) -> int | None:
        """The longest segment that these turns begin with, whole; of equal ones the first. It is to be `put` anew."""
        node = next((node for node in reversed(self._path(texts)) if self._ends.get(node)), None)
        return None if node is None else self._ends[node].pop(0)

    def nearest(self, texts: Sequence[str]) -> int | None:
        """The first of those segments that have most turns in common with these; None where there is no segment."""
        return self._first[self._path(texts)[-1]] if self._first else None

    def put(self, place: int, texts: Sequence[str]) -> None:
        """Say which turns the segment in this place holds now."""
        node = 0
        if not self._first:
            self._first.append(place)
        for text in texts:
            node = self._nodes.setdefault((node, text), len(self._first))
            if node == len(self._first):
                self._first.append(place)
            self._first[node] = min(self._first[node], place)
        insort(self._ends.setdefault(node, []), place)

    def _path(self, texts: Sequence[str]) -> list[int]:
        path = [0]
        for text in texts:
            node = self._nodes.get((path[-1], text))
            if node is None:
                break
            path.append(node)
        return path


@dataclass(frozen=True)
class Message:
    """A message of a tree: `parent` names the one before it; None begins a conversation."""

    name: str
    parent: str | None
    turns: Sequence[Turn]


def read_tree(
    parents: Mapping[str, str | None], turns_of: Callable[[str], Sequence[Turn]]
) -> tuple[list[Message], list[RolloutFormatError]]:
    """Messages of a tree, and why some cannot be read.

    One that cannot be read ends its branch: what stands below it would begin without a prompt, and is left out with it.

    Args:
        parents: every message's parent, in the order in which they were written.
        turns_of: a message's turns by its name.
    """
    turns: dict[str, Sequence[Turn]] = {}
    errors: list[RolloutFormatError] = []
    for name in parents:
        try:
            turns[name] = turns_of(name)
        except RolloutFormatError as error:
            errors.append(RolloutFormatError(f"message {name:.40}: {error}"))
    is_whole: dict[str | None, bool] = {None: True, **{name: False for name in parents if name not in turns}}
    for name in parents:
        path: dict[str | None, None] = {}
        at: str | None = name
        while at not in is_whole and at not in path:
            path[at] = None
            at = parents.get(str(at))
        is_whole |= dict.fromkeys(path, is_whole.get(at, True))
    return [Message(name, parents[name], turns[name]) for name in turns if is_whole[name]], errors


def branches(messages: Sequence[Message]) -> list[Segment]:
    """Segments of a tree of messages, one for each last message, in the order in which these were written.

    Turns that an earlier branch has are context in later ones.
    """
    by_name = {message.name: message for message in messages}
    parents = {message.parent for message in messages}
    segment_of: dict[str, str] = {}
    segments = []
    for leaf in (message for message in messages if message.name not in parents):
        path = _path(leaf, by_name)
        shared = [message for message in path if message.name in segment_of]
        turns = [as_untrained(turn) for message in shared for turn in message.turns]
        turns += [turn for message in path[len(shared) :] for turn in message.turns]
        parent = segment_of[shared[-1].name] if shared else None
        segments.append(Segment(leaf.name, turns, parent, [message.name for message in path]))
        segment_of |= {message.name: leaf.name for message in path[len(shared) :]}
    return segments


def segment_parents(segments: Sequence[Segment], began_from: Mapping[str, str]) -> dict[str, str | None]:
    """By a segment's name the segment that it is a branch of; where it begins a conversation, the one it began from.

    Args:
        segments: as `branches` gives them.
        began_from: of messages without a parent, the message that a sub-agent was called from, or that was summarized.
    """
    segment_of: dict[str, str] = {}
    for segment in segments:
        for name in segment.calls:
            segment_of.setdefault(name, segment.name)
    return {segment.name: segment.parent or segment_of.get(began_from.get(segment.calls[0], "")) for segment in segments}


def message_before(links: Mapping[str, str | None], name: str, messages: Container[str]) -> str | None:
    """The nearest message before a line; lines that hold none (a change of the model, a label) only lead on.

    Args:
        links: every line's parent.
        name: of the line.
        messages: names of the lines that hold messages.
    """
    passed_names, at = {name}, links.get(name)
    while at is not None and at not in passed_names:
        if at in messages:
            return at
        passed_names.add(at)
        at = links.get(at)
    return None


def is_trained(turns: Iterable[Turn]) -> bool:
    """Whether anything in the turns carries loss."""
    return any(turn["role"] == "assistant" and turn.get("loss", True) is not False for turn in turns)


def as_untrained(turn: Turn) -> Turn:
    """The turn as context: an agent's turn says that it carries no loss."""
    return {**turn, "loss": False} if turn["role"] == "assistant" else turn


def _path(leaf: Message, by_name: Mapping[str, Message]) -> list[Message]:
    path, names_on_path, message = [leaf], {leaf.name}, leaf
    while message.parent is not None and message.parent in by_name and message.parent not in names_on_path:
        message = by_name[message.parent]
        names_on_path.add(message.name)
        path.append(message)
    return path[::-1]


def _compared(turn: Turn) -> SaidTurn:
    """What calls are compared by: a turn without what says how it is trained."""
    if "loss" not in turn and "token_ids" not in turn:
        return turn
    return cast("SaidTurn", {key: value for key, value in turn.items() if key not in ("loss", "token_ids")})
