"""The tasks' rules against outcomes that others recorded: NAT's StrategyQA rollouts, FireAct's HotpotQA rollouts."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.store import Store
from negtraj_dagster.tasks import EMBEDDED
from negtraj_dagster.tasks.scorers import SCORERS
from tests.conftest import SAMPLE_DATA
from tests.support.sql_homes import lineage_of

STRATEGYQA = EMBEDDED["strategyqa"]
HOTPOTQA = SCORERS["f1"]
WRONG_LABELS = {  # question id, temperature: whether the answer is right strictly, too
    ("5a83f0148ac78b495f2f", "0.7"): True,  # the recorder's parser kept the text behind `finish[No]`
    ("64f18d020f552f7dd4ec", "0.2"): True,  # the same behind `finish[Yes]`
    ("7162ff9d73e524fef983", "0.7"): False,  # hedged
    ("7840c862ca1d7455284d", "0.2"): False,  # the last word of sentences
    ("e7327e171bd965f6a3cf", "0.2"): False,  # hedged, at the end
}
"""Recorded as failures, though the answer is right."""


def test_the_strict_rule_gives_every_recorded_prediction_its_recorded_outcome(nat_dir: Path) -> None:
    counts = {}
    for label in ("positive", "negative"):
        records = json.loads((nat_dir / "strategyqa" / f"strategyqa_gpt-3.5_{label}.json").read_text())
        outcomes = [record["info"] for record in records]
        otherwise = [
            outcome
            for outcome in outcomes
            if STRATEGYQA.score(outcome.get("pred"), json.dumps(outcome["gt"])).strict is not outcome["reward"]
        ]
        counts[label] = (len(outcomes), otherwise)
    assert counts == {"positive": (1070, []), "negative": (1263, [])}


def test_five_recorded_failures_answer_rightly_in_the_rollouts_own_words(
    nat_dir: Path, store: Store, settings: Settings
) -> None:
    settings = settings.model_copy(update={"nat_dir": nat_dir, "wordtraps": WordtrapsSettings(enabled=False)})
    lineage = lineage_of(store, settings)
    lineage.question_sets()
    rollouts = pl.read_parquet(lineage.raw_rollouts().folder / "rollouts.parquet")
    labels = pl.read_parquet(lineage.scored_trajectories().folder / "labels.parquet").filter(~pl.col("recorded"))
    failures = labels.join(rollouts, on="rollout_key", validate="1:1")
    right = failures.filter(pl.col("task_strict").fill_null(False) | pl.col("task_lenient").fill_null(False))
    assert {row[:2]: row[2] for row in right.select("question_id", "source", "task_strict").rows()} == WRONG_LABELS
    assert failures.height == 1263


def fireact_records() -> list[dict[str, Any]]:
    paths = sorted((SAMPLE_DATA / "fireact" / "trajs").glob("*.json"))
    if not paths:
        pytest.skip("the real FireAct files are not at hand")
    return [record for path in paths for record in json.loads(path.read_text()).values()]


def test_em_and_f1_of_fireacts_rollouts_are_the_recorded_ones() -> None:
    records = fireact_records()
    otherwise = []
    for record in records:
        score = HOTPOTQA.score(record["pred"] or "", HOTPOTQA.read(record["gt"]))
        if (score.strict, score.f1) != (record["em"], record["f1"]):
            otherwise.append((record["pred"], record["gt"], score))
    assert otherwise == []
    assert len(records) == 964
    assert sum(record["em"] for record in records) == 372
    assert 0 < sum(0 < record["f1"] < 1 for record in records) < 964
