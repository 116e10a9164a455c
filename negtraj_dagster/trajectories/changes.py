"""What differs between two corpus objects under a profile: the rollouts that flipped, each with its cause.

`negtraj diff` prints it, the quality page shows it. Nothing is judged here: both objects hold their verdicts.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import polars as pl

from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.printable import visible
from negtraj_dagster.settings import did_you_mean
from negtraj_dagster.store import Published, Store
from negtraj_dagster.tasks import TASKS
from negtraj_dagster.trajectories.funnel import CLASSES
from negtraj_dagster.trajectories.judge import VERDICT_SCHEMA
from negtraj_dagster.trajectories.quality import profile_verdicts, why_dropped

DEFAULT_PROFILE = "strict"
MIN_RUN_CHARS = 6
SHOWN_RUN_CHARS = 12
MAX_LISTED_RUNS = 10
MAX_CELL_CHARS = 100
DROPPED_BY = re.compile(r"filter (\w+)")
SIDE_COLUMNS = ("rollout_key", "ingest_seq", "question_id", "source", "label")
WHO_SCHEMA = pl.Schema({"rollout_key": pl.String, "scorer": pl.String})
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
        return {(each.name, each.version): each.severity for each in self.filters}

    def by_name(self) -> dict[str, PastFilter]:
        """Filter by name."""
        return {each.name: each for each in self.filters}


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


def diff_runs(store: Store, runs: tuple[str, str], *, task: str | None = None, profile: str = DEFAULT_PROFILE) -> Changes:
    """What differs between two runs' objects of `trajectory_corpus/<task>`.

    Args:
        store: is read.
        runs: before and after: `current`, `previous`, or the beginning of an object key.
        task: may be left out where there is one corpus only.
        profile: by name.

    Raises:
        SettingsError: there is no such task, run or profile, or a beginning fits several runs; names those there are.
        StoreError: an object was made under an older layout, or is damaged.
    """
    asset = f"trajectory_corpus/{_find_task(store, task)}"
    history = store.history(asset)
    before, after = (_load_run(store, asset, history, run) for run in runs)
    return compare_objects(store, before, after, profile)


def compare_objects(store: Store, before: Published, after: Published, profile: str) -> Changes:
    """What differs between two corpus objects under a profile.

    Raises:
        SettingsError: one of them has no such profile.
        StoreError: one of them was made under an older layout, or is damaged.
    """
    old, new = (read_side(store, each, profile) for each in (before, after))
    rows = compare_corpora(old, new)
    return Changes(profile, before.key, after.key, rows, count_changes(rows), filter_changes(old.profile, new.profile))


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
        raise _older_layout(published, f"it has no column {sorted(lacking)[0]}")
    return Side(corpus.select(SIDE_COLUMNS), verdicts.select(VERDICT_SCHEMA.names()), _read_who(store, published), past)


def past_profile(published: Published, name: str) -> PastProfile:
    """A profile as a corpus object recorded it.

    Raises:
        SettingsError: it recorded no such profile.
        StoreError: it was made before profiles were recorded.
    """
    profiles = published.details.get("profiles")
    if not isinstance(profiles, dict) or not all(isinstance(each, dict) and "acting" in each for each in profiles.values()):
        raise _older_layout(published, "it does not say which filters acted under its profiles")
    if name not in profiles:
        where = f"run {published.key[:SHOWN_RUN_CHARS]} of {published.asset}"
        raise SettingsError(f"{where} knows no profile {name!r}{did_you_mean(name, profiles)}")
    acting = profiles[name]["acting"]
    named = (
        PastFilter(each["filter"], each["version"], each["severity"], each["names_nearest_twin"], each["parameters"])
        for each in acting
    )
    return PastProfile(tuple(named))


def _older_layout(published: Published, what: str) -> StoreError:
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


def compare_corpora(before: Side, after: Side) -> pl.DataFrame:
    """The rollouts that differ (`CHANGE_SCHEMA`), in order of arrival, those that are gone last."""
    old, new = (_judged(each) for each in (before, after))
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
    old_drops, new_drops = (_Drops(each, differing["rollout_key"]) for each in (before, after))
    rows = [_explained(row, old_drops, new_drops) for row in differing.iter_rows(named=True)]
    return pl.DataFrame(rows, schema=CHANGE_SCHEMA, orient="row")


def _judged(side: Side) -> pl.DataFrame:
    rows = why_dropped(side.corpus, side.verdicts, side.profile).select(*SIDE_COLUMNS, "why")
    return rows.join(side.who, on="rollout_key", how="left", maintain_order="left")


class _Drops:
    """The drop verdicts on some rollouts under a side's profile, and those that a person set aside."""

    def __init__(self, side: Side, keys: pl.Series) -> None:
        self.filters = side.profile.by_name()
        wanted = pl.DataFrame({"rollout_key": keys})
        mine = side.verdicts.join(wanted, on="rollout_key", how="semi")
        self.dropped = _by_rollout(profile_verdicts(mine, side.profile).filter(pl.col("severity") == "drop"))
        overruled = mine.filter(~pl.col("severity").is_in(["drop", "flag"]))
        self.overruled = _by_rollout(profile_verdicts(overruled.with_columns(severity=pl.lit("drop")), side.profile))

    def is_dropping(self, name: str) -> bool:
        """Whether the filter drops under the profile."""
        return name in self.filters and self.filters[name].severity == "drop"

    def version(self, name: str) -> str | None:
        """The filter's version; None where it does not act."""
        return self.filters[name].version if name in self.filters else None


def _by_rollout(verdicts: pl.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """rollout -> filter -> its first verdict."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in verdicts.select("rollout_key", "filter", "step", "detail", "earlier_key").iter_rows(named=True):
        found.setdefault(row["rollout_key"], {}).setdefault(row["filter"], row)
    return found


def _explained(row: Mapping[str, Any], old: _Drops, new: _Drops) -> dict[str, Any]:
    key, change = row["rollout_key"], Change(row["change"])
    were, are = (each.dropped.get(key, {}) for each in (old, new))
    names = [match[1] if (match := DROPPED_BY.match(why or "")) else "" for why in (row["why_before"], row["why"])]
    name = names[0] if change in (Change.ACCEPTED, Change.GONE) else names[1]
    verdict = (were if change in (Change.ACCEPTED, Change.GONE) else are).get(name, {})
    detail = verdict.get("detail")
    cause = _cause(row, change, name, verdict, old, new)
    if change == Change.ACCEPTED and cause == Cause.PERSON:
        detail = new.overruled.get(key, {}).get(name, {}).get("detail", detail)
    gone = change == Change.GONE
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
        "came": ", ".join(each for each in are if each not in were),
        "went": ", ".join(each for each in were if each not in are),
        **{each: row[f"{each}_before"] if gone else row[each] for each in ("question_id", "source", "ingest_seq")},
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
    told = {name: _filter_change(old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys())}
    return {name: text for name, text in told.items() if text}


def _filter_change(old: PastFilter | None, new: PastFilter | None) -> str:
    if old is None or new is None:
        return "added" if old is None else "taken out"
    said = [f"{old.severity} → {new.severity}"] if old.severity != new.severity else []
    if old.version != new.version:
        names = sorted(old.parameters.keys() | new.parameters.keys())
        values = [(name, old.parameters.get(name), new.parameters.get(name)) for name in names]
        altered = [f"{name} {one!r} → {other!r}" for name, one, other in values if one != other]
        what = ", ".join(altered) or "its SQL, or a model it reads"
        said.append(f"edited ({what}), version {old.version[:8]} → {new.version[:8]}")
    return "; ".join(said)


def _find_task(store: Store, task: str | None) -> str:
    known = [name for name in TASKS if store.history(f"trajectory_corpus/{name}")]
    if not known:
        raise SettingsError("no trajectory_corpus has been materialized here; run `negtraj demo`, or materialize one")
    if task is None and len(known) > 1:
        raise SettingsError(f"several tasks have a corpus; name one with --task: {', '.join(known)}")
    if task is not None and task not in known:
        raise SettingsError(f"no corpus of task {task!r}{did_you_mean(task, known)}")
    return task or known[0]


def _load_run(store: Store, asset: str, history: Sequence[str], run: str) -> Published:
    key = find_run(history, run, asset)
    try:
        return store.load(asset, key)
    except StoreError as error:
        raise SettingsError(f"run {key[:SHOWN_RUN_CHARS]} of {asset} is no longer here (gc drops old runs): {error}") from error


def find_run(history: Sequence[str], run: str, asset: str) -> str:
    """The object key that `run` names.

    Args:
        history: keys, newest first.
        run: `current`, `previous`, or the beginning of a key.
        asset: for messages.

    Raises:
        SettingsError: it names none, or several; says which there are.
    """
    word = run.strip().lower()
    there = f"; there are: {_listed_runs(history)}"
    if word in ("current", "previous"):
        place = ("current", "previous").index(word)
        if place >= len(history):
            raise SettingsError(f"{asset} has no {word} run{there}")
        return history[place]
    if len(word) < MIN_RUN_CHARS or not set(word) <= set("0123456789abcdef"):
        raise SettingsError(
            f"{run!r} names no run; expected current, previous, or at least {MIN_RUN_CHARS} digits of an object_key{there}"
        )
    fits = [key for key in history if key.startswith(word)]
    if not fits:
        raise SettingsError(f"{asset} has no run that begins with {word!r}{there}")
    if len(fits) > 1:
        some = ", ".join(key[: len(word) + 6] for key in fits[:MAX_LISTED_RUNS])
        raise SettingsError(f"{word!r} begins {len(fits)} runs of {asset} ({some}); give more digits")
    return fits[0]


def _listed_runs(history: Sequence[str]) -> str:
    words = {0: " (current)", 1: " (previous)"}
    shown = [f"{key[:SHOWN_RUN_CHARS]}{words.get(n, '')}" for n, key in enumerate(history[:MAX_LISTED_RUNS])]
    more = [f"{len(history) - MAX_LISTED_RUNS} older"] if len(history) > MAX_LISTED_RUNS else []
    return ", ".join([*shown, *more]) or "none"


def diff_lines(changes: Changes, limit: int, table: Callable[[Sequence[Mapping[str, str]]], str]) -> Iterable[str]:
    """The changes as text for a terminal: the profile's, counts by cause, and the first rollouts with why.

    Args:
        changes: all of them.
        limit: rollouts to print.
        table: writes rows as aligned text.
    """
    yield f"{changes.before[:SHOWN_RUN_CHARS]} → {changes.after[:SHOWN_RUN_CHARS]}, profile {changes.profile}"
    yield from (f"  {name}: {_cell(text)}" for name, text in changes.filters.items())
    if changes.rows.is_empty():
        yield "no rollout differs"
        return
    yield ""
    yield table([{name: _cell(value) for name, value in row.items()} for row in changes.counts.to_dicts()])
    if limit:
        yield ""
        yield table([_told(row) for row in changes.rows.head(limit).to_dicts()])
    if changes.rows.height > limit:
        yield f"\n{changes.rows.height - limit} more rollouts: --limit {changes.rows.height} shows them"


def _told(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "rollout": row["rollout_key"][:SHOWN_RUN_CHARS],
        "change": row["change"],
        "label": label_change(row),
        "why": _cell(why_changed(row)),
    }


def label_change(row: Mapping[str, Any]) -> str:
    """`positive`, or `negative → positive (override)`."""
    before, after = row["label_before"], row["label_after"]
    if before is None or after is None or before == after:
        return str(after or before)
    return f"{before} → {after}" + (f" ({row['scorer_after']})" if row["scorer_after"] else "")


def why_changed(row: Mapping[str, Any]) -> str:
    """The cause of one change (`CHANGE_SCHEMA`) in a sentence: cause, filter with its versions, detail, other filters."""
    said = [row["cause"]]
    if row["filter"]:
        versions = ""
        if row["cause"] == Cause.EDITED:
            versions = f" ({row['version_before'][:8]} → {row['version_after'][:8]})"
        step = f", step {row['step']}" if row["step"] else ""
        said.append(f"{row['filter']}{versions}{step}")
    if row["detail"]:
        said.append(row["detail"])
    for word in ("came", "went"):
        if others := [name for name in row[word].split(", ") if name not in ("", row["filter"])]:
            said.append(f"{word} too: {', '.join(others)}")
    return ": ".join(said[:2]) + "".join(f"; {each}" for each in said[2:])


def _cell(value: object) -> str:
    text = visible(str(value)[: MAX_CELL_CHARS + 1]).replace("\n", "\\n").replace("\t", "\\t")
    return text if len(text) <= MAX_CELL_CHARS else f"{text[:MAX_CELL_CHARS]}…"
