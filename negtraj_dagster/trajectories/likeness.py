"""Rollouts that resemble each other or quote evaluation questions, from sketches and n-grams that are made once per text."""

import logging

import polars as pl

from negtraj_dagster.comparable import read_json_texts
from negtraj_dagster.conversations import iter_conversations
from negtraj_dagster.schema import EVALUATION_SPLITS, digest
from negtraj_dagster.store import Published, Store
from negtraj_dagster.tables import RowCache
from negtraj_dagster.trajectories.score import Scoring, restore_facts
from negtraj_dagster.trajectories.signatures import (
    KEPT_SKETCH_SCHEMA,
    QUOTE_SCHEMA,
    QUOTE_TYPES,
    QUOTES_IDENTITY,
    find_pairs,
    find_quotes,
)

LOG = logging.getLogger(__name__)

QUOTE_CHUNK_BYTES = 64_000_000
QUOTE_KEY_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {"base_key": pl.String, **QUOTE_TYPES}
QUOTE_KEY_SCHEMA = pl.Schema(QUOTE_KEY_TYPES)


def pair_rollouts(store: Store, raw: Published, questions: Published, scoring: Scoring, rollouts: pl.DataFrame) -> pl.DataFrame:
    """The pairs of rollouts whose texts are alike, both ways round; sketches that were lost are made again."""
    cache = RowCache(store, scoring.sketch_table(), "fact_key", KEPT_SKETCH_SCHEMA)
    sketches, places = _sketches(cache, rollouts)
    if (unsketched := rollouts.join(places, on="fact_key", how="anti")).height:
        LOG.warning("%d rollouts have no sketch in the store any more: made again", unsketched.height)
        restore_facts(store, raw, questions, scoring)
        sketches, places = _sketches(cache, rollouts)
    rows = rollouts.select("rollout_key", "question_id", "fact_key").join(
        places, on="fact_key", how="left", maintain_order="left"
    )
    return find_pairs(rows, sketches).sort("rollout_key", "other_key")


def _sketches(cache: RowCache, rollouts: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sketches of the rollouts, as they lie in the cache's segments, and where each one's stands (fact_key, at).

    They are by far the most of what a corpus is made of: one segment is read at a time, and nothing is put into another order.
    """
    wanted = rollouts.select("fact_key").unique()
    frames = [KEPT_SKETCH_SCHEMA.to_frame()]
    for folder in cache.segments():
        rows = cache.rows_of([folder])
        frames.append(rows.join(wanted, on="fact_key", how="semi"))
    sketches = pl.concat(frames)
    return sketches.drop("fact_key"), sketches.select("fact_key").with_row_index("at").unique("fact_key", keep="first")


class QuoteIndex:
    """Which evaluation questions stand in which texts; what was found in a text is kept in the store.

    Args:
        store: keeps what was found.
        questions: the task's, of which those held out are looked for.
    """

    def __init__(self, store: Store, questions: pl.DataFrame) -> None:
        self.store = store
        self.held_out = questions.filter(pl.col("split").is_in(EVALUATION_SPLITS)).sort("question_id")
        texts = (f"{key} {text}" for key, text in self.held_out.select("question_id", "question").rows())
        name = f"quotes/{digest(QUOTES_IDENTITY, *texts)[:16]}"
        self.cache = RowCache(store, name, "base_key", QUOTE_KEY_SCHEMA)
        self.caches: list[str] = []
        self.n_searched = 0

    def quotes(self, raw: Published, rollouts: pl.DataFrame) -> pl.DataFrame:
        """What rollouts quote (`QUOTE_SCHEMA`); texts that were not searched yet are read and searched."""
        missing = self.cache.missing(rollouts.select("base_key").unique())
        if self.held_out.is_empty():
            return QUOTE_SCHEMA.to_frame()
        if missing.height:
            self.cache.add(missing["base_key"], self._search(raw, missing["base_key"]))
        self.n_searched += missing.height
        self.caches += [self.store.name(folder) for folder in self.cache.segments()]
        cached = self.cache.rows(rollouts).drop("rollout_key")
        joined = rollouts.select("rollout_key", "base_key").join(cached, on="base_key", how="inner")
        return joined.select(QUOTE_SCHEMA.names()).sort("rollout_key", "question_id")

    def _search(self, raw: Published, base_keys: pl.Series) -> pl.DataFrame:
        frames = [QUOTE_KEY_SCHEMA.to_frame()]
        for texts in iter_conversations(self.store, raw, base_keys, max_bytes=QUOTE_CHUNK_BYTES):
            words = read_json_texts(texts["conversation"])
            quotes = find_quotes(texts["base_key"], words, self.held_out["question_id"], self.held_out["question"])
            quotes = quotes.rename({"rollout_key": "base_key"}).with_columns(rollout_key=pl.lit(""))
            frames.append(quotes.select(QUOTE_KEY_SCHEMA.names()))
        return pl.concat(frames)
