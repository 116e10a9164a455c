"""`negtraj catalog` and `query`: the data as views for SQL."""

import argparse

from negtraj_dagster.exit_codes import SUCCESS
from negtraj_dagster.settings import Settings, load_settings
from negtraj_dagster.store import Store


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    catalog_parser = commands.add_parser(
        "catalog", help="write catalog.duckdb, views over everything, and name its ready queries"
    )
    catalog_parser.set_defaults(run=write)
    query_parser = commands.add_parser("query", help="print a ready query of the catalogue")
    query_parser.add_argument("name", metavar="NAME", help="as `negtraj catalog` lists them")
    query_parser.add_argument("--csv", action="store_true", help="comma-separated values")
    query_parser.set_defaults(run=query)


def write(options: argparse.Namespace) -> int:
    """Write the catalogue and list what is in it."""
    from negtraj_dagster import sql
    from negtraj_dagster.views.catalog.catalog import catalog_lines, write_catalog

    settings, store = _store_of_home()
    registry = sql.load_registry(settings.sql_dirs)
    print("\n".join(catalog_lines(write_catalog(store, registry), registry)))
    return SUCCESS


def query(options: argparse.Namespace) -> int:
    """Print a ready query."""
    from negtraj_dagster import sql
    from negtraj_dagster.printable import csv_text, frame_text
    from negtraj_dagster.views.catalog.catalog import run_report

    settings, store = _store_of_home()
    rows = run_report(store, sql.load_registry(settings.sql_dirs), options.name)
    print((csv_text if options.csv else frame_text)(rows))
    return SUCCESS


def _store_of_home() -> tuple[Settings, Store]:
    from negtraj_dagster.upkeep import existing_home

    settings = load_settings()
    return settings, Store(existing_home(settings.home), remote=settings.store_url)
