"""`negtraj check`: what a file of rollouts holds, before it lands."""

import argparse
from pathlib import Path

from negtraj_dagster.commands.arguments import add_mapping_arguments, mapping_of
from negtraj_dagster.exit_codes import FAILED, SUCCESS
from negtraj_dagster.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    parser = commands.add_parser("check", help="read a file of rollouts as a run would, tell what passes, write nothing")
    parser.add_argument("file", type=Path, metavar="FILE", help="rollouts: JSON, JSON lines, packed or not, Parquet, CSV")
    parser.add_argument("--task", metavar="T", help="look for its questions in this task only")
    add_mapping_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what came of it; fails where a record is not read."""
    from negtraj_dagster.views.check import check_file, checked_lines

    checked = check_file(options.file, load_settings(), task=options.task, mapping=mapping_of(options))
    print("\n".join(checked_lines(checked, options.task)))
    return SUCCESS if checked.is_whole else FAILED
