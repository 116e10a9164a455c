"""trajtok's packing from Python: every kind of column gives the same bins, and flat bins are the nested ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negtraj_dagster import _trajtok

LENGTHS = [5, 7, 3, 2, 4, 1]
BINS = [[1, 2], [0, 4, 5], [3]]
KINDS: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "tuple": tuple,
    "numpy int64": lambda lengths: np.array(lengths, np.int64),
    "numpy uint16": lambda lengths: np.array(lengths, np.uint16),
    "numpy with strides": lambda lengths: np.repeat(np.array(lengths, np.int32), 2)[::2],
    "pyarrow int32": lambda lengths: pa.array(lengths, pa.int32()),
    "pyarrow chunked": lambda lengths: pa.chunked_array([lengths[:2], lengths[2:]], pa.int64()),
    "pyarrow slice": lambda lengths: pa.array([9, *lengths], pa.uint8())[1:],
    "polars uint32": lambda lengths: pl.Series(lengths, dtype=pl.UInt32),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_column_gives_the_same_bins(kind: str) -> None:
    assert _trajtok.pack(KINDS[kind](LENGTHS), 10) == BINS


@given(st.lists(st.integers(1, 30), max_size=60))
def test_flat_bins_are_the_nested_ones(lengths: list[int]) -> None:
    column = pa.record_batch(_trajtok.pack_flat(np.array(lengths, np.int64), 30))["rows"]
    assert column.to_pylist() == _trajtok.pack(lengths, 30)


def test_flat_bins_are_read_without_copying() -> None:
    column = pa.record_batch(_trajtok.pack_flat(LENGTHS, 10))["rows"]
    assert column.offsets.to_numpy(zero_copy_only=True).tolist() == [0, 2, 5, 6]
    assert column.values.to_numpy(zero_copy_only=True).tolist() == [1, 2, 0, 4, 5, 3]


@pytest.mark.parametrize(
    ("lengths", "finding"),
    [
        (np.ones(2), "format 'd'|format \"d\""),
        (np.ones((2, 2), np.int64), "2 dimensions"),
        (pa.array([1, None]), "nulls"),
        (pa.array([1.0]), "Float64"),
    ],
    ids=["floats", "two dimensions", "nulls", "Arrow floats"],
)
def test_what_is_no_column_of_whole_numbers_is_refused(lengths: Any, finding: str) -> None:
    with pytest.raises(TypeError, match=finding):
        _trajtok.pack_flat(lengths, 10)


@pytest.mark.parametrize("lengths", [[3, 11], np.array([3, 11])], ids=["list", "numpy"])
def test_a_row_that_no_bin_holds_is_named(lengths: Any) -> None:
    with pytest.raises(_trajtok.PackError, match=r"lengths\[1\] is 11; expected 1 to 10"):
        _trajtok.pack_flat(lengths, 10)
