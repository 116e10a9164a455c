"""A line of two tiny arms with real DeepSpeed and real generation, run once from a shell and copied by its tests."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(sys.executable).parent
RUN_S = 240
RECIPE = """
extends = "_wordtraps"
description = "tiny"
role = "{role}"
line = "tiny"
[strategy]
name = "{strategy}"
[selection]
max_positives = 20
max_negatives = 40
[training]
steps = 6
log_every_steps = 2
[evaluation]
max_new_tokens_per_turn = 12
max_turns = 2
"""
SETTINGS = "[wordtraps]\nn_train_questions = 150\nn_gate_questions = 8\nn_test_questions = 6\n"
ARMS = {"nat": "candidate", "nut": "control"}
ASSETS = (
    "base_model/wordtraps",
    "question_sets",
    "raw_rollouts",
    "scored_trajectories",
    "trajectory_corpus/wordtraps",
    "tiny_nat/training_selection",
    "tiny_nat/tokenized_shards",
    "tiny_nat/checkpoint",
    "tiny_nat/evaluation_report",
    "recipe_comparison/tiny",
    "champion/tiny",
)
"""What leads to the candidate, and what comes of it."""
CONTROL = tuple(asset.replace("_nat", "_nut") for asset in ASSETS if "_nat" in asset)
SEGMENTS = {
    "raw_rollouts": ("rollouts", "pieces"),
    "scored_trajectories": ("asked", "facts", "scores", "sketches", "verdicts"),
    "trajectory_corpus/wordtraps": ("quotes",),
    "tiny_nat/tokenized_shards": ("conditioned", "tokens"),
}
"""Row caches that would answer for the asset's work: they go, too, so that there is something to be killed in."""


@dataclass
class Deployment:
    """A home of the line, finished once: each asset's version, how long it took, and the work that was done."""

    home: Path
    versions: dict[str, str]
    seconds: dict[str, float]
    work: Counter[str]

    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NEGTRAJ_", "DAGSTER_"))}
        return {
            **inherited,
            "NEGTRAJ_HOME": str(self.home),
            "NEGTRAJ_RECIPES": str(self.home / "recipes"),
            "DAGSTER_HOME": str(self.home / "dagster"),
        }

    def copy(self, to: Path) -> "Deployment":
        """A home of its own, without Dagster's history."""
        shutil.copytree(self.home, to, ignore=shutil.ignore_patterns("dagster", "locks"))
        (to / "dagster").mkdir()
        shutil.copy(ROOT / "negtraj_dagster" / "dagster.yaml", to / "dagster")
        return Deployment(to, self.versions, self.seconds, self.work)

    def forget(self, asset: str) -> None:
        """As if the asset had never been made."""
        shutil.rmtree(self.home / "objects" / asset, ignore_errors=True)
        (self.home / "current" / f"{asset}.json").unlink(missing_ok=True)
        for table in (self.home / "segments").iterdir() if asset in SEGMENTS else ():
            if table.name.startswith(SEGMENTS[asset]):
                shutil.rmtree(table)
        if asset == "champion/tiny":
            shutil.rmtree(self.home / "registry", ignore_errors=True)

    def present_versions(self) -> dict[str, str]:
        files = {asset: self.home / "current" / f"{asset}.json" for asset in (*ASSETS, *CONTROL)}
        return {asset: json.loads(file.read_text())["version"] for asset, file in files.items() if file.is_file()}

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.home / "dagster"))


def step(asset: str) -> str:
    return asset.replace("/", "__")


def start_run(deployment: Deployment, assets: Iterable[str] = ASSETS) -> "subprocess.Popen[str]":
    """The README's command, over the candidate's way or more."""
    command = [str(SCRIPTS / "dagster"), "asset", "materialize", "-m", "negtraj_dagster.definitions"]
    command += ["--select", ",".join(assets)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=deployment.environment(), cwd=ROOT, start_new_session=True, **pipes)


def follow(process: "subprocess.Popen[str]", until: str | None = None) -> list[tuple[float, str]]:
    """A run's lines with the time of each, up to one that holds a text, or to its end."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append((time.monotonic(), line))
        if until is not None and until in line:
            break
    return lines


def finish_run(deployment: Deployment, assets: Iterable[str] = ASSETS) -> tuple[list[tuple[float, str]], float]:
    """A run to its end: its lines, and the seconds from the command to its first step."""
    began = time.monotonic()
    process = start_run(deployment, assets)
    lines = follow(process)
    assert process.wait(RUN_S) == 0, "".join(line for _, line in lines)[-4000:]
    return lines, next(at for at, line in lines if "STEP_START" in line) - began


def tell(events: Iterable[dg.DagsterEvent]) -> tuple[Counter[str], dict[str, str]]:
    """The work that a run did, by what the materializations say of it, and every asset's data version."""
    work: Counter[str] = Counter()
    versions = {}
    for event in events:
        materialization = event.step_materialization_data.materialization
        for name, value in materialization.metadata.items():
            if name.startswith("work_"):
                work[name.removeprefix("work_")] += value.value  # type: ignore[operator]
        versions[materialization.asset_key.to_user_string()] = (materialization.tags or {})["dagster/data_version"]
    return work, versions


def run_first(home: Path) -> Deployment:
    """Make the deployment and run all of it, disturbed by nobody."""
    (home / "recipes").mkdir(parents=True)
    (home / "dagster").mkdir()
    shutil.copy(ROOT / "negtraj_dagster" / "dagster.yaml", home / "dagster")
    (home / "negtraj.toml").write_text(SETTINGS)
    for strategy, role in ARMS.items():
        (home / "recipes" / f"tiny_{strategy}.toml").write_text(RECIPE.format(strategy=strategy, role=role))
    deployment = Deployment(home, {}, {}, Counter())
    lines, _ = finish_run(deployment, (*ASSETS, *CONTROL))
    for asset in ASSETS:
        times = {
            word: next(at for at, line in lines if f" {step(asset)} - {word}" in line)
            for word in ("STEP_START", "STEP_SUCCESS")
        }
        deployment.seconds[asset] = times["STEP_SUCCESS"] - times["STEP_START"]
    with deployment.instance() as instance:
        (run,) = instance.get_runs()
        entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        deployment.work, deployment.versions = tell(entry.dagster_event for entry in entries if entry.dagster_event)
    assert set(deployment.versions) == {*ASSETS, *CONTROL}
    assert deployment.present_versions() == deployment.versions
    return deployment
