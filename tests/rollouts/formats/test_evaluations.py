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


def test_other_files_are_refused() -> None:
    assert "inspect log convert" in fault("inspect", {"a": 1})
    assert "GENERATION" in fault("langfuse", {"a": 1})
    assert isinstance(read_document(FORMATS["verifiers"], "t", b'{"prompt": 1}', "line 1")[0], RolloutFormatError)
