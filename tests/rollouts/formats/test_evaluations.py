"""Evaluation logs and generations: outcomes as their scorers said them, retries apart."""

import json
from typing import Any

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


def test_scorers_that_disagree_leave_the_outcome_open() -> None:
    sample = {"id": 1, "messages": [ASKED, ANSWERED], "scores": {"one": {"value": "C"}, "other": {"value": 0.0}}}
    (rollout,) = read("inspect", {"eval": {}, "samples": [sample]})
    assert (rollout.reward, rollout.score) == (None, 0.0)


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
