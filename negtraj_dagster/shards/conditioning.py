"""Recorded conversations as they are trained: trajtok conditions those in which nothing is to be decided, the strategy others.

What trajtok makes is what the strategy would make: `tests/shards/test_conditioning.py` holds both to each other.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from negtraj_dagster import _trajtok  # noqa: TID251 - conditions what leaves one way to do it
from negtraj_dagster.schema import Question, canonical_json
from negtraj_dagster.shards.rows import RowSettings, row_conversations
from negtraj_dagster.strategies import Prompter, Strategy


@dataclass(frozen=True, slots=True)
class Recorded:
    """A rollout to condition.

    Attributes:
        question: it answers; `class_name`: its label.
        turns: canonical JSON of them.
        tools: JSON text of the tools' schemas; `tokenizer`: what made the turns' token ids.
    """

    question: Question
    class_name: str
    turns: str
    tools: str | None
    tokenizer: str | None


def condition_rows(
    rollouts: Sequence[Recorded], strategy: Strategy, prompter: Prompter, rows: RowSettings, *, keep_last_turns: bool
) -> list[list[str]]:
    """By rollout the canonical conditioned conversations of its token rows.

    Args:
        rollouts: to condition.
        strategy: how.
        prompter: what the agent was asked.
        rows: how a conversation becomes rows.
        keep_last_turns: see `Strategy.condition`.
    """
    quick: list[str | None] = [None] * len(rollouts)
    if rows.reasoning == "keep" and rows.ids == "retokenize":
        contexts: dict[tuple[Question, str], str] = {}
        for rollout in rollouts:
            asked = (rollout.question, rollout.class_name)
            if asked not in contexts:
                contexts[asked] = canonical_json(strategy.condition(prompter, rollout.question, [], rollout.class_name))
        texts = [(rollout.turns, contexts[rollout.question, rollout.class_name], rollout.tools) for rollout in rollouts]
        quick = _trajtok.condition(texts, keeps_last_turns=keep_last_turns)
    return [
        [text] if text is not None else _condition_slowly(rollout, strategy, prompter, rows, keep_last_turns=keep_last_turns)
        for rollout, text in zip(rollouts, quick, strict=True)
    ]


def _condition_slowly(
    rollout: Recorded, strategy: Strategy, prompter: Prompter, rows: RowSettings, *, keep_last_turns: bool
) -> list[str]:
    turns = json.loads(rollout.turns)
    conditioned = strategy.condition(prompter, rollout.question, turns, rollout.class_name, keep_last_turns=keep_last_turns)
    return row_conversations(conditioned, rollout.tools, rollout.tokenizer, rows)
