"""SQL that breaks the contract, writes, reads files, never ends or eats memory is refused by name, and stopped in time."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from negtraj_dagster import sql
from negtraj_dagster.errors import SqlContractError
from negtraj_dagster.trajectories.judging.contract import FILTER_COLUMNS, ROW_TABLES, check_file, declare
from negtraj_dagster.trajectories.judging.judge import answer

HEADER = """/*
name = "x"
reason = "r"
scope = "row"
severity = "drop"
applies_to = "both"
style = "any"
doc = "d"
{params}*/
"""
DEADLINE_S, MEMORY_MB = 1.0, 256
GRACE_S = 2.0
FINE = "select rollout_key, null as step, 'x' as detail from rollouts"
HIT = "select 'a' as rollout_key, null as step, {} as detail"


def filter_of(folder: Path, body: str, params: str = "") -> sql.Filter:
    path = folder / "filters" / "900_x.sql"
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER.format(params=params) + body)
    loaded = sql.load_file(path, "filters")
    assert isinstance(loaded, sql.Filter)
    return loaded


@pytest.fixture
def session(tmp_path: Path) -> Iterator[sql.Session]:
    with sql.Session(sql.Limits(DEADLINE_S, MEMORY_MB)) as opened:
        declare(opened, ROW_TABLES)
        opened.execute("insert into rollouts (rollout_key, task) values ('a', 't')")
        opened.lock()
        yield opened


REFUSED: dict[str, tuple[str, str]] = {
    "two statements": (f"{FINE}; {FINE}", "found 2 statements"),
    "a statement behind a comment": (f"{FINE}; -- \ndrop table rollouts", r"found 2 statements \(SELECT and DROP\)"),
    "no statement": ("-- nothing", "found 0 statements"),
    "drop": ("drop table rollouts", r"\(DROP\), expected one SELECT"),
    "insert": ("insert into rollouts select * from rollouts", "expected one SELECT"),
    "update": ("update rollouts set label = 'positive'", "expected one SELECT"),
    "delete": ("delete from rollouts", "expected one SELECT"),
    "create": ("create table mine as select 1", "expected one SELECT"),
    "copy out": ("copy rollouts to '/tmp/x.csv'", "expected one SELECT"),
    "copy query": ("copy (select 1) to '/tmp/x.csv'", "expected one SELECT"),
    "attach": ("attach '/tmp/x.db' as x", "expected one SELECT"),
    "install": ("install httpfs", "expected one SELECT"),
    "set": ("set enable_external_access = true", "expected one SELECT"),
    "reset": ("reset lock_configuration", "expected one SELECT"),
    "pragma": ("pragma database_list", "expected one SELECT"),
    "export": ("export database '/tmp/x'", "expected one SELECT"),
    "call": ("call pragma_version()", "expected one SELECT"),
    "text": (HIT.format("(select content from read_text('/etc/passwd'))"), "disabled|reads .*passwd"),
    "csv": (HIT.format("(select max(column0) from read_csv('/etc/passwd'))"), "disabled"),
    "a file as a table": (HIT.format("(select max(1) from '/etc/passwd')"), "disabled|does not exist|reads /etc"),
    "glob": (HIT.format("(select max(file) from glob('/etc/*'))"), "disabled"),
    "http": (HIT.format("(select max(1) from read_csv('http://127.0.0.1/x'))"), "disabled|httpfs"),
    "secrets": ("select name as rollout_key, null as step, '' as detail from duckdb_secrets()", "duckdb_secrets|disabled"),
    "environment": (HIT.format("getenv('HOME')"), "getenv"),
    "parameter misspelt": (FINE + " where $max_shar > 0", r"\$max_shar is not among the header's params"),
    "columns missing": ("select rollout_key from rollouts", "returns rollout_key; expected rollout_key, step and detail"),
    "columns besides": (FINE.replace("'x' as detail", "'x' as detail, 1 as more"), "expected rollout_key, step and detail"),
    "type": (FINE.replace("'x' as detail", "1 as detail"), "column detail is INTEGER; cast it to VARCHAR"),
    "unknown column": ("select nope as rollout_key, 1 as step, '' as detail from rollouts", "line 10: .*nope"),
    "unknown table": ("select rollout_key, 1 as step, '' as detail from rolouts", "rolouts"),
    "not sql": ("selekt 1", "line 10: .*selekt"),
    "the runner's tables": (
        "select table_name as rollout_key, 1 as step, '' as detail from duckdb_tables()",
        "duckdb_tables|reads",
    ),
    "chance": (FINE.replace("'x'", "random()::varchar"), "random says another thing every time"),
    "the day": (FINE.replace("'x'", "current_date::varchar"), "current_date says another thing"),
    "a query in a text": (
        "select * from query('select 1 as rollout_key, 1 as step, 2 as detail')",
        "reads query, which is DuckDB",
    ),
    "a sample": (FINE + " using sample 50% (bernoulli)", "sample says another thing"),
    "an escaped quote": (FINE.replace("'x'", "E'\\'' || 'x'"), "quotes a text with E; write it in plain quotes"),
    "a dollar quote": (FINE.replace("'x'", "$$x$$"), r"quotes a text with \$\$; write it in plain quotes"),
    "rows deleted in a with": (
        "with gone as (delete from rollouts returning rollout_key) select rollout_key, 1 as step, '' as detail from gone",
        "read-only|holds DELETE",
    ),
    "rows inserted in a with": (
        "with new as (insert into rollouts (rollout_key) values ('z') returning rollout_key) "
        "select rollout_key, 1 as step, '' as detail from new",
        "read-only|holds INSERT|expected one SELECT",
    ),
    "rows updated in a with": (
        "with new as (update rollouts set rollout_key = 'z' returning rollout_key) "
        "select rollout_key, 1 as step, '' as detail from new",
        "read-only|holds UPDATE|expected one SELECT",
    ),
    "rows merged in a with": (
        "with new as (merge into rollouts using (select 'z' as k) on k = rollout_key when not matched then insert "
        "(rollout_key) values (k) returning rollout_key) select rollout_key, 1 as step, '' as detail from new",
        "CTE body must be",
    ),
    "a file written in a with": (
        "with new as (copy rollouts to '/tmp/negtraj-x.csv') select rollout_key, 1 as step, '' as detail from rollouts",
        "read-only|holds COPY|disabled|expected one SELECT",
    ),
    "a description": ("from (describe rollouts)", "holds SHOW|returns|expected one SELECT"),
    "the tables' names": ("from (show tables)", "holds SHOW|returns|expected one SELECT"),
    "a summary": ("from (summarize rollouts)", "holds SHOW|returns|expected one SELECT"),
    "the query's number": (FINE.replace("'x'", "current_query_id()::varchar"), "calls current_query_id"),
    "the query's text": (FINE.replace("'x'", "current_query()"), "calls current_query"),
    "the connection": (FINE.replace("'x'", "current_connection_id()::varchar"), "calls current_connection_id"),
    "the transaction": (FINE.replace("'x'", "current_transaction_id()::varchar"), "calls current_transaction_id"),
    "the user": (FINE.replace("'x'", "current_user"), "calls current_user"),
    "the database": (FINE.replace("'x'", "current_database()"), "calls current_database"),
    "the version": (FINE.replace("'x'", "version()"), "calls version"),
    "a setting": (FINE.replace("'x'", "current_setting('threads')"), "reads current_setting"),
    "a log entry": (FINE.replace("'x'", "write_log('x')::varchar"), "calls write_log"),
    "a sleep": (FINE.replace("'x'", "sleep_ms(1)::varchar"), "calls sleep_ms"),
    "an error at will": (FINE.replace("'x'", "error('x')::varchar"), "calls error|x"),
    "a plan": (FINE.replace("'x'", "json_serialize_plan('select 1')::varchar"), "calls json_serialize_plan"),
    "a sample by aggregate": (HIT.format("(select reservoir_quantile(range, 0.5)::varchar from range(9))"), "calls reservoir"),
    "statistics": (FINE.replace("'x'", "stats(1)"), "calls stats"),
    "the server's address": (FINE.replace("'x'", "inet_server_addr()::varchar"), "calls inet_server_addr"),
    "a privilege": (FINE.replace("'x'", "has_table_privilege('a', 'b')::varchar"), "calls has_table_privilege"),
    "a start time": (FINE.replace("'x'", "pg_postmaster_start_time()::varchar"), "reads pg_|calls pg_"),
    "the time until now": (FINE.replace("'x'", "ago(interval 1 day)::varchar"), "calls ago|says another thing"),
    "the local time": (FINE.replace("'x'", "current_localtimestamp()::varchar"), "says another thing|calls current_local"),
    "another uuid": (FINE.replace("'x'", "uuidv7()::varchar"), "uuidv7 says another thing"),
    "order of arrival": (FINE + " order by ingest_seq", "ingest_seq"),
}
STOPPED: dict[str, tuple[str, str]] = {
    "a cross join": (
        HIT.format("(select sum(a.range * b.range)::varchar from range(10000000) a, range(10000000) b)"),
        "deadline",
    ),
    "a recursion": (
        HIT.format("(with recursive t(n) as (select 1 union all select n + 1 from t) select max(n)::varchar from t)"),
        "deadline|memory",
    ),
    "a function that hears no interrupt": (
        HIT.format("levenshtein(repeat('a', 150000), repeat('b', 150000))::varchar"),
        "deadline",
    ),
    "a text of gigabytes": (HIT.format("length(repeat('a', 4000000000))::varchar"), "memory|deadline"),
    "a list of gigabytes": (HIT.format("len(range(1000000000))::varchar"), "memory|deadline"),
    "an aggregate of gigabytes": (
        HIT.format("(select length(string_agg(repeat('x', 1000000), ''))::varchar from range(100000))"),
        "memory|deadline",
    ),
    "rows without end": (
        "select range::varchar as rollout_key, 1 as step, '' as detail from range(100000000000)",
        "deadline|memory|rows",
    ),
    "nested lambdas": (
        HIT.format(
            "list_sum(list_transform(range(200000), lambda x: list_sum(list_transform(range(20000), lambda y: x * y))))"
            "::varchar"
        ),
        "deadline|memory",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_filter_that_breaks_the_contract_is_refused_by_name(session: sql.Session, tmp_path: Path, name: str) -> None:
    body, message = REFUSED[name]
    params = '[params]\nmax_share = { type = "DOUBLE", default = 0.5 }\n' if "max_shar" in body else ""
    filter_ = filter_of(tmp_path, body, params)
    start = time.monotonic()
    with pytest.raises(SqlContractError, match=message) as caught:
        check_file(session, filter_, FILTER_COLUMNS, tuple(ROW_TABLES))
    assert time.monotonic() - start < DEADLINE_S + GRACE_S
    assert "900_x.sql" in str(caught.value)
    assert_others_stand(session, tmp_path)


@pytest.mark.parametrize("name", STOPPED)
def test_a_filter_that_never_ends_or_eats_memory_is_stopped_in_time(session: sql.Session, tmp_path: Path, name: str) -> None:
    body, message = STOPPED[name]
    start = time.monotonic()
    with pytest.raises(SqlContractError, match=message) as caught:
        answer(session, filter_of(tmp_path, body), "verdicts")
    assert time.monotonic() - start < DEADLINE_S + GRACE_S
    assert "900_x.sql" in str(caught.value)
    assert "negtraj.toml" in str(caught.value) or "rows" in str(caught.value)
    assert_others_stand(session, tmp_path)


def assert_others_stand(session: sql.Session, folder: Path) -> None:
    """The next filter finds its tables as they were, whatever became of the last one."""
    assert answer(session, filter_of(folder, FINE), "verdicts")["rollout_key"].to_list() == ["a"]


def test_a_fine_filter_is_not_refused(session: sql.Session, tmp_path: Path) -> None:
    check_file(session, filter_of(tmp_path, FINE + ";\n-- said\n"), FILTER_COLUMNS, tuple(ROW_TABLES))


def test_nothing_is_written_by_a_query(session: sql.Session, tmp_path: Path) -> None:
    target = tmp_path / "written.csv"
    with pytest.raises(SqlContractError):
        session.select(filter_of(tmp_path, f"copy rollouts to '{target}'"), expect=FILTER_COLUMNS)
    assert not target.exists()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ("1.5", "score 1.5 of rollout a; expected a number from 0 to 1"),
        ("null::double", "score None"),
        ("'nan'::double", "score nan"),
    ],
    ids=["above one", "null", "not a number"],
)
def test_a_score_outside_of_its_range_is_refused(session: sql.Session, tmp_path: Path, scores: str, message: str) -> None:
    path = tmp_path / "scores" / "x.sql"
    path.parent.mkdir()
    path.write_text(f'/*\nname = "x"\ndoc = "d"\n*/\nselect rollout_key, {scores} as score from rollouts')
    with pytest.raises(SqlContractError, match=message):
        answer(session, sql.load_file(path, "scores"), "scores")


def test_a_session_holds_what_was_loaded_after_a_query_was_killed(tmp_path: Path) -> None:
    frame = pl.DataFrame({"rollout_key": ["a", "b"], "n": [1, 2]})
    with sql.Session(sql.Limits(DEADLINE_S, MEMORY_MB)) as session:
        session.load("t", frame)
        session.lock()
        with pytest.raises(SqlContractError, match="deadline of 1 s"):
            session.select(filter_of(tmp_path, STOPPED["a cross join"][0]), expect=FILTER_COLUMNS)
        assert session.query("select * from t").equals(frame)


def test_values_of_parameters_are_bound(session: sql.Session, tmp_path: Path) -> None:
    body = "select rollout_key, $n as step, $text as detail from rollouts where $yes"
    params = '[params]\nn = { type = "INTEGER", default = 3 }\n'
    params += 'text = { type = "VARCHAR", default = "\'; drop table rollouts; --" }\n'
    params += 'yes = { type = "BOOLEAN", default = true }\n'
    rows = answer(session, filter_of(tmp_path, body, params), "verdicts")
    assert rows.select("step", "detail").rows() == [(3, "'; drop table rollouts; --")]


HEADERS: dict[str, tuple[str, Any]] = {
    "no header": (FINE, "no header"),
    "not toml": (f"/*\nname = x\n*/\n{FINE}", "not TOML, counting lines from its /\\*: .*line 2"),
    "unknown key": (HEADER.format(params="serverity = 1\n") + FINE, "unknown key 'serverity'; did you mean 'severity'"),
    "missing key": (HEADER.format(params="").replace('style = "any"\n', "") + FINE, "style is missing"),
    "wrong word": (HEADER.format(params="").replace('"drop"', '"dropp"') + FINE, "severity = 'dropp': expected drop or flag"),
    "wrong default": (
        HEADER.format(params='[params]\nn = { type = "INTEGER", default = "1" }\n') + FINE,
        "the default of n, '1', is no INTEGER",
    ),
    "bad name": (HEADER.format(params="").replace('"x"', '"X y"') + FINE, "lower-case letters"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_wrong_header_is_refused_with_its_key(tmp_path: Path, name: str) -> None:
    text, message = HEADERS[name]
    path = tmp_path / "900_x.sql"
    path.write_text(text)
    with pytest.raises(SqlContractError, match=message) as caught:
        sql.load_file(path, "filters")
    assert str(path) in str(caught.value)


ORPHAN = """
import os, signal
from negtraj_dagster import sql
session = sql.Session()
print(session._worker.folder.name, session._worker.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_neither_its_sql_process_nor_its_folder() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, check=False)
    folder, pid = done.stdout.split()
    deadline = time.monotonic() + 10
    while (Path(folder).exists() or Path(f"/proc/{pid}").exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(folder).exists()
    assert not Path(f"/proc/{pid}").exists()
