"""The evaluator: a tiny model really plays, and its episodes are counted."""

import json

import pytest

from negtraj_dagster.agent.clients import ChatEncoder, TransformersPolicy
from negtraj_dagster.agent.loop import run_episodes
from negtraj_dagster.agent.tools import TOOLS
from negtraj_dagster.errors import QuestionSetError
from negtraj_dagster.launch import run_child
from negtraj_dagster.modeling import TURN_END
from negtraj_dagster.reports.evaluate import read_prompts, read_questions, summarize_rows, write_report
from negtraj_dagster.schema import Question
from negtraj_dagster.tasks import Score

QUESTIONS = [Question("wordtraps", f"q{i}", "test", f"What is {i} plus {i}?", json.dumps(2 * i)) for i in range(3)]


class Script:
    """A policy that says the same turns to everybody."""

    def __init__(self, *turns):
        self.turns = list(turns)

    def act(self, conversations):
        return [self.turns[0]] * len(conversations) if len(self.turns) == 1 else [self.turns.pop(0)] * len(conversations)


def prompt(question):
    return [{"role": "user", "content": question.question}]


def exact(prediction, answer):
    return Score(strict=prediction == answer, lenient=prediction is not None and prediction.strip() == answer)


def play(policy, max_turns=3):
    return run_episodes(policy, QUESTIONS, first_turns=prompt, tools=TOOLS, max_turns=max_turns)


def real_policy(base_model):
    def encode(conversation):
        return [1, *[3 + byte for turn in conversation for byte in turn["content"].encode()], 2]

    return TransformersPolicy(base_model, chat=ChatEncoder(encode, (TURN_END,)), max_new_tokens_per_turn=5, batch_size=2)


def test_a_real_model_gives_the_same_files_twice(base_model, tmp_path):
    for name in "ab":
        episodes = play(real_policy(base_model))
        write_report(tmp_path / name, episodes, QUESTIONS, score=exact, counts={})
    for file in ("episodes.jsonl", "metrics.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "a" / "episodes.jsonl").read_text().splitlines()]
    assert [row["question_id"] for row in rows] == ["q0", "q1", "q2"]
    assert {row["n_assistant_turns"] for row in rows} == {3}


def test_right_and_wrong_answers_are_counted_with_intervals(tmp_path):
    policy = Script("Thought: both.\nAction: calculator[1+1]", "Thought: done.\nAction: finish[2 ]")
    metrics = write_report(tmp_path, play(policy), QUESTIONS, score=exact, counts={"generated_tokens": 7})
    assert (metrics["n"], metrics["n_strict"], metrics["n_lenient"]) == (3, 0, 1)
    assert metrics["accuracy_lenient"] == pytest.approx(1 / 3)
    assert metrics["accuracy_lenient_low"] < 1 / 3 < metrics["accuracy_lenient_high"]
    assert (metrics["finished_share"], metrics["mean_turns"], metrics["generated_tokens"]) == (1.0, 2.0, 7)


def test_rates_are_per_turn_and_per_call():
    row = {"strict": False, "lenient": False, "status": "turn_limit", "n_assistant_turns": 4}
    row |= {"n_tool_calls": 2, "n_tool_errors": 1, "n_format_errors": 1, "n_unknown_tools": 1}
    metrics = summarize_rows([row])
    assert (metrics["format_error_rate"], metrics["unknown_tool_rate"], metrics["tool_error_rate"]) == (0.25, 0.25, 0.5)


def test_an_unfinished_episode_has_no_prediction(tmp_path):
    write_report(tmp_path, play(Script("no action")), QUESTIONS, score=exact, counts={})
    rows = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    assert {(row["status"], row["prediction"], row["n_format_errors"]) for row in rows} == {("turn_limit", None, 3)}


def write_lines(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def question_rows(*ids):
    return [{"question_id": i, "split": "test", "question": "?", "answer": "1", "facts": []} for i in ids]


def test_questions_are_sorted_by_id(tmp_path):
    questions = read_questions(write_lines(tmp_path / "q.jsonl", question_rows("b", "a")), task="wordtraps")
    assert [question.question_id for question in questions] == ["a", "b"]


@pytest.mark.parametrize(("ids", "message"), [((), "no questions"), (("a", "a"), "comes twice")])
def test_an_empty_or_doubled_suite_is_an_error(tmp_path, ids, message):
    with pytest.raises(QuestionSetError, match=message):
        read_questions(write_lines(tmp_path / "q.jsonl", question_rows(*ids)), task="wordtraps")


def test_a_question_without_a_prompt_is_an_error(tmp_path):
    path = write_lines(tmp_path / "p.jsonl", [{"question_id": "q0", "turns": []}])
    with pytest.raises(QuestionSetError, match=r"no prompt for 2 questions \(q1, q2\)"):
        read_prompts(path, QUESTIONS)


def test_the_child_publishes_its_result_last(base_model, tmp_path):
    (tmp_path / "passages.json").write_text("[]")
    rows = [{"question_id": q.question_id, "split": q.split, "question": q.question} for q in QUESTIONS]
    answers = [{"answer": q.answer, "facts": []} for q in QUESTIONS]
    config = {
        "out_dir": str(tmp_path / "out"),
        "model_dir": str(base_model),
        "task": {"name": "wordtraps"},
        "passages_path": str(tmp_path / "passages.json"),
        "questions_path": str(write_lines(tmp_path / "q.jsonl", [a | b for a, b in zip(rows, answers, strict=True)])),
        "prompts_path": str(
            write_lines(tmp_path / "p.jsonl", [{"question_id": q.question_id, "turns": prompt(q)} for q in QUESTIONS])
        ),
        "template": "chatml",
        "agent": {"max_turns": 2, "max_new_tokens_per_turn": 5, "batch_size": 2, "threads": 1},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    result_path = tmp_path / "out" / "result.json"
    run_child("negtraj_dagster.reports.evaluate", tmp_path / "config.json", result_path=result_path)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["n"] == 3
    assert json.loads(result_path.read_text())["seconds"] > 0
