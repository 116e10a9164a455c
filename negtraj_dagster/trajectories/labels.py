"""Labels by the recorded reward, and per filter scope the key of all that a verdict on a row depends on."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.schema import Label, digest
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


@dataclass(frozen=True)
class Units:
    """What verdicts are kept by: `keys` (rollout_key, label, unit_key), and the `context` all of them depend on."""

    keys: pl.DataFrame
    context: str


def row_units(labelled: pl.DataFrame, rules: str) -> Units:
    """Units of row filters and scores: the row itself, under what the filters know of the tasks."""
    return Units(labelled.select("rollout_key", "label", unit_key="row_unit"), rules)


def set_units(scopes: Iterable[str], labelled: pl.DataFrame, questions: pl.DataFrame, rules: str) -> dict[str, Units]:
    """Units of set-level filters by scope.

    group: the row and the earlier rows of its question, so that a later row is a unit of its own and changes no other.
    reference: the row and its question, beside all gate and test questions. corpus: the row beside everything there is.

    Args:
        scopes: those in use.
        labelled: one task's rows in order of arrival, with `row_unit`.
        questions: the task's questions.
        rules: digest of what filters know of the task.
    """
    wanted = set(scopes)
    asked = labelled.join(questions.select("question_id", "question_hash"), on="question_id", how="left", maintain_order="left")
    row = digest_rows(asked.select("row_unit", "question_hash"), prefix="question")
    held_out = frame_digest(questions.filter(pl.col("split").is_in(["gate", "test"])).drop("facts"))
    made = {"reference": Units(_keyed(labelled, row), digest(rules, held_out))}
    if "group" in wanted:
        made["group"] = Units(_keyed(labelled, _chained(labelled, row)), rules)
    if "corpus" in wanted:
        made["corpus"] = Units(_keyed(labelled, row), digest(rules, held_out, frame_digest(pl.DataFrame({"row": row}))))
    return made


def _keyed(labelled: pl.DataFrame, unit_key: pl.Series) -> pl.DataFrame:
    return labelled.select("rollout_key", "label").with_columns(unit_key.alias("unit_key"))


def _chained(labelled: pl.DataFrame, row: pl.Series) -> pl.Series:
    """Per row the digest of its question's rows up to it."""
    groups = labelled.select(pl.struct("task", "question_id").rank("dense")).to_series().to_list()
    last: dict[int, str] = {}
    made = []
    for group, unit in zip(groups, row.to_list(), strict=True):
        chain = hashlib.sha256((last.get(group, "") + unit).encode()).hexdigest()
        last[group] = chain
        made.append(chain)
    return pl.Series("chain", made, dtype=pl.String)


def filter_units(filter_: sql.Filter, units: Units) -> Units:
    """The units a filter judges: a row filter for one class leaves the other class alone."""
    if filter_.applies_to == "both" or filter_.scope != "row":
        return units
    return Units(units.keys.filter(pl.col("label") == filter_.applies_to), units.context)
