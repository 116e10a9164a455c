"""`negtraj init-task`: the settings and recipes that files of rollouts need."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from negtraj_dagster.commands.arguments import add_mapping_arguments, mapping_of
from negtraj_dagster.errors import NegtrajError, SettingsError
from negtraj_dagster.exit_codes import SUCCESS
from negtraj_dagster.printable import visible
from negtraj_dagster.recipes import load_recipes
from negtraj_dagster.settings import Settings, load_settings, settings_file

if TYPE_CHECKING:
    from negtraj_dagster.views.check import CheckedFile

NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    parser = commands.add_parser("init-task", help="write the task, its sources and two recipes for files of rollouts")
    parser.add_argument("name", metavar="NAME", help="what the task is to be called")
    parser.add_argument(
        "--from", dest="files", type=Path, required=True, nargs="+", metavar="FILE", help="rollouts, as `negtraj check` reads"
    )
    parser.add_argument("--base-model", default="bytes", metavar="M", help="of the recipes (default: bytes, a toy to try with)")
    add_mapping_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the files and say what comes next; nothing that is there is changed but negtraj.toml, at its end."""
    from negtraj_dagster.views.check import NO_OUTCOME, source_lines
    from negtraj_dagster.views.format_reading import FormatReading
    from negtraj_dagster.views.proposed_task import ProposedTask

    settings = load_settings()
    checked_files = _read(options, settings)
    reading = FormatReading(checked_files[0].best.name)
    for checked in checked_files:
        reading.add(checked.best)
    proposed = ProposedTask(options.name, reading, options.base_model, settings)
    recipes = {settings.home / "recipes" / f"{options.name}_{strategy}.toml": text for strategy, text in proposed.recipes()}
    files = {settings.home / "tasks" / f"{options.name}.toml": proposed.task(), **recipes}
    sources = dict(zip(_source_names(options.name, len(checked_files)), checked_files, strict=True))
    if present := next((path for path in files if path.exists()), None):
        raise SettingsError(f"{present} is there already; choose another name, or remove it")
    if options.name in settings.tasks or not settings.sources.keys().isdisjoint(sources):
        raise SettingsError(f"[sources.{options.name}] or [tasks.{options.name}] is there already; choose another name")
    tables = (["", *source_lines(name, options.name, checked)] for name, checked in sources.items())
    _write(files, settings_file(settings.home), "".join(f"{line}\n" for table in tables for line in table))
    for checked in checked_files:
        best = checked.best
        print(f"{visible(str(checked.path))}: {best.n_read:,} rollouts are read as {best.name}, {best.n_refused:,} refused")
    print("Written:")
    print("\n".join(f"  {visible(str(path))}" for path in (*files, settings_file(settings.home))))
    for warning in proposed.warnings():
        print(f"\n{visible(warning)}")
    if not reading.rewards[True] + reading.rewards[False] + reading.n_scored:
        print(f"\n{NO_OUTCOME}")
    print(f"\nLook at them, then:\n  negtraj plan --line {options.name}\n  negtraj run {options.name}")
    return SUCCESS


def _write(files: Mapping[Path, str], own_file: Path, tables: str) -> None:
    """All of it, or nothing where the settings do not load with it: what does not load stands in the way of every command."""
    before = own_file.read_bytes() if own_file.is_file() else None
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        with own_file.open("a", encoding="utf-8") as file:
            file.write(tables)
        load_recipes(load_settings())
    except (NegtrajError, OSError, UnicodeError):
        for path in files:
            path.unlink(missing_ok=True)
        if before is None:
            own_file.unlink(missing_ok=True)
        else:
            own_file.write_bytes(before)
        raise


def _read(options: argparse.Namespace, settings: Settings) -> "list[CheckedFile]":
    """What each file holds.

    Raises:
        SettingsError: the task's name is none, or no format reads one of the files.
    """
    from negtraj_dagster.views.check import check_file

    if not NAME.match(options.name):
        raise SettingsError(
            f"{options.name!r}: a task's name has lower-case letters, digits and _ only, and begins with a letter"
        )
    files = [
        check_file(file, settings, mapping=mapping_of(options))
        for file in {file.resolve(): file for file in options.files}.values()
    ]
    if unread := next((checked.path for checked in files if not checked.best.n_read), None):
        raise SettingsError(f"{unread}: no format reads it; `negtraj check {unread}` says why")
    return files


def _source_names(name: str, n_files: int) -> list[str]:
    return [name, *(f"{name}_{number}" for number in range(2, n_files + 1))]
