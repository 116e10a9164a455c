"""`negtraj list`: keys to go on with."""

import argparse

from negtraj_dagster.commands.arguments import count
from negtraj_dagster.errors import SettingsError
from negtraj_dagster.exit_codes import SUCCESS
from negtraj_dagster.settings import did_you_mean, load_settings


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    parser = commands.add_parser("list", help="name rollouts: their keys, labels and what dropped them")
    parser.add_argument("--task", metavar="T", help="of this task only")
    parser.add_argument("--recipe", metavar="NAME", help="that this recipe selected only")
    parser.add_argument("--label", choices=("positive", "negative", "unknown"), help="of this label only")
    parser.add_argument("--source", metavar="S", help="of this source only")
    parser.add_argument("--dropped-by", metavar="FILTER", help="that this filter drops only")
    parser.add_argument("--profile", default="strict", metavar="P", help="quality profile (default: strict)")
    parser.add_argument("--limit", type=count, default=20, metavar="N", help="rollouts to print (default: 20)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print rollouts."""
    from negtraj_dagster.printable import text_table
    from negtraj_dagster.upkeep import present_lineage
    from negtraj_dagster.views.listing import Wanted, list_rollouts

    criteria = Wanted(options.task, options.recipe, options.label, options.source, options.dropped_by, options.profile)
    with present_lineage(load_settings()) as lineage:
        if options.recipe is not None and options.recipe not in lineage.recipes:
            raise SettingsError(f"no recipe {options.recipe!r}{did_you_mean(options.recipe, lineage.recipes)}")
        listing = list_rollouts(lineage.store, criteria, lineage.scoring.registry, options.limit)
    print(text_table(listing.rows))
    print(f"\n{len(listing.rows)} of {listing.n_found} rollouts; `negtraj why KEY` tells all that was decided about one")
    return SUCCESS
