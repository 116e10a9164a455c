"""`negtraj export`: hand a checkpoint out as a folder that can be served."""

import argparse
from pathlib import Path

from negtraj_dagster.exit_codes import SUCCESS


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    export = commands.add_parser("export", help="write a checkpoint with its model card and lineage into a folder")
    export.add_argument("name", metavar="LINE|RECIPE", help="a line's champion, or a recipe's present checkpoint")
    export.add_argument("folder", type=Path, metavar="DIR", help="absent or empty")
    export.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the folder and say what was compared."""
    from negtraj_dagster.commands.plain_child import run_on_processor
    from negtraj_dagster.recipes import load_recipes
    from negtraj_dagster.settings import load_settings
    from negtraj_dagster.store import Store
    from negtraj_dagster.views.delivery import deliver, find_named

    settings = load_settings()
    store = Store(settings.home, remote=settings.store_url)
    with store.in_use():
        named = find_named(store, load_recipes(settings), options.name)
        comparison = deliver(store, named, options.folder, run_on_processor)
    print(f"{named.checkpoint.asset} of version {named.checkpoint.version[:12]}: {options.folder}")
    print(f"loss {comparison['loss']:.4f} on {comparison['n_rows']} of its shards' rows, in a process of its own")
    if not comparison["template_writes_prompt"]:
        print("its chat template writes another prompt than it was trained with: README.md says how to ask it")
    if "adapter" in comparison:
        adapter = comparison["adapter"]
        print(
            f"adapter alone: {adapter['top1_agreement']:.2%} of the most likely tokens agree with the merged model's, logits "
            f"within {adapter['max_difference']:.1e}"
        )
    return SUCCESS
