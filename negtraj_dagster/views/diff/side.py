"""One of two corpus objects as `negtraj diff` reads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.settings import did_you_mean
from negtraj_dagster.store import Published, Store
from negtraj_dagster.trajectories.judging.judge import VERDICT_SCHEMA

SHOWN_RUN_CHARS = 12
SIDE_COLUMNS = ("rollout_key", "ingest_seq", "question_id", "source", "label")
WHO_SCHEMA = pl.Schema({"rollout_key": pl.String, "scorer": pl.String})


@dataclass(frozen=True)
class PastFilter:
    """A filter as an object's profile had it."""

    name: str
    version: str
    severity: str
    names_nearest_twin: bool
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class PastProfile:
    """A profile as an object recorded it."""

    filters: tuple[PastFilter, ...]

    def acting(self) -> dict[tuple[str, str], str]:
        """(filter, version) -> severity."""
        return {(file.name, file.version): file.severity for file in self.filters}

    def by_name(self) -> dict[str, PastFilter]:
        """Filter by name."""
        return {file.name: file for file in self.filters}


@dataclass(frozen=True)
class Side:
    """One of the two objects.

    Attributes:
        corpus: `SIDE_COLUMNS`.
        verdicts: of all filter variants.
        who: rollout_key, scorer; empty where the labels' object is gone.
        profile: as it was.
    """

    corpus: pl.DataFrame
    verdicts: pl.DataFrame
    who: pl.DataFrame
    profile: PastProfile


def read_side(store: Store, published: Published, profile: str) -> Side:
    """A corpus object as this module reads it; an empty corpus is one without rollouts.

    Raises:
        SettingsError: it has no such profile.
        StoreError: it was made under an older layout, or is damaged.
    """
    if published.is_empty:
        no_rows = dict.fromkeys(SIDE_COLUMNS, pl.String) | {"ingest_seq": pl.UInt32}
        return Side(pl.DataFrame(schema=no_rows), VERDICT_SCHEMA.to_frame(), WHO_SCHEMA.to_frame(), PastProfile(()))
    past = past_profile(published, profile)
    corpus = pl.read_parquet(store.file(published.folder, "corpus.parquet"), glob=False)
    verdicts = pl.read_parquet(store.file(published.folder, "verdicts.parquet"), glob=False)
    if lacking := [*({*SIDE_COLUMNS} - {*corpus.columns}), *({*VERDICT_SCHEMA} - {*verdicts.columns})]:
        raise older_layout(published, f"it has no column {sorted(lacking)[0]}")
    return Side(corpus.select(SIDE_COLUMNS), verdicts.select(VERDICT_SCHEMA.names()), _read_who(store, published), past)


def past_profile(published: Published, name: str) -> PastProfile:
    """A profile as a corpus object recorded it.

    Raises:
        SettingsError: it recorded no such profile.
        StoreError: it was made before profiles were recorded.
    """
    profiles = published.details.get("profiles")
    if not isinstance(profiles, dict) or not all(isinstance(entry, dict) and "acting" in entry for entry in profiles.values()):
        raise older_layout(published, "it does not say which filters acted under its profiles")
    if name not in profiles:
        where = f"run {published.key[:SHOWN_RUN_CHARS]} of {published.asset}"
        raise SettingsError(f"{where} knows no profile {name!r}{did_you_mean(name, profiles)}")
    acting = profiles[name]["acting"]
    filters = (
        PastFilter(entry["filter"], entry["version"], entry["severity"], entry["names_nearest_twin"], entry["parameters"])
        for entry in acting
    )
    return PastProfile(tuple(filters))


def older_layout(published: Published, what: str) -> StoreError:
    """Says that an object cannot be compared, and the remedy."""
    return StoreError(
        f"run {published.key[:SHOWN_RUN_CHARS]} of {published.asset} was made under an older layout ({what}) and cannot be "
        f"compared; compare runs made since, or materialize {published.asset} again"
    )


def _read_who(store: Store, published: Published) -> pl.DataFrame:
    """Who gave the labels; nothing where the object they were read from is gone."""
    try:
        scored = store.find("scored_trajectories", str(published.made_of.get("scored_trajectories")))
        if scored is not None:
            return pl.read_parquet(store.file(scored.folder, "labels.parquet"), columns=WHO_SCHEMA.names(), glob=False)
    except (StoreError, pl.exceptions.ColumnNotFoundError):
        pass
    return WHO_SCHEMA.to_frame()
