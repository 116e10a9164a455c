"""The evaluator: a tiny model really plays, and what it answers is written as it comes."""

import json
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster.errors import QuestionSetError
from negtraj_dagster.launch import run_child
from negtraj_dagster.reports import evaluate
from negtraj_dagster.reports.evaluate import read_jobs
from negtraj_dagster.store import read_json_lines


def write_jobs(path: Path, *names: str) -> Path:
    jobs: list[dict[str, Any]] = [
        {
            "answer_key": f"key {name}",
            "question_id": name,
            "trial": 0,
            "turns": [{"role": "user", "content": f"What is {name}?"}],
        }
        for name in names
    ]
    path.write_text("".join(f"{json.dumps(job)}\n" for job in jobs))
    return path


def test_questions_are_sorted_by_id(tmp_path: Path) -> None:
    assert [job["question_id"] for job in read_jobs(write_jobs(tmp_path / "q.jsonl", "b", "a"))] == ["a", "b"]


@pytest.mark.parametrize(("names", "message"), [((), "no questions"), (("a", "a"), "comes twice")])
def test_an_empty_or_doubled_suite_is_an_error(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(QuestionSetError, match=message):
        read_jobs(write_jobs(tmp_path / "q.jsonl", *names))


def write_config(folder: Path, base_model: Path, *names: str) -> Path:
    (folder / "passages.json").write_text("[]")
    (folder / "out").mkdir()
    config = {
        "out_dir": str(folder / "out"),
        "model_dir": str(base_model),
        "model_version": "v",
        "task": {"name": "wordtraps"},
        "passages_path": str(folder / "passages.json"),
        "questions_path": str(write_jobs(folder / "q.jsonl", *names)),
        "template": "chatml",
        "agent": {
            "max_turns": 2,
            "max_new_tokens_per_turn": 5,
            "batch_size": 2,
            "threads": 1,
            "temperature": 0.0,
            "dtype": "fp32",
            "client": "model",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"


def test_the_child_writes_an_answer_to_each_question_and_its_result_last(base_model: Path, tmp_path: Path) -> None:
    result_path = tmp_path / "out" / "result.json"
    config = write_config(tmp_path, base_model, "q0", "q1", "q2")
    run_child("negtraj_dagster.reports.evaluate", config, result_path=result_path)
    rows = read_json_lines(tmp_path / "out" / "answers-00000.jsonl")
    assert [(row["answer_key"], row["question_id"], row["trial"]) for row in rows] == [
        ("key q0", "q0", 0),
        ("key q1", "q1", 0),
        ("key q2", "q2", 0),
    ]
    assert {row["n_assistant_turns"] for row in rows} == {2}
    assert json.loads(result_path.read_text())["seconds"] > 0


def test_chunks_hold_the_answers_of_one_whole(base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"q{n}" for n in range(5)]
    for folder, n_chunk in ((tmp_path / "whole", 256), (tmp_path / "parts", 2)):
        folder.mkdir()
        monkeypatch.setattr(evaluate, "CHUNK", n_chunk)
        evaluate.main(write_config(folder, base_model, *names))
    parts = sorted((tmp_path / "parts" / "out").glob("answers-*.jsonl"))
    assert len(parts) == 3
    assert "".join(part.read_text() for part in parts) == (tmp_path / "whole" / "out" / "answers-00000.jsonl").read_text()
