"""Loads the SQL files of sql/ and runs them: one SELECT a file, a TOML header, bound parameters, a locked-down connection.

The folder is the registry. A file's `version` hashes everything that can change its output.
"""

import re
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import polars as pl

from negtraj_dagster import paths
from negtraj_dagster.errors import SqlContractError
from negtraj_dagster.schema import digest_json
from negtraj_dagster.settings import did_you_mean

Scope = Literal["row", "group", "reference", "corpus"]
Severity = Literal["drop", "flag"]

HEADER = re.compile(r"\A\s*/\*(.*?)\*/", re.DOTALL)
NOISE = re.compile(r"""(?P<kept>'(?:[^']|'')*'|"[^"]*")|(?:--[^\n]*|/\*.*?\*/|\s)+""", re.DOTALL)
RESERVED = re.compile(r"\b(all_rollouts|all_steps|wanted_keys)\b", re.IGNORECASE)
"""The runner's own tables: a filter that read them would see rollouts its verdicts are not keyed by."""
FILTER_KEYS = {"name", "reason", "scope", "severity", "applies_to", "doc"}
DEADLINE_S = 300.0
MEMORY_LIMIT = "4GB"


@dataclass(frozen=True)
class SqlFile:
    """A SQL file with its parsed header; `parameters` holds the defaults."""

    path: Path
    name: str
    header: Mapping[str, Any]
    text: str
    parameters: Mapping[str, Any]

    @property
    def version(self) -> str:
        """Hash of the SQL, its parameters' values, what the header says of its effect, and the model it reads."""
        effect = {key: self.header.get(key) for key in ("reason", "scope", "severity", "applies_to", "twins")}
        model = model_digest(self.reads_model())
        return digest_json([self.name, self.normalised, dict(self.parameters), effect, model])

    def reads_model(self) -> tuple[str, ...]:
        """The files of sql/model that decide what this one sees."""
        if self.path.parent.name == "model":
            return () if self.name == "steps" else ("steps",)
        return ("steps",) if self.header.get("scope", "row") == "row" else ("steps", "signatures")

    @property
    def body(self) -> str:
        """The SQL without its header."""
        return HEADER.sub("", self.text).strip()

    @property
    def normalised(self) -> str:
        """The SQL without comments and with single spaces, texts in quotes untouched: a reformatted file is the same."""
        return NOISE.sub(lambda match: match["kept"] or " ", self.body).strip()

    def with_parameters(self, values: Mapping[str, Any]) -> "SqlFile":
        """The same file with some defaults replaced.

        Raises:
            SqlContractError: a parameter the header does not declare.
        """
        for key in values:
            if key not in self.parameters:
                raise SqlContractError(f"{self.path}: no parameter {key!r}{did_you_mean(key, self.parameters)}")
        return SqlFile(self.path, self.name, self.header, self.text, {**self.parameters, **values})


def model_digest(names: tuple[str, ...]) -> str:
    """Hash of some files of sql/model: what filters and scores see of a rollout depends on them."""
    return digest_json([load_one(f"model/{name}.sql").version for name in names]) if names else ""


@dataclass(frozen=True)
class Filter(SqlFile):
    """A filter: selects the rollouts it rejects."""

    @property
    def scope(self) -> Scope:
        """What a verdict depends on: the row, its question's rows, a reference set, or everything."""
        return self.header["scope"]  # type: ignore[no-any-return]

    @property
    def severity(self) -> Severity:
        """drop: the rollout is not trained on. flag: it is marked and loses quality."""
        return self.header["severity"]  # type: ignore[no-any-return]

    @property
    def names_nearest_twin(self) -> bool:
        """Whether `earlier_key` is the nearest earlier twin, whose own twins are this row's as well; else each is named."""
        return bool(self.header.get("twins", "all") == "nearest")

    @property
    def applies_to(self) -> str:
        """both | positive | negative."""
        return str(self.header["applies_to"])


def load_sql(path: Path) -> SqlFile:
    """Parse one SQL file.

    Raises:
        SqlContractError: no header, a header that is not TOML, or no name in it.
    """
    text = path.read_text(encoding="utf-8")
    match = HEADER.match(text)
    if not match:
        raise SqlContractError(f"{path}: no header; begin the file with a /* … */ comment that holds TOML (see sql/README.md)")
    try:
        header = tomllib.loads(match[1])
    except tomllib.TOMLDecodeError as error:
        raise SqlContractError(f"{path}: the header is not TOML: {error}") from error
    if "name" not in header:
        raise SqlContractError(f"{path}: the header has no name")
    declared = header.get("params", {})
    parameters = {key: spec["default"] for key, spec in declared.items()}
    kind = Filter if path.parent.name == "filters" else SqlFile
    return kind(path, header["name"], header, text, parameters)


def load_filters() -> list[Filter]:
    """All filters in funnel order.

    Raises:
        SqlContractError: a file breaks the contract (keys, values, unique names).
    """
    filters: list[Filter] = []
    for path in sorted((paths.shipped("sql") / "filters").glob("*.sql")):
        loaded = load_sql(path)
        assert isinstance(loaded, Filter)
        _check_filter(loaded)
        filters.append(loaded)
    names = [each.name for each in filters]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise SqlContractError(f"sql/filters: names used twice: {sorted(doubled)}")
    return filters


def load_scores() -> list[SqlFile]:
    """All scores, the quality formula apart."""
    return [load_sql(path) for path in sorted((paths.shipped("sql") / "scores").glob("[!_]*.sql"))]


def load_one(relative: str) -> SqlFile:
    """A file of sql/ by its path there, `model/steps.sql`."""
    return load_sql(paths.shipped("sql") / relative)


def _check_filter(file: Filter) -> None:
    allowed = {"scope": ("row", "group", "reference", "corpus"), "severity": ("drop", "flag")}
    allowed |= {"applies_to": ("both", "positive", "negative"), "twins": ("nearest", "all")}
    if missing := sorted(FILTER_KEYS - file.header.keys()):
        raise SqlContractError(f"{file.path}: the header lacks {missing}")
    if unknown := sorted(file.header.keys() - FILTER_KEYS - {"params", "twins"}):
        raise SqlContractError(
            f"{file.path}: unknown header keys {unknown}; known: {sorted(FILTER_KEYS | {'params', 'twins'})}"
        )
    if match := RESERVED.search(file.body):
        raise SqlContractError(f"{file.path}: reads {match[0]}, which is the runner's; read rollouts and steps instead")
    if file.header["scope"] in ("row", "reference") and "ingest_seq" in file.body:
        raise SqlContractError(
            f"{file.path}: a filter of scope {file.header['scope']} must not read ingest_seq, which other rows change"
        )
    for key, values in allowed.items():
        if file.header.get(key, values[-1]) not in values:
            raise SqlContractError(f"{file.path}: {key} = {file.header[key]!r}, expected one of {values}")


def check_statement(file: SqlFile, connection: duckdb.DuckDBPyConnection) -> None:
    """Refuse anything but one SELECT that uses exactly the declared parameters.

    Raises:
        SqlContractError: with the file and what was found.
    """
    try:
        statements = connection.extract_statements(file.text)
    except duckdb.Error as error:
        raise SqlContractError(f"{file.path}: does not parse: {error}") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        found = ", ".join(str(statement.type).rsplit(".", 1)[-1] for statement in statements)
        raise SqlContractError(f"{file.path}: found {len(statements)} statements ({found}), expected one SELECT")
    used, declared = set(statements[0].named_parameters), set(file.parameters)
    if used != declared:
        raise SqlContractError(f"{file.path}: uses parameters {sorted(used)}, the header declares {sorted(declared)}")


@contextmanager
def connect() -> Iterator[duckdb.DuckDBPyConnection]:
    """A private in-memory database, single-threaded so that results do not depend on the machine."""
    connection = duckdb.connect(":memory:")
    try:
        connection.execute("set threads = 1")
        connection.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
        yield connection
    finally:
        connection.close()


def lock_down(connection: duckdb.DuckDBPyConnection) -> None:
    """No files, no network, no settings from here on: what runs next may be a user's SQL."""
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")


def select(
    connection: duckdb.DuckDBPyConnection, file: SqlFile, *, expect: Mapping[str, str], deadline_s: float = DEADLINE_S
) -> pl.DataFrame:
    """Run a file's SELECT and check its columns.

    Args:
        connection: holds the documented tables.
        file: what to run, with its parameters' values.
        expect: required output columns and the type each is cast to; others are refused.
        deadline_s: seconds after which the query is interrupted.

    Raises:
        SqlContractError: it fails, runs too long, or returns other columns; names the file.
    """
    check_statement(file, connection)
    timer = threading.Timer(deadline_s, connection.interrupt)
    timer.start()
    try:
        table = connection.sql(file.text, params=dict(file.parameters) or None).to_arrow_table()
    except duckdb.InterruptException as error:
        raise SqlContractError(f"{file.path}: stopped after its deadline of {deadline_s:g} s") from error
    except duckdb.Error as error:
        raise SqlContractError(f"{file.path}: {error}") from error
    finally:
        timer.cancel()
    frame = pl.DataFrame(table)
    missing, extra = sorted(expect.keys() - set(frame.columns)), sorted(set(frame.columns) - expect.keys())
    if missing or extra:
        raise SqlContractError(f"{file.path}: returns {frame.columns}, expected {list(expect)}")
    return frame
