"""A user's SQL files are held to their scope and to what they must return."""

from pathlib import Path

import polars as pl
import pytest

from negtraj_dagster.errors import SqlContractError
from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.store import Store
from tests.support.sql_homes import corpus_of, filter_file, land, land_many, scored_work
from tests.support.sql_rows import REGISTRY


def test_a_filter_that_fails_on_the_data_leaves_the_others_verdicts_standing(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False)})
    land(settings, "a.jsonl", "q1", "q2", "q3")
    mine = tmp_path / "sql" / "filters" / "900_counts.sql"
    mine.parent.mkdir(parents=True)
    header = (
        '/*\nname = "counts"\nreason = "r"\nscope = "row"\nseverity = "flag"\napplies_to = "both"\nstyle = "any"\ndoc = "d"\n'
    )
    header += "*/\n"
    mine.write_text(f"{header}select rollout_key, cast(content as integer) as step, 'x' as detail from steps")
    settings = settings.model_copy(update={"sql_dirs": (mine.parent.parent,)})
    with pytest.raises(SqlContractError, match=r"900_counts\.sql.*Could not convert string"):
        scored_work(store, settings)
    mine.write_text(f"{header}select rollout_key, 1 as step, 'x' as detail from steps")
    work = scored_work(store, settings)
    assert {name: n for name, n in work.items() if n} == {"judged_counts": 3, "conversations_read": 3}


BEYOND = {
    "a row filter with an average of all": (
        "row",
        "select rollout_key, 1 as step, 'x' as detail from texts qualify length(said) >= max(length(said)) over ()",
    ),
    "a row filter that counts": ("row", "select rollout_key, count(*) over () as step, 'x' as detail from rollouts"),
    "a group filter that counts all": (
        "group",
        "select rollout_key, count(*) over () as step, 'x' as detail, null::varchar as earlier_key from rollouts",
    ),
    "a pairs filter that counts all": (
        "pairs",
        "select rollout_key, count(*) over () as step, 'x' as detail, null::varchar as earlier_key from rollouts",
    ),
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_filter_that_looks_beyond_its_scope_is_refused(store: Store, settings: Settings, tmp_path: Path, name: str) -> None:
    scope, body = BEYOND[name]
    folder = filter_file(tmp_path, body, scope=scope)
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False), "sql_dirs": (folder,)})
    land_many(settings, 90)
    with pytest.raises(SqlContractError, match=rf"900_mine\.sql: what it says of rollout .* changes .* scope {scope} allows"):
        corpus_of(store, settings)


def test_a_corpus_filter_sees_everything_and_is_asked_about_all_again(store: Store, settings: Settings, tmp_path: Path) -> None:
    body = "select rollout_key, count(*) over () as step, 'x' as detail, null::varchar as earlier_key from rollouts"
    folder = filter_file(tmp_path, body, scope="corpus")
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False), "sql_dirs": (folder,)})
    for n_rows in (50, 60):
        land_many(settings, n_rows)
        corpus = corpus_of(store, settings)
        verdicts = pl.read_parquet(corpus.folder / "verdicts.parquet").filter(pl.col("filter") == "mine")
        assert (verdicts.height, verdicts["step"].unique().to_list()) == (n_rows, [n_rows])
        assert corpus.work["judged_mine"] == n_rows


@pytest.mark.parametrize("key", ["'nonsense'", "rollout_key"], ids=["unknown", "itself"])
def test_a_twin_that_did_not_come_earlier_is_refused(store: Store, settings: Settings, tmp_path: Path, key: str) -> None:
    folder = filter_file(
        tmp_path, f"select rollout_key, 1 as step, 'x' as detail, {key} as earlier_key from rollouts", scope="group"
    )
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False), "sql_dirs": (folder,)})
    land(settings, "a.jsonl", "q1")
    with pytest.raises(SqlContractError, match=r"900_mine\.sql: names .* as the earlier twin of"):
        corpus_of(store, settings)


def test_a_verdict_that_does_not_fit_is_refused_by_name_and_the_others_stand(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    folder = filter_file(tmp_path, "select rollout_key, 3000000000::bigint as step, 'x' as detail from rollouts")
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False)})
    land(settings, "a.jsonl", "q1", "q2")
    with pytest.raises(SqlContractError, match=r"900_mine\.sql: a verdict does not fit"):
        scored_work(store, settings.model_copy(update={"sql_dirs": (folder,)}))
    work = scored_work(store, settings)
    assert not any(n for name, n in work.items() if name.startswith("judged_"))


def test_a_users_model_file_reads_no_file(store: Store, settings: Settings, tmp_path: Path) -> None:
    shipped = REGISTRY.files["model"]["texts"].path.read_text()
    path = tmp_path / "sql" / "model" / "texts.sql"
    path.parent.mkdir(parents=True)
    path.write_text(
        shipped.replace(
            "    rollout_key,\n", "    rollout_key || (select content from read_text('/etc/hostname')) as rollout_key,\n", 1
        )
    )
    settings = settings.model_copy(update={"sql_dirs": (path.parent.parent,)})
    land(settings, "a.jsonl", "q1")
    with pytest.raises(SqlContractError, match=r"texts\.sql.*disabled"):
        scored_work(store, settings)


def test_a_join_by_using_is_a_join(store: Store, settings: Settings, tmp_path: Path) -> None:
    body = (
        "with mine as (select * from rollouts) select rollout_key, step, 'x' as detail from mine join steps using (rollout_key)"
    )
    folder = filter_file(tmp_path, body)
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False), "sql_dirs": (folder,)})
    land(settings, "a.jsonl", "q1", "q2")
    assert scored_work(store, settings)["judged_mine"] == 2


OLD_NAMES = {
    "row": "select texts.rollout_key, 1 as step, left(texts.said, 9) as detail from texts join signatures using (rollout_key) "
    "where signatures.said = signatures.text_hash and signatures.actions = signatures.actions_hash and texts.said = texts.text",
    "reference": "select rollout_key, 1 as step, '' as detail from signatures where said = text_hash and actions != ''",
    "group": "select rollout_key, 1 as step, said as detail, null::varchar as earlier_key from signatures",
}


@pytest.mark.parametrize("scope", sorted(OLD_NAMES))
def test_columns_are_read_by_their_old_names_too(store: Store, settings: Settings, tmp_path: Path, scope: str) -> None:
    folder = filter_file(tmp_path, OLD_NAMES[scope], scope=scope)
    settings = settings.model_copy(update={"sql_dirs": (folder,), "wordtraps": WordtrapsSettings(enabled=False)})
    land(settings, "a.jsonl", "q1", "q2", "q3")
    verdicts = pl.read_parquet(corpus_of(store, settings).folder / "verdicts.parquet")
    assert verdicts.filter(pl.col("filter") == "mine").height == 3
