"""What a rollout format is: a reader of records or of whole files, and what readers share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.fields import NOTHING
from negtraj_dagster.schema import Rollout, Turn, canonical_json

SHAPE_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError)
"""What a reader raises of a layout that it did not foresee."""
TRAINED_KEYS = frozenset({"loss", "ranges", "token_ids"})
"""What a turn says of how it is trained."""
Reading = Sequence[Rollout | RolloutFormatError]
"""What one document holds: its rollouts, and an error for each part of it that is none."""


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        version: rises when the same bytes give other rollouts.
        read: (task, document) -> what it holds; raises RolloutFormatError where the document as a whole is refused.
        unit: what a document is: a record (a JSON object); an object, where a file is one that is written over many lines, else
            a record; or a whole file (`documents.FileDocument`).
        sidecar: how the name of a file ends that belongs to the one it begins like and says its outcome; None = there is none.
        is_verified: whether it was held against a file that the recording system wrote itself.
    """

    name: str
    version: int
    read: Callable[[str, Any], Reading]
    unit: Literal["record", "object", "file"] = "record"
    sidecar: str | None = None
    is_verified: bool = True


def split_prompt(turns: Sequence[Turn], place: str) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """Turns before the agent's first one, and the rest.

    Raises:
        RolloutFormatError: no turn is the agent's.
    """
    for first, turn in enumerate(turns):
        if turn["role"] == "assistant":
            return tuple(map(as_context, turns[:first])), tuple(turns[first:])
    raise RolloutFormatError(f"{place}: none of {len(turns)} turns is the agent's, expected at least one")


def as_context(turn: Turn) -> Turn:
    """A turn of a prompt: what says how it is trained is left out, for nothing in a prompt is."""
    if TRAINED_KEYS.isdisjoint(turn):
        return turn
    return {key: value for key, value in turn.items() if key not in TRAINED_KEYS}  # type: ignore[return-value]


def extra_json(extra: dict[str, Any]) -> str | None:
    """JSON text of what has no place of its own; None for nothing."""
    present = {key: value for key, value in extra.items() if value not in NOTHING}
    return canonical_json(present) if present else None
