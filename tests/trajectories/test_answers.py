"""What an agent with tool calls answered, whatever JSON it said it in."""

from typing import Any

import pytest

from negtraj_dagster import sql
from negtraj_dagster.schema import Label
from tests.support.sql_rows import FINISH, QUESTIONS, call, labelled, rows, run

SAYS = {
    "true": [[call("finish", answer=True)]],
    "false": [[call("finish", answer=False)]],
    "a text": [[call("finish", answer="Yes")]],
    "a list": [[call("finish", answer=[True])]],
    "a result": [[call("finish", result=True)]],
    "nothing": [[call("finish")]],
    "null": [[call("finish", answer=None)]],
}
RIGHT = {"true", "a text", "a list", "a result"}
NO_ANSWER = {"nothing", "null"}


def labels_by(scorer: str, rollouts: list[dict[str, Any]]) -> dict[str, str]:
    """Labels by rollout, as a scorer gives them."""
    with sql.Session() as session:
        frame = labelled(rollouts, session, QUESTIONS, scorer)
    return dict(frame.select("rollout_key", "label").rows())


@pytest.mark.parametrize("scorer", ["task_strict", "task_lenient"])
def test_json_booleans_and_lists_are_the_answers_that_they_mean(scorer: str) -> None:
    labels = labels_by(scorer, rows(**SAYS))
    assert {name for name, label in labels.items() if label == Label.POSITIVE} == RIGHT
    assert {name for name, label in labels.items() if label == Label.UNKNOWN} == NO_ANSWER


def test_a_success_that_answers_true_is_no_mismatch() -> None:
    assert set(run("label_mismatch", rows(**SAYS))["rollout_key"]) == {"false"}


def test_a_word_of_json_in_react_text_is_judged_as_the_paper_does() -> None:
    labels = labels_by("task_strict", rows(right=[FINISH], word=["Action: finish[true]"]))
    assert labels == {"right": Label.POSITIVE, "word": Label.NEGATIVE}


SPEAKS = {
    "sentence": [[call("search", q="x")], "$a", "So the answer, after all, is yes, as nobody denies: no doubt."],
    "word": [[call("search", q="x")], "$a", " Yes. "],
    "wrong word": [[call("search", q="x")], "$a", "No"],
    "react": [[call("search", q="x")], "$a", FINISH],
    "silent": [[call("search", q="x")], "$a", " "],
    "wrong react": [[call("search", q="x")], "$a", "Thought: done.\nAction: finish[No]"],
}


def test_a_sentence_after_tool_calls_contradicts_no_label() -> None:
    assert set(run("label_mismatch", rows(**SPEAKS))["rollout_key"]) == {"wrong word", "wrong react"}
    assert set(run("invalid_answer", rows(sentence_neg=SPEAKS["sentence"]))["rollout_key"]) == set()


@pytest.mark.parametrize(
    ("pred", "label"), [("yes", Label.POSITIVE), ("no", Label.NEGATIVE), (" ", Label.UNKNOWN), (None, "unknown")]
)
def test_the_records_prediction_is_the_answer_of_an_agent_that_ends_in_words(pred: str | None, label: str) -> None:
    rollouts = rows(sentence=SPEAKS["sentence"])
    assert labels_by("task_strict", [{**rollouts[0], "pred": pred}]) == {"sentence": label}


def test_a_terminal_call_counts_before_the_records_prediction() -> None:
    rollouts = rows(called=[[call("finish", answer="Yes")]])
    assert labels_by("task_strict", [{**rollouts[0], "pred": "no"}]) == {"called": Label.POSITIVE}


def test_a_prediction_is_no_answer_of_a_react_agent_that_never_finished() -> None:
    rollouts = rows(lost=["Thought: look.\nAction: search[x]"])
    assert labels_by("task_strict", [{**rollouts[0], "pred": "yes"}]) == {"lost": Label.UNKNOWN}
