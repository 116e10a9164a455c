"""Evaluation logs and generations: outcomes as their scorers said them, retries apart."""

import json
from typing import Any

import pytest

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.schema import Rollout
from tests.rollouts.formats.test_fine_tuning import fault, read
from tests.rollouts.formats.test_sessions import trained
from tests.support.documents import read_document

ASKED = {"role": "user", "content": "q"}
ANSWERED = {"role": "assistant", "content": "a"}


def test_an_inspect_log_has_a_rollout_a_sample_and_names_the_sample_that_has_none() -> None:
    call = {"id": "c", "function": "bash", "arguments": {"cmd": "ls"}}
    parts = [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "x"}]
    thinking = {"role": "assistant", "content": parts, "tool_calls": [call]}
    messages = [ASKED, thinking, {"role": "tool", "content": "y", "tool_call_id": "c"}, ANSWERED]
    good = {"id": 7, "epoch": 2, "target": "a", "messages": messages, "scores": {"match": {"value": "I", "answer": "b"}}}
    silent = {"id": 8, "messages": [ASKED], "scores": {}}
    log = {"version": 2, "eval": {"task": "sums", "model": "m"}, "samples": [good, silent]}
    rollout, error = read_document(FORMATS["inspect"], "t", json.dumps(log).encode(), "file")
    assert isinstance(rollout, Rollout)
    assert (rollout.reward, rollout.pred, rollout.gold, rollout.question_id) == (False, "b", "a", "7")
    assert rollout.turns[0]["reasoning"] == "Hm."
    assert rollout.turns[0]["tool_calls"] == [{"name": "bash", "arguments": '{"cmd": "ls"}', "id": "c"}]
    assert str(error).startswith("samples[1]: messages: none of 1 turns")


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        (["C"], (True, 1.0)),
        (["N"], (False, 0.0)),
        (["P"], (None, 0.5)),
        ([0.8], (None, 0.8)),
        (["C", 1, True], (True, 1.0)),
        (["C", "I"], (None, None)),
        (["C", 0.0], (None, 0.0)),
        ([0.8, "C", 6], (None, None)),
        (["C", {"part": 1}], (None, None)),
        (["excellent"], (None, None)),
        ([], (None, None)),
    ],
    ids=str,
)
def test_the_outcome_is_what_all_scorers_agree_on(values: list[object], outcome: tuple[object, object]) -> None:
    scores = {f"scorer {n}": {"value": value} for n, value in enumerate(values)}
    (rollout,) = read("inspect", {"eval": {}, "samples": [{"id": 1, "messages": [ASKED, ANSWERED], "scores": scores}]})
    assert (rollout.reward, rollout.score) == outcome
    assert json.loads(rollout.extra or "{}").get("scores", {}) == scores


def sample_of(*messages: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"eval": {"task": "t"}, "samples": [{"id": 1, "messages": [ASKED, *messages], **more}]}


def test_encrypted_reasoning_is_left_out_and_a_summary_stands_in_its_place() -> None:
    def thinking(**part: object) -> dict[str, Any]:
        return {"role": "assistant", "content": [{"type": "reasoning", **part}, {"type": "text", "text": "x"}]}

    parts = (
        thinking(reasoning="Hm.", redacted=False),
        thinking(reasoning="gAAAA", redacted=True),
        thinking(reasoning="gAAAA", redacted=True, summary="So."),
    )
    (rollout,) = read("inspect", sample_of(*parts))
    assert [turn.get("reasoning") for turn in rollout.turns] == ["Hm.", None, "So."]


SCHEMA = {"description": "d", "parameters": {"type": "object", "properties": {}}}


def offer(*names: str) -> dict[str, Any]:
    return {"event": "model", "tools": [{"name": name, **SCHEMA} for name in names]}


@pytest.mark.parametrize(
    ("events", "names"),
    [
        ([offer("a"), {"event": "tool"}, offer("a"), offer()], ["a"]),
        ([offer("b"), offer("a", "b"), offer("a")], ["a", "b"]),
        ([offer("b"), offer("c")], None),
        ([offer()], None),
        (None, None),
    ],
    ids=["one offer, and a grader without tools", "the first with what was called", "none has it", "none", "no events"],
)
def test_the_tools_are_what_the_models_calls_were_offered(events: object, names: list[str] | None) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "function": "a", "arguments": {}}]}
    (rollout,) = read("inspect", sample_of(call, events=events))
    expected = [{"type": "function", "function": {"name": name, **SCHEMA}} for name in names or []]
    assert json.loads(rollout.tools or "[]") == expected


def test_what_the_model_did_not_write_is_not_trained() -> None:
    example = {"role": "assistant", "content": "example", "source": "input"}
    broken = {"id": "c", "function": "f", "arguments": {}, "parse_error": "no JSON"}
    call = {"role": "assistant", "content": "call", "source": "generate", "tool_calls": [broken]}
    answer = {"role": "assistant", "content": "a", "source": "generate"}
    (rollout,) = read("inspect", sample_of(example, ASKED, call, answer))
    assert trained(rollout) == ["a"]


def test_attached_texts_and_errors_of_tools_are_read() -> None:
    system = {"role": "system", "content": "attachment://k"}
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "function": "f", "arguments": {}}]}
    error = {"role": "tool", "content": "", "tool_call_id": "c", "error": {"type": "timeout", "message": "Too late."}}
    (rollout,) = read("inspect", sample_of(system, call, error, attachments={"k": "Be brief."}))
    assert [turn["content"] for turn in rollout.prompt] == ["q", "Be brief."]
    assert rollout.turns[1]["content"] == "Too late."


def test_texts_of_tools_and_arguments_that_were_put_aside_are_in_their_places() -> None:
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c", "function": "a", "arguments": {"x": "attachment://k"}}],
    }
    offered = offer("a")
    offered["tools"][0] |= {"description": "attachment://d"}
    log = sample_of(call, events=[offered], attachments={"k": "long", "d": "What it does."})
    (rollout,) = read("inspect", log)
    assert rollout.turns[0]["tool_calls"][0]["arguments"] == '{"x": "long"}'
    assert json.loads(rollout.tools or "")[0]["function"]["description"] == "What it does."


def test_a_sample_of_another_shape_costs_itself_alone() -> None:
    log = sample_of({"role": "assistant", "content": "a", "tool_calls": ["none"]})
    log["samples"].append({"id": 2, "messages": [ASKED, {"role": "assistant", "content": "b"}]})
    reading = read_document(FORMATS["inspect"], "t", json.dumps(log).encode(), "file")
    assert ["of another shape" in str(part) for part in reading] == [True, False]


def test_a_completion_is_the_episode_and_its_reward_the_outcome() -> None:
    record = {
        "example_id": 3,
        "prompt": [ASKED],
        "completion": [ANSWERED, ASKED, ANSWERED],
        "answer": "a",
        "reward": 0.5,
        "info": {"k": 1},
    }
    (rollout,) = read("verifiers", record)
    assert (rollout.prompt, trained(rollout)) == ((ASKED,), ["a", "a"])
    assert (rollout.reward, rollout.score, rollout.gold, rollout.group) == (None, 0.5, "a", "3")
    assert json.loads(rollout.extra or "") == {"info": {"k": 1}}
    (plain,) = read("verifiers", {"prompt": "q", "completion": "a", "reward": 1.0})
    assert (plain.prompt, trained(plain), plain.reward) == ((ASKED,), ["a"], True)


def test_generations_of_a_trace_are_a_rollout_with_its_scores() -> None:
    def generation(number: int, sent: list[Any], answered: object) -> dict[str, Any]:
        times = {"type": "GENERATION", "startTime": f"2026-01-0{number}"}
        return {"id": f"g{number}", "traceId": "t", **times, "model": "m", "input": sent, "output": answered}

    lines = [
        generation(2, [ASKED, ANSWERED, ASKED], json.dumps({"role": "assistant", "content": "b"})),
        generation(1, [ASKED], "a"),
        generation(3, [ASKED], "again"),
        {"id": "o", "traceId": "t", "type": "SPAN"},
        {"id": "s", "traceId": "t", "name": "right", "value": 1, "dataType": "BOOLEAN"},
        {"id": "u", "traceId": "t", "name": "taste", "value": 0.25, "dataType": "NUMERIC"},
    ]
    raw = "\n".join(json.dumps(line) for line in lines).encode()
    first, retry = read_document(FORMATS["langfuse"], "t", raw, "file")
    assert isinstance(first, Rollout)
    assert isinstance(retry, Rollout)
    assert (trained(first), trained(retry), retry.parent) == (["a", "b"], ["again"], "t/g1")
    assert (first.reward, first.score, first.teacher) == (True, 0.25, "m")


def node(parent: int | None, role: str, content: str, *, sampled: bool = False, **more: Any) -> dict[str, Any]:
    message = {"role": role, "content": content, **more.pop("message", {})}
    return {"parent": parent, "message": message, "sampled": sampled, **more}


def trace_of(*nodes: dict[str, Any], **more: object) -> dict[str, Any]:
    task = {"type": "Sums", "key": "k", "data": {"id": "g1", "prompt": "q", "answer": "5"}}
    agent = {"name": "solver", "config": {"model": None}, "trainable": True}
    rewards = {"right": {"score": 1.0, "weight": 1.0}, "style": {"score": 0.5, "weight": 0.0}, "late": None}
    return {"version": 1, "id": "t", "task": task, "agent": agent, "nodes": list(nodes), "rewards": rewards, **more}


CALLED = {"tool_calls": [{"id": "c", "type": "function", "name": "add", "namespace": None, "arguments": '{"x":2}'}]}
NODES = (
    node(None, "system", "s"),
    node(0, "user", "q"),
    node(1, "assistant", "example"),
    node(2, "user", "r"),
    node(3, "assistant", "", sampled=True, message={"reasoning_content": "Add.", **CALLED}),
    node(4, "tool", "5", message={"tool_call_id": "c", "name": None}),
    node(5, "assistant", "5", sampled=True, message={"tool_calls": None, "provider_state": [{"type": "reasoning"}]}),
)


def test_a_trace_trains_what_the_model_sampled_and_a_branch_goes_on_with_its_own() -> None:
    tools = [{"type": "function", "name": "add", "namespace": None, "description": "d", "parameters": {}, "strict": None}]
    other = node(5, "assistant", "five", sampled=True)
    first, second = read("verifiers", trace_of(*NODES, other, tools=tools, calls=[{"node": 4, "model": "m"}]))
    assert [turn["content"] for turn in first.prompt] == ["s", "q"]
    assert (trained(first), trained(second)) == (["", "5"], ["five"])
    assert first.turns[2] == {
        "role": "assistant",
        "content": "",
        "reasoning": "Add.",
        "tool_calls": [{"name": "add", "arguments": '{"x":2}', "id": "c"}],
    }
    assert (first.reward, first.score, first.gold, first.group, first.teacher) == (True, 1.0, "5", "g1", "m")
    assert (first.source, first.session, first.parent, second.parent) == ("Sums", "t", None, "t/6")
    assert json.loads(first.tools or "")[0]["function"] == {"name": "add", "description": "d", "parameters": {}}


def test_a_compaction_of_a_trace_is_trained_where_the_agent_went_on_from_it() -> None:
    nodes = (
        *NODES[:2],
        node(1, "assistant", "long", sampled=True),
        node(2, "assistant", "summary", sampled=True, semantic_parents=[{"node": 2, "type": "compaction_attempt"}]),
        node(2, "assistant", "bad summary", sampled=True, semantic_parents=[{"node": 2, "type": "compaction_attempt"}]),
        node(None, "user", "summary"),
        node(5, "assistant", "on", sampled=True, semantic_parents=[{"node": 3, "type": "compaction"}]),
    )
    before, after = read("verifiers", trace_of(*nodes))
    assert (trained(before), trained(after)) == (["long", "summary"], ["on"])
    assert (after.parent, after.prompt) == ("t/3", ({"role": "user", "content": "summary"},))


def test_an_episode_is_the_rollouts_of_its_traces() -> None:
    whole = trace_of(*NODES)
    episode = {"id": "e", "task": whole["task"], "traces": [whole, {**trace_of(*NODES), "id": "u", "rewards": {}}]}
    first, second = read("verifiers", episode)
    assert [first] == read("verifiers", whole)
    assert (second.session, second.reward, second.score) == ("u", None, None)


def test_an_agent_that_is_not_trained_and_a_node_that_cannot_be_read_are_refused() -> None:
    judge = trace_of(*NODES, agent={"name": "judge", "config": {}, "trainable": False})
    assert "agent.trainable" in fault("verifiers", judge)
    image = node(1, "user", "", message={"content": [{"type": "image_url", "image_url": {"url": "x"}}]})
    assert "image_url" in fault("verifiers", trace_of(*NODES[:2], image, node(2, "assistant", "a", sampled=True)))
    whole = {"id": "e", "traces": [judge, trace_of(*NODES)]}
    error, rollout = read_document(FORMATS["verifiers"], "t", json.dumps(whole).encode(), "file")
    assert "agent.trainable" in str(error)
    assert isinstance(rollout, Rollout)


def test_other_files_are_refused() -> None:
    assert "inspect log convert" in fault("inspect", {"a": 1})
    assert "GENERATION" in fault("langfuse", {"a": 1})
    assert isinstance(read_document(FORMATS["verifiers"], "t", b'{"prompt": 1}', "line 1")[0], RolloutFormatError)
