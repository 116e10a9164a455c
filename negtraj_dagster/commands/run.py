"""`negtraj run` and `demo`: bring a line or recipe up to date."""

import argparse

from negtraj_dagster.commands.dagster_home import prepare_dagster_home


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    run = commands.add_parser("run", help="bring a line, or one recipe, up to date and print how it did")
    run.add_argument("target", metavar="LINE|RECIPE", help="a line with all its arms, or one recipe up to its report")
    run.add_argument("--strict-checks", action="store_true", help="end with exit code 4 where any check failed")
    run.set_defaults(run=lambda options: _run_target(options.target, has_strict_checks=options.strict_checks))
    demo = commands.add_parser("demo", help="`run` of the embedded line, wordtraps")
    demo.add_argument("--line", default="wordtraps", help="another line (default: wordtraps)")
    demo.set_defaults(run=lambda options: _run_target(options.line))


def _run_target(target: str, *, has_strict_checks: bool = False) -> int:
    prepare_dagster_home()
    from negtraj_dagster.run import run_target  # late: the Dagster import takes a second that --help should not pay

    return run_target(target, has_strict_checks=has_strict_checks)
