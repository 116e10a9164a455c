"""Per filter scope the key of all that a verdict on a row depends on: what has this key was judged already."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from negtraj_dagster.schema import digest
from negtraj_dagster.tables import PART_ROWS, digest_rows, frame_digest


@dataclass(frozen=True)
class Units:
    """What verdicts are kept by: `keys` (rollout_key, unit_key), and the `context` all of them depend on."""

    keys: pl.DataFrame
    context: str = ""


def row_units(labelled: pl.DataFrame) -> Units:
    """Units of row filters and scores: the row itself, with its question and its task's rule."""
    return Units(labelled.select("rollout_key", unit_key="row_unit"))


def set_units(
    scopes: Iterable[str], labelled: pl.DataFrame, pairs: pl.DataFrame, quotes: pl.DataFrame, held_out: str
) -> dict[str, Units]:
    """Units of set-level filters by scope.

    group: the row and all rows of its question, so that a later row asks about those again, and of no others.
    reference: the row, and what it holds of the gate and test questions. pairs: the row and the rows that resemble it.
    corpus: all rows, so that any change asks about all of them.

    Args:
        scopes: those in use.
        labelled: one task's rows in order of arrival, with `row_unit`.
        pairs: rollout_key, other_key, similarity, is_earlier.
        quotes: rollout_key, question_id, n_shared, n_ngrams.
        held_out: digest of the gate and test questions.
    """
    scope_set = set(scopes)
    row = labelled["row_unit"]
    units_of: dict[str, Units] = {}
    if "reference" in scope_set:
        units_of["reference"] = Units(_keyed(labelled, _beside(labelled, quotes, "quotes")), held_out)
    if "group" in scope_set:
        units_of["group"] = Units(_keyed(labelled, _of_groups(labelled)))
    if "corpus" in scope_set:
        units_of["corpus"] = Units(_keyed(labelled, row), digest("\n".join(row), frame_digest(pairs)))
    if "pairs" in scope_set:
        other_units = labelled.select(other_key="rollout_key", other_unit="row_unit")
        joined = pairs.join(other_units, on="other_key", how="left", maintain_order="left").drop("other_key")
        units_of["pairs"] = Units(_keyed(labelled, _beside(labelled, joined, "pairs")))
    return units_of


def _keyed(labelled: pl.DataFrame, unit_key: pl.Series) -> pl.DataFrame:
    return labelled.select("rollout_key").with_columns(unit_key.alias("unit_key"))


def _of_groups(labelled: pl.DataFrame) -> pl.Series:
    """Per row the digest of it and of its question's rows in order of arrival."""
    group_units = labelled.group_by("task", "question_id", maintain_order=True).agg(units=pl.col("row_unit").str.join("\n"))
    groups = group_units.with_columns(
        pl.Series("group", [hashlib.sha256(text.encode()).hexdigest() for text in group_units["units"]], dtype=pl.String)
    )
    joined = labelled.join(groups, on=["task", "question_id"], how="left", maintain_order="left", nulls_equal=True)
    return digest_rows(joined.select("row_unit", "group"), prefix="group")


def _beside(labelled: pl.DataFrame, more: pl.DataFrame, prefix: str) -> pl.Series:
    """Per row its unit, with the digest of its rows in another table where it has any."""
    if more.is_empty():
        return labelled["row_unit"]
    texts = more.select("rollout_key", digest_rows(more.drop("rollout_key"), prefix=prefix).alias("text"))
    joined_texts = texts.sort("rollout_key", "text").group_by("rollout_key").agg(pl.col("text").str.join("\n"))
    joined = labelled.select("rollout_key", "row_unit").join(joined_texts, on="rollout_key", how="left", maintain_order="left")
    units = [
        pl.Series("unit", [unit if text is None else digest(unit, text) for _, unit, text in part.rows()], dtype=pl.String)
        for part in joined.iter_slices(PART_ROWS)
    ]
    return pl.concat(units) if units else pl.Series("unit", [], dtype=pl.String)
