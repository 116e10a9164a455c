"""The code location: the lineage's assets in order, its checks, jobs, schedule and resources."""

import os
import sys
from pathlib import Path

import dagster as dg

from negtraj_dagster.defs.automation import build_jobs, build_schedule
from negtraj_dagster.defs.checks import build_checks
from negtraj_dagster.defs.comparison import build_champion_asset, build_comparison_asset
from negtraj_dagster.defs.console import hide_tracebacks
from negtraj_dagster.defs.dead_runs import build_dead_runs_sensor
from negtraj_dagster.defs.empty_selection import refuse_empty_selection
from negtraj_dagster.defs.executor import plain_in_process_executor
from negtraj_dagster.defs.recipes import build_recipe_assets
from negtraj_dagster.defs.resources import TrainerClient, Workspace
from negtraj_dagster.defs.rollouts import raw_rollouts
from negtraj_dagster.defs.sources import build_base_model_asset, question_sets
from negtraj_dagster.defs.studies import build_study_asset
from negtraj_dagster.defs.trajectories import build_corpus_asset, build_scored_asset
from negtraj_dagster.graph import has_champion
from negtraj_dagster.paths import check_dagster_home
from negtraj_dagster.recipes import load_recipes
from negtraj_dagster.settings import load_settings
from negtraj_dagster.sql import load_registry
from negtraj_dagster.studies import load_studies
from negtraj_dagster.tasks import load_tasks


def build_definitions() -> dg.Definitions:
    """Assemble the code location from the recipes and settings of this process.

    Raises:
        SettingsError: a recipe or the settings file is wrong; names file, key and remedy.
        SqlContractError: a SQL file's header is wrong; names the file and the key.
    """
    if folder := os.environ.get("DAGSTER_HOME"):
        check_dagster_home(Path(folder))
    settings = load_settings()
    recipes, registry = load_recipes(settings), load_registry(settings.sql_dirs)
    lines = {recipe.line: [r for r in recipes.values() if r.line == recipe.line] for recipe in recipes.values()}
    jobs, tasks = build_jobs(recipes), load_tasks(settings)
    return dg.Definitions(
        assets=[
            question_sets,
            *(build_base_model_asset(name) for name in sorted({recipe.base_model for recipe in recipes.values()})),
            raw_rollouts,
            build_scored_asset(registry),
            *(build_corpus_asset(tasks[name], registry) for name in sorted({recipe.task for recipe in recipes.values()})),
            *(asset for recipe in recipes.values() for asset in build_recipe_assets(recipe, registry)),
            *(build_comparison_asset(line, arms) for line, arms in sorted(lines.items())),
            *(build_champion_asset(line, arms) for line, arms in sorted(lines.items()) if has_champion(arms)),
            *(build_study_asset(study, recipes) for study in load_studies(settings, recipes).values()),
        ],
        asset_checks=build_checks(list(recipes.values())),
        jobs=jobs,
        schedules=[build_schedule(jobs)],
        sensors=[build_dead_runs_sensor()],
        resources={"workspace": Workspace(), "trainer": TrainerClient()},
        executor=plain_in_process_executor,
    )


hide_tracebacks()
defs = build_definitions()
refuse_empty_selection(defs, sys.argv)
