"""A small source whose ids fit no question set is told, though it is a small share of its task."""

import polars as pl
import pytest

from negtraj_dagster.defs.corpus_checks import _lost_sources


@pytest.mark.parametrize(
    ("sources", "unknown", "lost"),
    [
        ({"a": 80, "b": 3}, {"b": 3}, ["b"]),
        ({"a": 80, "b": 3}, {"b": 2}, []),
        ({"a": 80, "b": 2}, {"b": 2}, []),
        ({"a": 80}, {}, []),
        ({"": 5, "b": 9}, {"": 5, "b": 9}, ["(no source)", "b"]),
    ],
    ids=["all of a small one", "not all", "too few to judge", "none", "two"],
)
def test_a_source_of_unknown_questions_alone_is_lost(sources: dict[str, int], unknown: dict[str, int], lost: list[str]) -> None:
    rows, unknown_rows = (
        pl.DataFrame({"source": [name for name, n in counts.items() for _ in range(n)]}, schema={"source": pl.String})
        for counts in (sources, unknown)
    )
    assert _lost_sources(rows, unknown_rows) == lost
