"""What a trained turn's text must hold, must not hold, and begins with, judged on the text alone."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from negtraj_dagster.schema import ConditionedTurn

THINK_TAG = re.compile(r"</?think>")
EMPTY_THINK = re.compile(r"\s*<think>\s*</think>\n*")
REST_OF_EMPTY_THINK = re.compile(r"\s*</think>\n*")
"""Behind a prompt that opens the tag."""
MIN_FOREIGN_CHARS = 12
"""Shorter texts stand in others by chance."""


def lost_text(target: str, turn: ConditionedTurn) -> str | None:
    """The first text of the turn that the target does not hold; white space at a text's ends is the template's to drop."""
    for text in own_texts(turn):
        inner = text.strip()
        forms = (inner, json.dumps(inner, ensure_ascii=False)[1:-1], json.dumps(inner)[1:-1], repr(inner)[1:-1])
        parts = THINK_TAG.split(text)  # templates take reasoning out of a content, and leave out its tags
        if not any(form in target for form in forms) and not all(part.strip() in target for part in parts):
            return text
    return None


def foreign_text(
    target: str, turns: Sequence[ConditionedTurn], index: int, write: Callable[[Sequence[ConditionedTurn]], str | None]
) -> str | None:
    """The first text of an earlier message that the turn's target holds because the message says it.

    Args:
        target: the turn as it is written.
        turns: the conversation.
        index: the turn's.
        write: what is written behind the prompt of the turn, for other earlier messages; None where the template refuses them.
    """
    own_text = "\n".join(own_texts(turns[index]))
    for at, turn in enumerate(turns[:index]):
        text = turn["content"].strip()
        if len(text) < MIN_FOREIGN_CHARS or text not in target or text in own_text:
            continue
        changed = [*turns[:at], cast("ConditionedTurn", {**turn, "content": "x" * len(text)}), *turns[at + 1 : index + 1]]
        written = write(changed)
        if written is not None and not written.startswith(target):
            return text
    return None


def own_texts(turn: ConditionedTurn) -> list[str]:
    """All that the turn says: content, reasoning, names of called tools, texts in their arguments."""
    calls = turn.get("tool_calls", ())
    leaves = [leaf for call in calls for leaf in _leaves(json.loads(call["arguments"]))]
    return [turn["content"], turn.get("reasoning", ""), *(call["name"] for call in calls), *leaves]


def empty_think(prompt: str, target: str) -> str:
    """The empty `<think></think>` that a target begins with, or the rest of one that its prompt opens; "" for none."""
    opened = prompt.rstrip().endswith("<think>")
    match = (REST_OF_EMPTY_THINK if opened else EMPTY_THINK).match(target)
    return match[0] if match else ""


def _leaves(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [leaf for child in value.values() for leaf in _leaves(child)]
    return [leaf for child in value for leaf in _leaves(child)] if isinstance(value, list) else []
