"""Jobs and the nightly schedule. Content addressing makes a quiet night cheap, so the schedule needs no condition."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from negtraj_dagster.graph import keys_in_order
from negtraj_dagster.recipes import Recipe

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

NIGHTLY_CRON = "0 2 * * *"


def line_keys(recipes: Iterable[Recipe]) -> list[str]:
    """Asset keys, as text, of everything these recipes and their lines need."""
    return sorted(keys_in_order(list(recipes)))


def build_jobs(recipes: Mapping[str, Recipe]) -> list["UnresolvedAssetJobDefinition"]:
    """The nightly job over all nightly recipes, and one job per line."""
    nightly = [recipe for recipe in recipes.values() if recipe.nightly]
    whole_lines = {recipe.line for recipe in nightly}
    members = [recipe for recipe in recipes.values() if recipe.line in whole_lines]
    jobs = [
        dg.define_asset_job(
            "nightly",
            selection=dg.AssetSelection.assets(*(key.split("/") for key in line_keys(members))),
            description="Bring every nightly line up to date: only what new rollouts or edits touch is recomputed.",
        )
    ]
    for line in sorted({recipe.line for recipe in recipes.values()}):
        of_line = [recipe for recipe in recipes.values() if recipe.line == line]
        jobs.append(
            dg.define_asset_job(
                f"line_{line}",
                selection=dg.AssetSelection.assets(*(key.split("/") for key in line_keys(of_line))),
                description=f"Everything the line `{line}` needs, from landed files to its comparison.",
            )
        )
    return jobs


def build_schedule(jobs: Iterable["UnresolvedAssetJobDefinition"]) -> dg.ScheduleDefinition:
    """The nightly schedule, off until someone switches it on."""
    nightly = next(job for job in jobs if job.name == "nightly")
    return dg.ScheduleDefinition(
        name="nightly_schedule",
        job=nightly,
        cron_schedule=NIGHTLY_CRON,
        execution_timezone="UTC",
        description="Retrain from the night's rollouts. A night without news recomputes nothing.",
    )
