"""The assets `recipe_comparison/<line>` and `champion/<line>`."""

from collections.abc import Sequence

import dagster as dg

from negtraj_dagster.defs.resources import Workspace
from negtraj_dagster.defs.versions import code_version, result, table
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.reports.compare import CHAMPION_VERSION, COMPARE_VERSION, Arm, compare_arms, crown_champion
from negtraj_dagster.reports.summarize import format_arm, format_pair
from negtraj_dagster.store import Store


def comparison_notes(recipes: Sequence[Recipe]) -> list[str]:
    """What a reader of the table has to know of how the arms were made."""
    notes = []
    repeats = {recipe.name: recipe.selection.repeat_positives for recipe in recipes}
    for times in sorted({times for times in repeats.values() if times > 1}):
        names = ", ".join(name for name, own in repeats.items() if own == times)
        notes.append(f"Every positive rollout stands {times} times in an epoch of {names}.")
    if len({recipe.training.steps for recipe in recipes}) == 1 and len(recipes) > 1:
        notes.append("All arms take the same number of optimiser steps; epochs differ.")
    seeds = sorted({recipe.training.seed for recipe in recipes})
    notes.append(f"Training seed {', '.join(map(str, seeds))}: one run per arm, so the intervals leave out training noise.")
    return notes


def _arm(store: Store, recipe: Recipe) -> Arm:
    stages = ("evaluation_report", "checkpoint", "training_selection")
    return Arm(recipe.name, recipe.role, *(store.require(f"{recipe.name}/{stage}") for stage in stages))


def build_comparison_asset(line: str, recipes: Sequence[Recipe]) -> dg.AssetsDefinition:
    """The asset `recipe_comparison/<line>`."""
    notes = comparison_notes(recipes)

    @dg.asset(
        key=["recipe_comparison", line],
        group_name="comparison",
        deps=[dg.AssetKey([recipe.name, "evaluation_report"]) for recipe in recipes],
        kinds={"python"},
        tags={"line": line, "stage": "reports"},
        code_version=code_version("comparison", COMPARE_VERSION, [recipe.name for recipe in recipes], notes),
        description=f"The arms of the line `{line}` on the same questions: accuracy with intervals, paired tests, a page.",
    )
    def recipe_comparison(workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        store = workspace.store
        published = compare_arms(store, line, [_arm(store, recipe) for recipe in recipes], notes)
        if published.is_empty:
            return result(published)
        comparison = published.details["comparison"]
        return result(
            published,
            {
                **{f"accuracy_{arm['recipe']}": arm["accuracy"] for arm in comparison["arms"]},
                "arms": table([format_arm(arm) for arm in comparison["arms"]]),
                "paired_tests": table([format_pair(pair) for pair in comparison["pairs"]]),
                "notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in comparison["notes"])),
                "page": dg.MetadataValue.path(str(published.folder / "comparison.html")),
            },
        )

    return recipe_comparison


def build_champion_asset(line: str) -> dg.AssetsDefinition:
    """The asset `champion/<line>`."""

    @dg.asset(
        key=["champion", line],
        group_name="comparison",
        deps=[dg.AssetKey(["recipe_comparison", line])],
        kinds={"python"},
        tags={"line": line, "stage": "reports"},
        code_version=code_version("champion", CHAMPION_VERSION),
        description=f"The best candidate of the line `{line}`; controls, studies and contaminated arms cannot win.",
    )
    def champion(workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        store = workspace.store
        published = crown_champion(store, line, store.require(f"recipe_comparison/{line}"))
        return result(published, published.content)

    return champion
