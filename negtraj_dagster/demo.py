"""Runs one line in this process with live progress, then prints what was computed and how the arms compare."""

import os
import resource
import sys
import threading
import time
import uuid
from collections import Counter
from typing import Any

import dagster as dg

from negtraj_dagster.definitions import build_definitions
from negtraj_dagster.errors import SettingsError
from negtraj_dagster.progress import clock_text
from negtraj_dagster.reports.summarize import format_arm, format_pair, text_table
from negtraj_dagster.settings import did_you_mean, load_settings
from negtraj_dagster.store import Store

NOMINAL_S = {"__checkpoint": 60.0, "__evaluation_report": 12.0, "base_model__": 10.0}
"""Rough seconds per kind of step, only to weigh what is left; the scale is taken from the steps already done."""
OTHER_NOMINAL_S = 0.5
POLL_S = 0.25
HEADLINE_WORK = {
    "rows_tokenized": "rows tokenized",
    "steps_trained": "steps trained",
    "questions_evaluated": "questions evaluated",
}


def run_line(line: str) -> int:
    """Bring a line up to date and print its comparison.

    Returns:
        0 when every step succeeded, 1 otherwise.

    Raises:
        SettingsError: there is no such line.
    """
    started = time.monotonic()
    definitions = build_definitions()
    names = {job.name for job in definitions.jobs or ()}
    if f"line_{line}" not in names:
        lines = [name.removeprefix("line_") for name in names if name.startswith("line_")]
        raise SettingsError(f"unknown line {line!r}{did_you_mean(line, lines)}")
    os.environ["NEGTRAJ_PROGRESS"] = "1"
    job = definitions.resolve_job_def(f"line_{line}")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance, _Progress(instance, [node.name for node in job.nodes]) as progress:
        outcome = job.execute_in_process(instance=instance, run_id=progress.run_id, run_config=quiet, raise_on_error=False)
    if not outcome.success:
        failed = ", ".join(progress.failed) or "see the lines above"
        print(f"\nThe run failed: {failed}. Mend it and run the same command again: finished steps are kept.", file=sys.stderr)
        return 1
    _print_result(line, _count_work(outcome), time.monotonic() - started)
    return 0


class _Progress:
    """Follows a run's event log from a thread and prints when a step starts and ends: which, how far, how long, what is left.

    It writes to a copy of stderr, because Dagster redirects the descriptor itself while a step runs.
    """

    def __init__(self, instance: dg.DagsterInstance, steps: list[str]) -> None:
        self.run_id = str(uuid.uuid4())
        self.failed: list[str] = []
        self._instance = instance
        self._out = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
        self._left = {name: _nominal(name) for name in steps}
        self._n_steps, self._n_started = len(steps), 0
        self._started: dict[str, float] = {}
        self._spent_s, self._spent_nominal_s = 0.0, 0.0
        self._cursor: str | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "_Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._read()
        self._out.close()

    def _follow(self) -> None:
        while not self._is_over.wait(POLL_S):
            self._read()

    def _read(self) -> None:
        connection = self._instance.get_records_for_run(self.run_id, self._cursor)
        self._cursor = connection.cursor
        for record in connection.records:
            entry = record.event_log_entry
            event = entry.dagster_event
            if event is None or event.step_key is None:
                continue
            if event.event_type_value == "STEP_START":
                self._start(event.step_key, entry.timestamp)
            elif event.event_type_value in ("STEP_SUCCESS", "STEP_FAILURE"):
                self._end(event.step_key, entry.timestamp, event)

    def _start(self, step: str, when_s: float) -> None:
        self._n_started += 1
        self._started[step] = when_s
        left = ""
        if self._spent_nominal_s >= min(NOMINAL_S.values()) and self._spent_s > 1:
            seconds = sum(self._left.values()) * self._spent_s / self._spent_nominal_s
            left = f"   about {clock_text(seconds)} left in all"
        self._out.write(f"[{self._n_started:2}/{self._n_steps}] {_asset(step)}{left}\n")

    def _end(self, step: str, when_s: float, event: Any) -> None:
        seconds = when_s - self._started.get(step, when_s)
        self._spent_s += seconds
        self._spent_nominal_s += self._left.pop(step, 0.0)
        if event.event_type_value == "STEP_FAILURE":
            self.failed.append(_asset(step))
            error = event.event_specific_data.error
            cause = error.cause or error if error else None
            self._out.write(f"        failed after {seconds:.1f} s: {cause.message.strip() if cause else event.message}\n")
        elif seconds > 1:
            self._out.write(f"        done in {seconds:.1f} s\n")


def _nominal(step: str) -> float:
    return next((seconds for kind, seconds in NOMINAL_S.items() if kind in step), OTHER_NOMINAL_S)


def _asset(step: str) -> str:
    """`recipe__stage` as Dagster names a step -> `recipe/stage` as people name the asset."""
    return step.replace("__", "/")


def _count_work(outcome: dg.ExecuteInProcessResult) -> Counter[str]:
    work: Counter[str] = Counter()
    for event in outcome.get_asset_materialization_events():
        for name, value in event.materialization.metadata.items():
            if name.startswith("work_") and isinstance(value.value, int):
                work[name.removeprefix("work_")] += value.value
    return work


def _print_result(line: str, work: Counter[str], seconds: float) -> None:
    published = Store(load_settings().home).require(f"recipe_comparison/{line}")
    counts = ", ".join(f"{work[name]:,} {words}" for name, words in HEADLINE_WORK.items())
    print(
        f"\nComputed in this run: {counts}."
        if any(work[name] for name in HEADLINE_WORK)
        else f"\nUp to date, nothing recomputed: {counts}."
    )
    if published.is_empty:
        print(f"No data: {published.content['reason']}")
        return
    comparison = published.details["comparison"]
    print(f"\n{text_table([format_arm(arm) for arm in comparison['arms']])}")
    print(f"\nPaired, on the same questions:\n{text_table([format_pair(pair) for pair in comparison['pairs']])}")
    print("\n" + "\n".join(f"- {note}" for note in comparison["notes"]))
    print(f"\nReport: {published.folder / 'comparison.html'}")
    own, child = (resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"Took {clock_text(seconds)}; peak memory {own / 2**30:.2f} GiB here, {child / 2**30:.2f} GiB in the largest child.")
