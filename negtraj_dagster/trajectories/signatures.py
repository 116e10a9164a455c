"""What rollouts have in common, by trajtok's signatures: which resemble each other, and which hold an evaluation question.

A sketch is computed once a rollout and kept. Pairs are found anew from all sketches of a task, in a second for 100,000: they
are a function of the rollouts in order of arrival, so no split of the arrivals changes them.
"""

from collections.abc import Sequence

import polars as pl

from negtraj_dagster import _trajtok  # noqa: TID251 - signatures are trajtok's
from negtraj_dagster.comparable import COMPARABLE_VERSION, separate_words
from negtraj_dagster.schema import digest_json

SHINGLE_WORDS = 3
SKETCH_SIZE = 512
BANDS, BAND_ROWS = 16, 8
MIN_SIMILARITY = 0.3
"""Pairs below are not told: no filter could ask for them."""
QUOTE_WORDS, QUOTE_MIN_WORDS = 13, 8
SKETCH_VERSION = 2
SKETCH_IDENTITY = digest_json(["sketch", SKETCH_VERSION, COMPARABLE_VERSION, SHINGLE_WORDS, SKETCH_SIZE, BANDS, BAND_ROWS])
QUOTES_IDENTITY = digest_json(["quotes", 1, COMPARABLE_VERSION, QUOTE_WORDS, QUOTE_MIN_WORDS])
SKETCH_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {"sketch": pl.List(pl.UInt64()), "bands": pl.List(pl.UInt64())}
SKETCH_SCHEMA = pl.Schema(SKETCH_TYPES)
KEPT_SKETCH_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {"fact_key": pl.String, **SKETCH_TYPES}
KEPT_SKETCH_SCHEMA = pl.Schema(KEPT_SKETCH_TYPES)
PAIR_SCHEMA = pl.Schema({"rollout_key": pl.String, "other_key": pl.String, "similarity": pl.Float32, "is_earlier": pl.Boolean})
QUOTE_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "rollout_key": pl.String,
    "question_id": pl.String,
    "n_shared": pl.Int64,
    "n_ngrams": pl.Int64,
}
QUOTE_SCHEMA = pl.Schema(QUOTE_TYPES)


def sketch(texts: pl.Series) -> pl.DataFrame:
    """`sketch` and `bands` (`SKETCH_SCHEMA`) of texts: the smallest hashes of their 3-word shingles, and LSH band hashes."""
    words = separate_words(texts)
    shingles = pl.DataFrame(_trajtok.ngrams(words, n_words=SHINGLE_WORDS))
    signed = _trajtok.minhash(words, n_words=SHINGLE_WORDS, permutations=BANDS * BAND_ROWS, bands=BANDS, rows=BAND_ROWS)
    bands = pl.DataFrame(signed).select(pl.col("bands").cast(pl.List(pl.UInt64)))
    sketches = shingles.select(pl.col("ngrams").list.head(SKETCH_SIZE).alias("sketch")).with_columns(bands["bands"])
    return sketches.cast(SKETCH_SCHEMA)  # type: ignore[arg-type]


def find_pairs(rows: pl.DataFrame, sketches: pl.DataFrame) -> pl.DataFrame:
    """Rollouts that resemble each other (`PAIR_SCHEMA`): the later of two names the earlier, and within a question the
    earlier names the later, too.

    Every two of a question are compared, up to 32 first and 32 last of it; rollouts of different questions where they share
    a band hash (95 % of those of similarity 0.8). Similarity is Jaccard of the shingles, exact up to 512 of them, an estimate
    from 512 beyond.

    Args:
        rows: rollout_key, question_id, in order of arrival; `at` is the place of its sketch, null where there is none.
        sketches: `SKETCH_SCHEMA`, in any order; not copied.
    """
    if rows.height < 2:
        return PAIR_SCHEMA.to_frame()
    groups = rows.select(pl.col("question_id").rank("dense").cast(pl.UInt32)).to_series()
    found = _trajtok.similar_pairs(
        sketches["sketch"],
        sketches["bands"],
        groups,
        at=rows["at"].cast(pl.UInt32),
        sketch_size=SKETCH_SIZE,
        min_similarity=MIN_SIMILARITY,
    )
    pairs = pl.DataFrame(found)
    keys = rows["rollout_key"]
    later, earlier = keys.gather(pairs["later"]), keys.gather(pairs["earlier"])
    is_same = groups.gather(pairs["later"]) == groups.gather(pairs["earlier"])
    down = pl.DataFrame({"rollout_key": later, "other_key": earlier, "similarity": pairs["similarity"]})
    up = pl.DataFrame({"rollout_key": earlier, "other_key": later, "similarity": pairs["similarity"]}).filter(is_same)
    both = pl.concat([down.with_columns(is_earlier=pl.lit(value=True)), up.with_columns(is_earlier=pl.lit(value=False))])
    return both.select(PAIR_SCHEMA.names()).cast(PAIR_SCHEMA)  # type: ignore[arg-type]


def find_quotes(
    keys: Sequence[str] | pl.Series, texts: pl.Series, question_ids: pl.Series, questions: pl.Series
) -> pl.DataFrame:
    """Which texts hold n-grams of which questions (`QUOTE_SCHEMA`)."""
    searched, references = separate_words(texts), separate_words(questions)
    quotes = pl.DataFrame(_trajtok.contaminated(searched, references, n_words=QUOTE_WORDS, min_words=QUOTE_MIN_WORDS))
    rollout_keys = pl.Series(keys, dtype=pl.String)
    quote_rows = pl.DataFrame(
        {
            "rollout_key": rollout_keys.gather(quotes["text"]),
            "question_id": question_ids.gather(quotes["reference"]),
            "n_shared": quotes["n_shared"],
            "n_ngrams": quotes["n_ngrams"],
        }
    )
    return quote_rows.cast(QUOTE_SCHEMA)  # type: ignore[arg-type]
