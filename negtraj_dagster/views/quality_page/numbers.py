"""The numbers of the quality page: what a corpus looks like under each profile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.store import Published, Store
from negtraj_dagster.trajectories.funnel import CLASSES
from negtraj_dagster.trajectories.judging.judge import VERDICT_SCHEMA
from negtraj_dagster.trajectories.labels import LABEL_SCHEMA
from negtraj_dagster.trajectories.quality import profile_verdicts, why_dropped

N_BINS = 25
N_CUTS = 50
N_COMBINATIONS = 20
N_REASONS = 16


@dataclass(frozen=True)
class Tables:
    """A corpus object's tables, with labels as `scored_trajectories` gave them.

    Attributes:
        corpus: in order of arrival, with `scorer`, `by` and what each scorer says.
        fates: rollout_key, profile, why (empty where it survives), quality.
        classes: those that have rollouts, in the usual order.
    """

    corpus: pl.DataFrame
    verdicts: pl.DataFrame
    scores: pl.DataFrame
    fates: pl.DataFrame
    classes: tuple[str, ...]


@dataclass(frozen=True)
class ProfileNumbers:
    """A corpus under a profile.

    Attributes:
        n_rollouts: by class; `n_kept` those that survive.
        funnel: rows of `funnel_of`.
        sources: rows of `per_source`.
        means: mean quality by class, None where it has none.
        kept_bins: survivors by quality and class; `dropped_bins` the others.
        cuts: (least quality, survivors by class).
        combinations: drop reasons that come together, with rollouts by class, most first; `reasons` in the funnel's order.
        n_other: rollouts of combinations that are not listed.
    """

    name: str
    doc: str
    n_rollouts: Mapping[str, int]
    n_kept: Mapping[str, int]
    funnel: Sequence[Mapping[str, Any]]
    sources: Sequence[Mapping[str, Any]]
    means: Mapping[str, float | None]
    kept_bins: Mapping[str, Sequence[int]]
    dropped_bins: Mapping[str, Sequence[int]]
    cuts: Sequence[tuple[float, Mapping[str, int]]]
    combinations: Sequence[tuple[tuple[str, ...], Mapping[str, int]]]
    reasons: Sequence[str]
    n_other: int


def read_tables(store: Store, corpus: Published, scored: Published, profiles: Mapping[str, sql.Profile]) -> Tables:
    """What the page shows of a corpus object, and every rollout's fate under each profile."""

    def read(published: Published, name: str) -> pl.DataFrame:
        return pl.read_parquet(store.file(published.folder, f"{name}.parquet"), glob=False)

    labels = read(scored, "labels").select(
        name for name in LABEL_SCHEMA if name not in ("label", "answer", "style", "row_unit", "fact_key")
    )
    rows = read(corpus, "corpus").join(labels, on="rollout_key", how="left", maintain_order="left").sort("ingest_seq")
    verdicts, qualities = read(corpus, "verdicts").select(VERDICT_SCHEMA.names()), read(corpus, "qualities")
    judged = [
        why_dropped(rows.select("rollout_key", "ingest_seq"), verdicts, profile)
        .with_columns(profile=pl.lit(name))
        .join(qualities, on=["profile", "rollout_key"], how="left", maintain_order="left")
        .select("rollout_key", "profile", "why", "quality")
        for name, profile in profiles.items()
    ]
    fates = pl.concat(judged) if judged else pl.DataFrame(schema=dict.fromkeys(("rollout_key", "profile", "why"), pl.String))
    present = set(rows["label"].to_list())
    return Tables(rows, verdicts, read(corpus, "scores"), fates, tuple(name for name in CLASSES if name in present))


def profile_numbers(tables: Tables, profile: sql.Profile, told: Mapping[str, Any]) -> ProfileNumbers:
    """A corpus under a profile.

    Args:
        tables: the corpus.
        profile: which.
        told: `details["profiles"][name]` of the corpus object.
    """
    profile_fates = tables.fates.filter(pl.col("profile") == profile.name)
    rows = tables.corpus.select("rollout_key", "label").join(profile_fates, on="rollout_key", how="left", maintain_order="left")
    accepted = rows.filter(pl.col("why") == "")
    drops = profile_verdicts(tables.verdicts, profile).filter(pl.col("severity") == "drop")
    reasons = list(dict.fromkeys([*(row["filter"] for row in told["funnel"]), *drops["filter"].unique().sort()]))
    combinations, n_other = _combinations(drops, rows, reasons, tables.classes)
    reason_names = {name for names, _ in combinations for name in names}
    return ProfileNumbers(
        name=profile.name,
        doc=profile.doc,
        n_rollouts=count_by_class(rows, tables.classes),
        n_kept=count_by_class(accepted, tables.classes),
        funnel=told["funnel"],
        sources=told["per_source"],
        means={name: told.get(f"mean_quality_{name}") for name in tables.classes},
        kept_bins=_bins(accepted, "quality", tables.classes),
        dropped_bins=_bins(rows.filter(pl.col("why") != ""), "quality", tables.classes),
        cuts=_cuts(accepted, tables.classes),
        combinations=combinations,
        reasons=[name for name in reasons if name in reason_names],
        n_other=n_other,
    )


def score_bins(tables: Tables, name: str, profile: str) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """One score's histogram by class: of the rollouts that survive under a profile, and of the others."""
    why = tables.fates.filter(pl.col("profile") == profile).select("rollout_key", "why")
    rows = tables.scores.filter(pl.col("score_name") == name).join(why, on="rollout_key", how="inner")
    rows = rows.join(tables.corpus.select("rollout_key", "label"), on="rollout_key", how="inner")
    classes = [label for label in tables.classes if label in set(rows["label"].to_list())]
    return tuple(_bins(rows.filter(is_mine), "score", classes) for is_mine in (pl.col("why") == "", pl.col("why") != ""))  # type: ignore[return-value]


def count_by_class(rows: pl.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    """Rows by class."""
    counts = dict(rows["label"].value_counts().rows())
    return {name: counts.get(name, 0) for name in classes}


def _bins(rows: pl.DataFrame, value: str, classes: Sequence[str]) -> dict[str, list[int]]:
    place = (pl.col(value).fill_nan(0).fill_null(0).clip(0, 1) * N_BINS).floor().clip(0, N_BINS - 1).cast(pl.Int32)
    counted = rows.group_by("label", place.alias("bin")).len("n")
    count_of = {(label, number): n for label, number, n in counted.rows()}
    return {name: [count_of.get((name, number), 0) for number in range(N_BINS)] for name in classes}


def _cuts(kept: pl.DataFrame, classes: Sequence[str]) -> list[tuple[float, dict[str, int]]]:
    qualities = {name: kept.filter(pl.col("label") == name)["quality"].fill_null(0.0).sort() for name in classes}
    cuts = []
    for number in range(N_CUTS + 1):
        cut = number / N_CUTS
        cuts.append(
            (cut, {name: len(values) - int(values.search_sorted(cut, side="left")) for name, values in qualities.items()})
        )
    return cuts


def _combinations(
    drops: pl.DataFrame, rows: pl.DataFrame, reasons: Sequence[str], classes: Sequence[str]
) -> tuple[list[tuple[tuple[str, ...], dict[str, int]]], int]:
    order = {name: number for number, name in enumerate(reasons)}
    sets = (
        drops.select("rollout_key", "filter")
        .unique()
        .with_columns(place=pl.col("filter").replace_strict(order, return_dtype=pl.Int32) if order else pl.lit(0))
        .sort("rollout_key", "place")
        .group_by("rollout_key", maintain_order=True)
        .agg("filter")
        .with_columns(pl.col("filter").list.join(" "))
        .join(rows.select("rollout_key", "label"), on="rollout_key", how="inner")
    )
    counted = sets.group_by("filter").agg(
        *((pl.col("label") == name).sum().alias(name) for name in classes), pl.len().alias("n_all")
    )
    shown_combinations: list[tuple[tuple[str, ...], dict[str, int]]] = []
    shown_names: set[str] = set()
    n_other = 0
    for row in counted.sort("n_all", "filter", descending=[True, False]).iter_rows(named=True):
        names = tuple(row["filter"].split(" "))
        if len(shown_combinations) < N_COMBINATIONS and len(shown_names | set(names)) <= N_REASONS:
            shown_names |= set(names)
            shown_combinations.append((names, {name: int(row[name]) for name in classes}))
        else:
            n_other += row["n_all"]
    return shown_combinations, n_other
