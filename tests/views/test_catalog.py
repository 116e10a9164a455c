"""catalog.duckdb: what it shows, that it is replaced whole, and the ready queries."""

from pathlib import Path

import duckdb
import polars as pl
import pytest

from negtraj_dagster import cli, sql
from negtraj_dagster.errors import SettingsError, SqlContractError
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Store
from negtraj_dagster.views.catalog import catalog as module
from negtraj_dagster.views.catalog.catalog import CATALOG, catalog_lines, check_reports, run_report, write_catalog
from negtraj_dagster.views.catalog.tables import VIEWS
from tests.support.small_corpus import TALK, build_small, keys_by_source, land_talk, small_lineage, small_settings

REPORTS = {"funnel", "label_balance", "near_duplicates", "quality_distribution", "reasons_per_source"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return small_settings(tmp_path / "home")


def read(catalog: Path, query: str) -> pl.DataFrame:
    with duckdb.connect(catalog, read_only=True) as connection:
        return pl.DataFrame(connection.sql(query).to_arrow_table())


def views(catalog: Path) -> set[str]:
    return set(read(catalog, "select view_name from duckdb_views() where not internal")["view_name"])


def user_report(folder: Path, name: str, body: str, header: str = "") -> sql.Registry:
    (folder / "reports").mkdir(parents=True, exist_ok=True)
    (folder / "reports" / f"{name}.sql").write_text(f'/*\nname = "{name}"\ndoc = "d"\n{header}\n*/\n{body}\n')
    return sql.load_registry([folder])


def test_it_has_every_view_with_words_on_each_and_on_every_column(store: Store, settings: Settings) -> None:
    build_small(store, settings)
    file = write_catalog(store)
    assert file == settings.home / CATALOG
    assert views(file) == {*VIEWS, *REPORTS}
    comments = read(file, "select table_name, column_name, comment from duckdb_columns() where not internal")
    of_tables = comments.filter(pl.col("table_name").is_in(list(VIEWS)))
    assert of_tables["comment"].null_count() == 0
    for name, view in VIEWS.items():
        assert of_tables.filter(pl.col("table_name") == name)["column_name"].to_list() == list(view.columns)
    assert read(file, "select comment from duckdb_views() where not internal")["comment"].null_count() == 0


def test_its_views_hold_the_present_objects(store: Store, settings: Settings) -> None:
    _, keys = build_small(store, settings)
    file = write_catalog(store)
    said = read(file, "select source, conversation[1].content as said from conversations join rollouts using (base_key)")
    assert dict(said.rows()) == {name: talk[2][0] for name, talk in TALK.items()}
    assert read(file, "select count(*) as n from conversations")["n"][0] == len(TALK)
    label = read(
        file, f"select label, scorer, decided_by, decided_why from labels where rollout_key = '{keys['relabelled']}'"
    ).row(0)
    assert label == ("positive", "override", "bob", "No is right")
    kept = read(file, f"select task, severity from verdicts where rollout_key = '{keys['kept']}' and filter = 'no_finish'")
    assert kept.rows() == [("strategyqa", "overruled")]
    assert read(file, "select distinct recipe from selection")["recipe"].to_list() == ["strategyqa_nat"]
    assert read(file, "select place, reason from quarantine").height == 1
    assert set(read(file, "select distinct profile from qualities")["profile"]) == {"strict", "paper"}


def test_refused_rollouts_are_not_among_the_conversations(store: Store, settings: Settings) -> None:
    land_talk(settings)
    lineage = small_lineage(store, settings)
    keys_by_source(lineage)
    (settings.home / "tombstones.jsonl").write_text('{"field": "source", "value": "hostile", "why": "asked to"}\n')
    lineage.raw_rollouts()
    file = write_catalog(store)
    assert read(file, "from conversations").height == len(TALK) - 1


def test_an_open_reader_goes_on_while_it_is_replaced(store: Store, settings: Settings) -> None:
    land_talk(settings, "a.jsonl", "good", "hostile")
    lineage = small_lineage(store, settings)
    lineage.raw_rollouts()
    with duckdb.connect(write_catalog(store), read_only=True) as reader:
        assert reader.sql("select count(*) from rollouts").fetchall() == [(2,)]
        land_talk(settings, "b.jsonl", "kept")
        lineage.raw_rollouts()
        file = write_catalog(store)
        assert reader.sql("select count(*) from rollouts").fetchall() == [(2,)]
    assert read(file, "from rollouts").height == 3
    assert [path.name for path in settings.home.glob("catalog.duckdb*")] == [CATALOG]


def test_a_build_that_dies_leaves_the_old_one(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_catalog(store).read_bytes()
    build_small(store, settings)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_lock", die)
    with pytest.raises(KeyboardInterrupt):
        write_catalog(store)
    assert (settings.home / CATALOG).read_bytes() == before


def test_before_anything_was_materialized_it_is_empty_and_says_so(store: Store) -> None:
    file = write_catalog(store)
    assert views(file) == set()
    assert "nothing was materialized yet" in "\n".join(catalog_lines(file, sql.load_registry()))
    with pytest.raises(SettingsError, match=r"funnel reads .* materialize"):
        run_report(store, sql.load_registry(), "funnel")


def test_without_a_corpus_the_row_filters_verdicts_are_there(store: Store, settings: Settings) -> None:
    land_talk(settings)
    lineage = small_lineage(store, settings)
    lineage.raw_rollouts()
    lineage.scored_trajectories()
    file = write_catalog(store)
    assert views(file) >= {"verdicts", "labels", "label_balance"}
    assert not views(file) & {"corpus", "funnel"}
    assert read(file, "from verdicts where filter = 'bad_format'")["task"].to_list() == ["strategyqa"]


@pytest.mark.parametrize("name", ["key=value", "it's [a-z]* odd"])
def test_a_home_of_any_name_reads_its_own_files(tmp_path: Path, name: str) -> None:
    settings = small_settings(tmp_path / name)
    (tmp_path / "it's ab odd").mkdir()
    lineage = small_lineage(Store(settings.home), settings)
    land_talk(settings)
    lineage.raw_rollouts()
    assert read(write_catalog(lineage.store), "select source from conversations join rollouts using (base_key)").height == len(
        TALK
    )


ODD_NAMES = ("[a-z]*", "a?b", "[!x]", "**", "it's; --", 'a"b$c', "s3:{x,y}", "a\nb")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_query_reads_the_files_of_a_home_of_any_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name / "home"
    other = tmp_path / "axb" / "home"
    other.mkdir(parents=True)
    settings = small_settings(home)
    lineage = small_lineage(Store(home), settings)
    land_talk(settings, "a.jsonl", "good", "kept")
    lineage.raw_rollouts()
    lineage.scored_trajectories()
    assert read(write_catalog(lineage.store), "from label_balance")["n_rollouts"].sum() == 2
    assert run_report(lineage.store, sql.load_registry(), "label_balance")["n_rollouts"].sum() == 2
    assert list(other.iterdir()) == []


def test_every_shipped_query_answers(store: Store, settings: Settings) -> None:
    build_small(store, settings)
    registry = sql.load_registry()
    told = {name: run_report(store, registry, name) for name in registry.files["reports"]}
    assert told.keys() == REPORTS
    funnel = {row["filter"]: row for row in told["funnel"].to_dicts()}
    assert (funnel["no_finish"]["n_negative"], funnel["no_finish"]["n_overruled"]) == (2, 1)
    assert funnel["exact_duplicate"]["n_positive"] == 1
    assert told["near_duplicates"].row(0, named=True)["similarity"] == 1.0
    balance = told["label_balance"].filter(pl.col("scorer") == "override").to_dicts()
    assert [(row["answer"], row["n_strict_differs"]) for row in balance] == [("no", 1)]
    assert set(told["quality_distribution"]["profile"]) == {"strict", "paper"}
    assert "hostile" in told["reasons_per_source"]["source"].to_list()


@pytest.mark.parametrize(
    ("body", "header", "message"),
    [
        ("select * from rollout", "", "rollout"),
        ("select 1; select 2", "", "expected one SELECT"),
        ("select * from read_text('/etc/hostname')", "", "Cannot access file"),
        ("select $n as n from rollouts", "[params]\nn = { type = 'INTEGER', default = 1 }", "no parameters"),
    ],
    ids=["unknown view", "two statements", "a file", "parameters"],
)
def test_a_query_that_breaks_its_contract_is_refused_by_name(tmp_path: Path, body: str, header: str, message: str) -> None:
    with pytest.raises(SqlContractError, match=message) as error:
        check_reports(user_report(tmp_path / "sql", "mine", body, header))
    assert "mine.sql" in str(error.value)


def test_a_query_may_not_take_a_views_name(tmp_path: Path) -> None:
    with pytest.raises(SqlContractError, match="rename the query"):
        check_reports(user_report(tmp_path / "sql", "labels", "select 1 as n from rollouts"))


def test_a_users_query_is_in_it(store: Store, settings: Settings, tmp_path: Path) -> None:
    build_small(store, settings)
    registry = user_report(tmp_path / "sql", "mine", "select count(*) as n from labels;")
    assert read(write_catalog(store, registry), "from mine")["n"][0] == len(TALK)


def test_the_commands_print_what_there_is(store: Store, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    build_small(store, settings)
    assert cli.main(["catalog"]) == 0
    assert str(settings.home / CATALOG) in capsys.readouterr().out
    assert cli.main(["query", "funnel"]) == 0
    assert "never finished" in capsys.readouterr().out
    assert cli.main(["query", "funnel", "--csv"]) == 0
    assert capsys.readouterr().out.startswith("task,filter,version,reason")
    assert cli.main(["query", "funel"]) == 1
    assert "did you mean 'funnel'?" in capsys.readouterr().err
