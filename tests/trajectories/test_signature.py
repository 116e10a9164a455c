"""trajtok's signatures from Python: every Arrow string column gives the same rows, and SQL can join them."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
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


@pytest.fixture(name="texts", scope="module")
def _texts() -> list[str | None]:
    """Texts of few words, so that many are alike; some are null, some have no word."""
    random = Random(7)
    texts: list[str | None] = [" ".join(random.choices("abc", k=random.randrange(12))) for _ in range(300)]
    return [None if at % 20 == 0 else text for at, text in enumerate(texts)]


def _similar_pairs(texts: Sequence[str | None], n_questions: int = 5, **settings: Any) -> list[dict[str, Any]]:
    """Row i answers question i modulo n_questions."""
    sketches = pa.record_batch(_trajtok.ngrams(pa.array(texts, pa.string()), n_words=3))["ngrams"]
    bands = pa.record_batch(_trajtok.minhash(pa.array(texts, pa.string()), n_words=3))["bands"]
    groups = pa.array([row % n_questions for row in range(len(texts))], pa.uint32())
    return _read(_trajtok.similar_pairs(sketches, bands, groups, **settings))


def _jaccard(texts: Sequence[str | None]) -> Iterator[tuple[int, int, float]]:
    """Of every pair of texts that have words."""
    ngrams = [frozenset(row["ngrams"] or []) for row in _read(_trajtok.ngrams(pa.array(texts), n_words=3))]
    for later, earlier in itertools.product(range(len(texts)), repeat=2):
        if earlier < later and ngrams[later] and ngrams[earlier]:
            both, either = ngrams[later] & ngrams[earlier], ngrams[later] | ngrams[earlier]
            yield later, earlier, len(both) / len(either)


def test_pairs_have_the_jaccard_similarity_of_their_ngrams(texts: list[str | None]) -> None:
    expected = [pair for pair in _jaccard(texts) if pair[2] >= 0.3]
    pairs = _similar_pairs(texts, n_questions=1, n_group=len(texts))
    assert [(pair["later"], pair["earlier"]) for pair in pairs] == [pair[:2] for pair in expected]
    assert [pair["similarity"] for pair in pairs] == pytest.approx([pair[2] for pair in expected])
    assert len(pairs) > 100


def test_equal_texts_meet_by_their_bands_whatever_their_question() -> None:
    pairs = _similar_pairs([SENTENCE, "else", None, SENTENCE.upper(), " - "])
    assert pairs == [{"later": 3, "earlier": 0, "similarity": 1.0}]


def test_appended_rows_change_no_earlier_pair(texts: list[str | None]) -> None:
    settings = {"n_group": 2, "n_bucket": 1, "min_similarity": 0.0}
    pairs = _similar_pairs(texts, **settings)
    for n in (0, 1, 50, 299):
        assert _similar_pairs(texts[:n], **settings) == [pair for pair in pairs if pair["later"] < n]


def test_lists_may_stand_in_another_order(texts: list[str | None]) -> None:
    order = list(range(len(texts)))
    Random(1).shuffle(order)
    sketches = pa.record_batch(_trajtok.ngrams(pa.array(texts, pa.string()), n_words=3))["ngrams"]
    bands = pa.record_batch(_trajtok.minhash(pa.array(texts, pa.string()), n_words=3))["bands"]
    groups = pa.array([row % 5 for row in range(len(texts))], pa.uint32())
    mixed = [
        pa.chunked_array([column.take(pa.array(order[:100])), column.take(pa.array(order[100:]))])
        for column in (sketches, bands)
    ]
    at = [None if text is None else order.index(row) for row, text in enumerate(texts)]
    pairs = _read(_trajtok.similar_pairs(*mixed, groups, at=pa.array(at, pa.uint32())))
    assert pairs == _similar_pairs(texts)
    with pytest.raises(ValueError, match="at: found place 300, expected one of the 300 sketches"):
        _trajtok.similar_pairs(*mixed, groups, at=pa.array([300] * 300, pa.uint32()))


def test_texts_without_words_are_in_no_pair() -> None:
    pairs = _similar_pairs(["a", None, "a", " - ", "a"], n_questions=1, n_group=1)
    assert [(pair["later"], pair["earlier"]) for pair in pairs] == [(2, 0), (4, 0), (4, 2)]


def test_full_sketches_estimate_the_similarity() -> None:
    sketches = pa.array([list(range(256)), list(range(128, 384))], pa.list_(pa.uint64()))
    pairs = _read(_trajtok.similar_pairs(sketches, pa.nulls(2, pa.list_(pa.uint64())), GROUPS, sketch_size=256))
    assert pairs == [{"later": 1, "earlier": 0, "similarity": 0.5}]  # 128 of the least 256; 128 of 384 are shared


SKETCHES: list[list[int] | None] = [[1, 2, 3], None, [1, 2, 4]]
LIST_COLUMNS: dict[str, Callable[[list[list[int] | None]], Any]] = {
    "list": lambda rows: pa.array(rows, pa.list_(pa.uint64())),
    "large_list": lambda rows: pa.array(rows, pa.large_list(pa.uint64())),
    "fixed_size_list": lambda rows: pa.array(rows, pa.list_(pa.uint64(), 3)),
    "chunked": lambda rows: pa.chunked_array([rows[:1], rows[1:]], pa.list_(pa.uint64())),
    "slice": lambda rows: pa.array([[9], *rows], pa.list_(pa.uint64()))[1:],
    "fixed slice": lambda rows: pa.array([[7, 8, 9], *rows], pa.list_(pa.uint64(), 3))[1:],
    "polars": lambda rows: pl.Series(rows, dtype=pl.List(pl.UInt64)),
    "polars array": lambda rows: pl.Series(rows, dtype=pl.Array(pl.UInt64, 3)),
}
GROUPS = pa.array([0, 0], pa.uint32())
LISTS = pa.array([[1], [1]], pa.list_(pa.uint64()))


@pytest.mark.parametrize("kind", LIST_COLUMNS)
def test_every_column_of_hashes_gives_the_same_pairs(kind: str) -> None:
    column, none = LIST_COLUMNS[kind](SKETCHES), pa.nulls(3, pa.list_(pa.uint64()))
    one, own = pl.Series([0, 0, 0], dtype=pl.UInt32), pa.chunked_array([[0], [1, 2]], pa.uint32())
    expected = [{"later": 2, "earlier": 0, "similarity": 0.5}]
    assert _read(_trajtok.similar_pairs(column, none, one)) == expected
    assert _read(_trajtok.similar_pairs(column, column, own)) == expected


@pytest.mark.parametrize(
    ("columns", "finding"),
    [
        (([[1]], LISTS, GROUPS), "sketches: found list; expected an Arrow column of lists of uint64"),
        ((pa.array(["a"]), LISTS, GROUPS), "sketches: found an Arrow column of Utf8"),
        ((LISTS, pa.array([[1]], pa.list_(pa.int64())), GROUPS), "bands: found an Arrow column of List"),
        ((pa.array([[1, None]], pa.list_(pa.uint64())), LISTS, GROUPS), "sketches: found a null among a row's hashes"),
        ((LISTS, LISTS, pa.array([0, 0])), "groups: found an Arrow column of Int64; expected uint32"),
        ((LISTS, LISTS, pa.array([0, None], pa.uint32())), "groups: found nulls"),
    ],
    ids=["a list", "strings", "signed", "a null hash", "int64", "null groups"],
)
def test_columns_of_other_types_are_not_compared(columns: tuple[Any, Any, Any], finding: str) -> None:
    with pytest.raises(TypeError, match=finding):
        _trajtok.similar_pairs(*columns)


@pytest.mark.parametrize(
    ("sketches", "settings", "finding"),
    [
        (LISTS[:1], {}, "1 sketches, 2 bands and 2 groups"),
        (LISTS, {"sketch_size": 0}, "sketch_size is 0; expected at least 1"),
        (LISTS, {"min_similarity": 1.5}, "min_similarity is 1.5; expected 0 to 1"),
        (LISTS, {"min_similarity": math.nan}, "min_similarity is NaN"),
        (pa.array([[1], [2, 2]], pa.list_(pa.uint64())), {}, r"sketches\[1\]\[1\] is no greater"),
        (pa.array([[1, 2], [1]], pa.list_(pa.uint64())), {"sketch_size": 1}, r"sketches\[0\] holds 2 hashes"),
    ],
    ids=["lengths", "no sketch", "too similar", "nan", "order", "too long"],
)
def test_what_cannot_be_compared_is_named(sketches: Any, settings: dict[str, Any], finding: str) -> None:
    with pytest.raises(_trajtok.TrajtokError, match=finding):
        _trajtok.similar_pairs(sketches, LISTS, GROUPS, **settings)
