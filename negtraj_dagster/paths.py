"""Where things are: NEGTRAJ_HOME and the folders that ship beside the package (sql/, recipes/)."""

import os
from pathlib import Path

from negtraj_dagster.errors import SettingsError

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
"""The checkout, or the folder a wheel was installed into: sql/ and recipes/ lie here in both."""


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
