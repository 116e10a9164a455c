"""`negtraj show`: training rows as the trainer reads them."""

import argparse
import os
import sys
from pathlib import Path

from negtraj_dagster.commands.arguments import count
from negtraj_dagster.errors import SettingsError, UsageError
from negtraj_dagster.exit_codes import SUCCESS
from negtraj_dagster.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    show = commands.add_parser("show", help="print training rows as the trainer reads them, or why rows were rejected")
    show.add_argument("key", nargs="?", metavar="KEY", help="the beginning of a rollout_key or token_key, 6 digits at least")
    show.add_argument("--recipe", metavar="NAME", help="look in this recipe's shards only; without KEY: its first rows")
    show.add_argument("--no-colour", "--no-color", action="store_true", help="mark trained stretches with ⟦ ⟧ instead")
    show.add_argument("--html", type=Path, metavar="FILE", help="write the rows as a page instead")
    show.add_argument("--rejected", action="store_true", help="which rows were rejected, and why")
    show.add_argument("--reason", metavar="R", help="with --rejected: rows of one reason")
    show.add_argument("--limit", type=count, default=20, metavar="N", help="without KEY: rows to print (default: 20)")
    show.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print rows, or write them as a page."""
    from negtraj_dagster.shards.page import rows_page
    from negtraj_dagster.shards.show import find_rejected, find_rows, first_rows, found_lines, rejected_lines
    from negtraj_dagster.upkeep import present_shards

    is_first = options.key is None and not options.rejected and options.recipe is not None
    if (options.key is None) == (not options.rejected and not is_first) or (options.key and options.rejected):
        raise UsageError("expected KEY, --recipe NAME, or --rejected [--reason R]")
    if (options.rejected and options.html) or (options.reason and not options.rejected):
        raise UsageError("--html goes with KEY or --recipe, --reason with --rejected")
    with present_shards(load_settings(), options.recipe) as opened:
        if options.rejected:
            print("\n".join(rejected_lines(find_rejected(opened, options.reason), options.limit)))
            return SUCCESS
        matches = first_rows(opened, options.limit) if is_first else find_rows(opened, options.key)
        if options.html is None:
            print("\n".join(found_lines(matches, has_colour=_has_colour() and not options.no_colour)))
            return SUCCESS
    _write_page(options.html, rows_page(f"Rows of {options.key or options.recipe}", matches.rows, matches.rejected))
    return SUCCESS


def _has_colour() -> bool:
    """A terminal, unless the user says otherwise (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _write_page(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{file} cannot be written ({error.strerror}); name another file") from error
    print(f"written: {file}")
