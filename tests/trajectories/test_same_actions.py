"""When two failures did the same: by their actions, and where they took none by their words."""

from typing import Any

import pytest

from negtraj_dagster import sql
from negtraj_dagster.trajectories.judging.judge import answer
from negtraj_dagster.trajectories.judging.loading import load_row_tables
from tests.support.sql_rows import FINISH, JUDGEMENTS, QUESTIONS, REGISTRY, SEARCH, call, labelled, rows, run

CALL = [call("search", q="x")]
CASES: dict[str, tuple[list[dict[str, Any]], set[str]]] = {
    "failures without any action": (
        rows(a_neg=["I cannot know."], b_neg=["The sky is green."], c_neg=["i  cannot\nKNOW. "]),
        {"c_neg"},
    ),
    "an action that does not parse": (rows(a_neg=["Action: search x"], b_neg=["Action: look y"]), set()),
    "one action and different words": (rows(a_neg=[SEARCH, ">a", "No idea."], b_neg=[SEARCH, ">a", "It is no."]), set()),
    "one call and different last words": (rows(a_neg=[CALL, "$a", "It is 7."], b_neg=[CALL, "$a", "It is 9."]), set()),
    "one call and the same last words": (rows(a_neg=[CALL, "$a", "It is 7."], b_neg=[CALL, "$b", "It is  7."]), {"b_neg"}),
    "one call and different answers": (
        rows(a_neg=[CALL, "$a", [call("finish", answer=7)]], b_neg=[CALL, "$a", [call("finish", answer=9)]]),
        set(),
    ),
    "other Thoughts": (rows(a_neg=[SEARCH, FINISH], b_neg=[SEARCH.replace("look", "seek"), FINISH]), {"b_neg"}),
    "silence": (rows(a_neg=["  "], b_neg=[""]), {"b_neg"}),
}


@pytest.mark.parametrize("name", CASES)
def test_failures_are_the_same_where_they_did_and_said_the_same(name: str) -> None:
    rollouts, caught = CASES[name]
    assert set(run("same_actions", rollouts)["rollout_key"]) == caught


def test_turns_without_actions_repeat_nothing_unless_they_say_the_same() -> None:
    file = next(each for each in REGISTRY.scores if each.name == "efficiency")
    rollouts = rows(talks=["First this.", "Then that."], repeats=["So it is.", "so  it is."], acts=[SEARCH, SEARCH])
    with sql.Session() as session:
        load_row_tables(session, labelled(rollouts, session, QUESTIONS), JUDGEMENTS)
        scores = dict(answer(session, file, "scores").select("rollout_key", "score").rows())
    assert scores == {"talks": 1.0, "repeats": 0.5, "acts": 0.5}
