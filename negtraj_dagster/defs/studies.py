"""The assets `study/<name>`: arms over several seeds, trained and asked inside of one asset that goes on where it was ended."""

import base64
from collections.abc import Mapping

import dagster as dg

from negtraj_dagster.defs.resources import TrainerClient, Workspace
from negtraj_dagster.defs.versions import code_version, result, table, upstream_asset_keys
from negtraj_dagster.graph import STUDY
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.reports.study import STUDY_VERSION, arm_rows, family_rows, negatives_rows, pair_rows
from negtraj_dagster.schema import digest_json
from negtraj_dagster.studies import Study, trained_recipes


def build_study_asset(study: Study, recipes: Mapping[str, Recipe]) -> dg.AssetsDefinition:
    """The asset `study/<name>`."""
    arms = trained_recipes(study, recipes)
    slices = [arm.slice_digest("selection", "strategy", "shards", "training", "evaluation", "base_model") for arm in arms]

    @dg.asset(
        key=["study", study.name],
        group_name="studies",
        deps=upstream_asset_keys(STUDY.name, arms),
        kinds={"deepspeed", "python"},
        tags={"stage": "study"},
        code_version=code_version("study", STUDY_VERSION, digest_json(study.model_dump(mode="json")), *slices),
        description=f"{study.description} {len(study.seeds)} seeds. What was trained is kept: a run that was ended goes on.",
    )
    def study_asset(context: dg.AssetExecutionContext, workspace: Workspace, trainer: TrainerClient) -> dg.MaterializeResult:  # type: ignore[type-arg]
        lineage = workspace.lineage(trainer.bound_to(context))
        published = lineage.study(lineage.studies[study.name], context.log.info)
        if published.is_empty:
            return result(published)
        summary = published.content
        shown = {
            "arms": table(arm_rows(summary)),
            "paired_differences": table(pair_rows(summary)),
            "page": dg.MetadataValue.path(str(published.folder / "study.html")),
            **{f"difference/{pair['a']} - {pair['b']}": pair["mean"] for pair in summary["pairs"]},
        }
        if summary["families"]:
            shown["families"] = table(family_rows(summary))
        if "negatives" in summary:
            svg = base64.b64encode((published.folder / "figure.svg").read_bytes()).decode()
            shown["figure"] = dg.MetadataValue.md(f"![accuracy by the number of failures](data:image/svg+xml;base64,{svg})")
            shown["failures"] = table(negatives_rows(summary))
        return result(published, shown)

    return study_asset
