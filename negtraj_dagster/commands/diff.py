"""`negtraj diff`: which rollouts flipped between two runs."""

import argparse

from negtraj_dagster.commands.arguments import count
from negtraj_dagster.exit_codes import SUCCESS
from negtraj_dagster.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    diff = commands.add_parser("diff", help="say which rollouts flipped between two runs' corpora, and why")
    for name in ("before", "after"):
        diff.add_argument(name, metavar="RUN", help="current, previous, or the beginning of an object_key, 6 digits at least")
    diff.add_argument("--task", metavar="T", help="whose corpus; may be left out where there is one only")
    diff.add_argument("--profile", default="strict", metavar="P", help="quality profile (default: strict)")
    diff.add_argument("--limit", type=count, default=20, metavar="N", help="rollouts to print (default: 20)")
    diff.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what flipped, and why."""
    from negtraj_dagster.printable import text_table
    from negtraj_dagster.upkeep import reading_store
    from negtraj_dagster.views.diff.runs import diff_runs
    from negtraj_dagster.views.diff.text import diff_lines

    with reading_store(load_settings()) as store:
        changes = diff_runs(store, (options.before, options.after), task=options.task, profile=options.profile)
    print("\n".join(diff_lines(changes, options.limit, text_table)))
    return SUCCESS
