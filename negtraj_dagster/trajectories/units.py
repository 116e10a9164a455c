"""Per filter scope the key of all that a verdict on a row depends on: what has this key was judged already."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from negtraj_dagster.schema import digest
from negtraj_dagster.tables import digest_rows


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

    group: the row and the earlier rows of its question, so that a later row is a unit of its own and changes no other.
    reference: the row, and what it holds of the gate and test questions. corpus: the row and the rows that resemble it.

    Args:
        scopes: those in use.
        labelled: one task's rows in order of arrival, with `row_unit`.
        pairs: rollout_key, other_key, similarity, is_earlier.
        quotes: rollout_key, question_id, n_shared, n_ngrams.
        held_out: digest of the gate and test questions.
    """
    wanted = set(scopes)
    row = labelled["row_unit"]
    made: dict[str, Units] = {}
    if "reference" in wanted:
        made["reference"] = Units(_keyed(labelled, _beside(labelled, quotes, "quotes")), held_out)
    if "group" in wanted:
        made["group"] = Units(_keyed(labelled, _chained(labelled, row)))
    if "corpus" in wanted:
        others = labelled.select(other_key="rollout_key", other_unit="row_unit")
        joined = pairs.join(others, on="other_key", how="left", maintain_order="left").drop("other_key")
        made["corpus"] = Units(_keyed(labelled, _beside(labelled, joined, "pairs")))
    return made


def _keyed(labelled: pl.DataFrame, unit_key: pl.Series) -> pl.DataFrame:
    return labelled.select("rollout_key").with_columns(unit_key.alias("unit_key"))


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


def _beside(labelled: pl.DataFrame, more: pl.DataFrame, prefix: str) -> pl.Series:
    """Per row its unit, with the digest of its rows in another table where it has any."""
    if more.is_empty():
        return labelled["row_unit"]
    texts = more.select("rollout_key", digest_rows(more.drop("rollout_key"), prefix=prefix).alias("text"))
    told = texts.sort("rollout_key", "text").group_by("rollout_key").agg(pl.col("text").str.join("\n"))
    joined = labelled.select("rollout_key", "row_unit").join(told, on="rollout_key", how="left", maintain_order="left")
    units = [unit if text is None else digest(unit, text) for _, unit, text in joined.rows()]
    return pl.Series("unit", units, dtype=pl.String)
