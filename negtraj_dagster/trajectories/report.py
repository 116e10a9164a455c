"""The numbers of the quality page: what a corpus looks like under each profile, and which of its rollouts are worth showing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.store import Published, Store
from negtraj_dagster.trajectories.changes import DROPPED_BY, Change, Changes
from negtraj_dagster.trajectories.funnel import CLASSES
from negtraj_dagster.trajectories.judge import VERDICT_SCHEMA
from negtraj_dagster.trajectories.labels import LABEL_SCHEMA
from negtraj_dagster.trajectories.quality import profile_verdicts, why_dropped

N_BINS = 25
N_CUTS = 50
N_COMBINATIONS = 20
N_REASONS = 16
N_CHANGES = 24
N_EXAMPLES = 4
"""Rollouts shown of a filter and class."""
N_KEPT_EXAMPLES = 3
"""Accepted rollouts shown of a class: so many of the worst, the middle and the best."""


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


@dataclass(frozen=True)
class Examples:
    """Rollouts worth showing for one reason.

    Attributes:
        section: where on the page.
        keys: by class.
        n_hit: all that there are, by class.
    """

    section: Literal["changed", "rejected", "accepted"]
    title: str
    about: str
    keys: Mapping[str, Sequence[str]]
    n_hit: Mapping[str, int]


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
    mine = tables.fates.filter(pl.col("profile") == profile.name)
    rows = tables.corpus.select("rollout_key", "label").join(mine, on="rollout_key", how="left", maintain_order="left")
    kept = rows.filter(pl.col("why") == "")
    drops = profile_verdicts(tables.verdicts, profile).filter(pl.col("severity") == "drop")
    reasons = list(dict.fromkeys([*(row["filter"] for row in told["funnel"]), *drops["filter"].unique().sort()]))
    combinations, n_other = _combinations(drops, rows, reasons, tables.classes)
    shown = {name for names, _ in combinations for name in names}
    return ProfileNumbers(
        name=profile.name,
        doc=profile.doc,
        n_rollouts=_count(rows, tables.classes),
        n_kept=_count(kept, tables.classes),
        funnel=told["funnel"],
        sources=told["per_source"],
        means={name: told.get(f"mean_quality_{name}") for name in tables.classes},
        kept_bins=_bins(kept, "quality", tables.classes),
        dropped_bins=_bins(rows.filter(pl.col("why") != ""), "quality", tables.classes),
        cuts=_cuts(kept, tables.classes),
        combinations=combinations,
        reasons=[name for name in reasons if name in shown],
        n_other=n_other,
    )


def score_bins(tables: Tables, name: str, profile: str) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """One score's histogram by class: of the rollouts that survive under a profile, and of the others."""
    why = tables.fates.filter(pl.col("profile") == profile).select("rollout_key", "why")
    rows = tables.scores.filter(pl.col("score_name") == name).join(why, on="rollout_key", how="inner")
    rows = rows.join(tables.corpus.select("rollout_key", "label"), on="rollout_key", how="inner")
    classes = [each for each in tables.classes if each in set(rows["label"].to_list())]
    return tuple(_bins(rows.filter(is_mine), "score", classes) for is_mine in (pl.col("why") == "", pl.col("why") != ""))  # type: ignore[return-value]


def _count(rows: pl.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    counts = dict(rows["label"].value_counts().rows())
    return {name: counts.get(name, 0) for name in classes}


def _bins(rows: pl.DataFrame, value: str, classes: Sequence[str]) -> dict[str, list[int]]:
    place = (pl.col(value).fill_nan(0).fill_null(0).clip(0, 1) * N_BINS).floor().clip(0, N_BINS - 1).cast(pl.Int32)
    counted = rows.group_by("label", place.alias("bin")).len("n")
    found = {(label, number): n for label, number, n in counted.rows()}
    return {name: [found.get((name, number), 0) for number in range(N_BINS)] for name in classes}


def _cuts(kept: pl.DataFrame, classes: Sequence[str]) -> list[tuple[float, dict[str, int]]]:
    qualities = {name: kept.filter(pl.col("label") == name)["quality"].fill_null(0.0).sort() for name in classes}
    made = []
    for number in range(N_CUTS + 1):
        cut = number / N_CUTS
        made.append((cut, {name: len(each) - int(each.search_sorted(cut, side="left")) for name, each in qualities.items()}))
    return made


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
    chosen: list[tuple[tuple[str, ...], dict[str, int]]] = []
    used: set[str] = set()
    n_other = 0
    for row in counted.sort("n_all", "filter", descending=[True, False]).iter_rows(named=True):
        names = tuple(row["filter"].split(" "))
        if len(chosen) < N_COMBINATIONS and len(used | set(names)) <= N_REASONS:
            used |= set(names)
            chosen.append((names, {name: int(row[name]) for name in classes}))
        else:
            n_other += row["n_all"]
    return chosen, n_other


def changed_examples(changes: Changes, is_shown: set[str]) -> list[Examples]:
    """Some rollouts of every kind of change, those that are gone left out.

    Args:
        changes: since the object before.
        is_shown: keys that are shown already; chosen keys are added.
    """
    made = []
    here = changes.rows.filter(pl.col("change") != Change.GONE.value)
    for row in changes.counts.filter(pl.col("change") != Change.GONE.value).head(N_CHANGES).to_dicts():
        by = ("change", "cause", "filter", "state_after")
        mine = here.filter(pl.all_horizontal(pl.col(name) == row[name] for name in by))
        keys = {
            label: _pick(part["rollout_key"], is_shown) for (label,), part in mine.group_by("label_after", maintain_order=True)
        }
        state = f", {row['state_after']}" if row["change"] == Change.NEW.value else ""
        about = f"{row['cause']} {row['filter']}".strip()
        counts = {label: row[label] for label in CLASSES if row[label]}
        made.append(
            Examples("changed", f"{row['change']}{state}", about, {str(name): each for name, each in keys.items()}, counts)
        )
    return made


def rejected_examples(tables: Tables, profiles: Mapping[str, sql.Profile], is_shown: set[str]) -> list[Examples]:
    """Rollouts hit by each filter that acts under any profile, in the funnel's order; those that no other filter drops first.

    Args:
        tables: the corpus.
        profiles: by name.
        is_shown: keys that are shown already; chosen keys are added.
    """
    acting = {
        (each.name, each.version): (each.number, each.header.reason, each.severity)
        for profile in profiles.values()
        for each in profile.filters
    }
    hits = tables.verdicts.select("rollout_key", "filter", "version", "reason", "severity").unique(maintain_order=True)
    place = tables.corpus.select("rollout_key", "label", "ingest_seq")
    hits = hits.join(place, on="rollout_key", how="inner")
    n_drops = (
        hits.filter(pl.col("severity") == "drop").group_by("rollout_key").agg(pl.col("filter").n_unique().alias("n_drops"))
    )
    hits = hits.join(n_drops, on="rollout_key", how="left").sort("n_drops", "ingest_seq", nulls_last=True)
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, version in hits.select("filter", "version").unique().sort("filter", "version").rows():
        if version == "1" or (name, version) in acting:
            groups.setdefault(name, []).append((name, version))

    def number(name: str) -> str:
        return min((acting[pair][0] for pair in groups[name] if pair in acting), default="")

    made = []
    for name in sorted(groups, key=lambda each: (number(each), each)):
        versions = [version for _, version in groups[name]]
        mine = hits.filter((pl.col("filter") == name) & pl.col("version").is_in(versions)).unique(
            "rollout_key", keep="first", maintain_order=True
        )
        effects = sorted({str(acting[pair][2]) if pair in acting else "drop" for pair in groups[name]})
        keys = {label: _pick(mine.filter(pl.col("label") == label)["rollout_key"], is_shown) for label in tables.classes}
        title = f"{name} ({', '.join(effects)})"
        made.append(Examples("rejected", title, mine["reason"][0], keys, _count(mine, tables.classes)))
    return made


def _pick(keys: pl.Series, is_shown: set[str]) -> list[str]:
    """The first keys that are not shown yet, or the first ones where too few are left."""
    some = keys.head(50 * N_EXAMPLES).to_list()
    fresh = [key for key in some if key not in is_shown][:N_EXAMPLES]
    chosen = [*fresh, *(key for key in some if key in is_shown)][:N_EXAMPLES]
    is_shown.update(chosen)
    return chosen


def accepted_examples(tables: Tables, profile: str) -> Examples:
    """Survivors of a profile: per class those of the lowest, of middling and of the highest quality."""
    kept = tables.fates.filter((pl.col("profile") == profile) & (pl.col("why") == ""))
    rows = kept.join(tables.corpus.select("rollout_key", "label", "ingest_seq"), on="rollout_key", how="inner")
    rows = rows.sort("quality", "ingest_seq")
    chosen = {}
    for label in tables.classes:
        keys = rows.filter(pl.col("label") == label)["rollout_key"].to_list()
        middle = max((len(keys) - N_KEPT_EXAMPLES) // 2, 0)
        some = [*keys[:N_KEPT_EXAMPLES], *keys[middle : middle + N_KEPT_EXAMPLES], *keys[-N_KEPT_EXAMPLES:]]
        chosen[label] = list(dict.fromkeys(some))
    about = "the lowest, the middle and the highest quality of each class"
    return Examples("accepted", f"accepted under {profile}", about, chosen, _count(rows, tables.classes))


def short_why(why: str) -> str:
    """`filter bad_format: of …` as `bad_format`."""
    match = DROPPED_BY.match(why)
    return match[1] if match else why
