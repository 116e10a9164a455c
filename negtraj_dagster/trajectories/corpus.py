"""One task's corpus: its rollouts with questions joined, set-level verdicts, quality, and the funnel in numbers."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.errors import StoreError
from negtraj_dagster.schema import EVALUATION_SPLITS, digest, digest_json
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.trajectories.score import (
    VERDICT_SCHEMA,
    TaskRule,
    frame_digest,
    judge,
    label_rollouts,
    load_tables,
    set_wanted,
)

CORPUS_VERSION = 1
ALWAYS_DROPPING = ("unknown_question", "evaluation_question")
"""Verdicts of this module; every profile drops them."""


def build_corpus(store: Store, raw: Published, scored: Published, questions: Published, rule: TaskRule) -> Published:
    """The task's corpus, judging only what is new.

    Args:
        store: where row caches and objects live.
        raw: the present `raw_rollouts`.
        scored: the present `scored_trajectories`.
        questions: the present `question_sets`.
        rule: what filters know of the task.

    Raises:
        StoreError: `scored` was not made from `raw`, so some rollouts would pass filters that never saw them.
    """
    if scored.details["raw_version"] != raw.version:
        raise StoreError("scored_trajectories was made from other rollouts than the present ones; materialize it again first")
    task = rule.task
    asset = f"trajectory_corpus/{task}"
    filters = [filter_ for filter_ in sql.load_filters() if filter_.scope != "row"]
    quality = sql.load_one("scores/_quality.sql")
    versions = [file.version for file in (*filters, quality)]
    question_version = questions.content["tasks"].get(task, {}).get("rows", "none")
    known_of_task = digest_json([rule.terminal_action, list(rule.allowed_actions)])
    parts = (task, known_of_task, raw.version, scored.version, question_version)
    key = digest("corpus", str(CORPUS_VERSION), *parts, *versions)
    return store.build(asset, key, lambda folder: _build(store, folder, raw, scored, questions, rule, filters, quality))


def _build(
    store: Store,
    folder: Path,
    raw: Published,
    scored: Published,
    questions: Published,
    rule: TaskRule,
    filters: Sequence[sql.Filter],
    quality: sql.SqlFile,
) -> Built:
    for input_ in (raw, scored, questions):
        store.verify(input_.folder)
    rollouts = pl.read_parquet(raw.folder / "rollouts.parquet", glob=False).filter(pl.col("task") == rule.task)
    question_table = pl.read_parquet(questions.folder / "questions.parquet", glob=False).filter(pl.col("task") == rule.task)
    if rollouts.is_empty():
        return Built(content={"status": "no_data", "reason": f"no rollouts of task {rule.task} have landed"})
    rollouts = label_rollouts(rollouts)
    keys = rollouts.select("rollout_key")
    row_verdicts = pl.read_parquet(scored.folder / "verdicts.parquet", glob=False).join(keys, on="rollout_key", how="semi")
    scores = pl.read_parquet(scored.folder / "scores.parquet", glob=False).join(keys, on="rollout_key", how="semi")
    work, verdicts = {}, [row_verdicts, *_question_verdicts(rollouts, question_table)]
    with sql.connect() as connection:
        load_tables(connection, rollouts, [rule], question_table)
        for filter_ in filters:
            units = _units(filter_, rollouts, question_table, rule)
            rows, work[f"judged_{filter_.name}"] = judge(store, connection, filter_, units)
            verdicts.append(rows)
        all_verdicts = pl.concat(verdicts).sort("rollout_key", "filter", "step", "earlier_key", "detail")
        qualities = _qualities(connection, rollouts, all_verdicts, scores, quality)
    corpus = _corpus_rows(rollouts, question_table, qualities)
    corpus.write_parquet(folder / "corpus.parquet")
    all_verdicts.write_parquet(folder / "verdicts.parquet")
    rejected_samples(rollouts, all_verdicts).write_parquet(folder / "rejected_samples.parquet")
    content = {"corpus": frame_digest(corpus), "verdicts": frame_digest(all_verdicts), "n_rollouts": corpus.height}
    details = {"funnel": _funnel(corpus, all_verdicts), "labels": _count_labels(corpus), **_quality_means(corpus)}
    return Built(content=content, details=details, work=work)


def _units(filter_: sql.Filter, rollouts: pl.DataFrame, questions: pl.DataFrame, rule: TaskRule) -> pl.DataFrame:
    """What a set-level verdict depends on: the group's rows in order, or the row's question beside the evaluation sets."""
    asked = rollouts.join(questions.select("question_id", "question_hash"), on="question_id", how="left", maintain_order="left")
    row = pl.concat_str("row_unit", pl.lit(" "), pl.col("question_hash").fill_null("?"))
    reference = frame_digest(questions.filter(pl.col("split").is_in(["gate", "test"])))
    if filter_.scope == "group":
        joined = row.str.join("|").over("task", "question_id", order_by="ingest_seq")
    elif filter_.scope == "reference":
        joined = pl.concat_str(row, pl.lit(f"|{reference}"))
    else:
        joined = row.str.join("|") + pl.lit(f"|{reference}")
    frame = asked.select("rollout_key", "label", joined.alias("joined"))
    known_of_task = digest_json([rule.terminal_action, list(rule.allowed_actions)])
    unit_key = [digest(filter_.scope, known_of_task, joined) for joined in frame["joined"]]
    return frame.select("rollout_key", "label", pl.Series("unit_key", unit_key, dtype=pl.String))


def _question_verdicts(rollouts: pl.DataFrame, questions: pl.DataFrame) -> list[pl.DataFrame]:
    """Verdicts no profile can switch off: the question is in no question set (there is no prompt), or is held out."""
    held_out = questions.filter(pl.col("split").is_in(EVALUATION_SPLITS))
    orphans = rollouts.join(questions.select("question_id").unique(), on="question_id", how="anti")
    evaluated = rollouts.join(held_out.select("question_id").unique(), on="question_id", how="semi")
    return [
        _drop(orphans, "unknown_question", "its question is in no question set"),
        _drop(evaluated, "evaluation_question", "its question is held out for evaluation"),
    ]


def _drop(rollouts: pl.DataFrame, name: str, reason: str) -> pl.DataFrame:
    columns = {
        "filter": name,
        "version": "1",
        "reason": reason,
        "severity": "drop",
        "step": None,
        "earlier_key": None,
    }
    detail = pl.format("question id {}", "question_id").alias("detail")
    made = rollouts.select("rollout_key", detail, *(pl.lit(value).alias(name) for name, value in columns.items()))
    return made.select(VERDICT_SCHEMA.names()).cast(VERDICT_SCHEMA)  # type: ignore[arg-type]


def _qualities(
    connection: duckdb.DuckDBPyConnection,
    rollouts: pl.DataFrame,
    verdicts: pl.DataFrame,
    scores: pl.DataFrame,
    quality: sql.SqlFile,
) -> pl.DataFrame:
    set_wanted(connection, rollouts["rollout_key"])
    for name, frame in (("verdicts", verdicts), ("scores", scores)):
        connection.register(f"{name}_frame", frame.to_arrow())
        connection.execute(f"create table {name} as select * from {name}_frame")
        connection.unregister(f"{name}_frame")
    return sql.select(connection, quality, expect={"rollout_key": "VARCHAR", "quality": "DOUBLE"})


def _corpus_rows(rollouts: pl.DataFrame, questions: pl.DataFrame, qualities: pl.DataFrame) -> pl.DataFrame:
    asked = questions.select("question_id", "split", "question_hash").unique("question_id", keep="first")
    return (
        rollouts.join(asked, on="question_id", how="left")
        .join(qualities, on="rollout_key", how="left")
        .select(
            "rollout_key",
            "ingest_seq",
            "question_id",
            "split",
            "question_hash",
            "source",
            "label",
            "conversation",
            "quality",
        )
        .sort("ingest_seq")
    )


def _funnel(corpus: pl.DataFrame, verdicts: pl.DataFrame) -> list[dict[str, object]]:
    """Per filter in order: hits and hits of this filter alone, by class."""
    hits = verdicts.select("rollout_key", "filter", "reason", "severity").unique()
    n_drops = hits.filter(pl.col("severity") == "drop").group_by("rollout_key").len("n_drops")
    hits = hits.join(n_drops, on="rollout_key", how="left").join(corpus.select("rollout_key", "label"), on="rollout_key")
    order = [*ALWAYS_DROPPING, *(filter_.name for filter_ in sql.load_filters())]
    rows = []
    for name in order:
        mine = hits.filter(pl.col("filter") == name)
        alone = mine.filter((pl.col("severity") == "drop") & (pl.col("n_drops") == 1))
        row: dict[str, object] = {"filter": name, "severity": mine["severity"][0] if mine.height else ""}
        for label in ("positive", "negative", "unknown"):
            row[f"n_{label}"] = mine.filter(pl.col("label") == label).height
            row[f"n_{label}_only_this"] = alone.filter(pl.col("label") == label).height
        rows.append(row)
    return rows


def _count_labels(corpus: pl.DataFrame) -> dict[str, int]:
    counts = dict(corpus["label"].value_counts().rows())
    return {label: counts.get(label, 0) for label in ("positive", "negative", "unknown")}


def _quality_means(corpus: pl.DataFrame) -> dict[str, float | None]:
    means = {}
    for label in ("positive", "negative"):
        mean = corpus.filter(pl.col("label") == label)["quality"].mean()
        means[f"mean_quality_{label}"] = round(float(mean), 4) if isinstance(mean, float) else None
    return means


def rejected_samples(rollouts: pl.DataFrame, verdicts: pl.DataFrame, n_per_reason: int = 5) -> pl.DataFrame:
    """Up to five rejected rollouts per filter, with the offending step, for people to look at."""
    drops = verdicts.filter(pl.col("severity") == "drop").unique(["rollout_key", "filter"], keep="first", maintain_order=True)
    sample = drops.group_by("filter", maintain_order=True).head(n_per_reason)
    return sample.join(rollouts.select("rollout_key", "question_id", "label", "conversation"), on="rollout_key", how="left")
