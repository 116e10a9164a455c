"""How a conditioned conversation becomes rows: one for all its turns or one for each, with the reasoning or without."""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from negtraj_dagster.schema import ConditionedTurn, MissingTools, Reasoning, TokenIds, conditioned_json

FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Letters and marks by name that are drawn as nothing."""
MAYBE_BLANK = re.compile(rf'"content":"(?:[^\w!-~]|[{FILLERS}]|\\u[0-9a-f]{{4}}|\\[^u])*+"')
"""A content in canonical JSON in which no character is surely seen."""
THINK_TAG = re.compile(r"</?(?:[a-z]+:)?think(?:ing)?>|<\|(?:begin|end)_of_thought\|>", re.IGNORECASE)
UNPROVED = (
    "prompt_differs",
    "target_differs",
    "not_rendered",
    "no_end_of_turn",
    "invalid_arguments",
    "template_refuses",
    "engines_differ",
    "template_reads_content",
    "tools_missing",
    "ids_differ",
    "other_tokenizer",
    "weights_differ",
)
"""Reasons of rejected rows by which training would differ from serving, had the rows been kept."""


@dataclass(frozen=True)
class RowSettings:
    """A recipe's choice.

    Attributes:
        reasoning: `keep` it in one row; `per_turn_rows` give every trained turn a row that ends with it, as templates need
            that leave earlier reasoning out; `as_served` the same, of the prompt that is served and the answer; `drop` it.
        missing_tools: whether conversations that call tools without tool schemas are refused.
        ids: whether targets are tokenized anew or keep the ids the recorded model emitted.
    """

    reasoning: Reasoning = "keep"
    missing_tools: MissingTools = "refuse"
    ids: TokenIds = "retokenize"

    @property
    def has_row_per_turn(self) -> bool:
        """Whether every trained turn has a row of its own."""
        return self.reasoning in ("per_turn_rows", "as_served")


DEFAULT_ROWS = RowSettings()


def row_conversations(
    turns: Sequence[ConditionedTurn], tools: str | None, tokenizer: str | None, settings: RowSettings
) -> list[str]:
    """The canonical conversations of a rollout's rows, in the order of their targets; one row always, but where every turn has
    its own, and turns without a weight have none."""
    turns = [_without_keys(turn, settings) for turn in turns]
    if not any("token_ids" in turn for turn in turns):
        tokenizer = None
    targets = [index for index, turn in enumerate(turns) if is_target(turn)]
    if not settings.has_row_per_turn or not targets:  # without a target one row says why nothing is trained
        return [conditioned_json(turns, tools, tokenizer)]
    return [conditioned_json([*map(_as_context, turns[:index]), turns[index]], tools, tokenizer) for index in targets]


def is_target(turn: ConditionedTurn) -> bool:
    """Whether anything of the turn is trained."""
    return turn["weight"] > 0 or any(stretch["weight"] > 0 for stretch in turn.get("ranges", ()))


def foreign_tokenizer(conversation: str, tokenizer_sha256: str) -> str | None:
    """The tokenizer that made the conversation's token ids, where it is another one."""
    if '"tokenizer"' not in conversation:
        return None
    made_by = json.loads(conversation).get("tokenizer")
    return None if made_by == tokenizer_sha256 else made_by


def left_reasoning(conversation: str) -> int | None:
    """The first trained turn whose content has a tag of reasoning, which the reader could not tell from what was said."""
    if not THINK_TAG.search(conversation):
        return None
    for index, turn in enumerate(json.loads(conversation)["messages"]):
        if is_target(turn) and THINK_TAG.search(turn.get("content") or ""):
            return index
    return None


def lacks_tools(conversation: str) -> bool:
    """Whether a conversation calls tools but brings no tool schemas."""
    if '"tool_calls"' not in conversation:
        return False
    read = json.loads(conversation)
    return not read.get("tools") and any(turn.get("tool_calls") for turn in read["messages"])


def blank_target(conversation: str) -> int | None:
    """The first trained turn, counted from 0, in which the agent says nothing at all: no content, reasoning or call.

    The conversation is canonical JSON, in which every message has a text as its content.
    """
    if not MAYBE_BLANK.search(conversation):
        return None
    for index, turn in enumerate(json.loads(conversation)["messages"]):
        if is_target(turn) and not turn.get("tool_calls") and not _says(turn, "content") and not _says(turn, "reasoning"):
            return index
    return None


def is_ignorable(char: str) -> bool:
    """Whether a character is drawn as nothing: zero-width spaces and joiners, marks of direction, fillers."""
    return unicodedata.category(char) in ("Cf", "Cc") or char in FILLERS


def _says(turn: ConditionedTurn, key: Literal["content", "reasoning"]) -> bool:
    return any(not char.isspace() and not is_ignorable(char) for char in turn.get(key) or "")


def _without_keys(turn: ConditionedTurn, settings: RowSettings) -> ConditionedTurn:
    copy = dict(turn)
    if settings.ids == "retokenize":
        copy.pop("token_ids", None)
    if settings.reasoning == "drop" and copy.pop("reasoning", None) is not None:
        ranges = [stretch for stretch in turn.get("ranges", ()) if stretch["field"] != "reasoning"]
        copy.pop("ranges", None)
        copy |= {"ranges": ranges} if ranges else {}
    return cast("ConditionedTurn", copy)


def _as_context(turn: ConditionedTurn) -> ConditionedTurn:
    copy = dict(turn) | {"weight": 0.0}
    copy.pop("ranges", None)
    return cast("ConditionedTurn", copy)
