"""What an evaluation counts: scores, intervals, rates, and the one class that each episode is of."""

from typing import Any

import pytest

from negtraj_dagster.agent.loop import run_episodes
from negtraj_dagster.agent.tools import TOOLS
from negtraj_dagster.reports.evaluate import episode_row
from negtraj_dagster.reports.metrics import ERROR_CLASSES, by_family, error_class, score_rows, summarize_rows
from negtraj_dagster.schema import Question, Turn
from negtraj_dagster.tasks import EMBEDDED

WORDTRAPS = EMBEDDED["wordtraps"]
QUESTIONS = [Question("wordtraps", f"q{n}", "test", f"What is {n} plus {n}?", str(2 * n), family="sums") for n in range(3)]


class Script:
    """A policy that says the same turns to everybody, the last one again and again."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def act(self, conversations: Any) -> list[str]:
        text = self.texts[0] if len(self.texts) == 1 else self.texts.pop(0)
        return [text] * len(conversations)


def first_turns(question: Question) -> list[Turn]:
    return [{"role": "user", "content": question.question}]


def play(*texts: str, max_turns: int = 3) -> list[dict[str, Any]]:
    episodes = run_episodes(Script(*texts), QUESTIONS, first_turns=first_turns, tools=TOOLS, max_turns=max_turns)
    rows = [{**episode_row(episode), "trial": 0, "answer_key": episode.question_id} for episode in episodes]
    return score_rows(rows, QUESTIONS, WORDTRAPS)


def test_right_and_wrong_answers_are_counted_with_intervals() -> None:
    metrics = summarize_rows(play("Thought: both.\nAction: calculator[1+1]", "Thought: done.\nAction: finish[2 ]"))
    assert (metrics["n"], metrics["n_strict"], metrics["n_lenient"]) == (3, 0, 1)
    assert metrics["accuracy_lenient"] == pytest.approx(1 / 3)
    assert metrics["accuracy_lenient_low"] < 1 / 3 < metrics["accuracy_lenient_high"]
    assert (metrics["finished_share"], metrics["mean_turns"]) == (1.0, 2.0)


def test_rates_are_per_turn_and_per_call() -> None:
    row: dict[str, Any] = {
        "question_id": "q",
        "strict": False,
        "lenient": False,
        "status": "turn_limit",
        "n_assistant_turns": 4,
        "error_class": "tool_error",
    }
    row |= {"n_tool_calls": 2, "n_tool_errors": 1, "n_format_errors": 1, "n_unknown_tools": 1}
    metrics = summarize_rows([row])
    assert (metrics["format_error_rate"], metrics["unknown_tool_rate"], metrics["tool_error_rate"]) == (0.25, 0.25, 0.5)


PLAYED = {
    "right": ("Action: finish[2]",),
    "wrong_answer": ("Action: finish[17]",),
    "format": ("no action", "no action either", "Action: think[a]"),
    "unknown_tool": ("Action: search[a]", "Action: search[b]", "Action: think[a]"),
    "tool_error": ("Action: calculator[a]", "Action: calculator[b]", "Action: think[a]"),
    "loop": ("Action: think[a]",),
    "unfinished": ("Action: think[a]", "Action: think[b]", "Action: think[c]"),
}


@pytest.mark.parametrize(("name", "texts"), PLAYED.items(), ids=PLAYED.keys())
def test_an_episode_is_of_the_class_of_what_went_wrong(name: str, texts: tuple[str, ...]) -> None:
    assert play(*texts)[1]["error_class"] == name


@pytest.mark.parametrize("answer", ["2 plums", "the answer is 2", "two"])
def test_an_answer_in_another_form_is_a_format_error(answer: str) -> None:
    assert play(f"Action: finish[{answer}]")[1]["error_class"] == "format"


@pytest.mark.parametrize(("status", "name"), [("infrastructure", "infrastructure"), ("overlong", "over_long")])
def test_what_ended_an_episode_counts_before_what_it_did(status: str, name: str) -> None:
    row = {**play("no action")[1], "status": status}
    assert error_class(row, WORDTRAPS) == name


def test_every_class_is_reached_by_a_test_of_this_file() -> None:
    assert {*PLAYED, "over_long", "infrastructure"} == set(ERROR_CLASSES)


def test_trials_of_a_question_are_no_independent_questions() -> None:
    rows = [{**row, "trial": trial} for row in play("Action: finish[2]") for trial in range(9)]
    metrics = summarize_rows(rows)
    assert (metrics["n"], metrics["n_questions"], metrics["n_strict"]) == (27, 3, 9)
    assert metrics["accuracy_strict"] == pytest.approx(1 / 3)
    # one of three questions, each nine times alike: as wide as three questions are, not as 27
    assert metrics["accuracy_strict_high"] - metrics["accuracy_strict_low"] > 0.6
    alike = [{**row, "strict": False} for row in rows]
    assert summarize_rows(alike)["accuracy_strict_high"] > 0.5


def test_calls_that_differ_by_their_ids_alone_are_a_loop() -> None:
    call = {"name": "calculator", "arguments": '{"expression": "1+1"}'}
    turns = [{"role": "assistant", "content": "", "tool_calls": [{**call, "id": f"call{n}"}]} for n in range(3)]
    row = {**play("Action: think[a]", "Action: think[b]", "Action: think[c]")[1], "turns": turns}
    assert error_class(row, WORDTRAPS) == "loop"


def test_infrastructure_is_in_no_accuracy_and_no_rate() -> None:
    rows = play("Action: finish[2]")
    rows[0] = {**rows[0], "status": "infrastructure", "error_class": "infrastructure", "n_format_errors": 9}
    metrics = summarize_rows(rows)
    assert (metrics["n"], metrics["n_infrastructure"], metrics["n_strict"], metrics["format_error_rate"]) == (2, 1, 1, 0.0)
    assert by_family(rows)[0]["n"] == 2


def test_a_suite_that_nobody_answered_has_no_accuracy_but_a_whole_interval() -> None:
    rows = [{**row, "error_class": "infrastructure"} for row in play("Action: finish[2]")]
    metrics = summarize_rows(rows)
    assert (metrics["n"], metrics["accuracy_strict_low"], metrics["accuracy_strict_high"]) == (0, 0.0, 1.0)


def test_families_have_their_own_accuracies() -> None:
    (family,) = by_family(play("Action: finish[2]"))
    assert (family["family"], family["n"], family["n_strict"]) == ("sums", 3, 1)
