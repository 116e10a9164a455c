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
    examples = []
    here = changes.rows.filter(pl.col("change") != Change.GONE.value)
    for row in changes.counts.filter(pl.col("change") != Change.GONE.value).head(N_CHANGES).to_dicts():
        by = ("change", "cause", "filter", "state_after")
        of_change = here.filter(pl.all_horizontal(pl.col(name) == row[name] for name in by))
        keys = {
            label: _pick(part["rollout_key"], is_shown)
            for (label,), part in of_change.group_by("label_after", maintain_order=True)
        }
        state = f", {row['state_after']}" if row["change"] == Change.NEW.value else ""
        about = f"{row['cause']} {row['filter']}".strip()
        counts = {label: row[label] for label in CLASSES if row[label]}
        examples.append(
            Examples(
                "changed",
                f"{row['change']}{state}",
                about,
                {str(name): class_keys for name, class_keys in keys.items()},
                counts,
            )
        )
    return examples


def rejected_examples(tables: Tables, profiles: Mapping[str, sql.Profile], is_shown: set[str]) -> list[Examples]:
    """Rollouts hit by each filter that acts under any profile, in the funnel's order; those that no other filter drops first.

    Args:
        tables: the corpus.
        profiles: by name.
        is_shown: keys that are shown already; chosen keys are added.
    """
    acting = {
        (file.name, file.version): (file.number, file.header.reason, file.severity)
        for profile in profiles.values()
        for file in profile.filters
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

    examples = []
    for name in sorted(groups, key=lambda file: (number(file), file)):
        versions = [version for _, version in groups[name]]
        filter_hits = hits.filter((pl.col("filter") == name) & pl.col("version").is_in(versions)).unique(
            "rollout_key", keep="first", maintain_order=True
        )
        effects = sorted({str(acting[pair][2]) if pair in acting else "drop" for pair in groups[name]})
        keys = {label: _pick(filter_hits.filter(pl.col("label") == label)["rollout_key"], is_shown) for label in tables.classes}
        title = f"{name} ({', '.join(effects)})"
        examples.append(
            Examples("rejected", title, filter_hits["reason"][0], keys, count_by_class(filter_hits, tables.classes))
        )
    return examples


def _pick(keys: pl.Series, is_shown: set[str]) -> list[str]:
    """The first keys that are not shown yet, or the first ones where too few are left."""
    first_keys = keys.head(50 * N_EXAMPLES).to_list()
    fresh = [key for key in first_keys if key not in is_shown][:N_EXAMPLES]
    picked = [*fresh, *(key for key in first_keys if key in is_shown)][:N_EXAMPLES]
    is_shown.update(picked)
    return picked


def accepted_examples(tables: Tables, profile: str) -> Examples:
    """Survivors of a profile: per class those of the lowest, of middling and of the highest quality."""
    accepted = tables.fates.filter((pl.col("profile") == profile) & (pl.col("why") == ""))
    rows = accepted.join(tables.corpus.select("rollout_key", "label", "ingest_seq"), on="rollout_key", how="inner")
    rows = rows.sort("quality", "ingest_seq")
    keys_of_class = {}
    for label in tables.classes:
        keys = rows.filter(pl.col("label") == label)["rollout_key"].to_list()
        middle = max((len(keys) - N_KEPT_EXAMPLES) // 2, 0)
        spread = [*keys[:N_KEPT_EXAMPLES], *keys[middle : middle + N_KEPT_EXAMPLES], *keys[-N_KEPT_EXAMPLES:]]
        keys_of_class[label] = list(dict.fromkeys(spread))
    about = "the lowest, the middle and the highest quality of each class"
    return Examples("accepted", f"accepted under {profile}", about, keys_of_class, count_by_class(rows, tables.classes))


def short_why(why: str) -> str:
    """`filter bad_format: of …` as `bad_format`."""
    match = DROPPED_BY.match(why)
    return match[1] if match else why
