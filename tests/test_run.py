"""What `negtraj demo` tells of a run: its assets in order, checks that failed, and how it ends. No training in these runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHORT = """
extends = "_wordtraps"
description = "most rows are too long for it"
role = "study"
line = "short"
base_model = "bytes"
[strategy]
name = "nat"
[selection]
max_positives = 20
max_negatives = 20
[training]
steps = 1
[evaluation]
max_turns = 1
[shards]
max_tokens = 300
"""


def demo(home: Path, line: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NEGTRAJ_", "DAGSTER_"))}
    environment |= {"NEGTRAJ_HOME": str(home), "NEGTRAJ_RECIPES": str(home / "recipes")}
    command = [sys.executable, "-m", "negtraj_dagster.cli", "demo", "--line", line]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment whose only landed file is unreadable, and a recipe that cuts off its own rows."""
    folder = tmp_path_factory.mktemp("home")
    landing = folder / "landing" / "wordtraps" / "negtraj"
    landing.mkdir(parents=True)
    (landing / "junk.jsonl").write_text("junk\njunk\n")
    (folder / "recipes").mkdir()
    (folder / "recipes" / "short.toml").write_text(SHORT)
    (folder / "negtraj.toml").write_text("[wordtraps]\nenabled = false\n")
    return folder


@pytest.fixture(scope="module")
def without_data(home: Path) -> subprocess.CompletedProcess[str]:
    """A run of a line that has no data; the tests below build on it."""
    return demo(home, "strategyqa")


def test_a_check_that_blocks_nothing_is_shown_with_its_numbers_and_the_run_succeeds(
    without_data: subprocess.CompletedProcess[str],
) -> None:
    assert without_data.returncode == 0, without_data.stderr
    told = (
        "few_quarantined of raw_rollouts (files_without_a_rollout = ['wordtraps/negtraj/junk.jsonl'], limit = 0.05, "
        "n_quarantined = 2, n_unread_bytes = 8, share = 1): "
    )
    assert f"check failed: {told}" in without_data.stderr
    assert f"Failed check, though the run went on: {told}" in without_data.stdout
    assert without_data.stdout.rstrip().endswith("mend the files and materialize again"), "the remedy stands beside it"


def test_each_asset_is_one_line_and_checks_are_not_counted(without_data: subprocess.CompletedProcess[str]) -> None:
    lines = without_data.stderr.splitlines()
    steps = [line for line in lines if line.startswith("[")]
    assert [line.split("]")[0] for line in steps] == [f"[{n:2}/10" for n in range(1, 11)]
    assert steps[-1].endswith("  recipe_comparison/strategyqa")
    between = [line.strip() for line in lines if line not in steps]
    assert [line.partition(" ")[0] for line in between] == ["2", "check"], "a warning of the stage, and the failed check"


def test_a_check_that_blocks_ends_the_run_with_an_error(home: Path, without_data: subprocess.CompletedProcess[str]) -> None:
    (home / "negtraj.toml").write_text("[wordtraps]\nn_train_questions = 150\nn_gate_questions = 8\nn_test_questions = 6\n")
    done = demo(home, "short")
    assert done.returncode == 1
    assert "check failed: every_class_is_left of short/tokenized_shards (limit = 0.1, n_left_" in done.stderr
    assert "The run failed: check every_class_is_left of short/tokenized_shards. Mend it" in done.stderr


def test_a_step_that_fails_is_named_with_its_reason(home: Path, without_data: subprocess.CompletedProcess[str]) -> None:
    (home / "tombstones.jsonl").write_text("stones\n")
    done = demo(home, "short")
    assert done.returncode == 1
    assert "failed: " in done.stderr
    assert "tombstones.jsonl" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Stack Trace" not in done.stderr
    assert "The run failed: raw_rollouts. Mend it" in done.stderr
