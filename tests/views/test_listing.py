"""`negtraj list`: which rollouts fit, in order of arrival, and what is refused."""

from pathlib import Path

import pytest

from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.store import Store
from negtraj_dagster.views.listing import KEY_CHARS, Listing, Wanted, list_rollouts
from tests.support.corpus_home import TASK, CorpusHome, solved


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[CorpusHome, list[str]]:
    """Six rollouts of two sources: three right, three wrong; one right and one wrong say `moss`, which a filter drops."""
    home = CorpusHome(tmp_path_factory.mktemp("list"))
    home.filter("moss")
    rows = [solved(n, "moss" if n > 3 else "stones", source="b" if n % 3 == 0 else "a", reward=n % 2 == 0) for n in range(6)]
    home.land([*rows, {**rows[0], "source": "copied"}])
    return home, home.keys(home.build())


def listed(built: tuple[CorpusHome, list[str]], limit: int = 20, **conditions: str) -> Listing:
    lineage = built[0].lineage()
    return list_rollouts(lineage.store, Wanted(**conditions), lineage.scoring.registry, limit)


def places(built: tuple[CorpusHome, list[str]], **conditions: str) -> list[int]:
    short = [key[:KEY_CHARS] for key in built[1]]
    return [short.index(row["rollout_key"]) for row in listed(built, **conditions).rows]


def test_all_are_listed_in_order_of_arrival(built: tuple[CorpusHome, list[str]]) -> None:
    assert places(built) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"label": "positive"}, [0, 2, 4, 6]),
        ({"label": "negative"}, [1, 3, 5]),
        ({"label": "unknown"}, []),
        ({"source": "b"}, [0, 3]),
        ({"source": "b", "label": "positive"}, [0]),
        ({"dropped_by": "says_word"}, [4, 5]),
        ({"dropped_by": "no_finish"}, []),
        ({"task": TASK}, [0, 1, 2, 3, 4, 5, 6]),
        ({"dropped_by": "exact_duplicate"}, [6]),
    ],
    ids=str,
)
def test_every_condition_holds(built: tuple[CorpusHome, list[str]], conditions: dict[str, str], expected: list[int]) -> None:
    assert places(built, **conditions) == expected


def test_the_count_is_of_all_that_fit(built: tuple[CorpusHome, list[str]]) -> None:
    some = listed(built, limit=2, label="positive")
    assert (len(some.rows), some.n_found) == (2, 4)


def test_what_drops_a_rollout_stands_beside_it(built: tuple[CorpusHome, list[str]]) -> None:
    *others, last = [row["dropped by"] for row in listed(built).rows]
    assert others == ["-", "-", "-", "-", "says_word", "says_word"]
    assert last == f"exact_duplicate: of {built[1][0][:12]}"


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"task": "strategyqb"}, "no corpus of the task 'strategyqb'; did you mean 'strategyqa'"),
        ({"dropped_by": "says_wort"}, "no filter 'says_wort'; did you mean 'says_word'"),
        ({"profile": "strikt"}, "strict"),
    ],
    ids=["task", "filter", "profile"],
)
def test_a_name_that_there_is_not_is_refused_with_the_nearest(
    built: tuple[CorpusHome, list[str]], conditions: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        listed(built, **conditions)


def test_without_a_corpus_it_says_what_makes_one(built: tuple[CorpusHome, list[str]], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="`negtraj run LINE` makes one"):
        list_rollouts(Store(tmp_path / "home"), Wanted(), built[0].lineage().scoring.registry, 1)
