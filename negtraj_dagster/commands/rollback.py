"""`negtraj rollback`: give a line's title back to who held it before."""

import argparse

from negtraj_dagster.exit_codes import SUCCESS


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    rollback = commands.add_parser("rollback", help="give a line's title back to its last champion but one")
    rollback.add_argument("line", metavar="LINE")
    rollback.add_argument("--why", required=True, help="the reason, kept in the registry")
    rollback.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Change the title and say who holds it now."""
    from negtraj_dagster.errors import SettingsError
    from negtraj_dagster.recipes import load_recipes
    from negtraj_dagster.reports.registry import Registry
    from negtraj_dagster.settings import did_you_mean, load_settings
    from negtraj_dagster.store import Store

    settings = load_settings()
    lines = {recipe.line for recipe in load_recipes(settings).values()}
    if options.line not in lines:
        raise SettingsError(f"no line {options.line!r}{did_you_mean(options.line, lines)}")
    title = Registry(Store(settings.home, remote=settings.store_url), options.line).roll_back(options.why).content
    print(f"{options.line}: {title['recipe']} ({title['checkpoint'][:12]}) holds the title again.")
    print("What was rolled back never takes it again; the next run judges other candidates against this one.")
    return SUCCESS
