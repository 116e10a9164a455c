"""Conditioning: what trajtok makes of a recorded conversation is what the strategy makes of it."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from negtraj_dagster import _trajtok
from negtraj_dagster.schema import Question, canonical_json
from negtraj_dagster.shards.conditioning import Recorded, _condition_slowly, condition_rows
from negtraj_dagster.shards.rows import RowSettings
from negtraj_dagster.strategies import STRATEGIES

TEXTS = st.text(st.sampled_from('ab \n\x00\x1f\x7f"\\\\/{}[]é\u2028😀'), max_size=6)
RANGES = st.lists(
    st.fixed_dictionaries({"field": st.just("content"), "start": st.just(0), "end": st.just(1), "weight": st.floats(0, 2)})
)
CALLS = st.lists(st.fixed_dictionaries({"name": TEXTS, "arguments": TEXTS}, optional={"id": TEXTS}), max_size=2)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["assistant", "user", "tool", "system"]), "content": TEXTS},
        optional={
            "loss": st.booleans() | st.floats(0, 2) | st.integers(0, 1),
            "reasoning": TEXTS,
            "tool_calls": CALLS,
            "tool_call_id": TEXTS,
            "name": TEXTS,
            "ranges": RANGES,
            "token_ids": st.lists(st.integers(0, 9), max_size=2),
        },
    ),
    max_size=4,
)
QUESTION = Question("t", "q", "train", "Why?", "null")


@settings(max_examples=1_000, deadline=None)
@given(
    st.lists(TURNS, max_size=3),
    st.none() | TEXTS,
    st.sampled_from(sorted(STRATEGIES)),
    st.sampled_from(["keep", "per_turn_rows", "as_served", "drop"]),
    st.sampled_from(["retokenize", "rollout"]),
    st.booleans(),
)
def test_both_ways_of_conditioning_make_the_same_rows(
    conversations: list[Any], tools: str | None, name: str, reasoning: Any, ids: Any, keep_last_turns: bool
) -> None:
    strategy = STRATEGIES[name]
    prompter = strategy.prompter("Think.")
    rows = RowSettings(reasoning=reasoning, ids=ids)
    rollouts = [Recorded(QUESTION, strategy.classes[0], canonical_json(turns), tools, "made by") for turns in conversations]
    made = condition_rows(rollouts, strategy, prompter, rows, keep_last_turns=keep_last_turns)
    assert made == [
        _condition_slowly(rollout, strategy, prompter, rows, keep_last_turns=keep_last_turns) for rollout in rollouts
    ]


def test_most_conversations_are_conditioned_quickly() -> None:
    turns = [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c", "loss": False},
    ]
    ((text),) = _trajtok.condition([(canonical_json(turns), "[]", None)], keeps_last_turns=False)
    assert text is not None
    assert [turn["weight"] for turn in json.loads(text)["messages"]] == [1.0, 0.0, 0.0]
    number = canonical_json([{"role": "assistant", "content": "a", "loss": 0.5}])
    assert _trajtok.condition([(number, "[]", None), (json.dumps(turns), "[]", None)], keeps_last_turns=False) == [None, None]
