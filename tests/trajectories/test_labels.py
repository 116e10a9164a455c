"""Whose word on an outcome counts, and that a changed word touches the rows it is about."""

import json
from typing import Any

import polars as pl
import pytest

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.launch import run_child
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.settings import LabelSettings, Settings, WordtrapsSettings
from negtraj_dagster.store import Published, Store
from negtraj_dagster.tasks import EMBEDDED
from negtraj_dagster.tasks.strategyqa import StrategyQa

N_ROWS = 6
ANSWERS = ("Yes", "No", "Most likely yes", "Uncertain", "yes", "It is no.")
REWARDS = (True, False, False, None, None, None)


@pytest.fixture
def deployment(settings: Settings) -> Settings:
    """Six rollouts, each of a question of its own whose answer is yes; three came without a reward."""
    nat = settings.home / "nat"
    (nat / "strategyqa").mkdir(parents=True)
    (nat / "strategyqa" / "none_positive.json").write_text("[]")
    questions = [{"id": f"q{n}", "question": f"Is number {n} one of the first ten?", "answer": True} for n in range(N_ROWS)]
    (nat / "strategyqa" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    (nat / "strategyqa" / "test_random_500.jsonl").write_text("")
    folder = settings.home / "landing" / "strategyqa" / "negtraj"
    folder.mkdir(parents=True)
    with (folder / "a.jsonl").open("w") as file:
        for number, (said, reward) in enumerate(zip(ANSWERS, REWARDS, strict=True)):
            messages = [
                {"role": "assistant", "content": f"Thought: look number {number} up.\nAction: search[number {number}]"},
                {"role": "user", "content": f"Observation: it is the {number}th"},
                {"role": "assistant", "content": f"Thought: done with {number}.\nAction: finish[{said}]"},
            ]
            row: dict[str, Any] = {"question_id": f"q{number}", "messages": messages}
            file.write(json.dumps(row | ({} if reward is None else {"reward": reward})) + "\n")
    return settings.model_copy(update={"nat_dir": nat, "wordtraps": WordtrapsSettings(enabled=False)})


def score(store: Store, settings: Settings) -> Published:
    lineage = Lineage(store, settings, run_child)
    lineage.question_sets()
    lineage.raw_rollouts()
    return lineage.scored_trajectories()


def labels(scored: Published) -> pl.DataFrame:
    """In order of arrival."""
    return pl.read_parquet(scored.folder / "labels.parquet")


def with_scorers(settings: Settings, *scorers: Any) -> Settings:
    return settings.model_copy(update={"labels": LabelSettings(scorers=scorers)})


def n_judged(scored: Published) -> int:
    return max(n for name, n in scored.work.items() if name.startswith("judged_"))


def test_every_scorer_is_told_and_the_recorded_reward_decides(store: Store, deployment: Settings) -> None:
    found = labels(score(store, deployment))
    assert found["label"].to_list() == ["positive", "negative", "negative", "unknown", "unknown", "unknown"]
    assert found["scorer"].to_list() == ["recorded"] * 3 + ["none"] * 3
    assert found["task_strict"].to_list() == [True, False, False, False, True, False]
    assert found["task_lenient"].to_list() == [True, False, True, False, True, False]
    assert found["is_valid_answer"].to_list() == [True, True, False, False, True, False]
    assert found["answer"].to_list() == list(ANSWERS)


def test_the_first_scorer_that_knows_decides_and_its_version_is_told(store: Store, deployment: Settings) -> None:
    found = labels(score(store, with_scorers(deployment, "recorded", "task_lenient")))
    assert found["label"].to_list() == ["positive", "negative", "negative", "negative", "positive", "negative"]
    assert found["scorer"].to_list() == ["recorded"] * 3 + ["task_lenient"] * 3
    assert found["scorer_version"].to_list() == ["1"] * 3 + [str(EMBEDDED["strategyqa"].version)] * 3


def test_another_scorer_touches_only_the_rows_whose_class_flips(store: Store, deployment: Settings) -> None:
    score(store, deployment)
    scored = score(store, with_scorers(deployment, "task_lenient"))
    assert n_judged(scored) == 4  # three were unknown, one failure is right
    assert scored.work["conversations_read"] == 4


def test_a_new_version_of_a_scorer_touches_only_the_rows_it_judges_otherwise(
    store: Store, deployment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(store, deployment)
    monkeypatch.setattr(StrategyQa, "version", 99)
    same = score(store, deployment)
    assert (n_judged(same), same.reused) == (0, False)
    monkeypatch.setattr(StrategyQa, "version", 100)
    monkeypatch.setattr(StrategyQa, "is_valid_answer", lambda self, prediction: prediction != "Uncertain")
    assert n_judged(score(store, deployment)) == 2


def test_a_late_reward_touches_its_row_alone(store: Store, deployment: Settings) -> None:
    score(store, deployment)
    file = deployment.landing / "strategyqa" / "negtraj" / "a.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[3]["reward"] = False
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = score(store, deployment)
    assert (n_judged(scored), labels(scored)["label"][3]) == (1, "negative")


def override(settings: Settings, *lines: str) -> None:
    (settings.home / "overrides.csv").write_text("key,field,value,by,why\n" + "".join(f"{line}\n" for line in lines))


def test_a_person_wins_over_every_scorer_and_is_named(store: Store, deployment: Settings) -> None:
    keys = labels(score(store, deployment))["rollout_key"]
    override(deployment, f"{keys[2][:12]},label,positive,ann,it says most likely yes")
    scored = score(store, deployment)
    found = labels(scored).row(2, named=True)
    assert [found[name] for name in ("label", "scorer", "by", "why")] == [
        "positive",
        "override",
        "ann",
        "it says most likely yes",
    ]
    assert n_judged(scored) == 1
    override(deployment)
    assert labels(score(store, deployment))["label"][2] == "negative"


def test_a_person_can_drop_a_rollout_and_keep_one_against_a_filter(store: Store, deployment: Settings) -> None:
    keys = labels(score(store, deployment))["rollout_key"]
    lineage = Lineage(store, deployment, run_child)
    before = lineage.trajectory_corpus("strategyqa")
    override(deployment, f"{keys[0]},drop,yes,bo,copied from a forum", f"{keys[2]},keep,label_mismatch,bo,a near miss")
    scored = score(store, deployment)
    assert n_judged(scored) == 0
    corpus = Lineage(store, deployment, run_child).trajectory_corpus("strategyqa")
    verdicts = pl.read_parquet(corpus.folder / "verdicts.parquet")
    mine = {(row["rollout_key"], row["filter"]): row for row in verdicts.iter_rows(named=True)}
    assert mine[keys[0], "override"]["detail"] == "by bo: copied from a forum"
    assert mine[keys[2], "label_mismatch"]["severity"] == "overruled"
    assert mine[keys[2], "label_mismatch"]["detail"].endswith("overruled by bo: a near miss")
    left = [each.details["profiles"]["strict"]["funnel"][-1] for each in (before, corpus)]
    assert [(row["left_positive"], row["left_negative"]) for row in left] == [(1, 1), (0, 2)]


BAD = {
    "columns": ("key,field\n", "line 1: found the columns key, field; expected key,field,value,by,why"),
    "cells": ("key,field,value,by,why\n{key},label,positive,ann\n", "line 2: 4 cells, expected 5"),
    "key": ("key,field,value,by,why\nxyz,label,positive,ann,x\n", "line 2: key = 'xyz', expected at least the first 12 digits"),
    "field": ("key,field,value,by,why\n{key},labl,positive,ann,x\n", "line 2: field = 'labl'; did you mean 'label'"),
    "value": (
        "key,field,value,by,why\n{key},label,good,ann,x\n",
        "line 2: label = 'good', expected positive, negative or unknown",
    ),
    "by": ("key,field,value,by,why\n{key},label,positive,,x\n", "line 2: by is empty"),
    "twice": (
        "key,field,value,by,why\n{key},label,positive,ann,x\n{key},label,negative,bo,y\n",
        "line 3: sets label to 'negative', .*line 2 to 'positive'",
    ),
    "quote": ('key,field,value,by,why\n{key},label,"positive,ann,x\n', "line 2: not CSV"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_line_of_overrides_is_refused_with_its_number(store: Store, deployment: Settings, name: str) -> None:
    text, message = BAD[name]
    key = labels(score(store, deployment))["rollout_key"][0]
    (deployment.home / "overrides.csv").write_text(text.replace("{key}", key))
    with pytest.raises(SettingsError, match=message):
        score(store, deployment)


def test_a_line_that_fits_no_rollout_is_told_and_stops_nothing(store: Store, deployment: Settings) -> None:
    override(deployment, "0123456789ab,label,positive,ann,x")
    assert "line 2: no rollout 0123456789ab" in score(store, deployment).details["unmatched"][0]


def judge(settings: Settings, *lines: str) -> None:
    (settings.home / "judgements.csv").write_text("key,judge,score,note\n" + "".join(f"{line}\n" for line in lines))


def test_a_judges_scores_are_read_from_a_table_and_touch_their_rows(store: Store, deployment: Settings) -> None:
    keys = labels(score(store, deployment))["rollout_key"]
    judge(deployment, f"{keys[1]},model-a,0.25,no evidence", f"{keys[0]},model-a,0.9,")
    scored = score(store, deployment)
    assert n_judged(scored) == 2
    verdicts = pl.read_parquet(scored.folder / "verdicts.parquet").filter(pl.col("filter") == "low_judgement")
    assert verdicts.select("rollout_key", "detail").rows() == [(keys[1], "model-a: 0.25, no evidence")]


@pytest.mark.parametrize("value", ["1.5", "high", "nan", ""])
def test_a_judges_score_outside_of_its_range_is_refused(store: Store, deployment: Settings, value: str) -> None:
    key = labels(score(store, deployment))["rollout_key"][0]
    judge(deployment, f"{key},m,{value},")
    with pytest.raises(SettingsError, match=r"line 2: score = .*expected a number from 0 to 1"):
        score(store, deployment)


def test_a_rollout_that_a_judge_scores_twice_is_refused(store: Store, deployment: Settings) -> None:
    key = labels(score(store, deployment))["rollout_key"][0]
    judge(deployment, f"{key},m,0.1,", f"{key},m,0.2,")
    with pytest.raises(SettingsError, match=r"judge 'm' scores rollout .* twice"):
        score(store, deployment)
