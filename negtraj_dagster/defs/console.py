"""What a run prints in a shell: a failed step by its message, a failed check with its numbers and remedy; no traceback of ours.

The UI keeps everything: there the stack stands behind its own button, below the message.
"""

import logging
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace, TracebackType

import dagster as dg
from dagster import DagsterEvent, DagsterEventType

from negtraj_dagster.errors import NegtrajError
from negtraj_dagster.paths import home
from negtraj_dagster.printable import visible
from negtraj_dagster.store import machine_fault

PIPES_NOTE = "[pipes] did not receive closed message"
"""What Dagster says to authors of children where one was ended; ours are told of by their own message."""
EVENT = "dagster_event"
META = "dagster_meta"
"""Where Dagster puts a record's event; both are in its own `dagster._core.log_manager`."""
INTERRUPTIONS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
LEVELS = {dg.AssetCheckSeverity.ERROR: logging.ERROR, dg.AssetCheckSeverity.WARN: logging.WARNING}


def check_text(check: dg.AssetCheckEvaluation) -> str:
    """`few_quarantined of raw_rollouts (n_quarantined = 3, share = 0.06): mend the records … `."""
    values = {name: value.value for name, value in check.metadata.items()}
    remedy = values.pop("remedy", None)
    facts = ", ".join(f"{name} = {_short(value)}" for name, value in values.items())
    remedy_text = f": {remedy}" if remedy else ""
    return visible(f"{check.check_name} of {check.asset_key.to_user_string()} ({facts or 'no metadata'}){remedy_text}")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())


def failure_text(event: DagsterEvent) -> str | None:
    """The message of a step that failed by an error of ours; None for any other failure, whose stack is wanted."""
    error = getattr(event.event_specific_data, "error", None)
    while error is not None:
        if error.cls_name in _error_names():
            return visible(error.message.partition(": ")[2].strip())
        error = error.cause
    return None


def is_interruption(event: DagsterEvent) -> bool:
    """Whether a step failed because somebody ended the run (Ctrl-C, SIGTERM, the UI)."""
    return any(name in INTERRUPTIONS for name in _causes(event))


def _has_failed_check(event: DagsterEvent) -> bool:
    """Whether a step or run failed because a blocking check did: the check's own event has said why."""
    return "DagsterAssetCheckFailedError" in _causes(event)


def _causes(event: DagsterEvent) -> list[str]:
    names, error = [], getattr(event.event_specific_data, "error", None)
    while error is not None:
        names.append(error.cls_name)
        error = error.cause
    return names


def _error_names() -> set[str]:
    return {"Failure", *(error.__name__ for error in _subclasses(NegtrajError))}


def _subclasses(root: type[NegtrajError]) -> Iterator[type[NegtrajError]]:
    yield root
    for child in root.__subclasses__():
        yield from _subclasses(child)


class _PlainRecords(logging.Filter):
    """Rewrites, in place, the records of failures that are of our making."""

    def filter(self, record: logging.LogRecord) -> bool:
        if PIPES_NOTE in str(record.msg):
            return False
        event = (getattr(record, META, None) or {}).get(EVENT)
        if event is None:
            return True
        if event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed:
                record.levelno, record.msg = LEVELS[check.severity], f"check failed: {check_text(check)}"
                record.levelname = logging.getLevelName(record.levelno)
        elif _has_failed_check(event):
            record.msg = str(record.msg).partition("\n\n")[0]
        elif is_interruption(event):
            record.msg = f"{event.step_key or 'the run'} was interrupted; what was finished is kept"
        elif (text := failure_text(event)) is not None:
            is_step = event.event_type == DagsterEventType.STEP_FAILURE
            record.msg = f"{event.step_key} failed: {text}" if is_step else str(record.msg).partition("\n\n")[0]
        return True


PLAIN_RECORDS = _PlainRecords()


def speak_plainly(log: logging.Logger | None) -> None:
    """Let the console of a run say failures in plain words.

    Dagster makes the console's logger itself unless the run's own configuration names another, so it is taken from where the
    run's log keeps it; where a later Dagster keeps it elsewhere, the console is as Dagster makes it.

    Args:
        log: the run's, `context.log`.
    """
    for handler in log.handlers if log is not None else ():
        for console in getattr(handler, "_loggers", ()):
            console.addFilter(PLAIN_RECORDS)


def shield_log_helpers() -> None:
    """Keep Ctrl-C from the two processes that copy a step's output: they end with the step, and would print a stack each.

    Where a later Dagster starts them otherwise, they are as Dagster makes them.
    """
    from dagster._core.execution import compute_logs

    if getattr(compute_logs, "subprocess", None) is subprocess:
        shielded = SimpleNamespace(Popen=partial(subprocess.Popen, process_group=0))
        compute_logs.subprocess = shielded  # type: ignore[attr-defined,assignment]


def hide_tracebacks() -> None:
    """Let this process end with the message alone where an error of ours is not caught, as in Dagster's own commands."""
    previous = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        ours = error if isinstance(error, NegtrajError) else machine_fault(error, home())
        if ours is not None:
            print(f"negtraj: {visible(str(ours))}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    sys.excepthook = show
