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
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from negtraj_dagster.defs.dead_runs import PROCESS_TAG
from negtraj_dagster.devices import child_devices, hold_devices
from negtraj_dagster.upkeep import verify_home
from tests.support.tiny_line import ASSETS, ROOT, RUN_S, Deployment, finish_run, follow, start_run, step

STATUS_S = 90


def check_recovered(deployment: Deployment, *ended: str) -> None:
    """The next run made what a clean one makes, nothing is damaged, and Dagster knows that the runs before it are over."""
    assert deployment.present_versions() == deployment.versions
    assert verify_home(deployment.home).faults == []
    with deployment.instance() as instance:
        for run_id in ended:
            run = instance.get_run_by_id(run_id)
            assert run is not None
            assert run.status == dg.DagsterRunStatus.FAILURE


def runs_of(deployment: Deployment) -> list[str]:
    with deployment.instance() as instance:
        return [run.run_id for run in instance.get_runs()]


def stop_while_it_waits(deployment: Deployment, number: signal.Signals) -> None:
    """Signal a run that waits for another trainer: it ends within five seconds."""
    with hold_devices(child_devices(1), "test"):
        process = start_run(deployment)
        lines = follow(process, "waiting for ")
        assert "held by process" in lines[-1][1]
        began = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=20)
        assert time.monotonic() - began < 5
    assert process.returncode != 0


@pytest.mark.parametrize(
    ("rounds", "is_stopped_first"),
    [
        pytest.param((("tiny_nat/checkpoint", 1),), True, id="one, after one that was stopped"),
        pytest.param(tuple((asset, 2) for asset in ASSETS), False, id="all", marks=pytest.mark.slow),
    ],
)
def test_a_run_from_a_shell_that_is_killed_holds_nobody_up(
    clean: Deployment,
    tmp_path: Path,
    rounds: tuple[tuple[str, int], ...],
    is_stopped_first: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw, waits = random.Random(len(rounds)), []
    for asset, number in ((asset, number) for asset, times in rounds for number in range(times)):
        deployment = clean.copy(tmp_path / f"{step(asset)}-{number}")
        deployment.forget(asset)
        if is_stopped_first:
            stop_while_it_waits(deployment, signal.SIGTERM)
        process = start_run(deployment)
        assert f"{step(asset)} - STEP_START" in follow(process, f" {step(asset)} - STEP_START")[-1][1]
        time.sleep(draw.uniform(0, clean.seconds[asset] * 0.9))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"{asset} had ended before the kill"
        ended = runs_of(deployment)
        assert len(ended) == 1 + is_stopped_first
        waits.append(finish_run(deployment)[1])
        check_recovered(deployment, *ended)
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


@pytest.mark.slow
def test_a_run_that_waits_for_another_trainer_and_is_interrupted_is_made_up_for(clean: Deployment, tmp_path: Path) -> None:
    deployment = clean.copy(tmp_path / "waiting")
    deployment.forget("tiny_nat/checkpoint")
    stop_while_it_waits(deployment, signal.SIGINT)
    ended = runs_of(deployment)
    finish_run(deployment)
    check_recovered(deployment, *ended)
