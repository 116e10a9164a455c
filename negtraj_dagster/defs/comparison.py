"""The assets `recipe_comparison/<line>` and `champion/<line>`."""

from collections.abc import Sequence

import dagster as dg

from negtraj_dagster.defs.resources import Workspace
from negtraj_dagster.defs.versions import code_version, result, table, upstream_asset_keys
from negtraj_dagster.lineage import comparison_notes
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.reports.champion import CHAMPION_VERSION
from negtraj_dagster.reports.compare import COMPARE_VERSION
from negtraj_dagster.reports.summarize import format_arm, format_pair


def build_comparison_asset(line: str, recipes: Sequence[Recipe]) -> dg.AssetsDefinition:
    """The asset `recipe_comparison/<line>`."""
    notes = comparison_notes(recipes)

    @dg.asset(
        key=["recipe_comparison", line],
        group_name="comparison",
        deps=upstream_asset_keys("recipe_comparison", recipes),
        kinds={"python"},
        tags={"line": line, "stage": "reports"},
        code_version=code_version("comparison", COMPARE_VERSION, [recipe.name for recipe in recipes], notes),
        description=f"The arms of the line `{line}` on the same questions: accuracy with intervals, paired tests, a page.",
    )
    def recipe_comparison(workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        published = workspace.lineage().recipe_comparison(line)
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


def build_champion_asset(line: str, recipes: Sequence[Recipe]) -> dg.AssetsDefinition:
    """The asset `champion/<line>`."""

    @dg.asset(
        key=["champion", line],
        group_name="comparison",
        deps=upstream_asset_keys("champion", recipes),
        kinds={"python"},
        tags={"line": line, "stage": "reports"},
        code_version=code_version("champion", CHAMPION_VERSION),
        description=f"Who leads the line `{line}`, until a candidate is better by the paired exact test. Controls, studies and "
        "contaminated arms cannot win.",
    )
    def champion(workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        published = workspace.lineage().champion(line)
        return result(published, published.content)

    return champion
