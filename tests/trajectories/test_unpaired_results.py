"""Tool results that do not belong to their calls, by id and by number."""

import json
from typing import Any

import pytest

from tests.trajectories.test_filters import FINISH, SEARCH, rows, run


def calls(*ids: str | None, name: str = "search") -> dict[str, Any]:
    """An agent's turn that calls a tool once for each id."""
    return {"role": "assistant", "content": "", "tool_calls": [{"id": i, "name": name, "arguments": "{}"} for i in ids]}


def result(call_id: str | None) -> dict[str, Any]:
    return {"role": "tool", "content": "x", "tool_call_id": call_id}


def says(text: str, role: str = "assistant") -> dict[str, Any]:
    return {"role": role, "content": text}


DONE = calls("z", name="finish")
FAULTS: dict[str, tuple[list[dict[str, Any]], str, int]] = {
    "a result of no call": ([calls("a"), result("a"), result("b"), DONE], "orphan", 1),
    "another id": ([calls("a"), result("b"), DONE], "orphan", 1),
    "a result before any call": ([result("a"), calls("a"), result("a"), DONE], "orphan", 0),
    "a result after mere words": ([calls("a"), result("a"), says("Hm."), result("a"), DONE], "orphan", 2),
    "an id of an earlier turn": ([calls("a"), result("a"), calls("b"), result("a"), DONE], "orphan", 2),
    "no result": ([calls("a"), DONE], "missing", 1),
    "one result of two": ([calls("a", "b"), result("b"), DONE], "missing", 1),
    "one result of two at the end": ([calls("a", "b"), result("a")], "missing", 1),
    "a person instead of the tool": ([calls("a"), says("Go on.", "user"), DONE], "missing", 1),
    "one id for two calls": ([calls("a", "a"), result("a"), result("a"), DONE], "doubled", 1),
    "two results of one call": ([calls("a"), result("a"), result("a"), DONE], "doubled", 1),
    "another order": ([calls("a", "b"), result("b"), result("a"), DONE], "swapped", 1),
    "three in a ring": ([calls("a", "b", "c"), result("b"), result("c"), result("a"), DONE], "swapped", 1),
    "no ids and too many": ([calls(None), result(None), result(None), DONE], "orphan", 1),
    "no ids and too few": ([calls(None, None), result(None), DONE], "missing", 1),
    "empty ids and too few": ([calls("", ""), result(""), DONE], "missing", 1),
    "ids of the calls only, too many": ([calls("a"), result(None), result(None), DONE], "orphan", 1),
}
FINE: dict[str, list[dict[str, Any]]] = {
    "one each": [calls("a"), result("a"), calls("b"), result("b"), DONE],
    "two in order": [calls("a", "b"), result("a"), result("b"), DONE],
    "the same ids in every turn": [calls("0"), result("0"), calls("0"), result("0"), DONE],
    "no ids": [calls(None, None), result(None), result(None), DONE],
    "empty ids": [calls("", ""), result(""), result(""), DONE],
    "ids of the calls only": [calls("a", "b"), result(None), result(None), DONE],
    "cut off after its call": [calls("a"), result("a"), calls("b")],
    "a terminal call that is answered": [calls("a"), result("a"), DONE, result("z")],
    "a terminal call beside another": [
        {**calls("a"), "tool_calls": [*calls("a")["tool_calls"], *DONE["tool_calls"]]},
        result("a"),
    ],
    "a person between": [calls("a"), result("a"), says("Thanks.", "user"), says("It is yes.")],
    "ReAct text": [says(SEARCH), says("Observation: a", "user"), says(FINISH)],
    "ReAct text answered by a tool's turn": [says(SEARCH), result(None), says(FINISH)],
}


def rollouts(cases: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [{**row, "conversation": json.dumps(cases[row["rollout_key"]])} for row in rows(**{name: [] for name in cases})]


def test_every_way_of_not_fitting_is_caught_and_named() -> None:
    hits = run("unpaired_results", rollouts({name: turns for name, (turns, _, _) in FAULTS.items()}))
    found = {row["rollout_key"]: (row["detail"].split(":")[0], row["step"]) for row in hits.iter_rows(named=True)}
    assert found == {name: (fault, step) for name, (_, fault, step) in FAULTS.items()}


@pytest.mark.parametrize("name", FINE)
def test_results_that_fit_their_calls_pass(name: str) -> None:
    assert run("unpaired_results", rollouts({name: FINE[name]})).is_empty()
