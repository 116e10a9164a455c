"""The words the stages share: turns, rollouts, questions, labels, and the columns that users read.

No behaviour beyond canonical text and hashing belongs here.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NotRequired, TypedDict

from negtraj_dagster import _trajtok  # noqa: TID251 - writes what most values are faster than json

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")

Split = Literal["train", "practice", "gate", "test"]
EVALUATION_SPLITS: tuple[Split, ...] = ("gate", "test")


class ToolCall(TypedDict):
    """One call of a tool; `arguments` is JSON text, its key order, spaces and numbers as recorded."""

    name: str
    arguments: str
    id: NotRequired[str]


class WeightRange(TypedDict):
    """The loss weight of the characters (code points) `start` up to `end` of a turn's `content` or `reasoning`."""

    field: Literal["content", "reasoning"]
    start: int
    end: int
    weight: float


class SaidTurn(TypedDict):
    """What a message says, recorded or trained. A key is there only if it says something: nothing empty, no nulls.

    Attributes:
        reasoning: what the agent thought before `content`, without the tags around it.
        tool_calls: of an assistant turn, in order.
        tool_call_id: of a tool turn: the call it answers.
        name: of a tool turn: the tool.
        ranges: of an assistant turn, sorted and apart from each other; they override the turn's weight where they reach.
        token_ids: of an assistant turn: what the recorded model emitted, by `Rollout.tokenizer`.
    """

    role: Role
    content: str
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    ranges: NotRequired[list[WeightRange]]
    token_ids: NotRequired[list[int]]


class Turn(SaidTurn):
    """One message of a rollout as it was recorded.

    Attributes:
        loss: the loss weight, only where it deviates from the role's rule: 1 for the agent's turns, 0 for others.
    """

    loss: NotRequired[bool | float]


class ConditionedTurn(SaidTurn):
    """One message as it is trained: `weight` 0.0 = context, > 0 = target (assistant turns only)."""

    weight: float


Reasoning = Literal["keep", "per_turn_rows", "as_served", "drop"]
"""What rows do with the agent's reasoning: keep it in one row, give every trained turn a row of its own (also so that it is the
prompt that is served and the answer), or drop it."""
MissingTools = Literal["refuse", "allow"]
"""Whether conversations that call tools may come without tool schemas."""
TokenIds = Literal["retokenize", "rollout"]
"""Whether targets are tokenized anew or keep the ids that the recorded model emitted."""


class Label(StrEnum):
    """The class of a rollout under one scorer; `unknown` is neither positive nor negative."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Question:
    """One question of a task's question set.

    Attributes:
        answer: JSON text, so booleans, numbers and strings stay apart; `null` where nobody wrote down what is right.
        prompt: JSON text of the turns before the agent's first, where rollouts bring them; `question` says then what the last
            user turn asks. None = the project writes the prompt.
        family: the kind of question, by which reports tell accuracies apart; None = no kinds.
    """

    task: str
    question_id: str
    split: Split
    question: str
    answer: str
    facts: tuple[str, ...] = ()
    prompt: str | None = None
    family: str | None = None

    @property
    def question_hash(self) -> str:
        """Identity of what is asked and what is right: a change of either is a new hash, another family is none."""
        prompt = () if self.prompt is None else ("prompt", self.prompt)
        return digest(self.task, self.question, self.answer, *self.facts, *prompt)


@dataclass
class Rollout:
    """One recorded episode, before any judgement. The question's text is joined later, by `question_id`.

    Nobody changes one after it is made. It is not frozen: to make frozen ones took a twentieth of all reading.

    Attributes:
        turns: from the agent's first one on.
        prompt: the turns before it, where the record holds them; nothing in them is ever trained.
        score: how good the outcome is, as a number of the recording system's own scale.
        parent: the segment or session that this one went on from, by the recording system's name.
        group: what must not be torn apart by a split: an instance, a repository.
        extra: JSON text of the record's keys that have no place of their own.
        tools: JSON text of the list of tool schemas that the agent was given, verbatim.
        tokenizer: sha256 of the tokenizer.json, or the name of the model, that the turns' `token_ids` are of.
    """

    task: str
    question_id: str
    source: str
    turns: tuple[Turn, ...]
    reward: bool | None
    pred: str | None = None
    gold: str | None = None
    teacher: str = ""
    subject: str | None = None
    session: str | None = None
    licence: str | None = None
    origin_url: str | None = None
    tools: str | None = None
    tokenizer: str | None = None
    prompt: tuple[Turn, ...] = ()
    score: float | None = None
    parent: str | None = None
    group: str | None = None
    extra: str | None = None

    @property
    def turns_json(self) -> str:
        """Canonical text of the turns."""
        return canonical_json(list(self.turns))

    @property
    def prompt_json(self) -> str | None:
        """Canonical text of the prompt; None where there is none."""
        return canonical_json(list(self.prompt)) if self.prompt else None

    def base_key(self) -> str:
        """Identity without the occurrence count and without any outcome (a label may change, the row stays)."""
        return self.base_key_of_texts(self.turns_json, self.prompt_json)

    def base_key_of_texts(self, turns_json: str, prompt_json: str | None) -> str:
        """`base_key` where `turns_json` and `prompt_json` were written already."""
        extras = {"tools": self.tools, "tokenizer": self.tokenizer, "prompt": prompt_json}
        present_extras = {name: text for name, text in extras.items() if text is not None}
        extra_parts = (
            [canonical_json(present_extras)] if present_extras else []
        )  # without them the key is as before they existed
        return digest(self.task, self.question_id, self.source, turns_json, *extra_parts)


QUESTION_COLUMNS: dict[str, str] = {
    "task": "VARCHAR",
    "question_id": "VARCHAR",
    "split": "VARCHAR",
    "question": "VARCHAR",
    "answer": "VARCHAR",
    "facts": "VARCHAR[]",
    "question_hash": "VARCHAR",
}

FIXED_VERDICTS = {
    "unknown_question": "its question is in no question set",
    "evaluation_question": "its question is held out for evaluation",
    "override": "a person dropped it",
}
"""Verdicts that no SQL file gives, with their reasons; every profile drops them."""

VERDICT_COLUMNS: dict[str, str] = {
    "rollout_key": "VARCHAR",
    "filter": "VARCHAR",
    "version": "VARCHAR",
    "reason": "VARCHAR",
    "severity": "VARCHAR",
    "step": "INTEGER",
    "detail": "VARCHAR",
    "earlier_key": "VARCHAR",
}
"""One row per hit; the absence of a row means the rollout passed. Nothing is ever deleted by a verdict."""


CANONICAL = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
)  # what is written was parsed, or is ours: no circles
AS_RECORDED = json.JSONEncoder(ensure_ascii=False)


def canonical_json(value: object) -> str:
    """JSON text that is equal for equal values: sorted keys, no spaces, UTF-8 kept, NaN refused."""
    return _trajtok.canonical_json(value) or CANONICAL.encode(value)


def json_as_recorded(value: object) -> str:
    """A parsed value as JSON text: keys in their order, Python's spaces and spelling of numbers."""
    return _trajtok.json_as_recorded(value) or AS_RECORDED.encode(value)


def digest(*parts: str | bytes) -> str:
    """sha256 over length-prefixed parts, so that ("ab", "c") and ("a", "bc") differ."""
    return _trajtok.digest(*parts)


def digest_json(value: object) -> str:
    """sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def conditioned_json(turns: Sequence[ConditionedTurn], tools: str | None = None, tokenizer: str | None = None) -> str:
    """Canonical text of a conditioned conversation: what a token key is computed over and what trajtok reads.

    Args:
        turns: the messages.
        tools: JSON text of the tool schemas, verbatim.
        tokenizer: what made the turns' `token_ids`, where there are any.
    """
    conversation: dict[str, object] = {"messages": list(turns)}
    if tools is not None:
        conversation["tools"] = tools
    if tokenizer is not None:
        conversation["tokenizer"] = tokenizer
    return canonical_json(conversation)
