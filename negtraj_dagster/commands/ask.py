"""`negtraj ask`: put one question to a checkpoint, as its evaluation would."""

import argparse

from negtraj_dagster.exit_codes import SUCCESS


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    ask = commands.add_parser("ask", help="put a question to a checkpoint and print the episode")
    ask.add_argument("name", metavar="LINE|RECIPE", help="a line's champion, or a recipe's present checkpoint")
    ask.add_argument("question", metavar="QUESTION")
    ask.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Play one episode and print its turns."""
    from negtraj_dagster.commands.plain_child import run_plainly
    from negtraj_dagster.lineage import Lineage
    from negtraj_dagster.printable import visible
    from negtraj_dagster.settings import load_settings
    from negtraj_dagster.store import Store
    from negtraj_dagster.views.delivery import find_named

    settings = load_settings()
    store = Store(settings.home, remote=settings.store_url)
    with store.in_use():
        lineage = Lineage(store, settings, run_plainly)
        episode = lineage.ask(find_named(store, lineage.recipes, options.name), options.question)
    for turn in episode["turns"]:
        print(visible(f"{turn['role']}: {turn['content']}"))
    answer = episode["prediction"]
    print(visible(f"answer: {answer}") if answer is not None else f"no answer: {episode['status'].replace('_', ' ')}")
    return SUCCESS
