"""The README's shell commands, literally, on an instance without any history."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from negtraj_dagster import cli

ROOT = Path(__file__).resolve().parents[2]
DAGSTER = Path(sys.executable).parent / "dagster"


def dagster(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    command = [str(DAGSTER), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def materialize(selection: str) -> subprocess.CompletedProcess[str]:
    return dagster("asset", "materialize", "-m", "negtraj_dagster.definitions", "--select", selection)


def test_the_definitions_validate() -> None:
    done = dagster("definitions", "validate", "-m", "negtraj_dagster.definitions")
    assert done.returncode == 0, done.stderr
    assert "All code locations passed validation" in done.stderr + done.stdout


def test_the_workspace_file_validates() -> None:
    assert dagster("definitions", "validate", "-w", "workspace.yaml").returncode == 0


def test_one_asset_materializes_from_a_shell_without_history() -> None:
    done = materialize("raw_rollouts")
    assert done.returncode == 0, done.stderr
    assert "2050 rollouts from 1 files" in done.stderr + done.stdout


def test_with_the_readmes_setup_a_run_is_kept_where_the_ui_looks(tmp_path: Path) -> None:
    block = (ROOT / "README.md").read_text().partition("## From a shell or CI\n\n")[2].partition("\n\n")[0]
    setup = [line.strip() for line in block.splitlines() if ".venv/bin/dagster" not in line]
    assert len(setup) == 3
    command = f"{DAGSTER} asset materialize -m negtraj_dagster.definitions --select question_sets"
    script = "\n".join(["set -eu", *setup, *setup, command]).replace("$PWD/.negtraj", str(tmp_path / "home"))
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    with dg.DagsterInstance.from_config(str(tmp_path / "home" / "dagster")) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS]
    assert (tmp_path / "home" / "dagster" / "dagster.yaml").read_bytes() == (ROOT / "dagster.yaml").read_bytes()


def test_an_unknown_key_ends_with_an_error() -> None:
    done = materialize("wordtraps_nat/evaluation_reprot")
    assert done.returncode == 1
    assert "evaluation_reprot" in done.stderr + done.stdout


@pytest.mark.parametrize("command", [("--help",), ("demo", "--help"), ("ui", "--help")])
def test_the_negtraj_command_explains_itself(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(command))
    assert ended.value.code == 0
    assert "usage: negtraj" in capsys.readouterr().out


def test_a_home_that_cannot_be_written_is_named_with_the_remedy() -> None:
    command = [sys.executable, "-m", "negtraj_dagster.cli", "demo"]
    environment = {**os.environ, "NEGTRAJ_HOME": "/dev/null/home"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("negtraj: /dev/null/home/dagster: cannot be made, a file stands where a folder is needed")


def test_an_unknown_line_is_refused_with_the_nearest_known_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--line", "wordtrap"]) == 1
    assert "no line, recipe or study 'wordtrap'; did you mean 'wordtraps'?" in capsys.readouterr().err
