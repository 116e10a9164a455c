"""The evaluator: a tiny model really plays, and what it answers is written as it comes."""

import json
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster.errors import QuestionSetError
from negtraj_dagster.launch import run_child
from negtraj_dagster.recipes import ServerSettings
from negtraj_dagster.reports import evaluate
from negtraj_dagster.reports.evaluate import read_jobs
from negtraj_dagster.store import read_json_lines
from tests.support.chat_server import chat_server, completion


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


def write_config(folder: Path, base_model: Path, *names: str, task: Any = None, template: str = "chatml", **agent: Any) -> Path:
    (folder / "passages.json").write_text("[]")
    (folder / "out").mkdir()
    config = {
        "out_dir": str(folder / "out"),
        "model_dir": str(base_model),
        "model_version": "v",
        "task": task or {"name": "wordtraps"},
        "passages_path": str(folder / "passages.json"),
        "questions_path": str(write_jobs(folder / "q.jsonl", *names)),
        "template": template,
        "agent": {
            "max_turns": 2,
            "max_new_tokens_per_turn": 5,
            "batch_size": 2,
            "threads": 1,
            "temperature": 0.0,
            "dtype": "fp32",
            "client": "model",
            **agent,
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


NATIVE = {"name": "sums", "declared": {"style": "native", "tools": ["calculator"], "score": "number"}}


def test_a_native_agents_turns_are_read_as_its_template_writes_them(base_model: Path, tmp_path: Path) -> None:
    evaluate.main(write_config(tmp_path, base_model, "q0", task=NATIVE, template="qwen3"))
    (row,) = read_json_lines(tmp_path / "out" / "answers-00000.jsonl")
    # five tokens of a model that was never trained: no message that ends, and the agent is told so
    assert row["stops"] == ["length"] * 2
    assert row["n_format_errors"] == 2
    assert row["turns"][2]["content"].startswith("Error: the message was cut before its end")


def test_a_server_writes_the_turns_where_the_recipe_says_so(base_model: Path, tmp_path: Path) -> None:
    with chat_server(lambda body, number: completion(f"Action: finish[{body['messages'][-1]['content'][-2]}]")) as server:
        settings = ServerSettings(base_url=server.url, model="arm-0123").model_dump(mode="json")
        evaluate.main(write_config(tmp_path, base_model, "1", "2", client="url", server=settings))
    rows = read_json_lines(tmp_path / "out" / "answers-00000.jsonl")
    assert [row["prediction"] for row in rows] == ["1", "2"]
    assert {(body["model"], body["temperature"], "tools" in body) for body in server.requests} == {("arm-0123", 0.0, False)}
    assert server.paths[0] == "/v1/chat/completions"


def test_trials_differ_and_stay_the_same_whatever_is_played_beside_them(base_model: Path, tmp_path: Path) -> None:
    def turns(folder: Path, *trials: int) -> dict[int, str]:
        folder.mkdir()
        config = write_config(folder, base_model, temperature=1.0, max_new_tokens_per_turn=12)
        asked = [{"role": "user", "content": "How many?"}]
        jobs = [{"answer_key": f"k{trial}", "question_id": "q", "trial": trial, "turns": asked} for trial in trials]
        (folder / "q.jsonl").write_text("".join(f"{json.dumps(job)}\n" for job in jobs))
        evaluate.main(config)
        return {row["trial"]: row["turns"][1]["content"] for row in read_json_lines(folder / "out" / "answers-00000.jsonl")}

    together = turns(tmp_path / "together", 0, 1, 2)
    assert len(set(together.values())) == 3
    assert turns(tmp_path / "alone", 2) == {2: together[2]}


def test_chunks_hold_the_answers_of_one_whole(base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"q{n}" for n in range(5)]
    for folder, n_chunk in ((tmp_path / "whole", 256), (tmp_path / "parts", 2)):
        folder.mkdir()
        monkeypatch.setattr(evaluate, "CHUNK", n_chunk)
        evaluate.main(write_config(folder, base_model, *names))
    parts = sorted((tmp_path / "parts" / "out").glob("answers-*.jsonl"))
    assert len(parts) == 3
    assert "".join(part.read_text() for part in parts) == (tmp_path / "whole" / "out" / "answers-00000.jsonl").read_text()
