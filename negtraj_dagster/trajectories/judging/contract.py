"""The tables that SQL files may read and the columns they must return; sql/README.md says the same in words.

Every file is held against it over empty tables, in `make check` and when a run starts.
"""

import re
from collections.abc import Mapping, Sequence

from negtraj_dagster import sql
from negtraj_dagster.errors import SqlContractError
from negtraj_dagster.schema import QUESTION_COLUMNS, digest
from negtraj_dagster.settings import did_you_mean, listed
from negtraj_dagster.trajectories.judging.allowed import find_forbidden

CALL = "struct(id varchar, name varchar, arguments varchar)"
TURN = f"struct(role varchar, content varchar, reasoning varchar, tool_calls {CALL}[], tool_call_id varchar)"
NARROW = {
    "rollout_key": "VARCHAR",
    "task": "VARCHAR",
    "question_id": "VARCHAR",
    "source": "VARCHAR",
    "teacher": "VARCHAR",
    "occurrence": "INTEGER",
    "label": "VARCHAR",
    "style": "VARCHAR",
    "reward": "BOOLEAN",
    "pred": "VARCHAR",
    "gold": "VARCHAR",
    "answer": "VARCHAR",
    "is_strictly_right": "BOOLEAN",
    "is_leniently_right": "BOOLEAN",
    "is_valid_answer": "BOOLEAN",
}
TASKS = {
    "task": "VARCHAR",
    "style": "VARCHAR",
    "terminal_actions": "VARCHAR[]",
    "allowed_actions": "VARCHAR[]",
    "min_chars": "INTEGER",
    "max_tokens": "INTEGER",
}
ROW_TABLES: Mapping[str, Mapping[str, str]] = {
    "rollouts": {
        **NARROW,
        "question": "VARCHAR",
        "facts": "VARCHAR[]",
        "tools": "VARCHAR",
        "conversation": f"{TURN}[]",
    },
    "judgements": {"rollout_key": "VARCHAR", "judge": "VARCHAR", "score": "DOUBLE", "note": "VARCHAR"},
    "tasks": TASKS,
}
"""Row files have the model's tables besides."""
SET_TABLES: Mapping[str, Mapping[str, str]] = {
    "rollouts": {**NARROW, "ingest_seq": "UINTEGER"},
    "signatures": {"rollout_key": "VARCHAR", "text_hash": "VARCHAR", "actions_hash": "VARCHAR"},
    "pairs": {"rollout_key": "VARCHAR", "other_key": "VARCHAR", "similarity": "FLOAT", "is_earlier": "BOOLEAN"},
    "quotes": {"rollout_key": "VARCHAR", "question_id": "VARCHAR", "n_shared": "BIGINT", "n_ngrams": "BIGINT"},
    "tasks": TASKS,
    "questions": {**QUESTION_COLUMNS, "words": "VARCHAR[]"},
}
PROFILE_TABLES: Mapping[str, Mapping[str, str]] = {
    "rollouts": {"rollout_key": "VARCHAR"},
    "verdicts": {"rollout_key": "VARCHAR", "filter": "VARCHAR", "severity": "VARCHAR"},
    "scores": {"rollout_key": "VARCHAR", "score_name": "VARCHAR", "score": "DOUBLE"},
    "weights": {"score_name": "VARCHAR", "weight": "DOUBLE"},
    "candidates": {
        "rollout_key": "VARCHAR",
        "question_id": "VARCHAR",
        "label": "VARCHAR",
        "ingest_seq": "UINTEGER",
        "quality": "DOUBLE",
    },
    "limits": {"label": "VARCHAR", "rate": "DOUBLE", "max_per_question": "BIGINT", "max_rows": "BIGINT"},
}
TABLES_OF_SCOPE: Mapping[str, Sequence[str]] = {
    "group": ("rollouts", "signatures", "tasks", "questions"),
    "reference": ("rollouts", "signatures", "quotes", "tasks", "questions"),
    "pairs": ("rollouts", "signatures", "pairs", "tasks", "questions"),
    "corpus": ("rollouts", "signatures", "pairs", "tasks", "questions"),
}
FILTER_COLUMNS = {"rollout_key": "VARCHAR", "step": "INTEGER", "detail": "VARCHAR"}
SET_FILTER_COLUMNS = {**FILTER_COLUMNS, "earlier_key": "VARCHAR"}
SCORE_COLUMNS = {"rollout_key": "VARCHAR", "score": "DOUBLE"}
QUALITY_COLUMNS = {"rollout_key": "VARCHAR", "quality": "DOUBLE"}
CHOICE_COLUMNS = {"rollout_key": "VARCHAR", "u": "DOUBLE", "why_not": "VARCHAR"}
SELECTION_COLUMNS = {"quality": QUALITY_COLUMNS, "choice": CHOICE_COLUMNS}
MODEL_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "outcomes": {"rollout_key": "VARCHAR", "style": "VARCHAR", "answer": "VARCHAR", "last_words": "VARCHAR"},
    "signatures": SET_TABLES["signatures"],
    "texts": {"rollout_key": "VARCHAR", "text": "VARCHAR"},
}
"""Of the model tables that Python reads; the others' columns are theirs."""
OLD_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "texts": {"said": "text"},
    "signatures": {"said": "text_hash", "actions": "actions_hash"},
}
"""By table: the names that columns had until 0.1 and what they are called now. Files may read either for one release."""
WHOLE_NUMBERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
)
NUMBERS = WHOLE_NUMBERS | {"FLOAT", "DOUBLE"}
ENGINE = re.compile(
    r"(?:duckdb_|pragma_|sqlite_|pg_)\w+\Z|(?:information_schema|query|query_table|getvariable|current_setting)\Z"
)
UNSTABLE = frozenset(
    [
        "age",
        "current_date",
        "current_localtime",
        "current_localtimestamp",
        "current_time",
        "current_timestamp",
        "gen_random_uuid",
        "get_current_time",
        "get_current_timestamp",
        "localtime",
        "localtimestamp",
        "nextval",
        "now",
        "random",
        "sample",
        "setseed",
        "tablesample",
        "today",
        "transaction_timestamp",
        "txid_current",
        "uuid",
        "uuidv4",
        "uuidv7",
    ]
)
"""Functions and clauses that say another thing every time."""
FORBIDDEN_BY_SCOPE = ("row", "reference")
"""Scopes whose verdicts may not depend on the order of arrival, which other rows change."""


_CHECKED: set[tuple[str, ...]] = set()


def check_registry(registry: sql.Registry, session: sql.Session) -> int:
    """Hold every file against its contract, over empty tables; how many files were held, 0 where this process did it before.

    Args:
        registry: the SQL files.
        session: emptied first and afterwards.

    Raises:
        SqlContractError: names the file, the line where there is one, what was expected and the remedy.
    """
    files = [file for kind in registry.files.values() for file in kind.values() if file.kind != "reports"]
    texts = tuple(digest(str(file.path), file.text) for file in files)
    if texts in _CHECKED:
        return 0
    _check_rows(registry, session)
    _check_sets(registry, session)
    session.reset()
    declare(session, PROFILE_TABLES)
    session.lock()
    for name, columns in SELECTION_COLUMNS.items():
        check_file(session, registry.one("selection", name), columns, tuple(PROFILE_TABLES))
    session.reset()
    _CHECKED.add(texts)
    return len(files)


def _check_rows(registry: sql.Registry, session: sql.Session) -> None:
    session.reset()
    declare(session, ROW_TABLES)
    session.lock()
    tables = [*ROW_TABLES, *sql.MODEL_ORDER]
    for name in sql.MODEL_ORDER:
        file = registry.model(name)
        check_file(session, file, MODEL_COLUMNS.get(name), tables)
        create_model(session, file)
    for filter_ in registry.filters:
        if filter_.is_of_rows:
            check_file(session, filter_, FILTER_COLUMNS, tables)
    for score in registry.scores:
        check_file(session, score, SCORE_COLUMNS, tables)


def _check_sets(registry: sql.Registry, session: sql.Session) -> None:
    session.reset()
    declare(session, SET_TABLES)
    session.lock()
    for file in registry.filters:
        if not file.is_of_rows:
            check_file(session, file, columns_of(file), TABLES_OF_SCOPE[file.scope])


def columns_of(filter_: sql.Filter) -> Mapping[str, str]:
    """What a filter must return."""
    return SET_FILTER_COLUMNS if filter_.scope in ("group", "pairs", "corpus") else FILTER_COLUMNS


def check_filter(file: sql.Filter, registry: sql.Registry, limits: sql.Limits | None = None) -> None:
    """Hold one filter, which need not be of the registry, against the contract of its scope.

    Raises:
        SqlContractError: as `check_file`.
    """
    with sql.Session(limits) as session:
        if file.is_of_rows:
            declare(session, ROW_TABLES)
            session.lock()  # before the model, which may be a user's
            for name in sql.MODEL_ORDER:
                create_model(session, registry.model(name))
            tables = [*ROW_TABLES, *sql.MODEL_ORDER]
        else:
            declare(session, SET_TABLES)
            session.lock()
            tables = list(TABLES_OF_SCOPE[file.scope])
        check_file(session, file, columns_of(file), tables)


def declare(session: sql.Session, tables: Mapping[str, Mapping[str, str]]) -> None:
    """Make empty tables."""
    for name, columns in tables.items():
        stored = f"all_{name}" if name in OLD_COLUMNS else name
        session.execute(f"create table {stored} ({', '.join(f'{column} {type_}' for column, type_ in columns.items())})")
        if name in OLD_COLUMNS:
            show_table(session, name)


def create_model(session: sql.Session, file: sql.SqlFile) -> None:
    """Make a table of what a model file answers, and show it to the files that follow."""
    session.create(f"all_{file.name}", file)
    show_table(session, file.name)


def show_table(session: sql.Session, name: str, rows: str = "") -> None:
    """Let files read table `all_{name}` as `name`, by the present names of its columns and the old ones.

    Args:
        session: holds the table.
        name: as files know it.
        rows: what limits its rows, to follow `from`; none for all.
    """
    columns = "".join(f", {present} as {old}" for old, present in OLD_COLUMNS.get(name, {}).items())
    session.execute(f"create or replace view {name} as select *{columns} from all_{name} {rows}".rstrip())


def check_file(session: sql.Session, file: sql.SqlFile, expect: Mapping[str, str] | None, tables: Sequence[str]) -> None:
    """Refuse anything but one SELECT over known tables that uses exactly the declared parameters and returns what is expected.

    Args:
        session: holds the tables, empty or not.
        file: is held against its contract.
        expect: the columns it must return; None where it may return any.
        tables: those it may read.

    Raises:
        SqlContractError: names the file, what was found and what was expected.
    """
    if file.odd_quote:
        raise SqlContractError(
            f"{file.path}: quotes a text with {file.odd_quote}; write it in plain quotes, '…', and chr(10) for a newline"
        )
    parsed = session.check(file)
    if parsed["statements"] != ["SELECT"]:
        statement_kinds = f"{len(parsed['statements'])} statements ({listed(parsed['statements'] or ['none'], 'and')})"
        raise SqlContractError(f"{file.path}: found {statement_kinds}, expected one SELECT; give each query a file of its own")
    used_names, declared = set(parsed["parameters"]), set(file.parameters)
    for name in sorted(used_names - declared):
        raise SqlContractError(f"{file.path}: ${name} is not among the header's params{did_you_mean(name, declared)}")
    for name in sorted(declared - used_names):
        raise SqlContractError(
            f"{file.path}: the header declares {name}, the SQL does not use it{did_you_mean(name, used_names)}"
        )
    for name in parsed["tables"]:
        if name.lower() not in tables:
            owner = f"of scope {file.scope}" if isinstance(file, sql.Filter) else f"in {file.kind}/"
            raise SqlContractError(f"{file.path}: reads {name}, which files {owner} do not have{did_you_mean(name, tables)}")
    if engine := sorted(word for word in file.words if ENGINE.match(word)):
        raise SqlContractError(f"{file.path}: reads {engine[0]}, which is DuckDB's own; read the tables of sql/README.md only")
    if unstable := sorted(file.words & UNSTABLE):
        raise SqlContractError(f"{file.path}: {unstable[0]} says another thing every time; verdicts must be the same twice")
    if forbidden := find_forbidden(parsed["nodes"], parsed["functions"]):
        raise SqlContractError(f"{file.path}: {forbidden}")
    if isinstance(file, sql.Filter) and file.scope in FORBIDDEN_BY_SCOPE and file.reads("ingest_seq"):
        raise SqlContractError(
            f"{file.path}: scope {file.scope} must not read ingest_seq, which other rows change; declare scope group"
        )
    if expect is not None:
        _check_columns(file, dict(parsed["columns"]), expect)


def _check_columns(file: sql.SqlFile, found: Mapping[str, str], expect: Mapping[str, str]) -> None:
    if set(found) != set(expect):
        raise SqlContractError(f"{file.path}: returns {listed(found, 'and')}; expected {listed(expect, 'and')}")
    for name, type_ in expect.items():
        allowed = {"INTEGER": WHOLE_NUMBERS, "BIGINT": WHOLE_NUMBERS, "DOUBLE": NUMBERS}.get(type_, {type_})
        column_type = found[name].split("(")[0]
        is_null = column_type == '"NULL"' or column_type == "NULL"
        if (
            column_type not in allowed
            and not (type_ == "DOUBLE" and column_type == "DECIMAL")
            and not (is_null and name in ("step", "earlier_key"))
        ):
            raise SqlContractError(f"{file.path}: column {name} is {found[name]}; cast it to {type_}")
