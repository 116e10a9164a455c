"""The words' canonical texts and hashes: equal for equal rollouts, and unmoved by keys a rollout does not have."""

import dataclasses
import json

import pytest

from negtraj_dagster.schema import ConditionedTurn, Rollout, conditioned_json

PLAIN = Rollout(
    task="t",
    question_id="q",
    source="s",
    turns=(
        {"role": "assistant", "content": "é"},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y", "loss": False},
    ),
    reward=True,
)
TURNS: list[ConditionedTurn] = [{"role": "assistant", "content": "é", "weight": 0.5}]


def test_a_rollout_without_tools_keeps_the_key_it_had_before_there_were_any() -> None:
    assert PLAIN.base_key() == "7dc97face9a3b3e6f6f2c84959179903f455560d3a414c539f923384b819e47b"


@pytest.mark.parametrize("changes", [{"tools": "[{}]"}, {"tokenizer": "m"}, {"tools": "[{}]", "tokenizer": "m"}])
def test_tools_and_tokenizer_are_part_of_a_rollouts_identity(changes: dict[str, str]) -> None:
    assert dataclasses.replace(PLAIN, **changes).base_key() != PLAIN.base_key()


def test_a_rollouts_tools_are_never_taken_for_its_tokenizer() -> None:
    tools, tokenizer = (dataclasses.replace(PLAIN, **{name: "x"}) for name in ("tools", "tokenizer"))
    assert tools.base_key() != tokenizer.base_key()


def test_a_conversation_without_tools_has_the_text_it_had_before_there_were_any() -> None:
    assert conditioned_json(TURNS) == '{"messages":[{"content":"é","role":"assistant","weight":0.5}]}'


def test_the_tools_of_a_conversation_stay_the_very_text() -> None:
    text = '[ {"type": "function", "b": 1.0, "a": 2} ]'
    assert json.loads(conditioned_json(TURNS, text)) == {"messages": TURNS, "tools": text}
