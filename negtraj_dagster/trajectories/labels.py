"""Labels by the recorded reward, and per filter scope the key of all that a verdict on a row depends on."""

import hashlib

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.schema import Label
from negtraj_dagster.tables import digest_rows, frame_digest

SCORER = "recorded_reward"
SCORER_VERSION = 1
VISIBLE = ("task", "question_id", "source", "teacher", "occurrence", "reward", "pred", "gold")
"""What a filter sees of a row besides its conversation, which the rollout's key covers."""


def label_rollouts(rollouts: pl.DataFrame) -> pl.DataFrame:
    """Add `label`, and `row_unit`: the digest of all that a row filter can see.

    A missing reward is `unknown`: neither positive nor negative. A flipped label is a new unit, not a new rollout.
    """
    label = (
        pl.when(pl.col("reward")).then(pl.lit(Label.POSITIVE.value))
        .when(~pl.col("reward")).then(pl.lit(Label.NEGATIVE.value))
        .otherwise(pl.lit(Label.UNKNOWN.value))
    )  # fmt: skip
    labelled = rollouts.with_columns(label.alias("label"))
    units = digest_rows(labelled.select("rollout_key", "label", *VISIBLE), prefix=f"row {SCORER} {SCORER_VERSION}")
    return labelled.with_columns(units.alias("row_unit"))


def row_units(labelled: pl.DataFrame, rules: str) -> pl.DataFrame:
    """Units of row filters and scores: the row itself under what the filters know of its task."""
    return _units(labelled, pl.Series("row_unit", labelled["row_unit"]), rules)


def set_units(scope: str, labelled: pl.DataFrame, questions: pl.DataFrame, rules: str) -> pl.DataFrame:
    """Units of set-level filters.

    group: the row and the earlier rows of its question, so that a later row is a unit of its own and changes no other.
    reference: the row, its question and all gate and test questions. corpus: everything there is.

    Args:
        scope: of the filter.
        labelled: one task's rows in order of arrival, with `row_unit`.
        questions: the task's questions.
        rules: digest of what filters know of the task.
    """
    asked = labelled.join(questions.select("question_id", "question_hash"), on="question_id", how="left", maintain_order="left")
    row = digest_rows(asked.select("row_unit", "question_hash"), prefix=scope)
    reference = frame_digest(questions.filter(pl.col("split").is_in(["gate", "test"])).drop("facts"))
    if scope == "group":
        return _units(labelled, _chained(labelled, row), rules)
    if scope == "reference":
        return _units(labelled, row, f"{rules} {reference}")
    return _units(labelled, row, f"{rules} {reference} {frame_digest(pl.DataFrame({'row': row}))}")


def _chained(labelled: pl.DataFrame, row: pl.Series) -> pl.Series:
    """Per row the digest of its question's rows up to it."""
    last: dict[tuple[str, str], str] = {}
    made = []
    for task, question_id, unit in zip(labelled["task"], labelled["question_id"], row, strict=True):
        chain = hashlib.sha256(f"{last.get((task, question_id), '')} {unit}".encode()).hexdigest()
        last[task, question_id] = chain
        made.append(chain)
    return pl.Series("chain", made, dtype=pl.String)


def _units(labelled: pl.DataFrame, unit: pl.Series, context: str) -> pl.DataFrame:
    keys = digest_rows(pl.DataFrame({"unit": unit}), prefix=f"unit {context}")
    return labelled.select("rollout_key", "label").with_columns(keys.alias("unit_key"))


def filter_units(filter_: sql.Filter, units: pl.DataFrame) -> pl.DataFrame:
    """The units a filter judges: a row filter for one class leaves the other class alone."""
    if filter_.applies_to == "both" or filter_.scope != "row":
        return units
    return units.filter(pl.col("label") == filter_.applies_to)
