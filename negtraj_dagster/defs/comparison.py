"""The assets `recipe_comparison/<line>` and `champion/<line>`."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from negtraj_dagster.defs.resources import TrainerClient, Workspace
from negtraj_dagster.defs.versions import code_version, result, table, upstream_asset_keys
from negtraj_dagster.lineage import comparison_notes
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.reports.champion import CHAMPION_VERSION
from negtraj_dagster.reports.compare import COMPARE_VERSION
from negtraj_dagster.reports.summarize import format_arms, format_pair, who_won

GATE_COLUMNS = ("challenger", "accuracy", "decision", "blocked_by", "power", "why")


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
    def recipe_comparison(
        context: dg.AssetExecutionContext, workspace: Workspace, trainer: TrainerClient
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        published = workspace.lineage(trainer.bound_to(context)).recipe_comparison(line)
        if published.is_empty:
            return result(published)
        comparison = published.details["comparison"]
        return result(
            published,
            {
                **{f"accuracy_{arm['recipe']}": arm["accuracy"] for arm in comparison["arms"]},
                "result": dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in who_won(comparison))),
                "arms": table(format_arms(comparison)),
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
        description=f"Who leads the line `{line}`: a candidate takes the title where the gate's questions prove it no worse "
        "than who holds it and than the anchor, the line's first champion. Controls, studies and contaminated arms cannot win.",
    )
    def champion(context: dg.AssetExecutionContext, workspace: Workspace, trainer: TrainerClient) -> dg.MaterializeResult:  # type: ignore[type-arg]
        published = workspace.lineage(trainer.bound_to(context)).champion(line)
        content = published.content
        gate = [{name: row[name] for name in GATE_COLUMNS} for row in content.get("gate", ())]
        metadata: dict[str, Any] = {name: content[name] for name in ("recipe", "checkpoint", "verdict") if name in content}
        if content.get("accuracy") is not None:
            metadata["accuracy"] = content["accuracy"]
        if "why" in content:  # `why` alone is why the object was made anew
            metadata["decision"] = content["why"]
        notes = [f"- {note}" for note in content.get("notes", ())]
        return result(
            published,
            {
                **metadata,
                **({"gate": table(gate)} if gate else {}),
                **({"notes": dg.MetadataValue.md("\n".join(notes))} if notes else {}),
            },
        )

    return champion
