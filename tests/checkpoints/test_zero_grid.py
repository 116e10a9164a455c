"""Every engine takes the steps of a plain fp32 loop: exactly in fp32, within its rounding in bf16."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster.launch import child_env

REPOSITORY = Path(__file__).parents[2]


def run_grid(folder: Path, *engines: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.checkpoints.zero_grid", str(folder), *engines]
    done = subprocess.run(command, cwd=REPOSITORY, env=child_env(), capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def check(result: dict[str, Any]) -> None:
    for name, engine in result["engines"].items():
        exact = name.startswith("fp32")
        assert engine["first_step"] == pytest.approx(1.0, abs=1e-4 if exact else 0.01), name
        assert engine["losses"][-1] == pytest.approx(result["losses"][-1], abs=1e-4 if exact else 0.02), name


def test_bf16_takes_the_steps_of_a_plain_loop(material):
    check(run_grid(material.folder, "bf16:2"))


@pytest.mark.slow
def test_every_stage_and_number_format_takes_the_steps_of_a_plain_loop(material):
    check(run_grid(material.folder, *(f"fp32:{stage}" for stage in range(4)), *(f"bf16:{stage}" for stage in (1, 2, 3))))
