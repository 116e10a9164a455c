"""The project's own messages: every key is carried, in one spelling, or refused with the remedy."""

import json
from itertools import product
from typing import Any

import pytest

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats import tool_calls
from negtraj_dagster.rollouts.formats.negtraj import read_record as read_negtraj_record
from negtraj_dagster.rollouts.formats.tool_calls import read_tool_calls
from negtraj_dagster.schema import Rollout, Turn

SEARCH = {"name": "search", "arguments": '{"q": "é", "n":1.50}'}
SCHEMAS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "b": 1, "a": "é"}}}]
WEIGHT = {"field": "content", "start": 0, "end": 1, "weight": 1}


def read(*messages: object, **record: object) -> Rollout:
    return read_negtraj_record("wordtraps", {"question_id": "q", "messages": list(messages), **record})


def agent(content: str | None = "abc", **keys: object) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **keys}


def turn(message: dict[str, Any], **record: object) -> Turn:
    """The turn made of a message, which follows one of the agent's."""
    return read(agent(), message, **record).turns[1]


def complaint(*messages: object, **record: object) -> str:
    with pytest.raises(RolloutFormatError) as refused:
        read(*messages, **record)
    return str(refused.value)


# --- Kept as recorded ------------------------------------------------------------------------------------------------------


def test_an_episode_with_tools_keeps_what_was_thought_called_and_answered() -> None:
    rollout = read(
        agent(None, reasoning="I look.", tool_calls=[{"id": "c1", **SEARCH}], token_ids=[5, 0]),
        {"role": "tool", "content": "found", "tool_call_id": "c1", "name": "search"},
        agent("finish", loss=0.5, ranges=[WEIGHT]),
        tools='[ {"b": 1.0, "a": 2} ]',
        tokenizer="some/model",
    )
    assert rollout.turns == (
        {
            "role": "assistant",
            "content": "",
            "reasoning": "I look.",
            "tool_calls": [{"id": "c1", **SEARCH}],
            "token_ids": [5, 0],
        },
        {"role": "tool", "content": "found", "tool_call_id": "c1", "name": "search"},
        {"role": "assistant", "content": "finish", "loss": 0.5, "ranges": [WEIGHT]},
    )
    assert (rollout.tools, rollout.tokenizer) == ('[ {"b": 1.0, "a": 2} ]', "some/model")


def test_keys_that_say_nothing_are_left_out_and_the_rollout_is_the_same() -> None:
    nothing = dict.fromkeys(("reasoning_content", "tool_call_id", "name", "loss", "ranges", "token_ids"))
    empty = {"reasoning": "", "tool_calls": [], "ranges": [], "token_ids": [], "name": "", "tool_call_id": ""}
    for said in (nothing, empty, {"loss": True}, {"loss": 1}, {"loss": 1.0}):
        rollout = read(agent(**said), tools=[], tokenizer="")
        assert rollout.turns == (agent(),)
        assert rollout.base_key() == read(agent()).base_key()


@pytest.mark.parametrize("tools", [None, "", "[]", " [ ]", []], ids=["null", "no text", "empty text", "spaces", "empty list"])
def test_no_tools_are_none_however_they_are_written(tools: object) -> None:
    assert read(agent(), tools=tools).tools is None


def test_tools_given_as_a_list_become_text_with_their_keys_in_order() -> None:
    text = read(agent(), tools=SCHEMAS).tools
    assert text == json.dumps(SCHEMAS, ensure_ascii=False)
    assert '{"type": "object", "b": 1, "a": "é"}' in text


@pytest.mark.parametrize(
    "call",
    [
        SEARCH,
        {"type": "function", "function": SEARCH},
        {"function": SEARCH, "id": None},
        {"function": SEARCH, "type": "function", "id": ""},
    ],
    ids=["ours", "openai", "without type", "empty id"],
)
def test_calls_in_our_spelling_and_openais_are_the_same(call: dict[str, Any]) -> None:
    assert turn(agent(tool_calls=[call]))["tool_calls"] == [SEARCH]


def test_arguments_given_as_an_object_become_text_with_their_keys_in_order() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"b": [1, 2.0], "a": "é"}}}
    assert turn(agent(tool_calls=[call]))["tool_calls"] == [{"id": "1", "name": "f", "arguments": '{"b": [1, 2.0], "a": "é"}'}]


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}], ids=["absent", "null", "empty"])
def test_a_turn_that_only_calls_has_an_empty_content(content: dict[str, Any]) -> None:
    assert turn({"role": "assistant", "tool_calls": [SEARCH], **content})["content"] == ""


@pytest.mark.parametrize("keys", [{"reasoning": "a"}, {"reasoning_content": "a"}, {"reasoning": "a", "reasoning_content": "a"}])
def test_both_spellings_of_reasoning_are_read(keys: dict[str, str]) -> None:
    assert turn(agent(**keys))["reasoning"] == "a"


# --- Reasoning inside of a content -----------------------------------------------------------------------------------------


def test_an_agents_content_that_starts_with_its_reasoning_is_split() -> None:
    found = turn(agent("<think>\na\n</think>\n\nb", tool_calls=[SEARCH]))
    assert found == {"role": "assistant", "content": "b", "reasoning": "a", "tool_calls": [SEARCH]}


def test_an_empty_reasoning_leaves_no_key() -> None:
    assert turn(agent("<think>\n\n</think>\n\nb")) == {"role": "assistant", "content": "b"}


def test_a_content_stays_whole_beside_reasoning_of_its_own() -> None:
    assert turn(agent("<think>a</think>b", reasoning="c")) == agent("<think>a</think>b", reasoning="c")


def test_the_tags_of_others_are_their_text() -> None:
    said: dict[str, Any] = {"role": "user", "content": "<think>a</think>b"}
    assert turn(said) == said


# --- Weights ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "kept"), [(False, False), (0, False), (0.0, False), (-0.0, False), (0.25, 0.25), (2, 2.0)], ids=str
)
def test_a_weight_that_deviates_is_kept_and_zero_is_false(loss: float, kept: float) -> None:
    found = turn(agent(loss=loss))["loss"]
    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize("role", ["system", "user", "tool"])
def test_others_may_say_that_they_are_not_trained(role: str) -> None:
    for loss in (False, 0, 0.0):
        assert turn({"role": role, "content": "x", "loss": loss}) == {"role": role, "content": "x"}
    for positive in (True, 0.5):
        said = complaint(agent(), {"role": role, "content": "x", "loss": positive})
        assert said.startswith(f"messages[1].loss: a {role} turn cannot carry loss")


def test_ranges_are_sorted_by_field_and_start_and_may_touch() -> None:
    ranges = [
        {"field": "reasoning", "start": 0, "end": 2, "weight": 0},
        {"field": "content", "start": 2, "end": 3, "weight": -0.0},
        {"field": "content", "start": 0, "end": 2, "weight": 0.5},
    ]
    found = turn(agent("a𝄞c", reasoning="éé", ranges=ranges))["ranges"]
    assert [(each["field"], each["start"], each["end"]) for each in found] == [
        ("content", 0, 2),
        ("content", 2, 3),
        ("reasoning", 0, 2),
    ]
    assert json.dumps([each["weight"] for each in found]) == "[0.5, 0.0, 0.0]"


def test_bounds_are_characters_not_bytes() -> None:
    assert "messages[0].ranges[0]: found 0 to 4, expected 0 <= start < end <= 3" in complaint(
        agent("a𝄞c", ranges=[{**WEIGHT, "end": 4}])
    )


# --- Refused ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"role": "robot"}, "messages[0].role: found str (5 characters), expected one of system, user"),
        ({"content": None}, "messages[0].content: found NoneType"),
        ({"thinking": "a"}, "messages[0]: unknown keys ['thinking']; known: content, loss, name"),
        ({"reasoning": ["a"]}, "messages[0].reasoning: found list"),
        (
            {"reasoning": "a", "reasoning_content": "b"},
            "reasoning (1 characters) and reasoning_content (1) differ",
        ),
        ({"loss": -0.5}, "messages[0].loss: found float"),
        ({"loss": float("nan")}, "messages[0].loss: found "),
        ({"loss": 10**400}, "messages[0].loss: found "),
        ({"loss": "1"}, "messages[0].loss: found str"),
        ({"tool_calls": {}}, "messages[0].tool_calls: found dict"),
        ({"tool_calls": ["f"]}, "messages[0].tool_calls[0]: found str"),
        ({"tool_calls": [{"arguments": "{}"}]}, "messages[0].tool_calls[0]: key 'name' is missing"),
        ({"tool_calls": [{**SEARCH, "name": ""}]}, "messages[0].tool_calls[0].name: found str"),
        ({"tool_calls": [{**SEARCH, "id": 3.5}]}, "messages[0].tool_calls[0].id: found float"),
        (
            {"tool_calls": [{"function": SEARCH, "index": 1}, {"function": SEARCH, "index": 0}]},
            "messages[0].tool_calls[1].index: found int, expected a whole number above 1",
        ),
        ({"tool_calls": [{"function": SEARCH, "type": "custom"}]}, "messages[0].tool_calls[0].type: found "),
        ({"tool_calls": [{"function": {**SEARCH, "id": "1"}}]}, "messages[0].tool_calls[0].function: unknown keys ['id']"),
        ({"tool_calls": [{"name": "f", "arguments": [1]}]}, "messages[0].tool_calls[0].arguments: found list"),
        (
            {"tool_calls": [{"name": "f", "arguments": "[1]"}]},
            "arguments: found list (1 values) in JSON text, expected an",
        ),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{a}"}}]}, "[0].function.arguments: not JSON"),
        ({"tool_calls": [{"name": "f", "arguments": '{"a": 1, "a": 2}'}]}, "key 'a' stands twice"),
        (
            {"tool_call_id": "c"},
            "messages[0].tool_call_id: found on a turn of role assistant, expected on tool turns only",
        ),
        ({"name": "f"}, "messages[0].name: found on a turn of role assistant, expected on tool turns only"),
        ({"role": "tool", "content": "x", "tool_call_id": 0}, "messages[0].tool_call_id: found int, expected str"),
        ({"ranges": {}}, "messages[0].ranges: found dict"),
        ({"ranges": [[0, 1]]}, "messages[0].ranges[0]: found list"),
        ({"ranges": [{**WEIGHT, "field": "name"}]}, "messages[0].ranges[0].field: found str"),
        ({"ranges": [{**WEIGHT, "field": "reasoning"}]}, "messages[0].ranges[0]: found 0 to 1, expected 0 <= start < end <= 0"),
        ({"ranges": [{**WEIGHT, "start": -1}]}, "messages[0].ranges[0]: found -1 to 1"),
        ({"ranges": [{**WEIGHT, "start": 1}]}, "messages[0].ranges[0]: found 1 to 1"),
        ({"ranges": [{**WEIGHT, "end": True}]}, "messages[0].ranges[0].end: found bool"),
        ({"ranges": [{**WEIGHT, "weight": -1}]}, "messages[0].ranges[0].weight: found int"),
        ({"ranges": [{**WEIGHT, "weight": True}]}, "messages[0].ranges[0].weight: found bool"),
        ({"ranges": [{"field": "content", "start": 0, "end": 1}]}, "messages[0].ranges[0].weight: found "),
        ({"ranges": [{**WEIGHT, "text": "a"}]}, "messages[0].ranges[0]: unknown keys ['text']"),
        ({"ranges": [{**WEIGHT, "end": 3}, {**WEIGHT, "start": 2, "end": 3}]}, "overlap, expected ranges apart"),
        (
            {"content": "<think>a</think>b", "ranges": [WEIGHT]},
            "messages[0].ranges: found ranges beside a content that holds reasoning (1 characters)",
        ),
        ({"token_ids": "12"}, "messages[0].token_ids: found str"),
        ({"token_ids": [1, -1]}, "messages[0].token_ids[1]: found int"),
        ({"token_ids": [True]}, "messages[0].token_ids[0]: found bool"),
        ({"token_ids": [2**31]}, "messages[0].token_ids[0]: found int"),
    ],
)
def test_a_malformed_message_says_where_what_and_how_to_mend_it(keys: dict[str, Any], message: str) -> None:
    said = complaint({**agent(), **keys}, tokenizer="m")
    assert message in said
    assert said.startswith("messages[0]")


@pytest.mark.parametrize(
    ("key", "value"),
    [("reasoning", "a"), ("reasoning_content", "a"), ("tool_calls", [SEARCH]), ("ranges", [WEIGHT]), ("token_ids", [1])],
)
@pytest.mark.parametrize("role", ["system", "user", "tool"])
def test_what_only_an_agent_does_is_refused_of_others(role: str, key: str, value: object) -> None:
    said = complaint(agent(), {"role": role, "content": "abc", key: value}, tokenizer="m")
    assert f"found on a turn of role {role}, expected on assistant turns only; leave the key out" in said


def test_a_tools_answer_of_null_is_refused() -> None:
    assert "messages[1].content: found NoneType" in complaint(agent(), {"role": "tool", "content": None})


def test_token_ids_without_the_tokenizer_they_are_of_are_refused() -> None:
    assert "messages[1].token_ids: found ids, but no key 'tokenizer'" in complaint(agent(), agent(token_ids=[1]))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tools": {"name": "f"}}, "tools: found dict"),
        ({"tools": '{"name": "f"}'}, "found str (13 characters), expected a list of objects"),
        ({"tools": ["f"]}, "tools[0]: found str"),
        ({"tools": "[{},]"}, "tools: not JSON"),
        ({"tools": '[{"a": NaN}]'}, "NaN is not JSON"),
        ({"tokenizer": 3}, "tokenizer: found int"),
    ],
)
def test_malformed_tools_and_tokenizers_are_refused(record: dict[str, Any], message: str) -> None:
    assert message in complaint(agent(), **record)


# --- Other spellings -------------------------------------------------------------------------------------------------------


NO_ARGUMENTS: tuple[Any, ...] = (None, "", " ", "null", " null\n", {}, "{}")


@pytest.mark.parametrize("arguments", NO_ARGUMENTS, ids=repr)
@pytest.mark.parametrize("is_openai", [False, True], ids=["ours", "openai"])
def test_a_call_without_arguments_has_an_empty_object_however_it_is_written(arguments: object, is_openai: bool) -> None:
    call = {"name": "f", "arguments": arguments}
    said = turn(agent(tool_calls=[{"type": "function", "function": call} if is_openai else call]))
    assert said["tool_calls"] == [{"name": "f", "arguments": "{}"}]


def test_a_call_without_the_key_of_arguments_has_an_empty_object() -> None:
    assert turn(agent(tool_calls=[{"name": "f"}]))["tool_calls"] == [{"name": "f", "arguments": "{}"}]


def test_what_openais_client_dumps_is_read_as_what_it_says() -> None:
    function = {"name": "f", "arguments": "{}", "strict": None}
    dump = {
        "content": None,
        "refusal": None,
        "role": "assistant",
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": [{"id": "c", "function": function, "type": "function", "index": 0, "custom": None}],
    }
    plain = agent("", tool_calls=[{"id": "c", "name": "f", "arguments": "{}"}])
    assert turn(dump) == turn(plain)


def test_an_unknown_key_that_says_something_is_refused_whatever_stands_beside() -> None:
    assert "messages[0]: unknown keys ['refusal']" in complaint(agent(refusal="no", audio=None))


@pytest.mark.parametrize("value", [False, 0, 0.0], ids=repr)
def test_false_and_zero_say_something(value: object) -> None:
    assert "unknown keys ['extra']" in complaint(agent(extra=value))


ANY = (None, "", 0, True, 1.5, "x", "{}", {}, {"a": 1, "b": [1.0, None]}, [1])


def calls_or_fault(call: dict[str, object]) -> object:
    try:
        return read_tool_calls([call], "messages[0].tool_calls")
    except RolloutFormatError as error:
        return str(error)


@pytest.mark.parametrize("keys", [("name", "arguments", "id"), ("name", "id"), ("id", "name", "arguments", "type")])
def test_a_call_that_is_read_at_once_is_read_as_one_that_is_looked_at(keys: tuple[str, ...]) -> None:
    read_at_once = 0
    for fields in product(ANY, repeat=len(keys)):
        call = dict(zip(keys, fields, strict=True))
        quick = calls_or_fault(call)
        read_at_once += tool_calls.plain_call(call) is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tool_calls, "plain_call", lambda _call: None)
            assert repr(quick) == repr(calls_or_fault(call)), call
    assert (read_at_once > 0) == (keys == ("name", "arguments", "id"))
