"""Which rollouts the quality page shows, and for which reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.trajectories.funnel import CLASSES
from negtraj_dagster.views.diff.compare import DROPPED_BY, Change, Changes
from negtraj_dagster.views.quality_page.numbers import Tables, count_by_class

N_CHANGES = 24
N_EXAMPLES = 4
"""Rollouts shown of a filter and class."""
N_KEPT_EXAMPLES = 3
"""Accepted rollouts shown of a class: so many of the worst, the middle and the best."""


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
        made.append(Examples("rejected", title, mine["reason"][0], keys, count_by_class(mine, tables.classes)))
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
    return Examples("accepted", f"accepted under {profile}", about, chosen, count_by_class(rows, tables.classes))


def short_why(why: str) -> str:
    """`filter bad_format: of …` as `bad_format`."""
    match = DROPPED_BY.match(why)
    return match[1] if match else why
