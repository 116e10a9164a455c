"""Names rollouts of the present corpora by label, source, recipe or the filter that drops them: keys to go on with."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.printable import line_of
from negtraj_dagster.settings import did_you_mean
from negtraj_dagster.sql import DEFAULT_PROFILE
from negtraj_dagster.store import Published, Store
from negtraj_dagster.trajectories.quality import why_dropped

KEY_CHARS = 12
"""Of a rollout_key: enough to be one rollout's in a corpus of millions."""
CORPORA = "trajectory_corpus/"


@dataclass(frozen=True)
class Wanted:
    """Which rollouts to list; None leaves a condition out.

    Attributes:
        task: of this task.
        recipe: that this recipe's present selection holds.
        label: positive, negative or unknown.
        source: of this source.
        dropped_by: that this filter drops under `profile`.
        profile: a quality profile.
    """

    task: str | None = None
    recipe: str | None = None
    label: str | None = None
    source: str | None = None
    dropped_by: str | None = None
    profile: str = DEFAULT_PROFILE


@dataclass(frozen=True)
class Listing:
    """The first rollouts as rows of text, in order of arrival, and how many fit in all."""

    rows: tuple[dict[str, str], ...]
    n_found: int


def list_rollouts(store: Store, wanted: Wanted, registry: sql.Registry, limit: int) -> Listing:
    """The rollouts that fit every condition.

    Args:
        store: is read.
        wanted: the conditions.
        registry: the present SQL files, for the profile.
        limit: rows to return at most.

    Raises:
        SettingsError: a task, profile or filter that there is not; names the nearest.
        StoreError: no corpus was materialized.
    """
    profile = sql.find_profile(registry, wanted.profile)
    judged = [_judge(store, corpus, profile) for corpus in _corpora(store, wanted.task) if not corpus.is_empty]
    if not judged:
        return Listing((), 0)
    rollouts = pl.concat(judged)
    if wanted.dropped_by is not None:
        filters = set(rollouts["dropped_by"].unique()) - {""}
        if wanted.dropped_by not in {*filters, *registry.files["filters"]}:
            raise SettingsError(f"no filter {wanted.dropped_by!r}{did_you_mean(wanted.dropped_by, filters)}")
    fitting = rollouts.filter(_conditions(store, wanted))
    rows = fitting.head(limit).iter_rows(named=True)
    return Listing(tuple(_row(row) for row in rows), fitting.height)


def _corpora(store: Store, task: str | None) -> Iterator[Published]:
    tasks = [asset.removeprefix(CORPORA) for asset in store.assets() if asset.startswith(CORPORA)]
    if not tasks:
        raise StoreError(f"{store.place('objects')}: no corpus was materialized yet; `negtraj run LINE` makes one")
    if task is not None and task not in tasks:
        raise SettingsError(f"no corpus of the task {task!r}{did_you_mean(task, tasks)}")
    for name in tasks:
        if task in (None, name):
            yield store.require(f"{CORPORA}{name}")


def _judge(store: Store, corpus: Published, profile: sql.Profile) -> pl.DataFrame:
    """A task's rollouts with the filter that drops each, and `why` in its words."""
    rows, verdicts = (
        pl.read_parquet(store.file(corpus.folder, f"{name}.parquet"), glob=False) for name in ("corpus", "verdicts")
    )
    dropped = why_dropped(rows.select("rollout_key", "ingest_seq"), verdicts, profile)
    why = pl.col("why").str.strip_prefix("filter ")  # `near_duplicate: of 3f2a…`
    dropped = dropped.select("rollout_key", why, dropped_by=why.str.split(":").list.first())
    columns = ("rollout_key", "ingest_seq", "question_id", "split", "label", "source", "answer")
    return rows.select(columns).join(dropped, on="rollout_key", how="left").sort("ingest_seq")


def _conditions(store: Store, wanted: Wanted) -> pl.Expr:
    conditions = [pl.lit(True)]
    conditions += [pl.col("label") == wanted.label] if wanted.label else []
    conditions += [pl.col("source") == wanted.source] if wanted.source else []
    conditions += [pl.col("dropped_by") == wanted.dropped_by] if wanted.dropped_by else []
    if wanted.recipe is not None:
        selection = store.require(f"{wanted.recipe}/training_selection")
        conditions.append(pl.col("rollout_key").is_in(_selected(store, selection).implode()))
    return pl.all_horizontal(conditions)


def _selected(store: Store, selection: Published) -> pl.Series:
    if selection.is_empty:
        return pl.Series([], dtype=pl.String)
    frame = pl.read_parquet(store.file(selection.folder, "selection.parquet"), glob=False)
    return frame.filter(pl.col("selected"))["rollout_key"]


def _row(row: dict[str, object]) -> dict[str, str]:
    return {
        "rollout_key": str(row["rollout_key"])[:KEY_CHARS],
        "label": str(row["label"]),
        "question_id": line_of(row["question_id"]),
        "split": line_of(row["split"]),
        "source": line_of(row["source"]),
        "answer": line_of(row["answer"]),
        "dropped by": str(row["why"] or "-"),
    }
