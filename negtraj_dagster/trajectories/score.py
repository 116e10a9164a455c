"""Judges rollouts with the SQL filters and scores, each only where its inputs are new.

Every filter has a *unit* it depends on (a row, a question's rows, a row beside a reference set) and every unit a key over
all the filter can see of it. Verdicts are kept per (filter version, unit key), so a unit is judged once per version.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.schema import Label, canonical_json, digest, digest_json
from negtraj_dagster.store import Built, Published, Store

SCORER = "recorded_reward"
SCORER_VERSION = 1
SCORED_VERSION = 1
TURNS_JSON = '[{"role": "VARCHAR", "content": "VARCHAR"}]'
HIT_SCHEMA = pl.Schema(
    {"unit_key": pl.String, "rollout_key": pl.String, "step": pl.Int32, "detail": pl.String, "earlier_key": pl.String}
)
VERDICT_SCHEMA = pl.Schema(
    {
        "rollout_key": pl.String,
        "filter": pl.String,
        "version": pl.String,
        "reason": pl.String,
        "severity": pl.String,
        "step": pl.Int32,
        "detail": pl.String,
        "earlier_key": pl.String,
    }
)
HIT_COLUMNS = {"rollout_key": "VARCHAR", "step": "INTEGER", "detail": "VARCHAR"}


@dataclass(frozen=True)
class TaskRule:
    """What filters know of a task."""

    task: str
    terminal_action: str
    allowed_actions: tuple[str, ...]


def load_tables(
    connection: duckdb.DuckDBPyConnection,
    rollouts: pl.DataFrame,
    rules: Sequence[TaskRule],
    questions: pl.DataFrame | None,
) -> None:
    """Load the documented tables (sql/README.md) as `all_rollouts`, `all_steps`, `tasks`, `questions`.

    Args:
        connection: a fresh one.
        rollouts: `raw_rollouts` rows with `label` and `row_unit`.
        rules: one per task that has rollouts.
        questions: `QUESTION_COLUMNS`, or None where no filter in this stage may see them.
    """
    connection.register("rollouts_frame", rollouts.to_arrow())
    connection.execute(
        f"""create table all_rollouts as
        select * exclude (conversation), from_json(conversation, '{TURNS_JSON}') as conversation
        from rollouts_frame order by ingest_seq"""
    )
    tasks = pl.DataFrame(
        [(rule.task, rule.terminal_action, list(rule.allowed_actions)) for rule in rules],
        schema={"task": pl.String, "terminal_action": pl.String, "allowed_actions": pl.List(pl.String)},
        orient="row",
    )
    connection.register("tasks_frame", tasks.to_arrow())
    connection.execute("create table tasks as select * from tasks_frame")
    if questions is not None:
        connection.register("questions_frame", questions.to_arrow())
        connection.execute("create table questions as select * from questions_frame")
    connection.execute("create view rollouts as select * from all_rollouts")
    steps = sql.load_one("model/steps.sql")
    connection.execute(f"create table all_steps as {steps.body}")
    for name in ("rollouts_frame", "tasks_frame", *(["questions_frame"] if questions is not None else [])):
        connection.unregister(name)
    connection.execute("create table wanted_keys (rollout_key varchar)")
    connection.execute(
        "create or replace view rollouts as select * from all_rollouts semi join wanted_keys using (rollout_key)"
    )
    connection.execute("create view steps as select * from all_steps semi join wanted_keys using (rollout_key)")
    sql.lock_down(connection)


def judge(
    store: Store, connection: duckdb.DuckDBPyConnection, filter_: sql.Filter, units: pl.DataFrame
) -> tuple[pl.DataFrame, int]:
    """All current verdicts of one filter, judging only units that this version has not judged.

    Args:
        store: keeps hits per filter version.
        connection: made by `load_tables`.
        filter_: with the parameters to use.
        units: columns rollout_key, label, unit_key; rows of one unit share its key.

    Returns:
        Verdict rows (`VERDICT_SCHEMA`) and the number of rollouts judged now.
    """
    table = f"verdicts/{filter_.name}/{filter_.version[:16]}"
    if filter_.applies_to != "both" and filter_.scope == "row":
        units = units.filter(pl.col("label") == filter_.applies_to)
    with store.lock(f"segments/{table}"):
        judged = known_keys(store, table, "unit_key")
        missing = units.filter(~pl.col("unit_key").is_in(judged.implode()))
        if missing.height:
            _add_segment(store, table, missing["unit_key"], _run_filter(connection, filter_, missing))
    hits = read_rows(store, table, HIT_SCHEMA).join(units.select("unit_key").unique(), on="unit_key", how="semi")
    present = units.select("rollout_key", "label")
    hits = hits.join(present, on="rollout_key", how="inner")
    if filter_.applies_to != "both":
        hits = hits.filter(pl.col("label") == filter_.applies_to)
    verdicts = hits.select(
        "rollout_key",
        pl.lit(filter_.name).alias("filter"),
        pl.lit(filter_.version).alias("version"),
        pl.lit(str(filter_.header["reason"])).alias("reason"),
        pl.lit(filter_.severity).alias("severity"),
        "step",
        "detail",
        "earlier_key",
    )
    return verdicts.cast(VERDICT_SCHEMA), missing.height  # type: ignore[arg-type]


def _run_filter(connection: duckdb.DuckDBPyConnection, filter_: sql.Filter, missing: pl.DataFrame) -> pl.DataFrame:
    set_wanted(connection, missing["rollout_key"])
    has_earlier = filter_.scope in ("group", "corpus")
    expect = {**HIT_COLUMNS, **({"earlier_key": "VARCHAR"} if has_earlier else {})}
    hits = sql.select(connection, filter_, expect=expect)
    if not has_earlier:
        hits = hits.with_columns(pl.lit(None, dtype=pl.String).alias("earlier_key"))
    hits = hits.join(missing.select("rollout_key", "unit_key"), on="rollout_key", how="inner")
    return hits.select(HIT_SCHEMA.names()).cast(HIT_SCHEMA).sort("rollout_key", "step", "earlier_key", "detail")  # type: ignore[arg-type]


def set_wanted(connection: duckdb.DuckDBPyConnection, keys: pl.Series) -> None:
    """Restrict the views `rollouts` and `steps` to these rollouts."""
    connection.execute("delete from wanted_keys")
    connection.execute("insert into wanted_keys select unnest($keys)", {"keys": keys.unique().to_list()})


def known_keys(store: Store, table: str, column: str) -> pl.Series:
    """The keys a row cache holds; reads key files only."""
    frames = [pl.read_parquet(folder / "keys.parquet", glob=False)[column] for folder in store.segments(table)]
    return pl.concat(frames) if frames else pl.Series(column, [], dtype=pl.String)


def read_rows(store: Store, table: str, schema: pl.Schema) -> pl.DataFrame:
    """All rows of a row cache, in the order of its segments."""
    frames = [pl.read_parquet(folder / "rows.parquet", glob=False) for folder in store.segments(table)]
    return pl.concat(frames).unique(maintain_order=True) if frames else schema.to_frame()


def _add_segment(store: Store, table: str, unit_keys: pl.Series, rows: pl.DataFrame) -> None:
    keys = unit_keys.unique().sort()

    def write(folder: Path) -> Built:
        pl.DataFrame({"unit_key": keys}).write_parquet(folder / "keys.parquet")
        rows.write_parquet(folder / "rows.parquet")
        return Built(content={"n_units": len(keys), "n_rows": rows.height})

    store.publish_segment(table, digest(*keys), write)


def label_rollouts(rollouts: pl.DataFrame) -> pl.DataFrame:
    """Labels by the recorded reward, and each row's unit key: all that a row filter can see, hashed.

    A missing reward is `unknown`: neither positive nor negative. A flipped label is a new unit, not a new rollout.
    """
    label = (
        pl.when(pl.col("reward")).then(pl.lit(Label.POSITIVE.value))
        .when(~pl.col("reward")).then(pl.lit(Label.NEGATIVE.value))
        .otherwise(pl.lit(Label.UNKNOWN.value))
    )  # fmt: skip
    labelled = rollouts.with_columns(label.alias("label"))
    visible = labelled.drop("ingest_seq", "origin_place", "conversation")  # the key covers the conversation
    row_unit = [digest("row", canonical_json(row)) for row in visible.rows()]
    return labelled.with_columns(pl.Series("row_unit", row_unit, dtype=pl.String))


def score_rollouts(store: Store, raw: Published, rules: Mapping[str, TaskRule]) -> Published:
    """Labels, row verdicts and scores of every rollout.

    Args:
        store: where the row caches live.
        raw: the present `raw_rollouts`.
        rules: task -> what filters know of it.
    """
    filters = [filter_ for filter_ in sql.load_filters() if filter_.scope == "row"]
    scores = sql.load_scores()
    versions = [file.version for file in (*filters, *scores)]
    rule_rows = [[rule.task, rule.terminal_action, list(rule.allowed_actions)] for _, rule in sorted(rules.items())]
    key = digest("scored", str(SCORED_VERSION), raw.version, str(SCORER_VERSION), *versions, digest_json(rule_rows))
    rule_version = digest_json(rule_rows)
    return store.build(
        "scored_trajectories",
        key,
        lambda folder: _score(store, raw, folder, filters, scores, list(rules.values()), rule_version),
    )


def _score(
    store: Store,
    raw: Published,
    folder: Path,
    filters: Sequence[sql.Filter],
    scores: Sequence[sql.SqlFile],
    rules: Sequence[TaskRule],
    rule_version: str,
) -> Built:
    store.verify(raw.folder)
    rollouts = label_rollouts(pl.read_parquet(raw.folder / "rollouts.parquet", glob=False))
    unit_key = [digest(rule_version, unit) for unit in rollouts["row_unit"]]
    units = rollouts.select("rollout_key", "label").with_columns(pl.Series("unit_key", unit_key, dtype=pl.String))
    work, verdicts, score_rows = {}, [], []
    with sql.connect() as connection:
        load_tables(connection, rollouts, rules, None)
        for filter_ in filters:
            rows, work[f"judged_{filter_.name}"] = judge(store, connection, filter_, units)
            verdicts.append(rows)
        for file in scores:
            rows, work[f"scored_{file.name}"] = _score_file(store, connection, file, units)
            score_rows.append(rows)
    verdict_table = pl.concat(verdicts).sort("rollout_key", "filter", "step", "detail")
    score_table = pl.concat(score_rows).sort("rollout_key", "score_name")
    labels = rollouts.select("rollout_key", pl.lit(SCORER).alias("scorer"), pl.lit(SCORER_VERSION).alias("version"), "label")
    for name, table in (("verdicts", verdict_table), ("scores", score_table), ("labels", labels)):
        table.write_parquet(folder / f"{name}.parquet")
    content: dict[str, Any] = {
        name: frame_digest(table) for name, table in (("verdicts", verdict_table), ("scores", score_table))
    }
    content |= {"labels": frame_digest(labels), "n_rollouts": rollouts.height}
    details = {"raw_version": raw.version, "n_verdicts": verdict_table.height, "hits": _hits(verdict_table, rollouts)}
    return Built(content=content, details=details, work=work)


def _score_file(
    store: Store, connection: duckdb.DuckDBPyConnection, file: sql.SqlFile, units: pl.DataFrame
) -> tuple[pl.DataFrame, int]:
    table = f"scores/{file.name}/{file.version[:16]}"
    schema = pl.Schema({"unit_key": pl.String, "rollout_key": pl.String, "score": pl.Float64})
    with store.lock(f"segments/{table}"):
        missing = units.filter(~pl.col("unit_key").is_in(known_keys(store, table, "unit_key").implode()))
        if missing.height:
            set_wanted(connection, missing["rollout_key"])
            rows = sql.select(connection, file, expect={"rollout_key": "VARCHAR", "score": "DOUBLE"})
            rows = rows.join(missing.select("rollout_key", "unit_key"), on="rollout_key").select(schema.names())
            _add_segment(store, table, missing["unit_key"], rows.cast(schema))  # type: ignore[arg-type]
    rows = read_rows(store, table, schema).join(units.select("unit_key"), on="unit_key", how="semi")
    return rows.select("rollout_key", pl.lit(file.name).alias("score_name"), "score"), missing.height


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


def frame_digest(frame: pl.DataFrame) -> str:
    """Hash of a table's columns and values, whatever file it is stored in."""
    return digest(*frame.columns, *(canonical_json(row) for row in frame.rows()))
