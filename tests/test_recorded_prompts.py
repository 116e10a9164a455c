"""A task whose questions are the prompts that rollouts bring: from landed chats to token rows, nothing dropped as unknown."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from negtraj_dagster.graph import keys_in_order
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.schema import Question
from negtraj_dagster.settings import load_settings
from negtraj_dagster.store import Published, Store
from negtraj_dagster.strategies import STRATEGIES
from negtraj_dagster.tasks.question_sets import read_questions
from tests.support import deployment as dep

SETTINGS = """
[wordtraps]
enabled = false
[base_models.tiny]
folder = "{folder}/model"
[tasks.repairs]
kind = "recorded"
score = "recorded"
held_out = {{gate = 0.1, test = 0.2}}
"""
RECIPE = """
description = "repairs"
task = "repairs"
line = "tiny"
role = "candidate"
base_model = "tiny"
[selection]
profile = "paper"
[strategy]
name = "nat"
[shards]
max_tokens = 2048
[training]
steps = 2
batch_size = 4
"""
N_GROUPS = 60
WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet", "jasper", "krill", "lilac")


def chat(group: int, sample: int, **more: Any) -> dict[str, Any]:
    asked = " ".join(WORDS[(group * 7 + n * (group % 5 + 1)) % len(WORDS)] for n in range(6))
    return {
        "messages": [
            {"role": "system", "content": "You repair gardens."},
            {"role": "user", "content": f"Repair number {group}: {asked}."},
            {"role": "assistant", "content": f"Thought: case {group}, {sample}.\nAction: finish[{group}-{sample}]"},
        ],
        "instance_id": f"garden-{group}",
        "source": f"sample-{sample}",
        "resolved": (group + sample) % 2 == 0,
        **more,
    }


@pytest.fixture
def root(base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "model").symlink_to(base_model)
    (tmp_path / "negtraj.toml").write_text(SETTINGS.format(folder=tmp_path))
    (tmp_path / "recipes" / "repairs.toml").write_text(RECIPE)
    for name, value in dep.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NEGTRAJ_NAT_DIR")
    land(tmp_path, "a.jsonl", [chat(group, sample) for group in range(N_GROUPS) for sample in range(2)])
    return tmp_path


def land(root: Path, name: str, rows: list[dict[str, Any]]) -> None:
    folder = root / "home" / "landing" / "repairs" / "openai"
    folder.mkdir(parents=True, exist_ok=True)
    dep.write_lines(folder / name, rows)


def build(root: Path, last: str) -> dict[str, Published]:
    settings = load_settings()
    lineage = Lineage(Store(settings.home), settings, dep.counting_child)
    recipes = [recipe for recipe in lineage.recipes.values() if recipe.name == "repairs"]
    assets = keys_in_order(recipes)
    return {asset: lineage.build(asset) for asset in assets[: assets.index(last) + 1]}


def questions(root: Path, published: dict[str, Published]) -> list[Question]:
    return read_questions(Store(root / "home"), published["question_sets"], "repairs")


def test_every_prompt_is_a_question_and_a_group_is_never_torn_apart(root: Path) -> None:
    published = build(root, "question_sets")
    asked = questions(root, published)
    assert len(asked) == N_GROUPS
    assert {question.split for question in asked} == {"train", "gate", "test"}
    assert json.loads(asked[0].prompt or "")[0] == {"role": "system", "content": "You repair gardens."}
    assert all(question.question.startswith("Repair number") for question in asked)
    splits = {question.question: question.split for question in asked}
    land(root, "b.jsonl", [chat(group, 2) for group in range(N_GROUPS, 2 * N_GROUPS)])
    later = {question.question: question.split for question in questions(root, build(root, "question_sets"))}
    assert len(later) == 2 * N_GROUPS
    assert {question: later[question] for question in splits} == splits


def test_two_prompts_of_one_group_are_in_one_split(root: Path) -> None:
    other = [chat(group, 5) for group in range(N_GROUPS)]
    for row in other:
        row["messages"][1]["content"] = "Once more, differently: " + row["messages"][1]["content"]
    land(root, "b.jsonl", other)
    by_group: dict[str, set[str]] = {}
    for question in questions(root, build(root, "question_sets")):
        by_group.setdefault(question.question.split("number ")[1].split(":")[0], set()).add(question.split)
    assert len(by_group) == N_GROUPS
    assert {len(splits) for splits in by_group.values()} == {1}


def test_no_rollout_is_unknown_held_out_prompts_never_pass_and_a_prompt_is_trained_as_it_was_sent(root: Path) -> None:
    published = build(root, "repairs/tokenized_shards")
    selection = pl.read_parquet(published["repairs/training_selection"].folder / "selection.parquet", glob=False)
    split_of = {question.question_id: question.split for question in questions(root, published)}
    selected = selection.filter("selected")
    assert selected.height > N_GROUPS
    assert {split_of[question_id] for question_id in selected["question_id"]} == {"train"}
    reasons = set(selection.filter(~pl.col("selected"))["why_not"])
    assert not any("unknown_question" in reason for reason in reasons), reasons
    assert published["repairs/tokenized_shards"].content["n_rows"] == selected.height
    question = questions(root, published)[0]
    nat = STRATEGIES["nat"]
    turns = nat.condition(nat.prompter("never said"), question, [{"role": "assistant", "content": "a"}], "negative")
    assert [turn["content"] for turn in turns[:2]] == [
        "You repair gardens.",
        f"{question.question} Solve the question incorrectly.",
    ]
    assert [turn["weight"] for turn in turns] == [0.0, 0.0, 1.0]
    assert nat.inference_turns(nat.prompter(""), question)[1]["content"] == f"{question.question} Solve the question correctly."


def test_a_second_run_computes_nothing_and_a_new_file_costs_its_own_rows_only(root: Path) -> None:
    build(root, "repairs/tokenized_shards")
    again = build(root, "repairs/tokenized_shards")
    assert [asset for asset, each in again.items() if not each.reused] == []
    land(root, "b.jsonl", [chat(N_GROUPS + 1, 0), chat(N_GROUPS + 2, 0)])
    more = build(root, "repairs/tokenized_shards")
    assert more["raw_rollouts"].work["records_read"] == 2
    assert more["scored_trajectories"].work["conversations_read"] == 2
    assert more["repairs/tokenized_shards"].work["rows_conditioned"] <= 2


def test_a_record_that_asks_nothing_is_quarantined_with_the_reason(root: Path) -> None:
    row = chat(1, 1)
    row["messages"] = row["messages"][2:]
    land(root, "b.jsonl", [row])
    raw = build(root, "raw_rollouts")["raw_rollouts"]
    (entry,) = [json.loads(line) for line in (raw.folder / "quarantine.jsonl").read_text().splitlines()]
    assert "this task's questions are the recorded prompts" in entry["reason"]


def test_what_is_right_comes_from_the_rollouts_where_a_rule_compares_it(root: Path) -> None:
    text = (root / "negtraj.toml").read_text().replace('score = "recorded"', 'score = "exact"\nmin_score = 0.5')
    (root / "negtraj.toml").write_text(text)
    rows = [chat(group, 3, gold=f"{group}-3", score=group / N_GROUPS) for group in range(N_GROUPS)]
    for row in rows:
        del row["resolved"]
    land(root, "a.jsonl", rows)
    published = build(root, "scored_trajectories")
    answers = {question.question.split()[2][:-1]: question.answer for question in questions(root, published)}
    assert answers["7"] == '"7-3"'
    labels = pl.read_parquet(published["scored_trajectories"].folder / "labels.parquet", glob=False)
    counts = dict(labels["label"].value_counts().rows())
    assert counts == {"positive": N_GROUPS // 2, "negative": N_GROUPS // 2}
    assert labels["task_strict"].all()


def test_a_report_says_that_recorded_outcomes_cannot_be_judged_here(root: Path) -> None:
    published = build(root, "repairs/evaluation_report")
    assert not published["repairs/checkpoint"].is_empty
    report = published["repairs/evaluation_report"]
    assert report.is_empty
    assert "outcomes of repairs are recorded by the system that ran the agent" in report.content["reason"]
