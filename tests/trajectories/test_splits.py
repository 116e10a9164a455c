"""However the same arrivals are split into nights, verdicts, qualities and choices are those of a run from nothing."""

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from negtraj_dagster import sql
from negtraj_dagster.launch import run_child
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.store import Published, Store
from negtraj_dagster.trajectories.select import ClassLimit, SelectionRule, select_rollouts

TABLES = ("corpus", "verdicts", "qualities", "pairs", "scores")


@pytest.fixture
def rollouts(nat_dir: Path) -> list[dict[str, Any]]:
    """The real StrategyQA rollouts as records of our own format, successes and failures mixed by a fixed seed."""
    records = []
    for name, reward in (("positive", True), ("negative", False)):
        for row in json.loads((nat_dir / "strategyqa" / f"strategyqa_gpt-3.5_{name}.json").read_text()):
            messages = [{"role": turn["role"], "content": turn["content"]} for turn in row["conversations"]]
            source = f"{name}-{row['source']}"
            records.append({"question_id": row["id"], "source": source, "messages": messages, "reward": reward})
    random.Random(7).shuffle(records)
    return records


def deployment(home: Path, nat_dir: Path) -> Settings:
    """The question files, and no rollouts."""
    mine = home / "nat" / "strategyqa"
    mine.mkdir(parents=True)
    (mine / "none_positive.json").write_text("[]")
    for name in ("train.jsonl", "test_random_500.jsonl"):
        (mine / name).write_bytes((nat_dir / "strategyqa" / name).read_bytes())
    (home / "landing" / "strategyqa" / "negtraj").mkdir(parents=True)
    return Settings(home=home, nat_dir=home / "nat", wordtraps=WordtrapsSettings(enabled=False))


def land(settings: Settings, number: int, rows: list[dict[str, Any]]) -> None:
    path = settings.landing / "strategyqa" / "negtraj" / f"night-{number:03}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def build(settings: Settings) -> tuple[Published, list[str]]:
    """The corpus, and what a recipe with rates and limits chooses of it."""
    store = Store(settings.home)
    lineage = Lineage(store, settings, run_child)
    for asset in ("question_sets", "raw_rollouts", "scored_trajectories"):
        lineage.build(asset)
    corpus = lineage.trajectory_corpus("strategyqa")
    registry = lineage.scoring.registry
    rule = SelectionRule(
        recipe="mine",
        profile=sql.find_profile(registry, "strict"),
        choice=registry.one("selection", "choice"),
        classes=("positive", "negative"),
        limits={"positive": ClassLimit(max_per_question=2), "negative": ClassLimit(rate=0.6, max_per_question=1)},
        min_quality=0.0,
        allow_contaminated=False,
    )
    selection = select_rollouts(store, corpus, store.require("question_sets"), rule, "strategyqa")
    chosen = pl.read_parquet(selection.folder / "selection.parquet").filter("selected")
    return corpus, chosen["rollout_key"].to_list()


def check_splits(tmp_path: Path, nat_dir: Path, rows: list[dict[str, Any]], *, n_splits: int, max_nights: int) -> None:
    whole = deployment(tmp_path / "whole", nat_dir)
    land(whole, 0, rows)
    expected, chosen = build(whole)
    rng = random.Random(n_splits)
    n_kept = n_old = 0
    for split in range(n_splits):
        settings = deployment(tmp_path / f"split-{split}", nat_dir)
        cuts = sorted(rng.sample(range(1, len(rows)), rng.randint(1, max_nights - 1)))
        before: list[str] = []
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(rows)], strict=True)):
            land(settings, number, rows[start:end])
            corpus, mine = build(settings)
            n_old, n_kept = n_old + len(before), n_kept + len({*before} & {*mine})
            before = mine
        for name in TABLES:
            told, wanted = (pl.read_parquet(each.folder / f"{name}.parquet") for each in (corpus, expected))
            assert told.equals(wanted), f"{name} after nights of {cuts}"
        assert corpus.version == expected.version
        assert mine == chosen
    print(
        f"{n_splits} splits of {len(rows)} rollouts into up to {max_nights} nights: all equal a run from nothing; {n_kept} of "
        f"{n_old} old choices kept"
    )
    assert n_kept == n_old > 0


def test_a_split_into_nights_changes_nothing(tmp_path: Path, nat_dir: Path, rollouts: list[dict[str, Any]]) -> None:
    check_splits(tmp_path, nat_dir, rollouts[:700], n_splits=2, max_nights=3)


@pytest.mark.slow
def test_no_split_of_all_rollouts_changes_anything(tmp_path: Path, nat_dir: Path, rollouts: list[dict[str, Any]]) -> None:
    check_splits(tmp_path, nat_dir, rollouts, n_splits=25, max_nights=7)
