"""Which runs count as killed: by place, boot, process and its start; and what Dagster's books say of them afterwards."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.events import EngineEventData

from negtraj_dagster.defs import dead_runs
from negtraj_dagster.defs.dead_runs import (
    INITIAL_NAMESPACE,
    PROCESS_TAG,
    build_dead_runs_sensor,
    end_dead_runs,
    note_process,
    process_identity,
)


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


def changed(pid: int, **parts: str) -> str:
    """The identity of a process of this place with some parts of another."""
    names = ("host", "boot", "pid", "start", "namespace", "machine")
    noted = dict(zip(names, process_identity(pid).split(" "), strict=True))
    return " ".join({**noted, **parts}.values())


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
        pytest.param(lambda: changed(os.getpid(), start="1"), id="another process took its number"),
        pytest.param(lambda: changed(os.getpid(), boot="another"), id="the machine restarted"),
    ],
)
def test_a_run_whose_process_is_gone_has_failed(
    instance: DagsterInstance, identity: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_runs, "_namespace", lambda: INITIAL_NAMESPACE)
    monkeypatch.setattr(dead_runs, "_machine_id", lambda: "a-machine")
    run_id = run_in(instance, DagsterRunStatus.STARTED, identity())
    assert end_dead_runs(instance) == [run_id]
    assert status(instance, run_id) == DagsterRunStatus.FAILURE
    assert end_dead_runs(instance) == []


def test_a_killed_run_that_was_to_be_canceled_is_canceled(instance: DagsterInstance) -> None:
    run_id = run_in(instance, DagsterRunStatus.CANCELING, process_identity(ended_process()))
    assert end_dead_runs(instance) == [run_id]
    assert status(instance, run_id) == DagsterRunStatus.CANCELED


@pytest.mark.parametrize(
    ("parts", "place"),
    [
        ({"host": "another"}, {}),
        ({"namespace": "pid:[4026532999]"}, {}),
        ({"machine": "another"}, {}),
        ({"boot": "another"}, {"_namespace": "pid:[4026532999]"}),
        ({"boot": "another"}, {"_machine_id": "-"}),
        ({}, {"_namespace": "-"}),
    ],
    ids=["host", "container", "machine", "container after a boot", "machine without a name after a boot", "unknown namespace"],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_a_run_is_judged_only_where_all_of_its_place_agrees(
    instance: DagsterInstance, parts: dict[str, str], place: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_namespace": INITIAL_NAMESPACE, "_machine_id": "a-machine", **place}.items():
        monkeypatch.setattr(dead_runs, name, lambda value=value: value)
    run_id = run_in(instance, DagsterRunStatus.STARTED, changed(ended_process(), **parts))
    assert end_dead_runs(instance) == []
    assert status(instance, run_id) == DagsterRunStatus.STARTED


@pytest.mark.parametrize("identity", ["host boot 1 1", None], ids=["an earlier version's note", "no note"])
def test_a_run_that_noted_too_little_is_left_alone(instance: DagsterInstance, identity: str | None) -> None:
    run_id = run_in(instance, DagsterRunStatus.STARTED, identity)
    assert end_dead_runs(instance) == []
    assert status(instance, run_id) == DagsterRunStatus.STARTED


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
@pytest.mark.parametrize(
    ("others", "is_judged"),
    [
        ([{}], True),
        ([], False),
        ([{}, {"namespace": "pid:[4026532999]"}], False),
        ([{}, {"host": "another"}], False),
    ],
    ids=["all ran here", "nothing noted yet", "a container shares the books", "a host shares the books"],
)
def test_a_run_killed_before_it_noted_its_process_is_known_by_dagsters_own_event(
    instance: DagsterInstance, others: list[dict[str, str]], is_judged: bool
) -> None:
    for parts in others:
        run_in(instance, DagsterRunStatus.SUCCESS, changed(os.getpid(), **parts))
    run_id = run_in(instance, DagsterRunStatus.STARTED, None)
    run = instance.get_run_by_id(run_id)
    data = EngineEventData(metadata={"pid": dg.MetadataValue.text(str(ended_process()))})
    instance.report_engine_event("Executing steps in process", run, data)
    assert end_dead_runs(instance) == ([run_id] if is_judged else [])


def test_the_sensor_says_which_runs_it_ended_and_starts_none(instance: DagsterInstance) -> None:
    run_id = run_in(instance, DagsterRunStatus.STARTED, process_identity(ended_process()))
    outcome = build_dead_runs_sensor().evaluate_tick(dg.build_sensor_context(instance))
    assert run_id in (outcome.skip_message or "")
    assert not outcome.run_requests
