import shutil

import polars as pl
import pytest

from negtraj_dagster import tables
from negtraj_dagster.store import Store
from negtraj_dagster.tables import RowCache, VerdictCache, digest_rows, frame_digest

SCHEMA = pl.Schema({"unit_key": pl.String, "n": pl.Int64})


def test_a_digest_tells_null_from_empty_and_columns_apart() -> None:
    frame = pl.DataFrame({"a": ["x", None, "", "xy", "x"], "b": ["y", "y", "y", "", "y"]})
    keys = digest_rows(frame, prefix="p").to_list()
    assert len(set(keys)) == 4
    assert keys[0] == keys[4]
    assert digest_rows(frame, prefix="q").to_list()[0] != keys[0]


def test_a_frames_digest_is_of_its_values_in_order_not_of_its_chunks() -> None:
    frame = pl.DataFrame({"a": ["x", None, "é"], "b": [1, None, 3], "c": [0.5, None, 1.0], "d": [True, None, False]})
    chunked = pl.concat([frame.head(1), frame.tail(2)], rechunk=False)
    assert frame_digest(chunked) == frame_digest(frame)
    assert frame_digest(frame.reverse()) != frame_digest(frame)
    assert frame_digest(frame.rename({"a": "z"})) != frame_digest(frame)
    assert frame_digest(frame.with_columns(a=pl.lit(""))) != frame_digest(frame.with_columns(a=pl.lit(None, pl.String)))
    assert frame_digest(pl.DataFrame({"a": ["xy", ""]})) != frame_digest(pl.DataFrame({"a": ["x", "y"]}))


def test_a_frame_that_has_no_digest_is_refused() -> None:
    with pytest.raises(TypeError, match="column a: no digest for List"):
        frame_digest(pl.DataFrame({"a": [[1]]}))


def test_a_cache_answers_a_key_once_and_merges_its_segments(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_SEGMENTS", 4)
    cache = RowCache(store, "verdicts/x", "unit_key", SCHEMA)
    for n in range(12):
        wanted = pl.DataFrame({"unit_key": [f"k{n}", "k0"]})
        missing = cache.missing(wanted)
        assert missing["unit_key"].to_list() == (["k0", "k0"] if n == 0 else [f"k{n}"])
        rows = missing.unique().with_columns(n=pl.lit(n)) if n % 2 else SCHEMA.to_frame()
        cache.add(missing["unit_key"], rows)
    assert len(cache.segments()) <= 4 + 1
    assert sorted(cache.keys()["unit_key"].to_list()) == sorted(f"k{n}" for n in range(12))
    assert sorted(cache.rows()["n"].to_list()) == [1, 3, 5, 7, 9, 11]
    assert cache.rows(pl.DataFrame({"unit_key": ["k3"]})).rows() == [("k3", 3)]


def test_a_merged_segment_stands_for_all_that_its_parts_stood_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_SEGMENTS", 3)
    cache = RowCache(store, "verdicts/x", "unit_key", SCHEMA)
    folders = [cache.add(pl.Series([f"k{n}"]), pl.DataFrame({"unit_key": [f"k{n}"], "n": [n]})) for n in range(9)]
    merged = [folder for folder in store.segments("verdicts/x") if folder not in folders]
    assert len(merged) > 1
    shutil.rmtree(min(merged, key=lambda folder: len(pl.read_parquet(folder / "keys.parquet"))))  # what gc may do
    assert sorted(RowCache(Store(store.home), "verdicts/x", "unit_key", SCHEMA).rows()["n"].to_list()) == list(range(9))


def test_merging_keeps_equal_rows_of_one_answer_and_one_answer_of_a_key(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_SEGMENTS", 3)
    for cache in (RowCache(store, "rows", "unit_key", SCHEMA), VerdictCache(store, "verdicts/x", "unit_key", SCHEMA)):
        for key in "abacd":
            cache.add(pl.Series([key, f"{key}2"]), pl.DataFrame({"unit_key": [key, key], "n": [1, 1]}, schema=SCHEMA))
        rows = RowCache.rows(cache).sort("unit_key")
        assert rows["unit_key"].to_list() == ["a", "a", "b", "b", "c", "c", "d", "d"]
        assert len(cache.segments()) < 4
