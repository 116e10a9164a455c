"""The folders of SQL files and profiles: what a user adds or replaces, what is refused, and what a version covers."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
import sqlglot

from negtraj_dagster import sql
from negtraj_dagster.errors import NegtrajError, SettingsError, SqlContractError
from negtraj_dagster.trajectories.judging.contract import SET_TABLES, check_registry

SHIPPED = sql.load_registry()
FILTER = """/*
name = "{name}"
reason = "{reason}"
scope = "row"
severity = "drop"
applies_to = "both"
style = "any"
doc = "d"
*/
select rollout_key, 1 as step, 'x' as detail from rollouts
"""


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_shipped_file_keeps_its_contract() -> None:
    with sql.Session() as session:
        assert check_registry(sql.Registry((*SHIPPED.folders,)), session) in (
            0,
            sum(map(len, SHIPPED.files.values())) - len(SHIPPED.files["reports"]),
        )


def files() -> list[sql.SqlFile]:
    return [file for kind in SHIPPED.files.values() for file in kind.values()]


@pytest.mark.parametrize("file", files(), ids=lambda file: f"{file.kind}/{file.name}")
def test_a_second_parser_reads_the_same_tables_and_parameters(file: sql.SqlFile) -> None:
    statements = sqlglot.parse(file.body, dialect="duckdb")
    assert len(statements) == 1
    parsed = statements[0]
    assert isinstance(parsed, sqlglot.exp.Query)
    named = {each.name for each in parsed.find_all(sqlglot.exp.Placeholder, sqlglot.exp.Parameter) if each.name}
    assert named == set(file.parameters)
    own = {cte.alias for cte in parsed.find_all(sqlglot.exp.CTE)}
    tables = {table.name for table in parsed.find_all(sqlglot.exp.Table)} - own
    if file.kind in ("filters", "scores", "model"):
        assert tables <= {"rollouts", "tasks", "judgements", *sql.MODEL_ORDER, *SET_TABLES}


def test_a_users_file_is_added_and_one_of_a_shipped_name_takes_its_place(tmp_path: Path) -> None:
    put(tmp_path, "filters/905_mine.sql", FILTER.format(name="mine", reason="mine"))
    replacing = put(tmp_path, "filters/030_bad_format.sql", FILTER.format(name="bad_format", reason="another reason"))
    registry = sql.load_registry([tmp_path])
    assert [each.name for each in registry.filters][-1] == "mine"
    assert {each.name: each for each in registry.filters}["bad_format"].path == replacing
    assert registry.replaced == ((str(replacing), str(SHIPPED.files["filters"]["bad_format"].path)),)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a number twice": (
        lambda folder: put(folder, "filters/030_mine.sql", FILTER.format(name="mine", reason="mine")),
        "number '030' is that of .*",
    ),
    "a reason twice": (
        lambda folder: put(folder, "filters/905_mine.sql", FILTER.format(name="mine", reason="never finished")),
        "reason 'never finished' is that of .*020_no_finish.sql",
    ),
    "no number": (
        lambda folder: put(folder, "filters/mine.sql", FILTER.format(name="mine", reason="mine")),
        "rename it to NNN_mine.sql",
    ),
    "another name than the file's": (
        lambda folder: put(folder, "filters/905_yours.sql", FILTER.format(name="mine", reason="mine")),
        "rename it to NNN_mine.sql",
    ),
    "a score with a filter's name": (
        lambda folder: put(folder, "scores/no_finish.sql", '/*\nname = "no_finish"\ndoc = "d"\n*/\nselect 1'),
        "a filter has the name 'no_finish', too",
    ),
    "an unknown model table": (
        lambda folder: put(folder, "model/stepps.sql", '/*\nname = "stepps"\ndoc = "d"\n*/\nselect 1'),
        "no model table 'stepps'; did you mean 'steps'",
    ),
    "an unknown folder": (
        lambda folder: put(folder, "filter/905_mine.sql", ""),
        "unknown folder 'filter'; did you mean 'filters'",
    ),
    "a file beside the folders": (lambda folder: put(folder, "905_mine.sql", ""), "belongs into one of the folders"),
    "not text": (
        lambda folder: (folder / "filters").mkdir() or (folder / "filters/905_mine.sql").write_bytes(b"\xff"),
        "UTF-8",
    ),
}


def load_all(folder: Path) -> tuple[object, ...]:
    registry = sql.load_registry([folder])
    return (registry.filters, registry.scores)


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_cannot_be_right_is_refused_with_the_file(tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    make(tmp_path)
    with pytest.raises(NegtrajError, match=message) as caught:
        load_all(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="which is no folder"):
        sql.load_registry([tmp_path / "none"])


def version_of(folder: Path, text: str) -> str:
    return sql.load_registry([put(folder, "filters/905_mine.sql", text).parent.parent]).filters[-1].version


TEXT = FILTER.format(name="mine", reason="mine")


@pytest.mark.parametrize(
    "same",
    [
        TEXT.replace("select", "select  \n "),
        TEXT.replace("from", "-- a remark\nfrom"),
        TEXT.replace('doc = "d"', 'doc = "another"'),
        TEXT.replace('"drop"', '"flag"'),
        TEXT.replace('reason = "mine"', 'reason = "yours"'),
    ],
    ids=["white space", "comment", "doc", "severity", "reason"],
)
def test_what_changes_no_answer_changes_no_version(tmp_path: Path, same: str) -> None:
    assert version_of(tmp_path, TEXT) == version_of(tmp_path, same)


@pytest.mark.parametrize(
    "other",
    [
        TEXT.replace("'x'", "'x '"),
        TEXT.replace("'x'", "'X'"),
        TEXT.replace('applies_to = "both"', 'applies_to = "negative"'),
        TEXT.replace('style = "any"', 'style = "react"'),
        TEXT.replace('scope = "row"', 'scope = "group"'),
    ],
    ids=["a text's space", "a text's case", "class", "style", "scope"],
)
def test_what_changes_an_answer_changes_the_version(tmp_path: Path, other: str) -> None:
    assert version_of(tmp_path, TEXT) != version_of(tmp_path, other)


def test_a_filter_that_uses_an_unstable_hash_is_judged_again_by_another_duckdb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TEXT.replace("1 as step", "hash(rollout_key) % 7 as step")
    before, steady = version_of(tmp_path, text), version_of(tmp_path, TEXT)
    monkeypatch.setattr(duckdb, "__version__", "99")
    assert version_of(tmp_path, text) != before
    assert version_of(tmp_path, TEXT) == steady


def test_a_model_table_stands_in_the_version_of_what_reads_it_only(tmp_path: Path) -> None:
    actions = SHIPPED.files["model"]["actions"].path.read_text()
    put(tmp_path, "model/actions.sql", actions.replace("action_type is not null", "action_type is not null and true"))
    mine = {each.name: each.version for each in sql.load_registry([tmp_path]).filters}
    changed = {each.name for each in SHIPPED.filters if mine[each.name] != each.version}
    assert {"unknown_action", "no_finish", "no_tool_use", "same_actions"} <= changed
    assert not changed & {"bad_format", "tool_error", "label_mismatch", "decontaminate"}


PROFILE_FAULTS = {
    "filter": ('doc = "d"\nonly = ["bad_fromat"]\n', "only: unknown filter 'bad_fromat'; did you mean 'bad_format'"),
    "severity": ('doc = "d"\n[severity]\nbad_format = "dropp"\n', "severity.bad_format = 'dropp': expected 'drop' or 'flag'"),
    "parameter": ('doc = "d"\n[params.missing_thought]\nmax_shar = 0.1\n', "no parameter 'max_shar'; did you mean 'max_share'"),
    "value": ('doc = "d"\n[params.missing_thought]\nmax_share = "a"\n', "max_share = 'a', expected DOUBLE"),
    "score": ('doc = "d"\n[weights]\nformatt = 2.0\n', "weights: unknown score 'formatt'; did you mean 'format'"),
    "idle": (
        'doc = "d"\nwithout = ["bad_format"]\n[severity]\nbad_format = "flag"\n',
        "sets bad_format, which the profile leaves out",
    ),
    "key": ('doc = "d"\nonyl = []\n', "unknown key 'onyl'"),
}


@pytest.mark.parametrize("name", PROFILE_FAULTS)
def test_a_wrong_profile_is_refused_with_file_and_key(tmp_path: Path, name: str) -> None:
    text, message = PROFILE_FAULTS[name]
    put(tmp_path, "profiles/mine.toml", text)
    with pytest.raises(SettingsError, match=message) as caught:
        sql.load_profiles(sql.load_registry([tmp_path]))
    assert "mine.toml" in str(caught.value)


def test_a_profile_changes_effects_without_judging_again_and_parameters_with(tmp_path: Path) -> None:
    text = 'doc = "d"\nwithout = ["no_finish"]\n[severity]\nbad_format = "flag"\n[params.missing_thought]\nmax_share = 0.25\n'
    put(tmp_path, "profiles/mine.toml", text)
    registry = sql.load_registry([tmp_path])
    mine = {each.name: each for each in sql.find_profile(registry, "mine").filters}
    assert "no_finish" not in mine
    assert (mine["bad_format"].severity, mine["bad_format"].version) == (
        "flag",
        SHIPPED.filters[2].version,
    )
    assert mine["missing_thought"].parameters == {"max_share": 0.25}
    variants = [each for each in sql.filter_variants(registry) if each.name == "missing_thought"]
    assert [each.parameters["max_share"] for each in sorted(variants, key=lambda each: each.parameters["max_share"])] == [
        0.25,
        0.5,
    ]


def test_a_parameter_in_a_model_file_is_refused(tmp_path: Path) -> None:
    text = (
        SHIPPED.files["model"]["turns"]
        .path.read_text()
        .replace('"""\n*/', '"""\n\n[params]\nn = { type = "INTEGER", default = 1 }\n*/')
    )
    put(tmp_path, "model/turns.sql", text.replace("unnest(conversation) as turn", "unnest(conversation) as turn, $n as n"))
    with sql.Session() as session, pytest.raises(SqlContractError, match="a model file has no parameters"):
        check_registry(sql.load_registry([tmp_path]), session)
