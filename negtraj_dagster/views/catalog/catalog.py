"""catalog.duckdb: views over the Parquet of all present objects, and over them the ready queries of sql/reports.

    duckdb.connect(".negtraj/catalog.duckdb", read_only=True).sql("from funnel")

It holds no rows. A run that makes new objects leaves it as it is; written anew, it names the new ones.
"""

import logging
import os
import shutil
import tempfile
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq

from negtraj_dagster import sql
from negtraj_dagster.errors import SettingsError, SqlContractError
from negtraj_dagster.graph import parse_key
from negtraj_dagster.printable import visible
from negtraj_dagster.settings import did_you_mean, listed
from negtraj_dagster.store import Published, Store, writing
from negtraj_dagster.store.files import sync_folder
from negtraj_dagster.trajectories.judging.contract import check_file, declare
from negtraj_dagster.trajectories.judging.loading import TURNS_JSON
from negtraj_dagster.views.catalog.tables import STORED_AS, VIEWS, View

LOG = logging.getLogger(__name__)
CATALOG = "catalog.duckdb"
HELD_BY: Mapping[str, tuple[str, ...]] = {
    "question_sets": ("questions",),
    "raw_rollouts": ("rollouts",),
    "scored_trajectories": ("labels", "scores"),
    "trajectory_corpus": ("corpus", "verdicts", "qualities", "pairs"),
    "training_selection": ("selection",),
}
"""Kind of asset -> the Parquet files of its objects that are views here. A corpus is tagged by task, a selection by recipe."""


@dataclass(frozen=True)
class _Source:
    """Where rows of a view are: a Parquet file, and the value of the view's first column that it has not."""

    path: Path
    tag: str | None = None


def write_catalog(store: Store, registry: sql.Registry | None = None) -> Path:
    """Write the catalogue of the home's present objects; what was not materialized yet has no view, nor do broken queries.

    Built aside and put in place in one step: an open reader keeps what it has, a killed build leaves the old one. Paths are
    absolute, so a home that was moved wants a new one.

    Args:
        store: whose objects; the file lies in its home.
        registry: has the ready queries; by default those that ship.

    Raises:
        StoreError: a present object is damaged.
    """
    registry = registry or sql.load_registry()
    faults: dict[str, SqlContractError] = {}
    needs = check_reports(registry, faults=faults)
    for name, error in faults.items():  # a broken query must not keep the tables from view; `negtraj query` refuses it
        LOG.warning("%s; the catalogue is written without the view %s", error, name)
    target = store.home / CATALOG
    with writing(target), store.in_use(), store.lock("catalog"), store.scratch() as folder:
        new_file = folder / CATALOG
        with tempfile.TemporaryDirectory() as plain:  # DuckDB cannot write below a folder with `?` in its name
            with duckdb.connect(Path(plain) / CATALOG) as connection:
                _fill(connection, store, registry, needs)
            shutil.copyfile(Path(plain) / CATALOG, new_file)
        with new_file.open("rb") as handle:
            os.fsync(handle.fileno())
        new_file.replace(target)
        sync_folder(target.parent)
    return target


def run_report(store: Store, registry: sql.Registry, name: str, limits: sql.Limits | None = None) -> pl.DataFrame:
    """What a ready query says of the present objects; the catalogue's file is neither read nor written.

    Raises:
        SettingsError: there is no such query, or what it reads was not materialized yet.
        SqlContractError: it breaks its contract.
    """
    reports = registry.files["reports"]
    if name not in reports:
        raise SettingsError(f"no ready query {name!r}{did_you_mean(name, reports)}")
    faults: dict[str, SqlContractError] = {}
    needs = check_reports(registry, faults=faults)
    if name in faults:
        raise faults[name]
    with store.in_use(), duckdb.connect(":memory:") as connection:
        views = _fill(connection, store, registry, needs)
        if missing := [view for view in needs[name] if view not in views]:
            raise SettingsError(
                f"{name} reads {listed(missing, 'and')}, of which nothing was materialized in {store.home} yet; run "
                f"`dagster asset materialize -m negtraj_dagster.definitions --select '*'` first"
            )
        deadline_s = (limits or sql.Limits()).deadline_s
        timer = threading.Timer(deadline_s, connection.interrupt)
        timer.start()
        try:
            return pl.DataFrame(connection.sql(f"from {name}").to_arrow_table())
        except duckdb.InterruptException:
            raise SqlContractError(f"{reports[name].path}: stopped after its deadline of {deadline_s:g} s") from None
        finally:
            timer.cancel()


def check_reports(
    registry: sql.Registry, limits: sql.Limits | None = None, *, faults: dict[str, SqlContractError] | None = None
) -> dict[str, list[str]]:
    """Hold every ready query against its contract over empty tables; which views each reads.

    Args:
        registry: has the queries.
        limits: of one query.
        faults: takes the faults of those that break it, by name; without it the first is raised.

    Raises:
        SqlContractError: it is not one SELECT without parameters over the catalogue's views, or has the name of one.
    """
    needs: dict[str, list[str]] = {}
    with sql.Session(limits) as session:
        declare(
            session, {name: {_quoted(column): type_ for column, type_ in view.columns.items()} for name, view in VIEWS.items()}
        )
        session.lock()
        for name, file in registry.files["reports"].items():
            try:
                needs[name] = _needed_views(session, file)
            except SqlContractError as error:
                if faults is None:
                    raise
                faults[name] = error
    return needs


def _needed_views(session: sql.Session, file: sql.SqlFile) -> list[str]:
    if file.name in VIEWS:
        raise SqlContractError(f"{file.path}: {file.name} is a view of {CATALOG} already; rename the query")
    if file.parameters:
        raise SqlContractError(f"{file.path}: a ready query has no parameters; write the values into the SQL")
    check_file(session, file, None, tuple(VIEWS))
    return [table_name.lower() for table_name in session.check(file)["tables"]]


def catalog_lines(catalog: Path, registry: sql.Registry) -> Iterator[str]:
    """Where a catalogue is, and what is in it, for a terminal."""
    with duckdb.connect(catalog, read_only=True) as connection:
        view_names = {
            str(name) for (name,) in connection.sql("select view_name from duckdb_views() where not internal").fetchall()
        }
    yield visible(str(catalog))
    yield ""
    yield f"views: {', '.join(name for name in VIEWS if name in view_names) or 'none, nothing was materialized yet'}"
    for name, file in registry.files["reports"].items():
        yield ""
        yield name if name in view_names else f"{name} (what it reads was not materialized yet)"
        yield from textwrap.wrap(visible(_in_one_line(file.header.doc)), 120, initial_indent="  ", subsequent_indent="  ")
    yield ""
    yield "`negtraj query NAME` prints one. Open the file read-only: it is replaced, never changed."


def _fill(
    connection: duckdb.DuckDBPyConnection, store: Store, registry: sql.Registry, needs: Mapping[str, Sequence[str]]
) -> set[str]:
    """Make all views that there are rows for; which."""
    view_names = set()
    for name, body in _bodies(store):
        connection.execute(f"create view {name} as {body}")
        _comment(connection, name, VIEWS[name])
        view_names.add(name)
    _lock(connection, store)
    for name, file in registry.files["reports"].items():
        if name in needs and view_names.issuperset(needs[name]):  # of views; a query is over no other query
            connection.execute(f"create view {name} as {file.body.rstrip().rstrip(';')}")
            connection.execute(f"comment on view {name} is {_text(_in_one_line(file.header.doc))}")
            view_names.add(name)
    return view_names


def _lock(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """What follows may be a user's SQL: it reads the store's files and no others."""
    homes = (store.home.resolve(), store.home.absolute())
    roots = sorted({as_text for home in homes for as_text in (str(home), _pattern(home))})  # both are asked for
    connection.execute(f"set allowed_directories = [{', '.join(map(_text, roots))}]")
    for name in ("autoinstall_known_extensions", "autoload_known_extensions", "python_enable_replacements"):
        connection.execute(f"set {name} = false")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")


def _bodies(store: Store) -> Iterator[tuple[str, str]]:
    """(view, its SELECT) of everything that there is."""
    present: dict[str, Published] = {}
    for asset in store.assets():
        if _kind(asset)[0] in HELD_BY and (published := store.current(asset)):
            store.folder(store.name(published.folder))
            present[asset] = published
    if present:
        yield (
            "assets",
            _values([(object_.asset, object_.key, object_.version) for object_ in present.values()], VIEWS["assets"]),
        )
    raw = present.get("raw_rollouts")
    if raw and (texts := _conversations(store, raw)):
        yield "conversations", texts
    if raw and raw.details.get("n_quarantined"):
        yield "quarantine", _quarantine(raw.folder / "quarantine.jsonl")
    for name, sources in _sources(present).items():
        if there := [object_ for object_ in sources if object_.path.is_file()]:
            yield name, " union all ".join(_select(VIEWS[name], object_) for object_ in there)
    if not any(name.startswith("trajectory_corpus/") for name in _filled(present)) and (
        {"raw_rollouts", "scored_trajectories"} <= present.keys()
    ):
        yield "verdicts", _row_verdicts(present)


def _kind(asset: str) -> tuple[str, str | None]:
    """What an asset is (`HELD_BY`), and the task or recipe that it is of."""
    try:
        kind, subject = parse_key(asset)
    except KeyError:  # of another version of this project
        return "", None
    return kind.name, subject or None


def _filled(present: Mapping[str, Published]) -> dict[str, Published]:
    return {name: published for name, published in present.items() if not published.is_empty}


def _sources(present: Mapping[str, Published]) -> dict[str, list[_Source]]:
    """Where each view's rows are, whether the files are there or not."""
    by_view: dict[str, list[_Source]] = {name: [] for name in VIEWS}
    for asset, published in _filled(present).items():
        kind, tag = _kind(asset)
        for name in HELD_BY[kind]:
            by_view[name].append(_Source(published.folder / f"{name}.parquet", tag))
    return by_view


def _select(view: View, source: _Source) -> str:
    """The rows of one file in the view's columns; one that an earlier version did not write is null."""
    stored_columns = set(pq.read_schema(source.path).names)
    select_list = []
    for place, (name, type_) in enumerate(view.columns.items()):
        stored = STORED_AS.get(name, name)
        value = _quoted(stored) if stored in stored_columns else "null"
        if place == 0 and source.tag is not None:
            value = _text(source.tag)
        select_list.append(f"cast({value} as {type_}) as {_quoted(name)}")
    return f"select {', '.join(select_list)} from {_parquet([source.path])}"


def _row_verdicts(present: Mapping[str, Published]) -> str:
    """What the row filters said, while there is no corpus yet."""
    verdicts = present["scored_trajectories"].folder / "verdicts.parquet"
    columns = ", ".join(f"said.{name}" for name in VIEWS["verdicts"].columns if name != "task")
    rollouts = _parquet([present["raw_rollouts"].folder / "rollouts.parquet"])
    return f"select read.task, {columns} from {_parquet([verdicts])} as said inner join {rollouts} as read using (rollout_key)"


def _conversations(store: Store, raw: Published) -> str:
    """Every present rollout's conversation, once: segments hold those of withdrawn and refused records, too."""
    places = raw.folder / "places.parquet"
    names = pl.read_parquet(places, columns=["segment"], glob=False)["segment"].unique().sort()
    files = [store.folder(name) / "conversations.parquet" for name in names]
    if not files:
        return ""
    stored_columns = {column for file in files for column in pq.read_schema(file).names}
    extra_columns = ", ".join(
        f"texts.{name}" if name in stored_columns else f"cast(null as varchar) as {name}"
        for name in ("tools", "tokenizer", "prompt", "extra")
    )
    turns = f"cast(from_json(texts.conversation, {_text(TURNS_JSON)}) as {VIEWS['conversations'].columns['conversation']})"
    return (
        f"with places as (select base_key, parse_path(min(segment))[-1] as segment from {_parquet([places])} group by 1) "
        f"select texts.base_key, {turns} as conversation, {extra_columns} "
        f"from {_parquet(files, more=', filename = true')} as texts "
        f"inner join places on texts.base_key = places.base_key and parse_path(texts.filename)[-2] = places.segment"
    )


def _quarantine(file: Path) -> str:
    columns = ", ".join(f"{name}: '{type_}'" for name, type_ in VIEWS["quarantine"].columns.items())
    return f"select * from read_json({_place(file)}, format = 'newline_delimited', columns = {{{columns}}})"


def _values(rows: Sequence[tuple[str, ...]], view: View) -> str:
    value_rows = ", ".join(f"({', '.join(map(_text, row))})" for row in rows)
    return f"select * from (values {value_rows}) as told ({', '.join(view.columns)})"


def _parquet(files: Sequence[Path], more: str = "") -> str:
    """Files as a table; folders named `a=b` on the way are no columns."""
    return f"read_parquet([{', '.join(map(_place, files))}], hive_partitioning = false, union_by_name = true{more})"


def _place(file: Path) -> str:
    """A path as a SQL text that matches this file alone."""
    return _text(_pattern(file))


def _pattern(path: Path) -> str:
    """What DuckDB's file patterns match this path alone by."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in str(path.absolute()))


def _comment(connection: duckdb.DuckDBPyConnection, name: str, view: View) -> None:
    connection.execute(f"comment on view {name} is {_text(view.doc)}")
    for column in view.columns:
        connection.execute(f"comment on column {name}.{_quoted(column)} is {_text(view.comment(column))}")


def _quoted(name: str) -> str:
    return f'"{name}"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _in_one_line(text: str) -> str:
    return " ".join(text.split())
