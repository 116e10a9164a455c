"""Ctrl-C and SIGTERM while a trainer works end the run at once, in one line and without anything left behind."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from negtraj_dagster import exit_codes
from tests.support import deployment as dep

RUN = [sys.executable, "-m", "negtraj_dagster.cli", "run", "tiny"]
MATERIALIZE = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize", "-m", "negtraj_dagster.definitions"]
STEP = re.compile(r"step \d+/4000")
CASES = {
    "ctrl-c in a shell": (RUN, signal.SIGINT, True, exit_codes.INTERRUPTED),
    "SIGTERM to the command": (RUN, signal.SIGTERM, False, exit_codes.INTERRUPTED),
    "ctrl-c of dagster's command": ([*MATERIALIZE, "--select", "+key:tiny_nat/checkpoint"], signal.SIGINT, True, 1),
}


@pytest.fixture(scope="module")
def environment(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a deployment whose training takes minutes."""
    folder = tmp_path_factory.mktemp("interrupts")
    root = dep.make_deployment(folder / "d", base_model)
    recipe = root / "recipes" / "tiny_nat.toml"
    recipe.write_text(recipe.read_text().replace("steps = 4", "steps = 4000"))
    (folder / "dagster").mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NEGTRAJ_", "DAGSTER_"))}
    return {**inherited, **dep.environment(root), "DAGSTER_HOME": str(folder / "dagster")}


@pytest.mark.parametrize("name", CASES)
def test_a_signal_while_a_trainer_works_ends_all_in_one_line(name: str, environment: dict[str, str]) -> None:
    command, number, is_group, code = CASES[name]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert any(STEP.search(line) for line in process.stdout)  # any: the second case goes on where the first one ended
    group = os.getpgid(process.pid)
    (os.killpg if is_group else os.kill)(process.pid, number)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in rest
    assert "Stack Trace" not in rest
    assert "interrupted; what was finished is kept" in rest
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
