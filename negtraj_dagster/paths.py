"""Where things are: NEGTRAJ_HOME and the folders that ship beside the package (sql/, recipes/, studies/)."""

import os
import re
from pathlib import Path

from negtraj_dagster.errors import SettingsError

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
"""The checkout, or the folder a wheel was installed into: sql/, recipes/ and studies/ lie here in both."""


def home() -> Path:
    """NEGTRAJ_HOME as an absolute path; by default `.negtraj` in the working directory."""
    return Path(os.environ.get("NEGTRAJ_HOME") or ".negtraj").expanduser().resolve()


def shipped(folder: str) -> Path:
    """A folder that ships with the package.

    Raises:
        SettingsError: the installation lacks it.
    """
    path = PACKAGE_ROOT / folder
    if not path.is_dir():
        raise SettingsError(f"{path}: the folder {folder}/ is missing from this installation; reinstall negtraj-dagster")
    return path


UNFIT_FOR_SQLITE = re.compile(r"\?|%[0-9a-fA-F]{2}")
"""Dagster writes its folder into a URL as it is: SQLite would open another file, beside the folder."""


def check_dagster_home(folder: Path) -> None:
    """Refuse a folder for Dagster's runs that its database would be written beside.

    Raises:
        SettingsError: names the folder and what to do.
    """
    if unfit := UNFIT_FOR_SQLITE.search(str(folder)):
        raise SettingsError(
            f"DAGSTER_HOME = {str(folder)!r}: found {unfit[0]!r}, by which Dagster's databases would lie elsewhere; export "
            "DAGSTER_HOME as a folder without it (NEGTRAJ_HOME may stay where it is)"
        )
