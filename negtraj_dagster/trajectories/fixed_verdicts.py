"""Verdicts that no profile can switch off: a question that is unknown or held out, and what people decided."""

import polars as pl

from negtraj_dagster.schema import EVALUATION_SPLITS, FIXED_VERDICTS
from negtraj_dagster.trajectories.judging.judge import VERDICT_SCHEMA

OVERRULED = "overruled"
"""Severity of a verdict that a person set aside (`keep` in overrides.csv)."""


def question_verdicts(rollouts: pl.DataFrame, questions: pl.DataFrame) -> list[pl.DataFrame]:
    """Verdicts no profile can switch off: the question is in no question set (there is no prompt), or is held out."""
    held_out = questions.filter(pl.col("split").is_in(EVALUATION_SPLITS))
    orphans = rollouts.join(questions.select("question_id").unique(), on="question_id", how="anti")
    evaluated = rollouts.join(held_out.select("question_id").unique(), on="question_id", how="semi")
    detail = pl.format("question id {}", "question_id").alias("detail")
    return [
        drop_verdicts(orphans.select("rollout_key", detail), "unknown_question"),
        drop_verdicts(evaluated.select("rollout_key", detail), "evaluation_question"),
    ]


def drop_verdicts(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """Rows (rollout_key, detail) as verdicts of the fixed filter of this name."""
    columns = {
        "filter": name,
        "version": "1",
        "reason": FIXED_VERDICTS[name],
        "severity": "drop",
        "step": None,
        "earlier_key": None,
    }
    verdicts = rows.select("rollout_key", "detail", *(pl.lit(value).alias(name) for name, value in columns.items()))
    return verdicts.select(VERDICT_SCHEMA.names()).cast(VERDICT_SCHEMA)  # type: ignore[arg-type]


def overrule(verdicts: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """The verdicts with what people decided: `drop` adds one, `keep` sets one filter's aside."""
    if decisions.is_empty():
        return verdicts
    decisions = decisions.with_columns(decision=pl.format("by {}: {}", "by", "why"))
    drops = decisions.filter(pl.col("field") == "drop").select("rollout_key", detail="decision")
    verdicts = pl.concat([verdicts, drop_verdicts(drops, "override")])
    keep_decisions = decisions.filter(pl.col("field") == "keep").select("rollout_key", "decision", filter="value")
    joined = verdicts.join(keep_decisions, on=["rollout_key", "filter"], how="left", maintain_order="left")
    is_kept = pl.col("decision").is_not_null() & ~pl.col("filter").is_in(list(FIXED_VERDICTS))
    return joined.with_columns(
        severity=pl.when(is_kept).then(pl.lit(OVERRULED)).otherwise("severity"),
        detail=pl.when(is_kept).then(pl.concat_str("detail", pl.lit("; overruled "), "decision")).otherwise("detail"),
    ).select(VERDICT_SCHEMA.names())
