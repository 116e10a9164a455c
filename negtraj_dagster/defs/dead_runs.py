"""Ends, in Dagster's books, the runs whose process was killed: a run that nobody runs must not count against the next.

Dagster marks a run failed from inside its process, so a killed one stays "started" for ever and takes a place of the run queue
(ten of them, and nothing starts any more). The default launcher has no health check. Here every run notes its process in a tag,
and the next run, or the sensor of a running daemon, looks whether that process is still there: of its own machine's and
container's runs alone, because a process number means nothing elsewhere.
"""

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

PROCESS_TAG = "negtraj/process"
SENSOR_INTERVAL_S = 30
INITIAL_NAMESPACE = "pid:[4026531836]"
"""The PID namespace of a Linux machine itself (PROC_PID_INIT_INO), the same at every boot; a container's number is not."""
UNKNOWN = "-"
N_PARTS = 6
N_LOOKED_AT = 100
"""Runs whose places say who else writes these books."""
WATCHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def note_process(instance: DagsterInstance, run_id: str) -> None:
    """Write down which process executes a run."""
    instance.add_run_tags(run_id, {PROCESS_TAG: process_identity(os.getpid())})


@dataclass(frozen=True)
class Place:
    """Where a process number has its meaning: containers with one host name, on one machine or on two, are places apart."""

    host: str
    namespace: str
    machine: str

    @classmethod
    def here(cls) -> "Place":
        """Of this process."""
        return cls(socket.gethostname(), _namespace(), _machine_id())


@dataclass(frozen=True)
class Identity:
    """A process as its run noted it; `start` is empty where it was not noted."""

    place: Place
    boot: str
    pid: str
    start: str

    @classmethod
    def read(cls, text: str) -> "Identity | None":
        """What `process_identity` wrote; None for what is too short to judge by."""
        parts = text.split(" ")
        if len(parts) != N_PARTS:
            return None
        host, boot, pid, start, namespace, machine = parts
        return cls(Place(host, namespace, machine), boot, pid, start)


def process_identity(pid: int) -> str:
    """`host boot pid start namespace machine`: what no other process has, before or after; `start` is empty where it ended."""
    place = Place.here()
    return " ".join([place.host, _boot_id(), str(pid), _start_ticks(pid), place.namespace, place.machine])


def end_dead_runs(instance: DagsterInstance) -> list[str]:
    """Mark every run of this machine whose process is gone as failed, or as canceled where that was asked for.

    Runs of other machines and of other containers, and those that noted no process, are left alone.

    Returns:
        their run ids.
    """
    return [run.run_id for run in instance.get_runs(RunsFilter(statuses=WATCHED)) if _end_if_dead(instance, run)]


def _end_if_dead(instance: DagsterInstance, run: DagsterRun) -> bool:
    identity = _identity(instance, run)
    if identity is None or not _is_gone(identity):
        return False
    present = instance.get_run_by_id(run.run_id)
    if present is None or present.status not in WATCHED:  # it ended while its process was looked for
        return False
    message = (
        f"The process of this run ({identity.pid}) is gone: it was killed, or the machine restarted. "
        f"What it had finished is kept; materialize again, and the run goes on from there."
    )
    if present.status == DagsterRunStatus.CANCELING:
        instance.report_run_canceled(present, message)
    else:
        instance.report_run_failed(present, message)
    return True


def _identity(instance: DagsterInstance, run: DagsterRun) -> Identity | None:
    """The process that the run noted; before it did, the one that Dagster's own event names."""
    if noted := run.tags.get(PROCESS_TAG):
        return Identity.read(noted)
    events = instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
    pids = [pid for event in events if (pid := _event_pid(event)) is not None]
    if not pids or not _is_of_one_place(instance):
        return None
    return Identity(Place.here(), _boot_id(), pids[-1], "")


def _event_pid(event: dg.EventLogEntry) -> str | None:
    data = event.dagster_event.event_specific_data if event.dagster_event else None
    value = getattr(data, "metadata", {}).get("pid")
    return str(value.value) if value is not None and str(value.value).isdigit() else None


def _is_of_one_place(instance: DagsterInstance) -> bool:
    """Whether the books lie in files, and every run that noted its process ran here: Dagster's event names a number alone."""
    if type(instance.run_storage).__name__ != "SqliteRunStorage":
        return False
    noted = [run.tags[PROCESS_TAG] for run in instance.get_runs(limit=N_LOOKED_AT) if PROCESS_TAG in run.tags]
    identities = [Identity.read(text) for text in noted]
    return bool(identities) and all(identity is not None and identity.place == Place.here() for identity in identities)


def _is_gone(identity: Identity) -> bool:
    """Whether this process has ended; False, too, where nobody here can know."""
    place = identity.place
    if place != Place.here() or (place.namespace == UNKNOWN and sys.platform == "linux"):
        return False
    if identity.boot != _boot_id():  # a restart ends what the machine itself ran; where containers are now is not known
        return place.namespace == INITIAL_NAMESPACE and place.machine != UNKNOWN
    ticks = _start_ticks(int(identity.pid))
    return ticks == "" or identity.start not in ("", ticks)


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return UNKNOWN


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii", errors="replace").strip() or UNKNOWN
    except OSError:
        return UNKNOWN


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return UNKNOWN


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
    return UNKNOWN


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
