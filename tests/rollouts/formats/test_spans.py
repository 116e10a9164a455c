"""Spans of traces: calls become rollouts, whatever exporter wrote them, with the outcome that an evaluation gave."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.rollouts.formats.attributes import Flat, _nested, unflattened
from negtraj_dagster.rollouts.formats.flat_messages import CALL_TEXTS, PART, plain_turn
from negtraj_dagster.rollouts.formats.spans import _message
from negtraj_dagster.schema import Rollout
from tests.rollouts.formats.test_sessions import trained
from tests.support.documents import read_document

SENT = [{"role": "user", "parts": [{"type": "text", "content": "Weather?"}]}]
CALLED = {"role": "assistant", "parts": [{"type": "tool_call", "id": "c", "name": "get", "arguments": {"at": "Paris"}}]}
ANSWERED = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c", "response": "rain"}]}
SAID = {"role": "assistant", "parts": [{"type": "text", "content": "Rain."}]}


def span(number: int, sent: list[Any], answered: list[Any], **more: Any) -> dict[str, Any]:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.input.messages": json.dumps(sent),
        "gen_ai.output.messages": json.dumps(answered),
    }
    context = {"trace_id": "t1", "span_id": f"s{number}"}
    return {"context": context, "start_time": f"2026-01-01T00:00:0{number}Z", "attributes": attributes, **more}


def read(name: str, value: object) -> list[Rollout]:
    reading = read_document(FORMATS[name], "t", json.dumps(value).encode(), "file")
    assert all(isinstance(each, Rollout) for each in reading), reading
    return [each for each in reading if isinstance(each, Rollout)]


def test_a_trace_with_a_tool_is_one_rollout_in_whatever_order_its_spans_stand() -> None:
    event = {
        "name": "gen_ai.evaluation.result",
        "attributes": {
            "gen_ai.evaluation.name": "right",
            "gen_ai.evaluation.score.value": 0.75,
            "gen_ai.evaluation.score.label": "pass",
        },
    }
    spans = [span(2, [*SENT, CALLED, ANSWERED], [SAID], events=[event]), span(1, SENT, [CALLED])]
    (rollout,) = read("otel_genai", spans)
    assert rollout.prompt == ({"role": "user", "content": "Weather?"},)
    assert [turn["role"] for turn in rollout.turns] == ["assistant", "tool", "assistant"]
    assert (rollout.reward, rollout.score, rollout.teacher, rollout.session) == (True, 0.75, "m", "t1")


def test_otlp_nesting_and_values_are_read_as_flat_ones() -> None:
    flat = span(1, SENT, [SAID])
    listed = [{"key": key, "value": {"stringValue": value}} for key, value in flat["attributes"].items()]
    nested = {
        "resourceSpans": [
            {"scopeSpans": [{"spans": [{"traceId": "t1", "spanId": "s1", "startTimeUnixNano": "1", "attributes": listed}]}]}
        ]
    }
    assert [each.turns for each in read("otel_genai", nested)] == [each.turns for each in read("otel_genai", [flat])]


def test_a_retry_and_a_sub_agent_are_rollouts_of_their_own() -> None:
    other = {"role": "user", "parts": [{"type": "text", "content": "Sub-task."}]}
    spans = [span(1, SENT, [CALLED]), span(2, SENT, [SAID]), span(3, [other], [SAID])]
    first, retry, sub_agent = read("otel_genai", spans)
    assert [trained(each) for each in (first, retry, sub_agent)] == [[""], ["Rain."], ["Rain."]]
    assert (first.parent, retry.parent, sub_agent.parent) == (None, "t1/s1", "t1/s1")


def test_spans_without_contents_are_refused_with_what_to_record() -> None:
    (fault,) = read_document(FORMATS["otel_genai"], "t", json.dumps([{"name": "chat", "attributes": {}}]).encode(), "file")
    assert isinstance(fault, RolloutFormatError)
    assert "record the contents" in str(fault)


KEYS = st.sampled_from(["", "a", "b", "0", "1", "10"])


@given(
    st.dictionaries(
        st.lists(KEYS, max_size=4).map(tuple), st.sampled_from(["x", 1, True, None]) | st.builds(lambda: {"0": "z"})
    )
)
def test_an_object_of_a_shape_seen_before_is_the_one_put_together_key_by_key(flat: Flat) -> None:
    assert json.dumps(unflattened(copy.deepcopy(flat))) == json.dumps(_nested(flat))


VALUES = st.sampled_from(["text", "", "hm</think>x", "{}", '{"a": [1]}', "[1", None, 1])


@st.composite
def flat_messages(draw: st.DrawFn) -> Flat:
    """Messages as they are exported, now and then with a path or value that they do not have."""
    flat: Flat = {("message", "role"): draw(st.sampled_from(["user", "assistant", "assistant", "tool", "system", 1]))}
    content = draw(st.sampled_from([[("message", "content")], [(*PART, "type"), (*PART, "text")], [], [(*PART, "text")]]))
    flat |= {path: "text" if path[-1] == "type" else draw(VALUES) for path in content}
    for number in draw(st.lists(st.sampled_from(["0", "1", "2", "x"]), max_size=2)):
        for path in (*CALL_TEXTS, *draw(st.sampled_from([(), (), (), (("type",),)]))):
            value = (
                draw(st.sampled_from(["{}", '{"a": 1}', "c", ""]))
                if path[-1] == "arguments"
                else draw(st.text("ab", max_size=2))
            )
            flat[("message", "tool_calls", number, "tool_call", *path)] = value
    odd = draw(st.sampled_from([(), (), ("message", "tool_call_id"), ("message", "name"), (*PART, "image")]))
    return flat | ({odd: draw(VALUES)} if odd else {})


@given(flat_messages())
def test_a_message_read_at_once_is_the_one_that_is_looked_at(flat: Flat) -> None:
    if (turn := plain_turn(flat)) is not None:
        assert turn == _message(unflattened(flat), "here")


def test_messages_of_texts_and_calls_are_read_at_once() -> None:
    role, text = ("message", "role"), (*PART, "text")
    call = {("message", "tool_calls", "0", "tool_call", *path): "{}" for path in CALL_TEXTS}
    assert plain_turn({role: "user", (*PART, "type"): "text", text: "q"}) == {"role": "user", "content": "q"}
    assert plain_turn({role: "assistant", **call}) == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "{}", "name": "{}", "arguments": "{}"}],
    }
    assert plain_turn({role: "tool", ("message", "content"): "r", ("message", "tool_call_id"): "c"}) == {
        "role": "tool",
        "content": "r",
        "tool_call_id": "c",
    }


def test_flat_openinference_keys_are_messages_and_annotations_scores() -> None:
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "m",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.contents.0.message_content.type": "text",
        "llm.input_messages.0.message.contents.0.message_content.text": "q",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "f",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"a": 1}',
        "llm.tools.0.tool.json_schema": '{"type": "function", "function": {"name": "f"}}',
        "annotations.0.annotation.name": "right",
        "annotations.0.annotation.score": 1,
        "annotations.0.annotation.label": "correct",
    }
    (rollout,) = read("openinference", {"attributes": attributes, "context": {"trace_id": "t", "span_id": "s"}})
    assert rollout.turns == ({"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": '{"a": 1}'}]},)
    assert (rollout.prompt, rollout.reward, rollout.score) == (({"role": "user", "content": "q"},), True, 1.0)
    assert rollout.tools == '[{"type": "function", "function": {"name": "f"}}]'


def test_what_is_said_of_a_discarded_call_is_not_said_of_its_retry() -> None:
    def verdict(label: str) -> list[dict[str, Any]]:
        attributes = {"gen_ai.evaluation.name": "right", "gen_ai.evaluation.score.label": label}
        return [{"name": "gen_ai.evaluation.result", "attributes": attributes}]

    spans = [span(1, SENT, [CALLED], events=verdict("fail")), span(2, SENT, [SAID], events=verdict("pass"))]
    assert [rollout.reward for rollout in read("otel_genai", spans)] == [False, True]
    of_trace = {"context": {"trace_id": "t1", "span_id": "root"}, "name": "agent", "attributes": {}, "events": verdict("pass")}
    assert [rollout.reward for rollout in read("otel_genai", [span(1, SENT, [SAID]), of_trace])] == [True]


def openinference(number: int, sent: list[dict[str, Any]], answer: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {"openinference.span.kind": "LLM", "llm.output_messages.0.message.role": "assistant"}
    attributes["llm.output_messages.0.message.content"] = answer
    for index, message in enumerate(sent):
        attributes |= {f"llm.input_messages.{index}.message.{key}": value for key, value in message.items()}
    return span(number, [], []) | {"attributes": attributes}


def test_a_message_that_stands_elsewhere_in_the_next_call_is_read_anew() -> None:
    user, said = {"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "Rain."}
    other = {"role": "user", "content": "And in Rome?"}
    spans = [
        openinference(1, [user], "Rain."),
        openinference(2, [user, said, other], "Sun."),
        openinference(3, [other], "Sun, again."),
    ]
    first, second = read("openinference", spans)
    assert [turn["content"] for turn in (*first.prompt, *first.turns)] == ["Weather?", "Rain.", "And in Rome?", "Sun."]
    assert [turn["content"] for turn in (*second.prompt, *second.turns)] == ["And in Rome?", "Sun, again."]


def test_messages_that_only_python_takes_for_equal_are_told_apart() -> None:
    said = {"role": "assistant", "content": "", "tool_calls.0.tool_call.function.name": "get"}
    number, flag = ({**said, "tool_calls.0.tool_call.function.arguments": value} for value in ({"n": 1}, {"n": True}))
    user = {"role": "user", "content": "Weather?"}
    spans = [openinference(1, [user, number], "Rain."), openinference(2, [user, flag], "Sun.")]
    arguments = [each.turns[0]["tool_calls"][0]["arguments"] for each in read("openinference", spans)]
    assert arguments == ['{"n": 1}', '{"n": true}']


@pytest.mark.parametrize("is_last", [False, True])
def test_a_flat_key_that_goes_on_in_others_costs_its_message_alone_where_it_is_read(is_last: bool) -> None:
    keys = {"content": "Weather?", "content.kind": "text", "extra.k": 1, "extra": "x", "role": "user"}
    message = dict(reversed(keys.items())) if is_last else keys
    spans = [openinference(1, [message], "Rain."), openinference(2, [{"role": "user", "content": "Snow?", **EXTRA}], "No.")]
    reading = read_document(FORMATS["openinference"], "t", json.dumps(spans).encode(), "file")
    rollout, fault = reading
    assert isinstance(rollout, Rollout)
    assert rollout.prompt == ({"role": "user", "content": "Snow?"},)
    assert "llm.input_messages[0].content: found dict (2 keys), expected list" in str(fault)


EXTRA = {"extra": "x", "extra.k": 1}


def test_a_conflict_in_an_annotation_costs_no_rollout() -> None:
    call = openinference(1, [{"role": "user", "content": "Weather?"}], "Rain.")
    label = {"annotation.name": "right", "annotation.label": "pass", "annotation.metadata.k": "v", "annotation.metadata": "{}"}
    call["attributes"] |= {f"annotations.0.{key}": value for key, value in label.items()}
    assert [each.reward for each in read("openinference", [call])] == [True]


def test_a_call_that_failed_is_no_fault_and_one_that_cannot_be_read_still_names_its_model() -> None:
    image = {"role": "user", "contents.0.message_content.type": "image"}
    failed = openinference(1, [image], "")
    failed["attributes"] = {key: value for key, value in failed["attributes"].items() if "output" not in key}
    unread = openinference(2, [image], "A cat.")
    unread["attributes"]["llm.model_name"] = "m"
    said = openinference(3, [{"role": "user", "content": "Weather?"}], "Rain.")
    rollout, fault = read_document(FORMATS["openinference"], "t", json.dumps([failed, unread, said]).encode(), "file")
    assert isinstance(rollout, Rollout)
    assert rollout.teacher == "m"
    assert "span s2: llm.input_messages[0].content[0]" in str(fault)
