"""kill -9 of Dagster's own runs, from a shell and from the UI, in every asset: the next starts at once and ends as a clean one.

`make test` kills once; `make test-all` forty times (docs/faults.md has the figures).
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from negtraj_dagster.defs.dead_runs import PROCESS_TAG
from negtraj_dagster.upkeep import verify_home
from tests.defs.test_lineage import SETTINGS, TINY

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(sys.executable).parent
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
SEGMENTS = {
    "raw_rollouts": ("rollouts", "pieces"),
    "scored_trajectories": ("asked", "facts", "scores", "sketches", "verdicts"),
    "trajectory_corpus/wordtraps": ("quotes",),
    "tiny_nat/tokenized_shards": ("conditioned", "tokens"),
}
"""Row caches that would answer for the asset's work: they go, too, so that there is something to be killed in."""
RUN_S, STATUS_S = 240, 90


@dataclass
class Deployment:
    """A home with one tiny line, finished once; `seconds` says how long each asset took."""

    home: Path
    versions: dict[str, str]
    seconds: dict[str, float]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "NEGTRAJ_HOME": str(self.home),
            "NEGTRAJ_RECIPES": str(self.home / "recipes"),
            "DAGSTER_HOME": str(self.home / "dagster"),
        }

    def copy(self, to: Path) -> "Deployment":
        """A home of its own, without Dagster's history."""
        shutil.copytree(self.home, to, ignore=shutil.ignore_patterns("dagster", "locks"))
        (to / "dagster").mkdir()
        shutil.copy(ROOT / "negtraj_dagster" / "dagster.yaml", to / "dagster")
        return Deployment(to, self.versions, self.seconds)

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
        files = {asset: self.home / "current" / f"{asset}.json" for asset in ASSETS}
        return {asset: json.loads(file.read_text())["version"] for asset, file in files.items() if file.is_file()}

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.home / "dagster"))


def step(asset: str) -> str:
    return asset.replace("/", "__")


def start_run(deployment: Deployment) -> "subprocess.Popen[str]":
    """The README's command, over the whole line."""
    command = [str(SCRIPTS / "dagster"), "asset", "materialize", "-m", "negtraj_dagster.definitions"]
    command += ["--select", ",".join(ASSETS)]
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


def finish_run(deployment: Deployment) -> tuple[list[tuple[float, str]], float]:
    """A run to its end: its lines, and the seconds from the command to its first step."""
    began = time.monotonic()
    process = start_run(deployment)
    lines = follow(process)
    assert process.wait(RUN_S) == 0, "".join(line for _, line in lines)[-4000:]
    return lines, next(at for at, line in lines if "STEP_START" in line) - began


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """What a run that nobody disturbs makes."""
    home = tmp_path_factory.mktemp("clean") / "home"
    (home / "recipes").mkdir(parents=True)
    (home / "dagster").mkdir()
    shutil.copy(ROOT / "negtraj_dagster" / "dagster.yaml", home / "dagster")
    (home / "negtraj.toml").write_text(SETTINGS)
    (home / "recipes" / "tiny_nat.toml").write_text(TINY.format(strategy="nat", role="candidate"))
    deployment = Deployment(home, {}, {})
    lines, _ = finish_run(deployment)
    for asset in ASSETS:
        times = {
            word: next(at for at, line in lines if f" {step(asset)} - {word}" in line)
            for word in ("STEP_START", "STEP_SUCCESS")
        }
        deployment.seconds[asset] = times["STEP_SUCCESS"] - times["STEP_START"]
    deployment.versions = deployment.present_versions()
    assert set(deployment.versions) == set(ASSETS)
    return deployment


def check_recovered(deployment: Deployment, killed: str) -> None:
    """The next run made what a clean one makes, nothing is damaged, and Dagster knows that the killed run is over."""
    assert deployment.present_versions() == deployment.versions
    assert verify_home(deployment.home).faults == []
    with deployment.instance() as instance:
        run = instance.get_run_by_id(killed)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.FAILURE


def only_run(deployment: Deployment) -> str:
    with deployment.instance() as instance:
        (run,) = instance.get_runs()
        return run.run_id


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param((("tiny_nat/checkpoint", 1),), id="one"),
        pytest.param(tuple((asset, 2) for asset in ASSETS), id="all", marks=pytest.mark.slow),
    ],
)
def test_a_run_from_a_shell_that_is_killed_holds_nobody_up(
    clean: Deployment, tmp_path: Path, rounds: tuple[tuple[str, int], ...], capsys: pytest.CaptureFixture[str]
) -> None:
    draw, waits = random.Random(len(rounds)), []
    for asset, number in ((asset, number) for asset, times in rounds for number in range(times)):
        deployment = clean.copy(tmp_path / f"{step(asset)}-{number}")
        deployment.forget(asset)
        process = start_run(deployment)
        assert f"{step(asset)} - STEP_START" in follow(process, f" {step(asset)} - STEP_START")[-1][1]
        time.sleep(draw.uniform(0, clean.seconds[asset] * 0.9))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"{asset} had ended before the kill"
        killed = only_run(deployment)
        waits.append(finish_run(deployment)[1])
        check_recovered(deployment, killed)
        shutil.rmtree(deployment.home)
    with capsys.disabled():
        print(f"\n{len(waits)} kills of runs from a shell; the next run's first step after {max(waits):.1f} s at most")


class Ui:
    """`negtraj ui` over a deployment, asked through its GraphQL."""

    def __init__(self, deployment: Deployment) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        command = [sys.executable, "-m", "negtraj_dagster.cli", "ui", "--port", str(self.port)]
        self.log = (deployment.home / "ui.log").open("w")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=deployment.environment(), cwd=ROOT)

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def launch(self, job: str) -> str:
        selector = {"repositoryLocationName": "negtraj_dagster", "repositoryName": "__repository__", "jobName": job}
        launched = self.ask(LAUNCH, params={"selector": selector, "mode": "default"})["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + STATUS_S
        while time.monotonic() < deadline:
            try:
                if any(node["name"] == "line_tiny" for node in self.ask(JOBS)["repositoryOrError"].get("pipelines", ())):
                    return
            except OSError:
                pass
            time.sleep(0.5)
        raise AssertionError("the UI did not come up")

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.close()


LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
REPOSITORY = '{repositoryLocationName: "negtraj_dagster", repositoryName: "__repository__"}'
JOBS = f"query {{ repositoryOrError(repositorySelector: {REPOSITORY}) {{ ... on Repository {{ pipelines {{ name }} }} }} }}"


@pytest.fixture
def ui_deployment(clean: Deployment, tmp_path: Path) -> Iterator[tuple[Deployment, Ui]]:
    deployment = clean.copy(tmp_path / "ui")
    ui = Ui(deployment)
    try:
        ui.wait_until_up()
        yield deployment, ui
    finally:
        ui.close()


def wait_for(instance: dg.DagsterInstance, run_id: str, text: str) -> None:
    """Until the run's log holds an event of a step."""
    deadline = time.monotonic() + STATUS_S
    while time.monotonic() < deadline:
        for entry in instance.all_logs(run_id):
            if entry.dagster_event and f"{entry.dagster_event.step_key} {entry.dagster_event.event_type_value}" == text:
                return
        time.sleep(0.02)
    raise AssertionError(f"run {run_id} never came to {text!r}")


def wait_for_status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    deadline = time.monotonic() + RUN_S
    while time.monotonic() < deadline:
        run = instance.get_run_by_id(run_id)
        if run and run.is_finished:
            return run.status
        time.sleep(0.2)
    raise AssertionError(f"run {run_id} has not ended")


@pytest.mark.slow
def test_a_run_from_the_ui_that_is_killed_holds_nobody_up(
    clean: Deployment, ui_deployment: tuple[Deployment, Ui], capsys: pytest.CaptureFixture[str]
) -> None:
    deployment, ui = ui_deployment
    draw, waits = random.Random(3), []
    rounds = [*ASSETS, "raw_rollouts", "scored_trajectories", "tiny_nat/tokenized_shards", *["tiny_nat/checkpoint"] * 4]
    with deployment.instance() as instance:
        for asset in rounds:
            deployment.forget(asset)
            killed = ui.launch("line_tiny")
            wait_for(instance, killed, f"{step(asset)} STEP_START")
            time.sleep(draw.uniform(0, clean.seconds[asset] * 0.8))
            run = instance.get_run_by_id(killed)
            assert run is not None
            os.kill(int(run.tags[PROCESS_TAG].split()[2]), signal.SIGKILL)
            began = time.monotonic()
            following = ui.launch("line_tiny")
            wait_for(instance, following, f"{step(ASSETS[1])} STEP_START")
            waits.append(time.monotonic() - began)
            assert wait_for_status(instance, following) == dg.DagsterRunStatus.SUCCESS
            check_recovered(deployment, killed)
    with capsys.disabled():
        print(f"\n{len(waits)} kills of runs from the UI; the next run's first step after {max(waits):.1f} s at most")


@pytest.mark.slow
def test_more_killed_runs_than_the_queue_has_places_do_not_fill_it(ui_deployment: tuple[Deployment, Ui]) -> None:
    """Nothing starts while the queue is full, so that the sensor of the daemon has to see to it."""
    deployment, ui = ui_deployment
    with deployment.instance() as instance:
        for _ in range(10):
            deployment.forget("tiny_nat/checkpoint")
            run_id = ui.launch("line_tiny")
            wait_for(instance, run_id, f"{step('tiny_nat/checkpoint')} STEP_START")
            run = instance.get_run_by_id(run_id)
            assert run is not None
            os.kill(int(run.tags[PROCESS_TAG].split()[2]), signal.SIGKILL)
            instance.report_engine_event("killed", run)
        last = ui.launch("line_tiny")
        assert wait_for_status(instance, last) == dg.DagsterRunStatus.SUCCESS
    assert deployment.present_versions() == deployment.versions


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=["sigterm", "ctrl-c"]
)
def test_a_run_that_waits_for_another_trainer_ends_within_five_seconds_of_a_signal(
    clean: Deployment, tmp_path: Path, number: signal.Signals
) -> None:
    from negtraj_dagster.devices import child_devices, hold_devices

    deployment = clean.copy(tmp_path / "waiting")
    deployment.forget("tiny_nat/checkpoint")
    with hold_devices(child_devices(1), "test"):
        process = start_run(deployment)
        lines = follow(process, "waiting for ")
        assert "held by process" in lines[-1][1]
        began = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=20)
        assert time.monotonic() - began < 5
    assert process.returncode != 0
    finish_run(deployment)
    assert deployment.present_versions() == deployment.versions
