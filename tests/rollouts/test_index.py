"""The index's join by ids: what a join of whole ids gives, whatever their first bytes."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from negtraj_dagster.rollouts.index import _matched

IDS = st.sampled_from([beginning * 8 + end * 24 for beginning in (b"a", b"b") for end in (b"x", b"y", b"z")])


@given(st.lists(IDS | st.none()), st.lists(IDS))
def test_places_are_matched_by_whole_ids_in_both_orders(wanted: list[bytes | None], present: list[bytes]) -> None:
    matched = _matched(pl.Series(wanted, dtype=pl.Binary), pl.Series(present, dtype=pl.Binary))

    expected = [
        (place, read)
        for place, identifier in enumerate(wanted)
        for read in ([n for n, other in enumerate(present) if other == identifier] or [None])
    ]
    assert matched.rows() == expected
