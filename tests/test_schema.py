"""The words' canonical texts and hashes: equal for equal rollouts, and unmoved by keys a rollout does not have."""

import dataclasses
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negtraj_dagster.schema import (
    AS_RECORDED,
    CANONICAL,
    ConditionedTurn,
    Label,
    Rollout,
    canonical_json,
    conditioned_json,
    digest,
    json_as_recorded,
)

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


LETTERS = st.characters(codec="utf-8") | st.sampled_from('"\\\x00\x1f\x7f\u2028\n\t\b\f😀')
SCALARS = (
    st.text(LETTERS)
    | st.text(LETTERS).map(lambda text: f"{text}\ud800")
    | st.integers()
    | st.floats()
    | st.sampled_from([5e-324, 1e16, 1e-5, -0.0, 2.0**60, 9007199254740993.0, Label.POSITIVE])
    | st.booleans()
    | st.none()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(LETTERS) | st.integers(), inner),
    max_leaves=12,
)


@settings(max_examples=1_500, deadline=None)
@given(VALUES)
def test_texts_of_values_are_what_the_standard_library_writes(value: object) -> None:
    for write, encoder in ((canonical_json, CANONICAL), (json_as_recorded, AS_RECORDED)):
        try:
            expected = encoder.encode(value)
        except (ValueError, TypeError) as error:  # NaN, or keys that cannot be compared
            with pytest.raises(type(error)):
                write(value)
        else:
            assert write(value) == expected


@given(st.text(st.sampled_from('a"\\\x00\x1f \x7fé\u2028😀!#[]')))
def test_a_text_is_escaped_wherever_in_it_that_is_needed(text: str) -> None:
    assert json_as_recorded(text) == AS_RECORDED.encode(text)


def test_canonical_text_of_deep_values_is_written_too() -> None:
    value: object = 1
    for _ in range(300):
        value = [{"a": value}]
    assert canonical_json(value) == CANONICAL.encode(value)


@given(st.lists(st.text() | st.binary()))
def test_a_digest_is_of_parts_with_their_lengths(parts: list[str | bytes]) -> None:
    hasher = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        hasher.update(len(raw).to_bytes(8, "little") + raw)
    assert digest(*parts) == hasher.hexdigest()


def test_what_is_no_text_has_no_digest() -> None:
    with pytest.raises(TypeError, match="expected str or bytes, found int"):
        digest("a", 1)  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError):
        digest("\ud800")
