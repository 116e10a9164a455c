"""`negtraj try`: what a filter file would hit."""

import argparse
from pathlib import Path

from negtraj_dagster.commands.arguments import count
from negtraj_dagster.exit_codes import SUCCESS
from negtraj_dagster.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    trial = commands.add_parser("try", help="run a filter file over the present rollouts; changes nothing")
    trial.add_argument("file", type=Path, metavar="FILTER.sql", help="lies anywhere; sql/README.md says what it holds")
    trial.add_argument("--task", metavar="T", help="try it on this task only")
    trial.add_argument("--limit", type=count, default=10, metavar="N", help="rollouts to show (default: 10)")
    trial.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what the filter hits."""
    from negtraj_dagster.upkeep import present_lineage
    from negtraj_dagster.views.trial import trial_lines, try_filter

    with present_lineage(load_settings()) as lineage:
        n_samples = options.limit
        trial = try_filter(lineage.store, options.file, lineage.scoring, task=options.task, n_samples=n_samples)
    print("\n".join(trial_lines(trial)))
    return SUCCESS
