"""The stage `scored_trajectories`: labels, per-rollout verdicts and scores of every rollout."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.conversations import read_index
from negtraj_dagster.errors import SqlContractError
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tables import frame_digest
from negtraj_dagster.trajectories.judge import Job, TaskRule, filter_job, judge_rows, rules_digest, verdict_rows
from negtraj_dagster.trajectories.labels import SCORER, SCORER_VERSION, label_rollouts, row_units

SCORED_VERSION = 1
"""Rises when labels, verdicts or scores come out differently from the same rollouts and the same SQL."""


def score_rollouts(store: Store, raw: Published, rules: Mapping[str, TaskRule]) -> Published:
    """Labels, row verdicts and scores of every rollout.

    Args:
        store: where the row caches live.
        raw: the present `raw_rollouts`.
        rules: task -> what filters know of it.
    """
    filters = [filter_ for filter_ in sql.load_filters() if filter_.scope == "row"]
    scores = sql.load_scores()
    if doubled := {each.name for each in filters} & {each.name for each in scores}:
        raise SqlContractError(f"sql/filters and sql/scores: both have {sorted(doubled)}; give each file its own name")
    known_of_tasks = rules_digest(list(rules.values()))
    made_of = {
        "code": SCORED_VERSION,
        "raw_rollouts": raw.version,
        "scorer": [SCORER, SCORER_VERSION],
        "tasks": known_of_tasks,
        **{f"sql/{file.name}": file.version for file in (*filters, *scores, sql.load_one("model/signatures.sql"))},
    }

    def write(folder: Path) -> Built:
        return _score(store, raw, folder, filters, scores, list(rules.values()), known_of_tasks)

    return store.build("scored_trajectories", made_of, write)


def _score(
    store: Store,
    raw: Published,
    folder: Path,
    filters: Sequence[sql.Filter],
    scores: Sequence[sql.SqlFile],
    rules: Sequence[TaskRule],
    known_of_tasks: str,
) -> Built:
    labelled = label_rollouts(read_index(store, raw))
    units = row_units(labelled, known_of_tasks)
    signatures = sql.load_one("model/signatures.sql")
    jobs = [filter_job(filter_, units) for filter_ in filters]
    jobs += [*(Job("scores", file, units) for file in scores), Job("signatures", signatures, units)]
    judged = judge_rows(store, jobs, labelled=labelled, raw=raw, rules=rules)
    verdicts = pl.concat([verdict_rows(filter_, judged.answers[filter_.name], labelled) for filter_ in filters])
    score_rows = [
        judged.answers[file.name].select("rollout_key", pl.lit(file.name).alias("score_name"), "score") for file in scores
    ]
    tables = {
        "verdicts": verdicts.sort("rollout_key", "filter", "step", "detail"),
        "scores": pl.concat(score_rows).sort("rollout_key", "score_name"),
        "signatures": judged.answers[signatures.name].drop("unit_key").sort("rollout_key"),
        "labels": labelled.select(
            "rollout_key", pl.lit(SCORER).alias("scorer"), pl.lit(SCORER_VERSION).alias("version"), "label", "row_unit"
        ),
    }
    for name, table in tables.items():
        table.rechunk().write_parquet(folder / f"{name}.parquet")
    return Built(
        content={**{name: frame_digest(table) for name, table in tables.items()}, "n_rollouts": labelled.height},
        details={"raw_version": raw.version, "n_verdicts": verdicts.height, "hits": _hits(tables["verdicts"], labelled)},
        work=judged.work,
        caches=tuple(judged.caches),
    )


def _hits(verdicts: pl.DataFrame, rollouts: pl.DataFrame) -> list[dict[str, object]]:
    counts = (
        verdicts.select("rollout_key", "filter", "reason", "severity")
        .unique()
        .join(rollouts.select("rollout_key", "task", "label"), on="rollout_key")
        .group_by("task", "filter", "reason", "severity", "label")
        .len("n_rollouts")
        .sort("task", "filter", "label")
    )
    return counts.to_dicts()
