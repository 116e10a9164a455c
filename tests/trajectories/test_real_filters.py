"""The truths of the real data, found by the shipped filters."""

from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.store import Store
from negtraj_dagster.trajectories.quality import why_dropped
from tests.support.sql_homes import corpus_of
from tests.support.sql_rows import REGISTRY

TRUTHS = {
    "empty_trajectory": (0, 7),
    "no_finish": (0, 13),
    "bad_format": (6, 5),
    "missing_thought": (10, 14),
    "unknown_action": (1, 2),
    "tool_error": (1, 1),
    "unpaired_results": (0, 0),
    "empty_observation": (0, 0),
    "repeated_action_positive": (41, 0),
    "repeated_action_negative": (0, 63),
    "no_tool_use": (17, 15),
    "label_mismatch": (0, 5),
    "invalid_answer": (0, 115),
    "benchmark_leak": (20, 18),
    "length_bounds": (0, 0),
    "low_judgement": (0, 0),
    "decontaminate": (245, 266),
    "exact_duplicate": (0, 1),
    "same_actions": (0, 143),
    "near_duplicate": (0, 1),
    "contrast_too_close": (0, 2),
}
LEFT = {"strict": (773, 850), "paper": (1070, 1256)}


NEAR = {0.8: 1, 0.7: 1, 0.6: 3, 0.5: 9, 0.4: 16, 0.3: 54}
"""Later rows of the same question and label whose 3-word shingles have at least this Jaccard similarity, by brute force."""
CONTRASTS = {0.5: 2, 0.3: 23}


def test_the_filters_find_the_known_defects_of_the_real_strategyqa_rollouts(
    store: Store, settings: Settings, nat_dir: Path
) -> None:
    settings = settings.model_copy(update={"nat_dir": nat_dir, "wordtraps": WordtrapsSettings(enabled=False)})
    corpus = corpus_of(store, settings)
    funnel = corpus.details["profiles"]["strict"]["funnel"]
    found = {row["filter"]: (row["n_positive"], row["n_negative"]) for row in funnel}
    print(truth_table(funnel))
    assert {name: found[name] for name in TRUTHS} == TRUTHS
    assert found.keys() - TRUTHS.keys() == {"quotes_evaluation"}  # all of which decontaminate drops, too
    assert next(row for row in funnel if row["filter"] == "quotes_evaluation")["n_negative_only_this"] == 0
    for profile, left in LEFT.items():
        last = corpus.details["profiles"][profile]["funnel"][-1]
        assert (last["left_positive"], last["left_negative"]) == left
    pairs = pl.read_parquet(corpus.folder / "pairs.parquet")
    rows = pl.read_parquet(corpus.folder / "corpus.parquet").select("rollout_key", "question_id", "label")
    near = pairs.filter("is_earlier").join(rows, on="rollout_key")
    near = near.join(rows.rename({"rollout_key": "other_key"}), on="other_key", suffix="_other")
    near = near.filter(pl.col("question_id") == pl.col("question_id_other"))
    alike, contrary = (near.filter((pl.col("label") == pl.col("label_other")) == same) for same in (True, False))
    assert {at: alike.filter(pl.col("similarity") >= at)["rollout_key"].n_unique() for at in NEAR} == NEAR
    assert {at: contrary.filter(pl.col("similarity") >= at).height for at in CONTRASTS} == CONTRASTS


def truth_table(funnel: list[dict[str, Any]]) -> str:
    """The funnel beside what is known, for `pytest -s`."""
    lines = ["", f"{'filter':28}{'found':>12}{'truth':>12}{'left':>12}"]
    for row in funnel:
        found, left = (row["n_positive"], row["n_negative"]), (row["left_positive"], row["left_negative"])
        lines.append(f"{row['filter']:28}{found!s:>12}{TRUTHS.get(row['filter'], '')!s:>12}{left!s:>12}")
    return "\n".join(lines)


def test_the_first_reason_of_the_funnel_is_the_one_that_is_told(nat_dir: Path, store: Store, settings: Settings) -> None:
    settings = settings.model_copy(update={"nat_dir": nat_dir, "wordtraps": WordtrapsSettings(enabled=False)})
    corpus = corpus_of(store, settings)
    rows, verdicts = (pl.read_parquet(corpus.folder / f"{name}.parquet") for name in ("corpus", "verdicts"))
    profile = sql.find_profile(REGISTRY, "strict")
    told = dict(why_dropped(rows, verdicts, profile)["why"].value_counts().rows())
    left = 2333
    for row in corpus.details["profiles"]["strict"]["funnel"]:
        if row["severity"] == "drop" and row["filter"] not in ("exact_duplicate", "same_actions", "near_duplicate"):
            n_here = left - row["left_positive"] - row["left_negative"]
            assert told.get(f"filter {row['filter']}", 0) == n_here
            left -= n_here
