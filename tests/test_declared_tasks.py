"""Tasks that settings declare: where their questions come from, which split each is of, and what is right."""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.schema import Question
from negtraj_dagster.settings import Settings, load_settings
from negtraj_dagster.store import Store
from negtraj_dagster.tasks import load_tasks, task_from_job, task_to_job
from negtraj_dagster.tasks.declared import draw_split
from negtraj_dagster.tasks.question_sets import build_question_sets, read_questions
from negtraj_dagster.tasks.scorers import SCORERS, f1_score
from tests.conftest import SAMPLE_DATA

ROWS = [
    {"question": "How many legs has a spider?", "answer": "8"},
    {"question": "How many days has a week?", "answer": "so it is #### 7"},
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def declare(home: Path, text: str) -> Settings:
    (home / "negtraj.toml").write_text(f"[wordtraps]\nenabled = false\n{text}")
    return load_settings()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        frame = pl.DataFrame(rows)
        (frame.write_csv if path.suffix == ".csv" else frame.write_parquet)(path)


def questions_of(settings: Settings, task: str) -> list[Question]:
    store = Store(settings.home)
    published = build_question_sets(store, settings)
    assert published.content.get("broken", {}) == {}
    return read_questions(store, published, task)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_table_and_a_file_are_a_task(home: Path, suffix: str) -> None:
    write_rows(home / f"q{suffix}", [{"id": f"n{n}", "text": f"What is {n} and {n}?", "right": str(2 * n)} for n in range(9)])
    settings = declare(
        home,
        f'[tasks.sums]\nquestions = {{test = "q{suffix}"}}\nscore = "number"\n'
        'columns = {question = "text", answer = "right"}\n',
    )
    questions = questions_of(settings, "sums")
    assert [(each.question_id, each.split, each.answer) for each in questions] == [
        (f"n{n}", "test", str(2 * n)) for n in range(9)
    ]


def test_a_file_of_the_home_declares_a_task_and_its_paths_start_there(home: Path) -> None:
    write_rows(home / "tasks" / "data" / "q.jsonl", ROWS[:1])
    (home / "tasks" / "legs.toml").write_text('questions = {train = "data/q.jsonl"}\nscore = "number"\n')
    (question,) = questions_of(declare(home, ""), "legs")
    assert (question.question, question.answer) == ("How many legs has a spider?", "8")


def test_one_task_is_declared_in_one_place(home: Path) -> None:
    (home / "tasks").mkdir()
    (home / "tasks" / "legs.toml").write_text("")
    with pytest.raises(SettingsError, match=r"legs\.toml: \[tasks\.legs\] of .*negtraj\.toml declares the same task"):
        declare(home, "[tasks.legs]\n")


@pytest.mark.parametrize(
    ("declared", "row", "message"),
    [
        ('score = "nubmer"', ROWS[0], r"tasks\.mine\.score = 'nubmer': expected exact, .*did you mean 'number'"),
        ('questons = "q.jsonl"', ROWS[0], r"unknown key 'tasks\.mine\.questons'; did you mean 'questions'"),
        ("held_out = {test = 1.0}", ROWS[0], "held_out"),
    ],
    ids=["rule", "key", "shares"],
)
def test_a_declaration_that_is_wrong_is_refused_by_key(home: Path, declared: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        declare(home, f"[tasks.mine]\n{declared}\n")


@pytest.mark.parametrize(
    ("score", "row", "message"),
    [
        ("number", {"question": "x", "answer": "many"}, r"q\.jsonl, question 1: answer = 'many', expected a number"),
        ("yes_no", {"question": "x", "answer": "perhaps"}, r"expected yes or no, true or false"),
        ("choice", {"question": "x", "answer": "AB"}, r"expected a letter"),
        ("exact", {"question": "x", "anwser": "y"}, r"answer = None, expected a text.*did you mean 'anwser'"),
        ("exact", {"qestion": "x", "answer": "y"}, r"question = 'None', expected a text.*did you mean 'qestion'"),
        ("exact", {"question": " ", "answer": "y"}, r"its question is empty"),
    ],
    ids=["number", "yes_no", "choice", "answer", "question", "empty"],
)
def test_a_row_that_does_not_fit_breaks_its_task_by_place_and_no_other(
    home: Path, score: str, row: dict[str, Any], message: str
) -> None:
    write_rows(home / "q.jsonl", [row])
    write_rows(home / "good.jsonl", ROWS[:1])
    settings = declare(
        home,
        f'[tasks.mine]\nquestions = {{train = "q.jsonl"}}\nscore = "{score}"\n'
        '[tasks.good]\nquestions = {train = "good.jsonl"}\nscore = "exact"\n',
    )
    published = build_question_sets(Store(settings.home), settings)
    assert re.search(message, published.content["broken"]["mine"])
    assert published.content["tasks"]["good"]["n_train"] == 1


def test_a_missing_file_is_told_by_its_path(home: Path) -> None:
    settings = declare(home, '[tasks.mine]\nquestions = "gone.jsonl"\n')
    broken = build_question_sets(Store(settings.home), settings).content["broken"]["mine"]
    assert f"{home / 'gone.jsonl'}: no such file" in broken


def test_a_group_keeps_its_split_whatever_else_there_is(home: Path) -> None:
    rows = [{"question": f"Fix bug {n}?", "answer": "x", "repo": f"r{n % 40}"} for n in range(400)]
    text = '[tasks.mine]\nquestions = "q.jsonl"\ncolumns = {group = "repo"}\nheld_out = {gate = 0.2, test = 0.3}\n'
    write_rows(home / "q.jsonl", rows[:200])
    first = {each.question: each.split for each in questions_of(declare(home, text), "mine")}
    write_rows(home / "q.jsonl", rows)
    later = {each.question: each.split for each in questions_of(declare(home, text), "mine")}
    assert all(later[question] == split for question, split in first.items())
    by_group = {row["repo"]: {later[other["question"]] for other in rows if other["repo"] == row["repo"]} for row in rows}
    assert all(len(splits) == 1 for splits in by_group.values())
    assert set(later.values()) == {"train", "gate", "test"}


def test_shares_are_drawn_evenly() -> None:
    splits = [draw_split(str(number), {"gate": 0.1, "test": 0.2}) for number in range(20_000)]
    assert abs(splits.count("gate") / 20_000 - 0.1) < 0.01
    assert abs(splits.count("test") / 20_000 - 0.2) < 0.01


def test_a_question_without_an_id_is_named_by_its_text_and_stands_once(home: Path) -> None:
    write_rows(home / "q.jsonl", [*ROWS[:1], *ROWS[:1]])
    (question,) = questions_of(declare(home, '[tasks.mine]\nquestions = {train = "q.jsonl"}\n'), "mine")
    assert len(question.question_id) == 16


RIGHT = {
    "exact": ("Paris", ["Paris"], ["paris.", " PARIS"], ["Paris, France", "", "Pari"]),
    "yes_no": (True, ["yes", "Yes"], ["Most likely yes.", "Yes, since it is."], ["no", "not yes", "", "yes and no"]),
    "number": (1234, ["1234"], ["1,234", "$1234", "1234.0", "It is 1,234 dollars."], ["1235", "1234 or 5", "", "about 1234"]),
    "choice": ("B", ["B", "b", "(B)"], ["B) two", "The answer is B"], ["A", "A or B", "", "Bob"]),
    "f1": ("the Eiffel Tower", ["Eiffel tower", "the eiffel Tower."], ["Tower Eiffel"], ["Eiffel", "", "tower"]),
}


@pytest.mark.parametrize("rule", sorted(RIGHT))
def test_a_rule_is_strict_and_lenient_where_it_says(rule: str) -> None:
    right, strict, lenient, wrong = RIGHT[rule]
    scorer = SCORERS[rule]
    answer = scorer.read(right)
    found = {text: scorer.score(text, answer) for text in (*strict, *lenient, *wrong)}
    assert [text for text in found if found[text].strict] == strict
    assert [text for text in found if found[text].lenient] == [*strict, *lenient]


def test_overlap_is_counted_as_published() -> None:
    assert f1_score("the red house", "a red house") == 1.0
    assert f1_score("red", "red house") == pytest.approx(2 / 3)
    assert f1_score("yes", "yes it is") == 0.0
    assert f1_score("yes", "Yes.") == 1.0


def test_several_right_answers_are_all_right() -> None:
    answer = SCORERS["exact"].read(["UK", "United Kingdom"])
    assert SCORERS["exact"].score("United Kingdom", answer).strict


def test_a_child_has_the_same_task(home: Path) -> None:
    write_rows(home / "q.jsonl", ROWS[:1])
    settings = declare(home, '[tasks.mine]\nquestions = {train = "q.jsonl"}\nscore = "number"\ntools = ["calculator"]\n')
    task = load_tasks(settings)["mine"]
    same = task_from_job(json.loads(json.dumps(task_to_job(task))))
    assert (same.name, same.version, same.tools, same.score("8", "8")) == (
        "mine",
        task.version,
        ("calculator",),
        task.score("8", "8"),
    )


MODULE = """
from negtraj_dagster.schema import Question
from negtraj_dagster.tasks import Score, Task


class Shout(Task):
    name = "shout"

    def fingerprint(self, settings):
        return {"n": 1}

    def questions(self, settings):
        return [Question("shout", "q", "train", "Shout!", '"HEY"')]

    def score(self, prediction, answer):
        return Score(prediction == "HEY", (prediction or "").upper() == "HEY")
"""


def test_a_task_of_a_users_file_is_another_version_when_the_file_changes(home: Path) -> None:
    (home / "shout.py").write_text(MODULE)
    (home / "negtraj.toml").write_text('task_modules = ["shout.py"]\n[wordtraps]\nenabled = false\n')
    settings = load_settings()
    task = load_tasks(settings)["shout"]
    assert questions_of(settings, "shout")[0].question == "Shout!"
    assert task_from_job(task_to_job(task)).score("hey", "").lenient
    (home / "shout.py").write_text(MODULE + "# louder\n")
    changed = load_tasks(settings)["shout"]
    assert changed.version != task.version
    assert changed.fingerprint(settings) != task.fingerprint(settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = 1\n", "has no class that is a negtraj_dagster.tasks.Task"), ("x = \n", "does not load"), (None, "no such file")],
    ids=["empty", "syntax", "missing"],
)
def test_a_users_file_that_is_no_task_is_refused_by_name(home: Path, text: str | None, message: str) -> None:
    if text is not None:
        (home / "shout.py").write_text(text)
    (home / "negtraj.toml").write_text('task_modules = ["shout.py"]\n')
    with pytest.raises(SettingsError, match=rf"shout\.py: {message}"):
        load_tasks(load_settings())


SHIPPED = {
    "gsm8k": ('{train = "gsm8k/train.jsonl", test = "gsm8k/test.jsonl"}', {"train": 7473, "test": 1319}),
    "asdiv": ('{test = "nat/ASDiv/test_one_answer.jsonl"}', {"test": 2023}),
    "multiarith": ('{test = "nat/MultiArith/test.jsonl"}', {"test": 596}),
    "hotpotqa": (
        '{train = "nat/hotpotqa/train_random_8000.json", test = "nat/hotpotqa/dev_random_500.json"}',
        {"train": 8000, "test": 500},
    ),
}


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_shipped_tasks_read_the_real_question_files(home: Path, name: str) -> None:
    if not SAMPLE_DATA.is_dir():
        pytest.skip("the real question files are not at hand")
    files, counts = SHIPPED[name]
    for folder in ("gsm8k", "nat"):
        (home / folder).symlink_to(SAMPLE_DATA / folder)
    questions = questions_of(declare(home, f"[tasks.{name}]\nquestions = {files}\n"), name)
    assert {split: sum(each.split == split for each in questions) for split in counts} == counts
    task = load_tasks(load_settings())[name]
    assert all(task.score(str(json.loads(each.answer)), each.answer).strict for each in questions)


def test_svamp_asks_its_body_and_its_question(home: Path) -> None:
    row = {"ID": "c-1", "Body": "A pack costs 76 dollars.", "Question": "What do two cost?", "Answer": 152.0}
    write_rows(home / "s.json", [row])
    (question,) = questions_of(declare(home, '[tasks.svamp]\nquestions = {test = "s.json"}\n'), "svamp")
    assert question.question_id == "c-1"
    assert question.question == "A pack costs 76 dollars. What do two cost?"
    assert question.answer == "152"
