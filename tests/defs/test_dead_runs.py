"""Which runs count as killed: by host, boot, process and its start; and what Dagster's books say of them afterwards."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.events import EngineEventData

from negtraj_dagster.defs.dead_runs import PROCESS_TAG, build_dead_runs_sensor, end_dead_runs, note_process, process_identity


@dg.job
def nothing() -> None:
    """Does nothing."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def run_in(instance: DagsterInstance, status: DagsterRunStatus, identity: str | None) -> str:
    run = instance.create_run_for_job(nothing, status=status, tags={PROCESS_TAG: identity} if identity else {})
    return run.run_id


def ended_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def status(instance: DagsterInstance, run_id: str) -> DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_a_run_whose_process_lives_is_left_alone(instance: DagsterInstance) -> None:
    run_id = run_in(instance, DagsterRunStatus.STARTED, None)
    note_process(instance, run_id)
    assert end_dead_runs(instance) == []
    assert status(instance, run_id) == DagsterRunStatus.STARTED


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
@pytest.mark.parametrize(
    "identity",
    [
        pytest.param(lambda: process_identity(ended_process()), id="ended"),
        pytest.param(lambda: process_identity(os.getpid()).rpartition(" ")[0] + " 1", id="another process took its number"),
        pytest.param(lambda: f"{socket.gethostname()} another-boot {os.getpid()} 7", id="the machine restarted"),
    ],
)
def test_a_run_whose_process_is_gone_has_failed(instance: DagsterInstance, identity) -> None:
    run_id = run_in(instance, DagsterRunStatus.STARTED, identity())
    assert end_dead_runs(instance) == [run_id]
    assert status(instance, run_id) == DagsterRunStatus.FAILURE
    assert end_dead_runs(instance) == []


def test_a_killed_run_that_was_to_be_canceled_is_canceled(instance: DagsterInstance) -> None:
    run_id = run_in(instance, DagsterRunStatus.CANCELING, process_identity(ended_process()))
    assert end_dead_runs(instance) == [run_id]
    assert status(instance, run_id) == DagsterRunStatus.CANCELED


@pytest.mark.parametrize("identity", ["another-host boot 1 1", None], ids=["of another machine", "that noted no process"])
def test_a_run_that_nobody_here_can_judge_is_left_alone(instance: DagsterInstance, identity: str | None) -> None:
    run_id = run_in(instance, DagsterRunStatus.STARTED, identity)
    assert end_dead_runs(instance) == []
    assert status(instance, run_id) == DagsterRunStatus.STARTED


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_a_run_killed_before_it_noted_its_process_is_known_by_dagsters_own_event(instance: DagsterInstance) -> None:
    run_id = run_in(instance, DagsterRunStatus.STARTED, None)
    run = instance.get_run_by_id(run_id)
    data = EngineEventData(metadata={"pid": dg.MetadataValue.text(str(ended_process()))})
    instance.report_engine_event("Executing steps in process", run, data)
    assert end_dead_runs(instance) == [run_id]


def test_the_sensor_says_which_runs_it_ended_and_starts_none(instance: DagsterInstance) -> None:
    run_id = run_in(instance, DagsterRunStatus.STARTED, process_identity(ended_process()))
    outcome = build_dead_runs_sensor().evaluate_tick(dg.build_sensor_context(instance))
    assert run_id in (outcome.skip_message or "")
    assert not outcome.run_requests
