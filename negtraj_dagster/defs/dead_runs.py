"""Ends, in Dagster's books, the runs whose process was killed: a run that nobody runs must not count against the next.

Dagster marks a run failed from inside its process, so a killed one stays "started" for ever and takes a place of the run queue
(ten of them, and nothing starts any more). The default launcher has no health check. Here every run notes its process in a tag,
and the next run, or the sensor of a running daemon, looks whether that process is still there.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

PROCESS_TAG = "negtraj/process"
SENSOR_INTERVAL_S = 30
WATCHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def note_process(instance: DagsterInstance, run_id: str) -> None:
    """Write down which process executes a run."""
    instance.add_run_tags(run_id, {PROCESS_TAG: process_identity(os.getpid())})


def process_identity(pid: int) -> str:
    """`host boot pid start`: what no other process has, before or after this one; `start` is missing where it has ended."""
    return " ".join([socket.gethostname(), _boot_id(), str(pid), _start_ticks(pid)])


def end_dead_runs(instance: DagsterInstance) -> list[str]:
    """Mark every run of this machine whose process is gone as failed, or as canceled where that was asked for.

    Runs of other machines, and those that noted no process, are left alone.

    Returns:
        their run ids.
    """
    return [run.run_id for run in instance.get_runs(RunsFilter(statuses=WATCHED)) if _end_if_dead(instance, run)]


def _end_if_dead(instance: DagsterInstance, run: DagsterRun) -> bool:
    identities = _identities(instance, run)
    if not identities or any(_is_alive(identity) for identity in identities):
        return False
    present = instance.get_run_by_id(run.run_id)
    if present is None or present.status not in WATCHED:  # it ended while its process was looked for
        return False
    message = (
        f"The process of this run ({identities[0].split()[2]}) is gone: it was killed, or the machine restarted. "
        f"What it had finished is kept; materialize again, and the run goes on from there."
    )
    if present.status == DagsterRunStatus.CANCELING:
        instance.report_run_canceled(present, message)
    else:
        instance.report_run_failed(present, message)
    return True


def _identities(instance: DagsterInstance, run: DagsterRun) -> list[str]:
    """The process that the run noted; before it did, the one that Dagster's own event names."""
    if noted := run.tags.get(PROCESS_TAG):
        return [noted]
    if not _is_of_one_machine(instance):
        return []
    events = instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
    pids = [int(pid) for event in events if (pid := _event_pid(event)) is not None]
    return [f"{socket.gethostname()} {_boot_id()} {pid} " for pid in pids[-1:]]


def _event_pid(event: dg.EventLogEntry) -> int | None:
    data = event.dagster_event.event_specific_data if event.dagster_event else None
    value = getattr(data, "metadata", {}).get("pid")
    return int(value.value) if value is not None and str(value.value).isdigit() else None


def _is_of_one_machine(instance: DagsterInstance) -> bool:
    """Whether the books lie in files of this machine."""
    return type(instance.run_storage).__name__ == "SqliteRunStorage"


def _is_alive(identity: str) -> bool:
    host, boot, pid, *start = identity.split(" ")
    if host != socket.gethostname():
        return True  # not ours to judge
    if boot != _boot_id():
        return False
    ticks = _start_ticks(int(pid))
    return ticks != "" and start in ([""], [], [ticks])


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "-"


def _start_ticks(pid: int) -> str:
    """When a process started, in ticks since boot; empty where it has ended; `-` where the system does not say."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if state == "Z" else fields[18]
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "-"


def build_dead_runs_sensor() -> dg.SensorDefinition:
    """A sensor, on from the start, that does so where nothing else starts: a full queue waits for it."""

    @dg.sensor(
        name="killed_runs",
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        jobs=[],
        description="Marks runs whose process was killed as failed, so that they hold no place of the queue. Starts nothing.",
    )
    def killed_runs(context: dg.SensorEvaluationContext) -> Iterator[dg.SkipReason]:
        ended = end_dead_runs(context.instance)
        yield dg.SkipReason(f"marked as failed: {', '.join(ended)}" if ended else "no run was killed")

    return killed_runs
