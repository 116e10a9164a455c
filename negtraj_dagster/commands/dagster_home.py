"""Where Dagster keeps its runs, made ready for its commands."""

import os
from pathlib import Path

from negtraj_dagster import paths
from negtraj_dagster.store import replace_text, writing

PATH_VARIABLES = ("NEGTRAJ_SETTINGS", "NEGTRAJ_NAT_DIR")


def prepare_dagster_home() -> Path:
    """A persistent DAGSTER_HOME under NEGTRAJ_HOME (an exported one is respected), with our dagster.yaml in it.

    Relative paths in the environment become absolute, so that children may run in another folder.
    """
    os.environ["NEGTRAJ_HOME"] = str(paths.home())
    for name in PATH_VARIABLES:
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().resolve())
    if recipes := os.environ.get("NEGTRAJ_RECIPES"):
        os.environ["NEGTRAJ_RECIPES"] = os.pathsep.join(str(Path(part).resolve()) for part in recipes.split(os.pathsep))
    folder = Path(os.environ.get("DAGSTER_HOME") or paths.home() / "dagster").expanduser().absolute()
    paths.check_dagster_home(folder)
    os.environ["DAGSTER_HOME"] = str(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "dagster.yaml").exists():
            replace_text(folder / "dagster.yaml", (paths.PACKAGE_ROOT / "negtraj_dagster" / "dagster.yaml").read_text())
    return folder
