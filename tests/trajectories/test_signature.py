"""trajtok's signatures from Python: every Arrow string column gives the same rows, and SQL can join them."""

from collections.abc import Callable
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from negtraj_dagster import _trajtok  # noqa: TID251 - tests the compiled module itself

SENTENCE = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
TEXTS: list[str | None] = [SENTENCE, None, " - ", "Zürich und Köln!", f"{SENTENCE.upper()} fifteen"]
COLUMNS: dict[str, Callable[[list[str | None]], Any]] = {
    "utf8": lambda texts: pa.array(texts, pa.string()),
    "large_utf8": lambda texts: pa.array(texts, pa.large_string()),
    "utf8_view": lambda texts: pa.array(texts, pa.string_view()),
    "chunked": lambda texts: pa.chunked_array([texts[:1], texts[1:]], pa.string()),
    "slice": lambda texts: pa.array(["before", *texts], pa.string())[1:],
    "polars": lambda texts: pl.Series(texts, dtype=pl.String),
}


def _read(batch: _trajtok.RecordBatch) -> list[dict[str, Any]]:
    return pa.record_batch(batch).to_pylist()


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_column_of_strings_gives_the_same_rows(kind: str) -> None:
    texts, plain = COLUMNS[kind](TEXTS), pa.array(TEXTS)
    assert _read(_trajtok.minhash(texts)) == _read(_trajtok.minhash(plain))
    assert _read(_trajtok.ngrams(texts)) == _read(_trajtok.ngrams(plain))
    assert _read(_trajtok.contaminated(texts, texts)) == _read(_trajtok.contaminated(plain, plain))


def test_signatures_are_null_where_there_is_no_word() -> None:
    rows = _read(_trajtok.minhash(pa.array(TEXTS)))
    assert [row["signature"] is None for row in rows] == [False, True, True, False, False]
    assert [len(row["signature"]) for row in rows if row["signature"]] == [128] * 3
    assert [len(row["bands"]) for row in rows if row["bands"]] == [16] * 3


def test_a_join_on_equal_band_hashes_finds_near_duplicates() -> None:
    signed = pa.table({"place": range(len(TEXTS))}).append_column(
        "bands", pa.record_batch(_trajtok.minhash(pa.array(TEXTS), bands=32, rows=4))["bands"]
    )
    pairs = duckdb.sql(
        """
        with bands as (select place, unnest(bands) as band from signed)
        select distinct a.place, b.place from bands as a inner join bands as b using (band) where a.place < b.place
        """
    ).fetchall()
    assert signed.num_rows == len(TEXTS)
    assert pairs == [(0, 4)]


def test_ngrams_are_distinct_and_the_same_in_every_text() -> None:
    rows = [row["ngrams"] for row in _read(_trajtok.ngrams(pa.array(TEXTS)))]
    assert [row if row is None else len(row) for row in rows] == [2, None, 0, 1, 3]
    assert set(rows[0]) < set(rows[4])


def test_a_reference_in_a_text_is_counted_in_ngrams() -> None:
    hits = _read(_trajtok.contaminated(pl.Series(["nothing", f"He said: {SENTENCE}."]), pl.Series(["x", SENTENCE])))
    assert hits == [{"text": 1, "reference": 1, "n_shared": 2, "n_ngrams": 2}]


def test_short_references_are_found_from_min_words_on() -> None:
    texts, references = pa.array(["Is the sky blue?"]), pa.array(["sky", "The sky"])
    hits = _read(_trajtok.contaminated(texts, references, min_words=2))
    assert hits == [{"text": 0, "reference": 1, "n_shared": 1, "n_ngrams": 1}]
    assert _read(_trajtok.contaminated(texts, references)) == []


@pytest.mark.parametrize(
    ("texts", "finding"),
    [(["a"], "found list"), (pa.array([1]), "found an Arrow column of Int64")],
    ids=["a list", "numbers"],
)
def test_what_is_no_column_of_strings_is_refused(texts: Any, finding: str) -> None:
    with pytest.raises(TypeError, match=finding):
        _trajtok.minhash(texts)


def test_bands_that_do_not_fit_are_refused() -> None:
    with pytest.raises(_trajtok.TrajtokError, match="17 bands of 8 rows need 136 of 128 permutations"):
        _trajtok.minhash(pa.array(["a"]), bands=17)
