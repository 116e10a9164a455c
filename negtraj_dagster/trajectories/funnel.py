"""The funnel in numbers: per filter what it hits, what it alone hits, and what is left, by class; the same per source."""

from typing import Any

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.trajectories.judging.judge import applicable

MAX_ANSWER_CHARS = 80
MAX_SOURCES = 30
MIN_CLASS_ROWS = 20
CLASSES = ("positive", "negative", "unknown")


def funnel_of(corpus: pl.DataFrame, verdicts: pl.DataFrame, profile: sql.Profile) -> list[dict[str, Any]]:
    """A row per filter in order, what no filter can switch off first.

    `n_…` are rollouts hit, `n_…_only_this` those that no other filter drops, `left_…` what is left after this filter and all
    before it, `n_not_applicable` those it was not asked about, for they are of another class or style.

    Args:
        corpus: rollout_key, label, style.
        verdicts: those that act under the profile.
        profile: which filters act.
    """
    labels = corpus.select("rollout_key", "label")
    hits = verdicts.select("rollout_key", "filter", "reason", "severity").unique(["rollout_key", "filter"], keep="first")
    hits = hits.join(labels, on="rollout_key", how="inner")
    drops = hits.filter(pl.col("severity") == "drop")
    n_drops = drops.group_by("rollout_key").len("n_drops")
    only_drops = drops.join(n_drops.filter(pl.col("n_drops") == 1), on="rollout_key", how="semi")
    remaining = labels
    rows = []
    for name, reason, severity, filter_ in _order(drops, profile):
        filter_hits = hits.filter(pl.col("filter") == name)
        if severity == "drop":
            remaining = remaining.join(filter_hits, on="rollout_key", how="anti")
        row: dict[str, Any] = {"filter": name, "reason": reason, "severity": severity}
        row |= {f"n_{label}": n for label, n in _count(filter_hits).items()}
        row |= {f"n_{label}_only_this": n for label, n in _count(only_drops.filter(pl.col("filter") == name)).items()}
        row |= {f"left_{label}": n for label, n in _count(remaining).items()}
        row["n_not_applicable"] = corpus.height - applicable(filter_, corpus).height if filter_ else 0
        rows.append(row)
    return rows


def _order(drops: pl.DataFrame, profile: sql.Profile) -> list[tuple[str, str, str, sql.Filter | None]]:
    filter_names = {file.name for file in profile.filters}
    fixed = drops.filter(~pl.col("filter").is_in(list(filter_names))).select("filter", "reason").unique().sort("filter")
    first = [(name, reason, "drop", None) for name, reason in fixed.rows()]
    return [*first, *((file.name, file.header.reason, str(file.severity), file) for file in profile.filters)]


def _count(rows: pl.DataFrame) -> dict[str, int]:
    counts = dict(rows["label"].value_counts().rows())
    return {label: counts.get(label, 0) for label in CLASSES}


def per_source(corpus: pl.DataFrame, verdicts: pl.DataFrame, profile: sql.Profile) -> list[dict[str, Any]]:
    """Per source (a teacher's name, a temperature) and class: rollouts, what survives, and the two reasons that cost most."""
    drops = verdicts.filter(pl.col("severity") == "drop").unique(["rollout_key", "filter"], keep="first")
    rows = corpus.select("rollout_key", "source", "label", "quality")
    joined = rows.join(drops.select("rollout_key", "filter"), on="rollout_key", how="left")
    sizes = rows["source"].value_counts(sort=True)
    if sizes.height > MAX_SOURCES:
        top_sources = sizes.sort(["count", "source"], descending=[True, False]).head(MAX_SOURCES - 1)["source"]
        rest = pl.lit(f"({sizes.height - len(top_sources)} others)")
        joined = joined.with_columns(
            source=pl.when(pl.col("source").is_in(top_sources.implode())).then("source").otherwise(rest)
        )
    source_rows = []
    for (source, label), group in sorted(joined.group_by("source", "label"), key=lambda pair: tuple(map(str, pair[0]))):
        n_rollouts, dropped = group["rollout_key"].n_unique(), group.drop_nulls("filter")
        n_left = n_rollouts - dropped["rollout_key"].n_unique()
        common = dropped["filter"].value_counts().sort(["count", "filter"], descending=[True, False]).head(2).rows()
        quality = group.unique("rollout_key")["quality"].mean()
        source_rows.append(
            {
                "source": source,
                "class": label,
                "n_rollouts": n_rollouts,
                "n_left": n_left,
                "kept_share": round(n_left / n_rollouts, 3),
                "mean_quality": round(float(quality), 3) if isinstance(quality, float) else None,
                "most_common": ", ".join(f"{name} {n}" for name, n in common),
            }
        )
    return source_rows


def answers_by_class(corpus: pl.DataFrame, column: str, n_answers: int = 8) -> list[dict[str, Any]]:
    """The most common answers (any case), given (`answer`) or right (`gold`), with their share of each class."""
    answers = corpus.select("label", answer=pl.col(column).str.to_lowercase()).drop_nulls("answer")
    sizes = dict(answers["label"].value_counts().rows())
    counts = answers.group_by("answer").agg(
        pl.len(), *((pl.col("label") == label).sum().alias(label) for label in ("positive", "negative"))
    )
    common = counts.sort(["len", "answer"], descending=[True, False]).head(n_answers)
    return [
        {
            "answer": answer[:MAX_ANSWER_CHARS],
            "n_positive": positive,
            "n_negative": negative,
            "share_of_positives": round(positive / max(sizes.get("positive", 0), 1), 3),
            "share_of_negatives": round(negative / max(sizes.get("negative", 0), 1), 3),
        }
        for answer, _, positive, negative in common.rows()
    ]


def answer_shortcut(corpus: pl.DataFrame) -> dict[str, Any]:
    """By how much an answer alone tells the class: the largest difference between its shares of successes and of failures.

    Of the answers given, a model could learn `no is right` instead of the task; of the right ones, that questions of one answer
    are those that fail. Classes below `MIN_CLASS_ROWS` tell nothing: 0.
    """
    sizes = dict(corpus["label"].value_counts().rows())
    shortcut: dict[str, Any] = {"answer": "", "of": "", "difference": 0.0}
    if any(sizes.get(label, 0) < MIN_CLASS_ROWS for label in ("positive", "negative")):
        return shortcut
    for column in ("answer", "gold"):
        for row in answers_by_class(corpus, column):
            difference = round(abs(row["share_of_positives"] - row["share_of_negatives"]), 3)
            if difference > shortcut["difference"]:
                shortcut = {"answer": row["answer"], "of": column, "difference": difference}
    return shortcut
