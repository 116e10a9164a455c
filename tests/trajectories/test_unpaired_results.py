"""Tool results that do not belong to their calls, by id and by number."""

import json
import random
from typing import Any

import pytest

from tests.support.sql_rows import FINISH, SEARCH, rows, run


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
    "one id, in the other's place": ([calls("a", None), result(None), result("a"), DONE], "swapped", 1),
    "ids of the calls only, too many": ([calls("a"), result(None), result(None), DONE], "orphan", 1),
}
FINE: dict[str, list[dict[str, Any]]] = {
    "one each": [calls("a"), result("a"), calls("b"), result("b"), DONE],
    "two in order": [calls("a", "b"), result("a"), result("b"), DONE],
    "the same ids in every turn": [calls("0"), result("0"), calls("0"), result("0"), DONE],
    "no ids": [calls(None, None), result(None), result(None), DONE],
    "empty ids": [calls("", ""), result(""), result(""), DONE],
    "ids of the calls only": [calls("a", "b"), result(None), result(None), DONE],
    "one id of two, in its place": [calls("a", None), result("a"), result(None), DONE],
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


def pairs_well(turns: list[dict[str, Any]]) -> bool:
    """The same rule turn by turn, in other words: each result is the next call's that is still open."""
    last = max(place for place, turn in enumerate(turns) if turn["role"] == "assistant")
    for place in (-1, *(place for place, turn in enumerate(turns) if turn["role"] == "assistant")):
        called = turns[place].get("tool_calls", []) if place >= 0 else []
        results = []
        for turn in turns[place + 1 :]:
            if turn["role"] == "assistant":
                break
            results += [turn["tool_call_id"]] if turn["role"] == "tool" else []
        ids = [each["id"] for each in called]
        if all(ids) and all(results):
            if len(set(ids)) < len(ids):
                return False
            places = [ids.index(each) if each in ids else -1 for each in results]
            if places != sorted(set(places)) or -1 in places:
                return False
            lacking = [each for each in called if each["id"] not in results and each["name"] != "finish"]
        else:
            if len(results) > len(ids) or any(own in ids and ids.index(own) != results.index(own) for own in results if own):
                return False
            lacking = [each for each in called if each["name"] != "finish"][len(results) :]
        if lacking and not (place == last and not results):
            return False
    return True


def generate(rng: random.Random) -> list[dict[str, Any]]:
    """An agent that calls, with results that fit or were shuffled, lost, doubled or renamed on the way."""
    turns: list[dict[str, Any]] = [result("a")] if rng.random() < 0.03 else []
    for step in range(rng.randint(1, 4)):
        ids: list[Any] = [rng.choice(["a", "b", "c", f"{step}{n}"]) for n in range(rng.randint(0 if step else 1, 3))]
        if rng.random() < 0.5:
            ids = [f"{step}-{n}" for n in range(len(ids))]
        answers = list(ids)
        if rng.random() < 0.15:
            rng.shuffle(answers)
        if answers and rng.random() < 0.15:
            answers[rng.randrange(len(answers))] = rng.choice(["a", "x", None, ""])
        answers = [each for each in answers if rng.random() > 0.08]
        if rng.random() < 0.06:
            answers.append(rng.choice(["a", None]))
        if rng.random() < 0.2:
            ids = [None] * len(ids)
        turns.append(calls(*ids) if ids else says("Hm."))
        if ids and rng.random() < 0.1:
            turns[-1]["tool_calls"][-1]["name"] = "finish"
        turns += [result(each) for each in answers]
        turns += [says("And?", "user")] if rng.random() < 0.1 else []
    return turns


@pytest.mark.parametrize("n", [400, pytest.param(20_000, marks=pytest.mark.slow)])
def test_generated_rollouts_are_judged_as_turn_by_turn(n: int) -> None:
    rng = random.Random(n)
    cases = {str(number): generate(rng) for number in range(n)}
    expected = {name for name, turns in cases.items() if not pairs_well(turns)}
    assert 0.2 * n < len(expected) < 0.8 * n
    assert set(run("unpaired_results", rollouts(cases))["rollout_key"]) == expected
