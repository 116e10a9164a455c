"""Runs one line or one recipe in this process with live progress, then prints what was computed and how it did."""

import contextlib
import logging
import os
import resource
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from negtraj_dagster.definitions import build_definitions
from negtraj_dagster.defs.console import PIPES_NOTE, check_text, failure_text, is_interruption, shield_log_helpers
from negtraj_dagster.errors import SettingsError
from negtraj_dagster.exit_codes import CHECK_FAILED, FAILED, SUCCESS
from negtraj_dagster.graph import RECIPE_STAGES, keys_above
from negtraj_dagster.printable import text_table, visible
from negtraj_dagster.progress import clock_text
from negtraj_dagster.recipes import load_recipes
from negtraj_dagster.reports.study import arm_rows, family_rows, negatives_rows, pair_rows
from negtraj_dagster.reports.summarize import format_arms, format_pair, who_won
from negtraj_dagster.settings import Settings, did_you_mean, load_settings
from negtraj_dagster.store import Published, Store
from negtraj_dagster.studies import load_studies, trained_recipes

POLL_S = 0.25
INDENT = " " * 18
HEADLINE_WORK = {
    "rows_tokenized": "rows tokenized",
    "steps_trained": "steps trained",
    "questions_asked": "questions asked",
}


@dataclass(frozen=True)
class Target:
    """What a run brings up to date: a line, a recipe up to its report, or a study; `result` is the asset it is all for."""

    name: str
    result: str
    assets: tuple[str, ...]


def find_target(name: str, settings: Settings) -> Target:
    """A line of this name, else a recipe, else a study.

    Raises:
        SettingsError: there is none; names the nearest.
    """
    recipes = load_recipes(settings)
    lines = {recipe.line for recipe in recipes.values()}
    if name in lines:
        return Target(name, f"recipe_comparison/{name}", ())
    if name in recipes:
        stages = [f"{name}/{stage}" for stage in RECIPE_STAGES]
        return Target(name, stages[-1], (*keys_above(recipes[name]), *stages))
    studies = load_studies(settings, recipes)
    if name in studies:
        above = [key for recipe in trained_recipes(studies[name], recipes) for key in keys_above(recipe)]
        return Target(name, f"study/{name}", (*dict.fromkeys(above), f"study/{name}"))
    raise SettingsError(f"no line, recipe or study {name!r}{did_you_mean(name, {*lines, *recipes, *studies})}")


def run_target(name: str, *, has_strict_checks: bool = False) -> int:
    """Bring a line or a recipe up to date, with all that it needs, and print how it did.

    Args:
        name: a line, else a recipe.
        has_strict_checks: a failed check that blocks nothing counts, too.

    Returns:
        SUCCESS when everything is up to date, even where a check that blocks nothing failed (it is printed); CHECK_FAILED in
        that case with `has_strict_checks`; FAILED otherwise.

    Raises:
        SettingsError: there is no such line or recipe.
        KeyboardInterrupt: somebody ended the run.
    """
    started = time.monotonic()
    target = find_target(name, load_settings())
    os.environ["NEGTRAJ_PROGRESS"] = "1"
    shield_log_helpers()
    job = _job(target)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    assets = {"__".join(key.path): key.to_user_string() for key in job.asset_layer.selected_asset_keys}
    with dg.DagsterInstance.get() as instance, _Progress(instance, assets) as progress:
        outcome = job.execute_in_process(instance=instance, run_id=progress.run_id, run_config=quiet, raise_on_error=False)
    if progress.is_interrupted:
        raise KeyboardInterrupt
    if not outcome.success:
        failed = ", ".join(dict.fromkeys(progress.failed)) or "see the lines above"
        with contextlib.suppress(BrokenPipeError):
            print(
                f"\nThe run failed: {failed}. Mend it and run the same command again: finished steps are kept.", file=sys.stderr
            )
        return FAILED
    _print_result(target, _count_work(outcome), time.monotonic() - started)
    for text in progress.failed_checks:
        print(f"\nFailed check, though the run went on: {text}")
    return CHECK_FAILED if has_strict_checks and progress.failed_checks else SUCCESS


def _job(target: Target) -> dg.JobDefinition:
    definitions = build_definitions()
    if not target.assets:
        return definitions.resolve_job_def(f"line_{target.name}")
    selection = dg.AssetSelection.assets(*(key.split("/") for key in target.assets))
    job = dg.define_asset_job(f"recipe_{target.name}", selection=selection)
    return dg.Definitions.merge(definitions, dg.Definitions(jobs=[job])).resolve_job_def(job.name)


class _Progress:
    """Follows a run's event log from a thread: a line per asset when it starts, and one for all that fails.

    How long the rest will take is not said: that depends on what is reused, which only the assets themselves find out. A
    trainer says its own time left. It writes to a copy of stderr, because Dagster redirects the descriptor itself while a
    step runs.

    Args:
        instance: where the run's events go.
        assets: asset keys as people write them, by the name of their step. Other steps are checks.
    """

    def __init__(self, instance: dg.DagsterInstance, assets: Mapping[str, str]) -> None:
        self.run_id = str(uuid.uuid4())
        self.failed: list[str] = []
        self.failed_checks: list[str] = []
        self.is_interrupted = False
        self._instance, self._assets = instance, assets
        self._out = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
        self._began_s, self._n_started = time.time(), 0  # noqa: TID251 - compared with Dagster's event times, shown and not stored
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
        with contextlib.suppress(BrokenPipeError):
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
            if event is None and int(entry.level) == logging.WARNING and PIPES_NOTE not in entry.user_message:
                self._say(f"{INDENT}{visible(entry.user_message)}")
            if event is None or event.step_key is None:
                continue
            if event.event_type_value == "STEP_START" and event.step_key in self._assets:
                self._n_started += 1
                count, clock = f"[{self._n_started:2}/{len(self._assets)}]", clock_text(entry.timestamp - self._began_s)
                self._say(f"{count} {clock:>7}  {self._assets[event.step_key]}")
            elif event.event_type_value == "ASSET_CHECK_EVALUATION":
                self._judge(event.asset_check_evaluation_data)
            elif event.event_type_value == "STEP_FAILURE":
                self._fail(event)

    def _say(self, line: str) -> None:
        """Without a reader, `2>&1 | head`, the run goes on and ends as it would."""
        with contextlib.suppress(BrokenPipeError):
            self._out.write(f"{line}\n")

    def _judge(self, check: dg.AssetCheckEvaluation) -> None:
        if check.passed:
            return
        text = check_text(check)
        if check.blocking and check.severity == dg.AssetCheckSeverity.ERROR:
            self.failed.append(f"check {check.check_name} of {check.asset_key.to_user_string()}")
        else:
            self.failed_checks.append(text)
        self._say(f"{INDENT}check failed: {text}")

    def _fail(self, event: Any) -> None:
        error = event.event_specific_data.error
        cause = error.cause or error if error else None
        if cause and cause.cls_name == "DagsterAssetCheckFailedError":
            return  # the check's own event has said it
        if is_interruption(event):
            self.is_interrupted = True
            return
        self.failed.append(self._assets.get(event.step_key, event.step_key))
        text = failure_text(event) or visible(error.to_string() if error else event.message)  # not ours: with its stack
        self._say(f"{INDENT}failed: {text}")


def _count_work(outcome: dg.ExecuteInProcessResult) -> Counter[str]:
    work: Counter[str] = Counter()
    for event in outcome.get_asset_materialization_events():
        for name, value in event.materialization.metadata.items():
            if name.startswith("work_") and isinstance(value.value, int):
                work[name.removeprefix("work_")] += value.value
    return work


def _print_result(target: Target, work: Counter[str], seconds: float) -> None:
    published = Store(load_settings().home).require(target.result)
    counts = ", ".join(f"{work[name]:,} {words}" for name, words in HEADLINE_WORK.items())
    print(
        f"\nComputed in this run: {counts}."
        if any(work[name] for name in HEADLINE_WORK)
        else f"\nUp to date, nothing recomputed: {counts}."
    )
    if published.is_empty:
        print(f"No data: {published.content['reason']}")
        return
    if target.result.startswith("study/"):
        page = _print_study(published)
    else:
        page = _print_recipe(published) if target.assets else _print_line(published)
    print(f"\nReport: {page}")
    own_bytes, child = (resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        f"Took {clock_text(seconds)}; peak memory {own_bytes / 2**30:.2f} GiB here, {child / 2**30:.2f} GiB in the largest "
        f"child."
    )


def _print_line(published: Published) -> Path:
    comparison = published.details["comparison"]
    print(f"\n{text_table(format_arms(comparison))}")
    print("\n" + "\n".join(who_won(comparison)))
    print(f"\nPaired, on the same questions:\n{text_table([format_pair(pair) for pair in comparison['pairs']])}")
    print("\n" + "\n".join(f"- {note}" for note in comparison["notes"]))
    return published.folder / "comparison.html"


def _print_study(published: Published) -> Path:
    for rows in (arm_rows, pair_rows, negatives_rows, family_rows):
        if of_table := rows(published.content):
            print(f"\n{text_table(of_table)}")
    return published.folder / "study.html"


def _print_recipe(published: Published) -> Path:
    metrics = published.content["metrics"]
    low, high = metrics["accuracy_strict_low"], metrics["accuracy_strict_high"]
    print(f"\n{metrics['accuracy_strict']:.1%} of {metrics['n']} questions right (95 % interval {low:.1%} to {high:.1%})")
    return published.folder / "report.html"
