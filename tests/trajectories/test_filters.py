"""Every shipped filter on rows it must and must not catch."""

import json
from collections.abc import Callable
from typing import Any
from unicodedata import normalize

import pytest

from negtraj_dagster import sql
from tests.support.sql_rows import FINISH, LONG, QUESTIONS, REGISTRY, SEARCH, call, labelled, rows, run

FIXTURES: dict[str, tuple[list[dict[str, Any]], set[str]]] = {
    "empty_trajectory": (rows(nothing=[], only_user=[">hi"], fine=[FINISH]), {"nothing", "only_user"}),
    "no_finish": (
        rows(searching=[SEARCH, ">a"], mumbling=["Hm."], fine=[SEARCH, ">a", FINISH], nothing=[]),
        {"searching", "mumbling"},
    ),
    "bad_format": (
        rows(
            two=["Action: It seems\nAction: search[x]", ">a", FINISH],
            after=["Action: finish[No]\n\nBased on that"],
            imitates=["Thought: a\nAction: search[x]\nObservation: y", FINISH],
            newline_only=["Thought: a\nAction: finish[x]\n"],
            fine=[SEARCH, ">the word Action stands here", FINISH],
        ),
        {"two", "after", "imitates"},
    ),
    "missing_thought": (
        rows(
            most=["Action: search[x]", ">a", "Action: search[y]", ">b", FINISH],
            half=["Action: search[x]", ">a", FINISH],
        ),
        {"most"},
    ),
    "unknown_action": (
        rows(calculates=["Thought: a\nAction: calculate[1+1]", ">2", FINISH], fine=[SEARCH, ">a", FINISH]),
        {"calculates"},
    ),
    "tool_error": (
        rows(failed=[SEARCH, ">Error: timeout", FINISH], fine=[SEARCH, ">Trial and error is terror", FINISH]),
        {"failed"},
    ),
    "repeated_action_positive": (
        rows(
            again=[SEARCH, ">a", SEARCH.upper().replace("ACTION", "Action").replace("SEARCH", "search"), ">a", FINISH],
            fine=[SEARCH, FINISH],
        ),
        {"again"},
    ),
    "repeated_action_negative": (
        rows(
            again_neg=[SEARCH, ">a", SEARCH, ">a", FINISH], won=[SEARCH, ">a", SEARCH, ">a", FINISH], fine_neg=[SEARCH, FINISH]
        ),
        {"again_neg"},
    ),
    "exact_duplicate": (
        rows(first=[SEARCH, ">a", FINISH], second=[SEARCH, ">other observation", FINISH], third=[FINISH]),
        {"second"},
    ),
    "same_actions": (
        rows(
            first_neg=[SEARCH, ">a", FINISH],
            second_neg=["Thought: other words.\nAction: search[X]", ">a", FINISH],
            won=[SEARCH, FINISH],
        ),
        {"second_neg"},
    ),
    "decontaminate": (rows(asks_test=[FINISH]), {"asks_test"}),
    "unpaired_results": (
        rows(orphan=[[call("search")], "$a", "$b", FINISH], fine=[[call("search")], "$a", FINISH]),
        {"orphan"},
    ),
    "empty_observation": (rows(down=[SEARCH, ">", FINISH], fine=[SEARCH, ">9", FINISH]), {"down"}),
    "no_tool_use": (
        rows(guess=[FINISH], native_guess=[[call("finish", answer="Yes")]], fine=[SEARCH, ">a", FINISH]),
        {"guess", "native_guess"},
    ),
    "label_mismatch": (
        rows(
            right_neg=[SEARCH, "Action: finish[Most likely yes]"],
            wrong=["Action: finish[No]"],
            hedge_neg=["Action: finish[There is no study of it]"],
            wrong_neg=["Action: finish[No]"],
            fine=[FINISH],
        ),
        {"right_neg", "wrong"},
    ),
    "invalid_answer": (
        rows(hedge_neg=["Action: finish[Uncertain]"], wrong_neg=["Action: finish[ no. ]"], silent_neg=[SEARCH]),
        {"hedge_neg"},
    ),
    "benchmark_leak": (
        rows(
            question=[SEARCH, ">1. Is the SKY above us blue today? Answer: yes", FINISH],
            fact=[SEARCH, ">It says rayleigh scattering makes it blue, always", FINISH],
            hidden=[SEARCH, ">1. Is the sk\u00ady above\u200b us blue today?", FINISH],
            fine=[SEARCH, ">The sky is above us", FINISH],
        ),
        {"question", "fact", "hidden"},
    ),
    "length_bounds": (
        rows(short=["Action: finish[no]"], long=["x" * (512 * 12 + 1)], fine=[FINISH], nothing=[]),
        {"short", "long"},
    ),
    "low_judgement": (rows(low=[FINISH], high=[FINISH], unjudged=[FINISH]), {"low"}),
    "quotes_evaluation": (
        rows(
            quotes=[SEARCH, f">He asked: {LONG.upper()}? And so on", FINISH],
            part=[SEARCH, ">one two three four five six seven eight", FINISH],
        ),
        {"quotes"},
    ),
    "near_duplicate": (
        rows(
            first=[f"Thought: {LONG} {LONG} {LONG}.\nAction: finish[Yes]"],
            second=[f"Thought: {LONG} {LONG} {LONG}!\nAction: finish[yes] "],
            failed_neg=[f"Thought: {LONG} {LONG} {LONG}.\nAction: finish[Yes]"],
            other=[FINISH],
        ),
        {"second"},
    ),
    "contrast_too_close": (
        rows(
            early_neg=[f"Thought: {LONG}.\nAction: finish[No]"],
            won=[f"Thought: {LONG}.\nAction: finish[Yes]"],
            late_neg=[f"Thought: {LONG} indeed.\nAction: finish[No]"],
            far_neg=[SEARCH, ">a", "Action: finish[No]"],
        ),
        {"early_neg", "late_neg"},
    ),
}


NATIVE = {
    "no_finish": (
        rows(
            waits=[[call("bash", cmd="ls")], "$a"],
            submits=[[call("finish")]],
            speaks=[[call("bash", cmd="ls")], "$a", "It is yes."],
        ),
        {"waits"},
    ),
    "unknown_action": (rows(invents=[[call("fly")]], fine=[[call("search", q="x")], "$a", [call("finish")]]), {"invents"}),
    "same_actions": (
        rows(
            first_neg=[[call("search", q="x")], "$a", [call("finish")]],
            again_neg=["I think.", [call("search", q="X")], "$b", [call("finish")]],
            other_neg=[[call("search", q="y")], "$a", [call("finish")]],
        ),
        set(),
    ),
    "exact_duplicate": (
        rows(
            first=[[call("search", q="x")], "$a", [call("finish")]],
            other=[[call("search", q="y")], "$a", [call("finish")]],
            again=[[call("search", q="x")], "$b", [call("finish")]],
        ),
        {"again"},
    ),
    "bad_format": (rows(native=[[call("search", q="x")], "$a", "Action: x\nAction: y\nObservation: z"]), set()),
    "missing_thought": (rows(native=[[call("search", q="x")], "$a", [call("finish")]]), set()),
    "tool_error": (rows(native=[[call("bash", cmd="ls")], "$Error: no such file", [call("finish")]]), set()),
    "empty_observation": (rows(native=[[call("bash", cmd="true")], "$", [call("finish")]]), set()),
    "repeated_action_positive": (
        rows(native=[[call("bash", cmd="pytest")], "$a", [call("bash", cmd="pytest")], "$b", [call("finish")]]),
        set(),
    ),
}
"""The same filters on rollouts with tool calls."""


def test_every_shipped_filter_has_a_fixture() -> None:
    assert {filter_.name for filter_ in REGISTRY.filters} == set(FIXTURES)


@pytest.mark.parametrize("name", sorted(FIXTURES))
def test_a_filter_catches_what_it_must_and_nothing_else(name: str) -> None:
    rollouts, caught = FIXTURES[name]
    assert set(run(name, rollouts)["rollout_key"]) == caught


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_a_filter_knows_tool_calls_or_does_not_apply_to_them(name: str) -> None:
    rollouts, caught = NATIVE[name]
    assert set(run(name, rollouts)["rollout_key"]) == caught


def test_the_tools_that_a_rollout_was_offered_count_before_the_tasks() -> None:
    mine = rows(fine=[[call("fly")]], invents=[[call("search", q="x")]])
    for row in mine:
        row["tools"] = json.dumps([{"type": "function", "function": {"name": "fly"}}])
    assert set(run("unknown_action", mine)["rollout_key"]) == {"invents"}


def test_a_question_that_shares_a_name_only_is_not_contaminated() -> None:
    questions = [
        QUESTIONS[0],
        ("strategyqa", "q2", "test", "Is the sky on Mars above the dunes red?", "true", [], "h2"),
    ]
    assert run("decontaminate", rows(mine=[FINISH]), questions).is_empty()


def test_group_filters_name_the_nearest_earlier_twin() -> None:
    twins = run("exact_duplicate", rows(a=[FINISH], b=[FINISH], c=[FINISH]))
    assert twins.select("rollout_key", "earlier_key").rows() == [("b", "a"), ("c", "b")]


def test_only_what_the_agent_said_outside_of_its_text_is_kept_from_its_text() -> None:
    plain = rows(plain=[SEARCH, ">a", FINISH])[0]
    more = {"reasoning": "Action: finish[No]", "ranges": [{"field": "content"}], "token_ids": [1], "loss": 0.5}
    turns = [{**each, **more} for each in json.loads(plain["conversation"])]
    rich = {**plain, "rollout_key": "rich", "conversation": json.dumps(turns)}
    with sql.Session() as session:
        labelled([plain, rich], session, QUESTIONS)
        steps = session.query(
            "select count(*) as n, count(distinct (step, content, thought, action_type)) as n_unlike from steps"
        )
        reasons = session.query("select count(*) as n from steps where reasoning is not null")
    assert steps.row(0) == (4, 2)
    assert reasons.item() == 2


@pytest.mark.parametrize("text", ["天空今天在我们头顶上是蓝色的吗", "Ist der Himmel über Zürich heute blau?"])
@pytest.mark.parametrize(
    "hide", ["{}?".format, "\u00ad".join, lambda text: normalize("NFD", text)], ids=["mark", "soft", "nfd"]
)
def test_a_copied_question_in_any_script_is_contaminated(text: str, hide: Callable[[str], str]) -> None:
    questions = [
        ("strategyqa", "q1", "train", text, "true", [], "h1"),
        ("strategyqa", "q2", "test", hide(text), "true", [], "h2"),
    ]
    assert run("decontaminate", rows(mine=[FINISH]), questions).height == 1


def test_a_question_in_a_script_without_spaces_that_shares_a_name_only_is_not_contaminated() -> None:
    questions = [
        ("strategyqa", "q1", "train", "北京故宫博物院的第一任院长是在哪一年出生的", "true", [], "h1"),
        ("strategyqa", "q2", "test", "北京故宫博物院里有没有比长城更古老的建筑", "true", [], "h2"),
    ]
    assert run("decontaminate", rows(mine=[FINISH]), questions).is_empty()


@pytest.mark.parametrize(
    ("question", "is_found"), [("天空今天在我们头顶上是蓝色的吗", True), ("天空是蓝色的吗", False)], ids=["long", "short"]
)
def test_a_leaked_question_is_measured_by_what_its_script_writes(question: str, is_found: bool) -> None:
    questions = [("strategyqa", "q1", "train", question, "true", [], "h1")]
    leaked = rows(mine=[SEARCH, f">1. {question}", FINISH])
    assert (run("benchmark_leak", leaked, questions).height == 1) == is_found


def test_a_leaked_question_is_found_in_another_normal_form() -> None:
    questions = [("strategyqa", "q1", "train", "Ist der Himmel über Zürich heute blau?", "true", [], "h1")]
    leaked = rows(mine=[SEARCH, f">1. {normalize('NFD', questions[0][3])}", FINISH])
    assert run("benchmark_leak", leaked, questions).height == 1
