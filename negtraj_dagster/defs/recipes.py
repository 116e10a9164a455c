"""The recipe factory: four assets per file of recipes/*.toml, each in the recipe's own group.

A recipe's settings slice is part of the code version of the asset it steers, so an edited recipe shows as stale.
"""

from collections.abc import Callable
from typing import Any

import dagster as dg

from negtraj_dagster import sql
from negtraj_dagster.checkpoints.build import TRAIN_VERSION
from negtraj_dagster.defs import plots
from negtraj_dagster.defs.resources import TrainerClient, Workspace
from negtraj_dagster.defs.versions import code_version, result, table, upstream_asset_keys
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.reports.answers import ANSWER_VERSION
from negtraj_dagster.reports.build import REPORT_VERSION
from negtraj_dagster.reports.summarize import format_family
from negtraj_dagster.shards.build import SHARDS_VERSION
from negtraj_dagster.strategies import STRATEGIES
from negtraj_dagster.trajectories.select import SELECTION_VERSION

SPEEDS = ("seconds_per_episode", "generated_tokens_per_s")
"""What the UI shows of an evaluator's own figures; absent where every answer was known."""


def build_recipe_assets(recipe: Recipe, registry: sql.Registry) -> list[dg.AssetsDefinition]:
    """The recipe's training_selection, tokenized_shards, checkpoint and evaluation_report."""
    return [_selection_asset(recipe, registry), _shards_asset(recipe), _checkpoint_asset(recipe), _report_asset(recipe)]


def _asset(
    recipe: Recipe, name: str, *, version: str, kinds: set[str], description: str
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`dg.asset` with what all four assets of a recipe have in common."""
    return dg.asset(
        key=[recipe.name, name],
        group_name=recipe.name,
        deps=upstream_asset_keys(name, [recipe]),
        code_version=version,
        tags={"recipe": recipe.name, "line": recipe.line, "role": recipe.role, "stage": name},
        kinds=kinds,
        description=description,
    )


def _selection_asset(recipe: Recipe, registry: sql.Registry) -> dg.AssetsDefinition:
    profile = sql.find_profile(registry, recipe.selection.profile)
    choice = registry.one("selection", "choice").version
    slices = [recipe.slice_digest("selection", "strategy"), profile.identity(), choice]
    version = code_version("selection", SELECTION_VERSION, *slices)

    @_asset(
        recipe,
        "training_selection",
        version=version,
        kinds={"polars", "parquet"},
        description=f"Which rollouts `{recipe.name}` trains on, and why not the others. {recipe.description}",
    )
    def training_selection(workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        lineage = workspace.lineage()
        published = lineage.training_selection(recipe)
        lineage.show_selections()
        details = published.details
        if published.is_empty:
            return result(published)
        reasons = [{"why not": reason, "n_rollouts": n} for reason, n in details["why_not"].items()]
        return result(
            published,
            {
                "dagster/row_count": published.content["n_selected"],
                **{f"n_{name}": n for name, n in details["n_by_class"].items()},
                "rows_per_epoch": details["rows_per_epoch"],
                "n_contaminated": published.content["n_contaminated"],
                "not_selected": table(reasons),
            },
        )

    return training_selection


def _shards_asset(recipe: Recipe) -> dg.AssetsDefinition:
    wording = STRATEGIES[recipe.strategy.name].identity()
    version = code_version("shards", SHARDS_VERSION, recipe.slice_digest("shards", "strategy"), wording)

    @_asset(
        recipe,
        "tokenized_shards",
        version=version,
        kinds={"rust", "arrow"},
        description=f"Token rows with loss weights for `{recipe.name}`, every row's mask proved. Shared rows are reused.",
    )
    def tokenized_shards(workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        published = workspace.lineage().tokenized_shards(recipe)
        if published.is_empty:
            return result(published)
        details = {name: value for name, value in published.details.items() if isinstance(value, int | float)}
        rejected = [{"reason": reason, "n_rows": n} for reason, n in published.details["rejected"].items()]
        preview = plots.preview_markdown(published.folder / "previews.json")
        metadata = {
            "dagster/row_count": published.content["n_rows"],
            "template": published.details["template"],
            "rejected_rows": table(rejected),
            "page": dg.MetadataValue.path(str(published.folder / "preview.html")),
            "preview": preview,
        }
        return result(published, {**metadata, **details})

    return tokenized_shards


def _checkpoint_asset(recipe: Recipe) -> dg.AssetsDefinition:
    version = code_version("checkpoint", TRAIN_VERSION, recipe.slice_digest("training", "base_model"))

    @_asset(
        recipe,
        "checkpoint",
        version=version,
        kinds={"deepspeed", "pytorch"},
        description=f"`{recipe.base_model}` fine-tuned on `{recipe.name}`'s shards with DeepSpeed ZeRO in a child process.",
    )
    def checkpoint(context: dg.AssetExecutionContext, workspace: Workspace, trainer: TrainerClient) -> dg.MaterializeResult:  # type: ignore[type-arg]
        published = workspace.lineage(trainer.bound_to(context)).checkpoint(recipe)
        if published.is_empty:
            return result(published)
        training = published.details["result"]
        numbers = {name: value for name, value in training.items() if isinstance(value, int | float | str)}
        for name in ("final_loss_by_class", "heldout_by_class"):
            numbers |= {f"{name.removesuffix('_by_class')}/{kind}": loss for kind, loss in training.get(name, {}).items()}
        curves = published.details.get("curves") or {"loss": published.details["loss_curve"]}  # as earlier releases have it
        return result(published, {**numbers, "loss_curve": dg.MetadataValue.md(plots.loss_curve_markdown(curves))})

    return checkpoint


def _report_asset(recipe: Recipe) -> dg.AssetsDefinition:
    version = code_version("report", REPORT_VERSION, ANSWER_VERSION, recipe.slice_digest("evaluation", "strategy"))

    @_asset(
        recipe,
        "evaluation_report",
        version=version,
        kinds={"pytorch", "python"},
        description=f"`{recipe.name}`'s checkpoint as an agent on held-out questions: episodes, metrics with intervals.",
    )
    def evaluation_report(
        context: dg.AssetExecutionContext, workspace: Workspace, trainer: TrainerClient
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        published = workspace.lineage(trainer.bound_to(context)).evaluation_report(recipe)
        if published.is_empty:
            return result(published)
        page = dg.MetadataValue.path(str(published.folder / "report.html"))
        samples = dg.MetadataValue.md(plots.episodes_markdown(published.folder / "episodes.jsonl"))
        content = published.content
        numbers = {name: value for name, value in content["metrics"].items() if name != "error_classes"}
        classes = [{"error class": name, "episodes": n} for name, n in content["metrics"]["error_classes"].items()]
        families = [format_family(family) for family in content.get("families", ())]
        return result(
            published,
            {
                **numbers,
                **{f"trials/{name}": value for name, value in content.get("trials", {}).items()},
                **({"accuracy_clean": content["clean"]["accuracy_strict"]} if "clean" in content else {}),
                "contaminated": content["contaminated"],
                **{name: value for name, value in published.details["result"].items() if name in SPEEDS},
                "error_classes": table(classes),
                **({"families": table(families)} if families else {}),
                "page": page,
                "episodes": samples,
            },
        )

    return evaluation_report
