"""`negtraj why`: everything that was decided about a rollout."""

import argparse

from negtraj_dagster.exit_codes import SUCCESS
from negtraj_dagster.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    why = commands.add_parser("why", help="print everything that was decided about a rollout")
    why.add_argument("key", metavar="KEY", help="the beginning of a rollout_key, 6 digits at least")
    why.add_argument("--profile", metavar="P", help="tell this quality profile only")
    why.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print all decisions."""
    from negtraj_dagster.upkeep import present_lineage
    from negtraj_dagster.views.why.explain import explain_rollout
    from negtraj_dagster.views.why.text import explained_lines

    with present_lineage(load_settings()) as lineage:
        registry, recipes = lineage.scoring.registry, lineage.recipes
        explained = explain_rollout(lineage.store, options.key, registry, recipes, profile=options.profile)
    print("\n".join(explained_lines(explained)))
    return SUCCESS
