"""What a profile makes of the verdicts: which count, and the quality of every rollout."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.trajectories.judging.contract import QUALITY_COLUMNS

QUALITY_SCHEMA = pl.Schema({"profile": pl.String, "rollout_key": pl.String, "quality": pl.Float64})

WEIGHT_SCHEMA = pl.Schema({"score_name": pl.String, "weight": pl.Float64})


class ActingFilter(Protocol):
    """What counts of a filter when rows are dropped."""

    @property
    def name(self) -> str:
        """Of the filter."""

    @property
    def names_nearest_twin(self) -> bool:
        """Whether its `earlier_key` is the nearest twin only."""


class Acting(Protocol):
    """A profile of today (`sql.Profile`), or as an object recorded it."""

    @property
    def filters(self) -> Sequence[ActingFilter]:
        """Those that act."""

    def acting(self) -> Mapping[tuple[str, str], str]:
        """(filter, version) -> severity."""


def profile_verdicts(verdicts: pl.DataFrame, profile: Acting) -> pl.DataFrame:
    """The verdicts of the filters that act under a profile, with the severity they have there; overruled ones left out.

    Verdicts that no SQL file made (version "1") act under every profile.
    """
    # by version, too: a verdict of a file as it was before its last edit acts under no profile
    acting = [(name, version, severity) for (name, version), severity in profile.acting().items()]
    table = pl.DataFrame(acting, schema=dict.fromkeys(("filter", "version", "acting"), pl.String), orient="row")
    joined = verdicts.join(table, on=["filter", "version"], how="left", maintain_order="left")
    is_own = pl.col("version") == "1"
    joined = joined.filter((pl.col("acting").is_not_null() | is_own) & pl.col("severity").is_in(["drop", "flag"]))
    return joined.with_columns(severity=pl.when(is_own).then("severity").otherwise("acting")).drop("acting")


def why_dropped(rows: pl.DataFrame, verdicts: pl.DataFrame, profile: Acting, *, also: pl.Expr | None = None) -> pl.DataFrame:
    """Rows in order of arrival with `why`: the first reason of the funnel each is dropped for, empty where it survives.

    A duplicate is dropped only while an earlier twin survives.

    Args:
        rows: rollout_key, ingest_seq and what `also` reads.
        verdicts: all of them.
        profile: which act.
        also: a further reason per row, empty for none.
    """
    hits = profile_verdicts(verdicts, profile).filter(pl.col("severity") == "drop")
    place = {file.name: number for number, file in enumerate(profile.filters, 1)}
    in_order = pl.col("filter").replace_strict(place, default=0, return_dtype=pl.Int32)
    without_twin = hits.filter(pl.col("earlier_key").is_null()).sort(in_order, maintain_order=True)
    without_twin = without_twin.unique("rollout_key", keep="first", maintain_order=True)
    reasons = without_twin.select("rollout_key", why=pl.concat_str(pl.lit("filter "), "filter"))
    judged = rows.join(reasons, on="rollout_key", how="left", maintain_order="left")
    judged = judged.with_columns(why=pl.coalesce("why", pl.lit("") if also is None else also)).sort("ingest_seq")
    twins = hits.drop_nulls("earlier_key").select("rollout_key", "filter", "earlier_key")
    nearest = frozenset(file.name for file in profile.filters if file.names_nearest_twin)
    return _drop_twins(judged, twins, nearest) if twins.height else judged


def _drop_twins(judged: pl.DataFrame, twins: pl.DataFrame, nearest: frozenset[str]) -> pl.DataFrame:
    """Drop every row that has a surviving earlier twin; asked in order of arrival, since a dropped twin admits the next.

    `nearest` are the filters that name the nearest twin only, whose own twins count as well.
    """
    earlier: dict[str, list[tuple[str, str]]] = {}
    for key, name, twin in twins.sort("rollout_key", "filter", "earlier_key").rows():
        earlier.setdefault(key, []).append((name, twin))
    survivors = set(judged.filter(pl.col("why") == "")["rollout_key"].to_list())
    surviving: dict[tuple[str, str], str] = {}  # (filter, row) -> the nearest survivor among it and its earlier twins
    why: dict[str, str] = {}
    concerned = pl.DataFrame({"rollout_key": list(earlier)})
    for key in judged.join(concerned, on="rollout_key", how="semi", maintain_order="left")["rollout_key"].to_list():
        for name, twin in earlier[key]:
            # a filter that names the nearest twin only hands on whom that twin repeats: a chain of copies has one survivor
            first = surviving.get((name, twin)) or (twin if twin in survivors else "")
            if first and key in survivors:
                why[key] = f"filter {name}: of {first[:12]}"
                survivors.remove(key)
            if first and name in nearest:
                surviving[name, key] = first
    twin_rows = pl.DataFrame(list(why.items()), schema={"rollout_key": pl.String, "twin": pl.String}, orient="row")
    joined = judged.join(twin_rows, on="rollout_key", how="left", maintain_order="left")
    return joined.with_columns(why=pl.coalesce("twin", "why")).drop("twin")


def profile_qualities(
    session: sql.Session,
    acting: Sequence[tuple[sql.Profile, pl.DataFrame]],
    rollout_keys: pl.Series,
    scores: pl.DataFrame,
    formula: sql.SqlFile,
) -> pl.DataFrame:
    """The quality of every rollout under every profile (`QUALITY_SCHEMA`).

    Args:
        session: emptied first.
        acting: the verdicts that act under each profile, which gives weights and flag penalty.
        rollout_keys: of all rollouts.
        scores: rollout_key, score_name, score.
        formula: sql/selection/quality.sql.
    """
    numbers = pl.DataFrame({"rollout_key": rollout_keys}).with_row_index("number")
    numbers = numbers.with_columns(pl.col("number").cast(pl.String))  # short keys: the long ones cost more than the formula

    def numbered(frame: pl.DataFrame) -> pl.DataFrame:
        joined = frame.join(numbers, on="rollout_key", how="inner", maintain_order="left")
        return joined.drop("rollout_key").rename({"number": "rollout_key"})

    session.reset()
    session.load("rollouts", numbers.select(rollout_key="number"))
    session.load("scores", numbered(scores.select("rollout_key", "score_name", "score")))
    session.execute("create table verdicts (rollout_key varchar, filter varchar, severity varchar)")
    session.execute("create table weights (score_name varchar, weight double)")
    session.lock()
    frames = [QUALITY_SCHEMA.to_frame()]
    mark = session.mark()
    for profile, verdicts in acting:
        session.rewind(mark)
        session.load("verdicts", numbered(verdicts.select("rollout_key", "filter", "severity")))
        session.load("weights", pl.DataFrame(list(profile.weights.items()), schema=WEIGHT_SCHEMA, orient="row"))
        qualities = session.select(formula.with_parameters({"flag_penalty": profile.flag_penalty}), expect=QUALITY_COLUMNS)
        qualities = qualities.rename({"rollout_key": "number"}).join(numbers, on="number", how="inner")
        frames.append(
            qualities.select(pl.lit(profile.name).alias("profile"), "rollout_key", pl.col("quality").cast(pl.Float64))
        )
    return pl.concat(frames)
