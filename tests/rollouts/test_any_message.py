"""Whatever stands in a message: it is refused by name, or its turn is in the one spelling that reads as itself."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.schema import ROLES, canonical_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text('ab{}[]:"1 ', max_size=6)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "name", "arguments", "function", "field", "start", "end", "weight"]), inner)
    ),
    max_leaves=6,
)
RANGES = st.fixed_dictionaries(
    {
        "field": st.sampled_from(["content", "reasoning"]),
        "start": st.integers(0, 2),
        "end": st.integers(1, 3),
        "weight": st.floats(0, 2),
    }
)
CALLS = st.fixed_dictionaries({"name": st.just("f"), "arguments": st.sampled_from(["{}", "[1 ]", {"a": 1}])})
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES), "content": st.just("abc") | SCALARS},
    optional={
        "loss": VALUES,
        "reasoning": st.just("abc") | VALUES,
        "reasoning_content": VALUES,
        "tool_calls": st.lists(CALLS, max_size=2) | VALUES,
        "tool_call_id": VALUES,
        "name": VALUES,
        "ranges": st.lists(RANGES, max_size=2) | VALUES,
        "token_ids": st.lists(st.integers(0, 9), max_size=3) | VALUES,
    },
)


@given(message=MESSAGES)
def test_a_message_is_refused_or_becomes_a_turn_that_reads_as_itself(message: dict[str, Any]) -> None:
    try:
        made = read_message(message, "messages[0]")
    except RolloutFormatError as refused:
        made, said = None, str(refused)
    if made is None:
        assert said.startswith("messages[0]")
        return
    assert None not in made.values()
    assert canonical_json(read_message(made, "messages[0]")) == canonical_json(made)
