"""`negtraj plan`: what a run would recompute."""

import argparse

from negtraj_dagster.errors import SettingsError, UsageError
from negtraj_dagster.exit_codes import STALE, SUCCESS
from negtraj_dagster.schema import canonical_json
from negtraj_dagster.settings import did_you_mean, load_settings


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    plan = commands.add_parser("plan", help="say what a run would recompute, and why; changes nothing")
    plan.add_argument("recipe", nargs="*", help="recipes to plan")
    plan.add_argument("--all", action="store_true", help="plan every recipe")
    plan.add_argument("--line", metavar="L", help="plan every recipe of this line")
    plan.add_argument("--check", action="store_true", help="end with exit code 3 where anything with data is stale")
    plan.add_argument("--json", action="store_true", help="one JSON object a line")
    plan.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what is stale."""
    from negtraj_dagster.plan import describe, plan_recipes
    from negtraj_dagster.printable import text_table
    from negtraj_dagster.recipes import load_recipes

    settings = load_settings()
    recipes = load_recipes(settings)
    for name in options.recipe:
        if name not in recipes:
            raise SettingsError(f"no recipe {name!r}{did_you_mean(name, recipes)}")
    lines = {recipe.line for recipe in recipes.values()}
    if options.line and options.line not in lines:
        raise SettingsError(f"no line {options.line!r}{did_you_mean(options.line, lines)}")
    if not options.recipe and not options.all and not options.line:
        raise UsageError(f"name a recipe, --line or --all; recipes: {', '.join(recipes)}")
    names = [name for name, recipe in recipes.items() if options.all or recipe.line == options.line] + options.recipe
    chosen_recipes = [recipes[name] for name in dict.fromkeys(names)]
    planned = plan_recipes(settings, chosen_recipes)
    n_stale = sum(asset.is_stale and asset.has_data for asset in planned)
    if options.json:
        for planned_asset in planned:
            print(canonical_json(vars(planned_asset)))
    else:
        print(text_table(describe(planned)))
        print(f"\n{n_stale} of {len(planned)} assets are stale; nothing was changed")
    return STALE if options.check and n_stale else SUCCESS
