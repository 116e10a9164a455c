"""What differs between two corpus objects under a profile: the rollouts that flipped, each with its cause.

`negtraj diff` prints it, the quality page shows it. Nothing is judged here: both objects hold their verdicts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import polars as pl

from negtraj_dagster.store import Published, Store
from negtraj_dagster.trajectories.funnel import CLASSES
from negtraj_dagster.trajectories.quality import profile_verdicts, why_dropped
from negtraj_dagster.views.diff.side import SIDE_COLUMNS, PastFilter, PastProfile, Side, read_side

DROPPED_BY = re.compile(r"filter (\w+)")
CHANGE_SCHEMA = pl.Schema(
    {
        "rollout_key": pl.String,
        "change": pl.String,
        "cause": pl.String,
        "filter": pl.String,
        "detail": pl.String,
        "step": pl.Int32,
        "state_before": pl.String,
        "state_after": pl.String,
        "label_before": pl.String,
        "label_after": pl.String,
        "scorer_before": pl.String,
        "scorer_after": pl.String,
        "version_before": pl.String,
        "version_after": pl.String,
        "came": pl.String,
        "went": pl.String,
        "question_id": pl.String,
        "source": pl.String,
        "ingest_seq": pl.UInt32,
    }
)
"""One rollout that differs. `filter` is the one that drops it now, or did; `detail` and `step` are its verdict's; the versions
are that filter's in the two profiles; `came` and `went` list all filters whose drop verdict is there on one side only."""
COUNT_COLUMNS = ("change", "cause", "filter", "state_after", *CLASSES, "n_rollouts")


class Change(StrEnum):
    """What became of a rollout."""

    REJECTED = "accepted → rejected"
    ACCEPTED = "rejected → accepted"
    LABEL = "label changed"
    NEW = "new"
    GONE = "gone"


class Cause(StrEnum):
    """Why."""

    PERSON = "a person decided"
    WITHDRAWN = "a person's decision was withdrawn"
    LABEL = "its label changed"
    ADDED = "filter added to the profile"
    REMOVED = "filter taken out of the profile"
    SEVERITY = "filter has another effect"
    EDITED = "filter edited"
    TWIN = "an earlier twin came or went"
    READ = "what the filter reads changed"
    NEW = "not there before"
    GONE = "no longer there"


@dataclass(frozen=True)
class Changes:
    """All that differs.

    Attributes:
        before: object key; `after` the same.
        rows: `CHANGE_SCHEMA`, in order of arrival.
        counts: `COUNT_COLUMNS`, most first; the classes are those the rollouts are in now, or were when they went.
        filters: per filter that the profile has otherwise now: what differs, in words.
    """

    profile: str
    before: str
    after: str
    rows: pl.DataFrame
    counts: pl.DataFrame
    filters: Mapping[str, str]


def compare_objects(store: Store, before: Published, after: Published, profile: str) -> Changes:
    """What differs between two corpus objects under a profile.

    Raises:
        SettingsError: one of them has no such profile.
        StoreError: one of them was made under an older layout, or is damaged.
    """
    old, new = (read_side(store, published, profile) for published in (before, after))
    rows = compare_corpora(old, new)
    return Changes(profile, before.key, after.key, rows, count_changes(rows), filter_changes(old.profile, new.profile))


def compare_corpora(before: Side, after: Side) -> pl.DataFrame:
    """The rollouts that differ (`CHANGE_SCHEMA`), in order of arrival, those that are gone last."""
    old, new = (_judged(side) for side in (before, after))
    joined = new.join(old, on="rollout_key", how="full", suffix="_before", coalesce=True)
    is_kept, was_kept = pl.col("why") == "", pl.col("why_before") == ""
    change = (
        pl.when(pl.col("why_before").is_null()).then(pl.lit(Change.NEW.value))
        .when(pl.col("why").is_null()).then(pl.lit(Change.GONE.value))
        .when(was_kept & ~is_kept).then(pl.lit(Change.REJECTED.value))
        .when(is_kept & ~was_kept).then(pl.lit(Change.ACCEPTED.value))
        .when(pl.col("label").ne_missing(pl.col("label_before"))).then(pl.lit(Change.LABEL.value))
    )  # fmt: skip
    differing = joined.with_columns(change=change).drop_nulls("change").sort("ingest_seq", "rollout_key", nulls_last=True)
    old_drops, new_drops = (_Drops(side, differing["rollout_key"]) for side in (before, after))
    rows = [_explained(row, old_drops, new_drops) for row in differing.iter_rows(named=True)]
    return pl.DataFrame(rows, schema=CHANGE_SCHEMA, orient="row")


def _judged(side: Side) -> pl.DataFrame:
    rows = why_dropped(side.corpus, side.verdicts, side.profile).select(*SIDE_COLUMNS, "why")
    return rows.join(side.who, on="rollout_key", how="left", maintain_order="left")


class _Drops:
    """The drop verdicts on some rollouts under a side's profile, and those that a person set aside."""

    def __init__(self, side: Side, keys: pl.Series) -> None:
        self.filters = side.profile.by_name()
        key_rows = pl.DataFrame({"rollout_key": keys})
        verdicts = side.verdicts.join(key_rows, on="rollout_key", how="semi")
        self.dropped = _by_rollout(profile_verdicts(verdicts, side.profile).filter(pl.col("severity") == "drop"))
        overruled = verdicts.filter(~pl.col("severity").is_in(["drop", "flag"]))
        self.overruled = _by_rollout(profile_verdicts(overruled.with_columns(severity=pl.lit("drop")), side.profile))

    def is_dropping(self, name: str) -> bool:
        """Whether the filter drops under the profile."""
        return name in self.filters and self.filters[name].severity == "drop"

    def version(self, name: str) -> str | None:
        """The filter's version; None where it does not act."""
        return self.filters[name].version if name in self.filters else None


def _by_rollout(verdicts: pl.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """rollout -> filter -> its first verdict."""
    by_rollout: dict[str, dict[str, dict[str, Any]]] = {}
    for row in verdicts.select("rollout_key", "filter", "step", "detail", "earlier_key").iter_rows(named=True):
        by_rollout.setdefault(row["rollout_key"], {}).setdefault(row["filter"], row)
    return by_rollout


def _explained(row: Mapping[str, Any], old: _Drops, new: _Drops) -> dict[str, Any]:
    key, change = row["rollout_key"], Change(row["change"])
    were, are = (drops.dropped.get(key, {}) for drops in (old, new))
    names = [match[1] if (match := DROPPED_BY.match(why or "")) else "" for why in (row["why_before"], row["why"])]
    name = names[0] if change in (Change.ACCEPTED, Change.GONE) else names[1]
    verdict = (were if change in (Change.ACCEPTED, Change.GONE) else are).get(name, {})
    detail = verdict.get("detail")
    cause = _cause(row, change, name, verdict, old, new)
    if change == Change.ACCEPTED and cause == Cause.PERSON:
        detail = new.overruled.get(key, {}).get(name, {}).get("detail", detail)
    is_gone = change == Change.GONE
    return {
        "rollout_key": key,
        "change": change.value,
        "cause": cause.value,
        "filter": name,
        "detail": detail or "",
        "step": verdict.get("step"),
        "state_before": _state(row["why_before"]),
        "state_after": _state(row["why"]),
        "label_before": row["label_before"],
        "label_after": row["label"],
        "scorer_before": row["scorer_before"],
        "scorer_after": row["scorer"],
        "version_before": old.version(name),
        "version_after": new.version(name),
        "came": ", ".join(drops for drops in are if drops not in were),
        "went": ", ".join(drops for drops in were if drops not in are),
        **{drops: row[f"{drops}_before"] if is_gone else row[drops] for drops in ("question_id", "source", "ingest_seq")},
    }


def _cause(row: Mapping[str, Any], change: Change, name: str, verdict: Mapping[str, Any], old: _Drops, new: _Drops) -> Cause:
    if change == Change.NEW:
        return Cause.NEW
    if change == Change.GONE:
        return Cause.GONE
    if change == Change.LABEL:
        return _label_cause(row)
    if change == Change.REJECTED:
        return _flip_cause(row, name, verdict, (old, new), Cause.ADDED, Cause.PERSON)
    return _flip_cause(row, name, verdict, (new, old), Cause.REMOVED, Cause.WITHDRAWN)


def _state(why: str | None) -> str:
    return "absent" if why is None else "rejected" if why else "accepted"


def _flip_cause(
    row: Mapping[str, Any], name: str, verdict: Mapping[str, Any], sides: tuple[_Drops, _Drops], lone: Cause, own: Cause
) -> Cause:
    """Why a filter drops a rollout on one side only.

    Args:
        row: the rollout on both sides.
        name: the filter.
        verdict: of the side where it is dropped.
        sides: the one that accepts the rollout, and the one that rejects it.
        lone: the cause where the accepting side's profile has no such filter.
        own: the cause where the filter is a person's word, or one that was set aside.
    """
    accepting = sides[0]
    if name == "override":
        return own
    if name in accepting.overruled.get(row["rollout_key"], {}):
        return Cause.PERSON if own == Cause.WITHDRAWN else Cause.WITHDRAWN
    if row["label"] != row["label_before"]:
        return _label_cause(row)
    if name not in accepting.filters:
        is_own = name not in sides[1].filters  # no SQL file's: it acts under every profile
        return Cause.READ if is_own else lone
    if not accepting.is_dropping(name):
        return Cause.SEVERITY
    if accepting.version(name) != sides[1].version(name):
        return Cause.EDITED
    return Cause.TWIN if verdict.get("earlier_key") else Cause.READ


def _label_cause(row: Mapping[str, Any]) -> Cause:
    is_decided, was_decided = row["scorer"] == "override", row["scorer_before"] == "override"
    if is_decided:
        return Cause.PERSON
    return Cause.WITHDRAWN if was_decided else Cause.LABEL


def count_changes(rows: pl.DataFrame) -> pl.DataFrame:
    """How many rollouts changed how, why, and by which filter (`COUNT_COLUMNS`), most first."""
    label = pl.coalesce("label_after", "label_before")
    classes = [(label == name).sum().alias(name) for name in CLASSES]
    counts = rows.group_by("change", "cause", "filter", "state_after").agg(*classes, pl.len().alias("n_rollouts"))
    by = ("change", "cause", "filter", "state_after")
    return counts.sort("n_rollouts", *by, descending=[True] + [False] * len(by)).select(COUNT_COLUMNS)


def filter_changes(before: PastProfile, after: PastProfile) -> dict[str, str]:
    """What the profile has otherwise now, in words, by filter."""
    old, new = before.by_name(), after.by_name()
    changes = {name: _filter_change(old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys())}
    return {name: text for name, text in changes.items() if text}


def _filter_change(old: PastFilter | None, new: PastFilter | None) -> str:
    if old is None or new is None:
        return "added" if old is None else "taken out"
    changes = [f"{old.severity} → {new.severity}"] if old.severity != new.severity else []
    if old.version != new.version:
        names = sorted(old.parameters.keys() | new.parameters.keys())
        values = [(name, old.parameters.get(name), new.parameters.get(name)) for name in names]
        altered = [f"{name} {before_value!r} → {other!r}" for name, before_value, other in values if before_value != other]
        altered_text = ", ".join(altered) or "its SQL, or a model it reads"
        changes.append(f"edited ({altered_text}), version {old.version[:8]} → {new.version[:8]}")
    return "; ".join(changes)
