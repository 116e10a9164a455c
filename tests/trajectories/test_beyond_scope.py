"""A file that looks at more than its scope allows is refused in a run and by `negtraj try`, in a batch of any size."""

from pathlib import Path

import pytest

from negtraj_dagster.errors import SqlContractError
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Store
from negtraj_dagster.views.trial import try_filter
from tests.support.small_corpus import build_small, small_lineage, small_settings

HEADER = """/*
name = "mine"
reason = "mine"
scope = "{scope}"
severity = "drop"
applies_to = "both"
style = "any"
doc = "d"
*/
"""
ROW = {
    "an average": "select rollout_key, 1 as step, 'x' as detail from texts "
    "where length(said) <= (select avg(length(said)) from texts)",
    "an earlier key": "select distinct b.rollout_key, 1 as step, 'x' as detail from rollouts as a, rollouts as b "
    "where a.rollout_key < b.rollout_key",
    "a limit": "select rollout_key, 1 as step, 'x' as detail from rollouts order by rollout_key desc limit 2",
    "every second": "select rollout_key, 1 as step, 'x' as detail from rollouts "
    "qualify row_number() over (order by rollout_key) % 2 = 0",
    "the number of rows": "select rollout_key, count(*) over () as step, 'x' as detail from rollouts",
}
UNKNOWN = "select 'nope' as rollout_key, 1 as step, 'x' as detail from rollouts"


def write_filter(folder: Path, body: str, scope: str = "row") -> Path:
    path = folder / "filters" / "900_mine.sql"
    path.parent.mkdir(parents=True)
    path.write_text(HEADER.format(scope=scope) + body)
    return path


def run_with(store: Store, settings: Settings, folder: Path) -> None:
    build_small(store, settings.model_copy(update={"sql_dirs": (folder,)}))


@pytest.mark.parametrize("body", ROW.values(), ids=ROW.keys())
def test_a_row_filter_that_looks_at_other_rows_is_refused(store: Store, tmp_path: Path, body: str) -> None:
    path = write_filter(tmp_path / "sql", body)
    settings = small_settings(store.home)
    message = r"900_mine\.sql: what it says of rollout .* changes .* scope row allows the rollout alone"
    lineage, _ = build_small(store, settings)
    with pytest.raises(SqlContractError, match=message):
        try_filter(lineage.store, path, lineage.scoring)
    elsewhere = Store(tmp_path / "other")
    with pytest.raises(SqlContractError, match=message):
        run_with(elsewhere, small_settings(elsewhere.home), tmp_path / "sql")


@pytest.mark.parametrize("scope", ["row", "corpus"])
def test_a_key_that_was_not_shown_is_refused(store: Store, tmp_path: Path, scope: str) -> None:
    body = UNKNOWN if scope == "row" else UNKNOWN.replace("as detail", "as detail, null::varchar as earlier_key")
    path = write_filter(tmp_path / "sql", body, scope)
    message = r"900_mine\.sql: returns the rollout_key 'nope', which it was not shown"
    lineage, _ = build_small(store, small_settings(store.home))
    with pytest.raises(SqlContractError, match=message):
        try_filter(lineage.store, path, lineage.scoring)
    elsewhere = Store(tmp_path / "other")
    with pytest.raises(SqlContractError, match=message):
        run_with(elsewhere, small_settings(elsewhere.home), tmp_path / "sql")


def test_the_shipped_files_are_not_refused_alone(store: Store) -> None:
    lineage = small_lineage(store, small_settings(store.home))
    assert len(lineage.scoring.registry.filters) > 20
    build_small(store, small_settings(store.home))
