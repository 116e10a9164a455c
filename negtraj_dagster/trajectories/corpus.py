"""One task's corpus: its rollouts with questions joined, set-level verdicts, quality, and the funnel in numbers."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.conversations import read_conversations, read_index
from negtraj_dagster.errors import StoreError
from negtraj_dagster.schema import EVALUATION_SPLITS
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tables import frame_digest
from negtraj_dagster.trajectories.judge import VERDICT_SCHEMA, TaskRule, filter_job, judge_sets, rules_digest, verdict_rows
from negtraj_dagster.trajectories.labels import set_units

CORPUS_VERSION = 1
"""Rises when the corpus comes out differently from the same rollouts, verdicts and SQL."""
ALWAYS_DROPPING = ("unknown_question", "evaluation_question")
"""Verdicts of this module; every profile drops them."""
CORPUS_COLUMNS = (
    "rollout_key",
    "ingest_seq",
    "question_id",
    "split",
    "question_hash",
    "source",
    "label",
    "base_key",
    "quality",
)


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
    filters = [filter_ for filter_ in sql.load_filters() if filter_.scope != "row"]
    quality = sql.load_one("scores/_quality.sql")
    made_of = {
        "code": CORPUS_VERSION,
        "raw_rollouts": raw.version,
        "scored_trajectories": scored.version,
        "questions": questions.content["tasks"].get(rule.task, {}).get("rows", "none"),
        "task": rules_digest([rule]),
        **{f"sql/{file.name}": file.version for file in (*filters, quality)},
    }

    def write(folder: Path) -> Built:
        return _build(store, folder, raw, scored, questions, rule, filters, quality)

    return store.build(f"trajectory_corpus/{rule.task}", made_of, write)


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
    rollouts = read_index(store, raw).filter(pl.col("task") == rule.task)
    question_table = _read(store, questions, "questions").filter(pl.col("task") == rule.task)
    if rollouts.is_empty():
        return Built(
            content={"status": "no_data", "reason": f"no rollouts of task {rule.task} have landed, or all are refused"}
        )
    labels = _read(store, scored, "labels").select("rollout_key", "label", "row_unit")
    rollouts = rollouts.join(labels, on="rollout_key", how="left", maintain_order="left")
    keys = rollouts.select("rollout_key")
    scores = _read(store, scored, "scores").join(keys, on="rollout_key", how="semi")
    known_of_task = rules_digest([rule])
    units = set_units((each.scope for each in filters), rollouts, question_table, known_of_task)
    jobs = [filter_job(each, units[each.scope]) for each in filters]
    signatures = _read(store, scored, "signatures").join(keys, on="rollout_key", how="semi")
    judged = judge_sets(store, jobs, labelled=rollouts, signatures=signatures, rule=rule, questions=question_table)
    verdicts = [_read(store, scored, "verdicts").join(keys, on="rollout_key", how="semi")]
    verdicts += _question_verdicts(rollouts, question_table)
    verdicts += [verdict_rows(each, judged.answers[each.name], rollouts) for each in filters]
    all_verdicts = pl.concat(verdicts).sort("rollout_key", "filter", "step", "earlier_key", "detail")
    corpus = _corpus_rows(rollouts, question_table, _qualities(rollouts, all_verdicts, scores, quality))
    samples = rejected_samples(store, raw, rollouts, all_verdicts)
    for name, table in (("corpus", corpus), ("verdicts", all_verdicts), ("rejected_samples", samples)):
        table.rechunk().write_parquet(folder / f"{name}.parquet")
    content = {"corpus": frame_digest(corpus), "verdicts": frame_digest(all_verdicts), "n_rollouts": corpus.height}
    details = {"funnel": _funnel(corpus, all_verdicts), "labels": _count_labels(corpus), **_quality_means(corpus)}
    return Built(content=content, details=details, work=judged.work, caches=tuple(judged.caches))


def _read(store: Store, published: Published, name: str) -> pl.DataFrame:
    return pl.read_parquet(store.file(published.folder, f"{name}.parquet"), glob=False)


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


def _qualities(rollouts: pl.DataFrame, verdicts: pl.DataFrame, scores: pl.DataFrame, quality: sql.SqlFile) -> pl.DataFrame:
    keys = rollouts.select("rollout_key")
    with sql.connect() as connection:
        for name, frame in (("rollouts", keys), ("verdicts", verdicts), ("scores", scores)):
            connection.register(f"{name}_frame", frame.to_arrow())
            connection.execute(f"create table {name} as select * from {name}_frame")
            connection.unregister(f"{name}_frame")
        sql.lock_down(connection)
        return sql.select(connection, quality, expect={"rollout_key": "VARCHAR", "quality": "DOUBLE"})


def _corpus_rows(rollouts: pl.DataFrame, questions: pl.DataFrame, qualities: pl.DataFrame) -> pl.DataFrame:
    asked = questions.select("question_id", "split", "question_hash").unique("question_id", keep="first")
    joined = rollouts.join(asked, on="question_id", how="left").join(qualities, on="rollout_key", how="left")
    return joined.select(CORPUS_COLUMNS).sort("ingest_seq")


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


def rejected_samples(
    store: Store, raw: Published, rollouts: pl.DataFrame, verdicts: pl.DataFrame, n_per_reason: int = 5
) -> pl.DataFrame:
    """Up to five rejected rollouts per filter, with the offending step, for people to look at."""
    drops = verdicts.filter(pl.col("severity") == "drop").unique(["rollout_key", "filter"], keep="first", maintain_order=True)
    sample = drops.group_by("filter", maintain_order=True).head(n_per_reason)
    named = rollouts.select("rollout_key", "question_id", "label", "base_key")
    rows = sample.join(named, on="rollout_key", how="left", maintain_order="left")
    texts = read_conversations(store, raw, rows["base_key"]).select("base_key", "conversation")
    return rows.join(texts, on="base_key", how="left", maintain_order="left").drop("base_key")
