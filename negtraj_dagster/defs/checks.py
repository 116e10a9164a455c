"""Asset checks: what must hold of a materialization before anything is trained on it."""

from collections.abc import Sequence

import dagster as dg

from negtraj_dagster.defs.resources import Workspace
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.shards.rows import UNPROVED


@dg.asset_check(asset="raw_rollouts", description="Few landed records are unreadable (settings: max_quarantined_share).")
def few_quarantined(workspace: Workspace) -> dg.AssetCheckResult:
    """Bounds the share of records in quarantine."""
    raw = workspace.store.require("raw_rollouts")
    n_bad, n_good = raw.details["n_quarantined"], raw.content["n_rollouts"]
    share, limit = n_bad / max(n_bad + n_good, 1), workspace.settings.max_quarantined_share
    return dg.AssetCheckResult(passed=share <= limit, metadata={"n_quarantined": n_bad, "share": share, "limit": limit})


def build_selection_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """Every class the recipe's strategy trains is there; blocks what follows."""
    key = dg.AssetKey([recipe.name, "training_selection"])

    @dg.asset_check(asset=key, blocking=True, description="Every class that the strategy trains has rollouts.")
    def has_every_class(workspace: Workspace) -> dg.AssetCheckResult:
        selection = workspace.store.require(f"{recipe.name}/training_selection")
        if selection.is_empty:
            return dg.AssetCheckResult(passed=True, metadata={"status": "no_data", "reason": selection.content["reason"]})
        counts = selection.details["n_by_class"]
        return dg.AssetCheckResult(passed=all(counts.values()), metadata={f"n_{name}": n for name, n in counts.items()})

    return has_every_class


def build_shards_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """Something is trained, not everything is, and few rows were rejected; blocks training."""
    key = dg.AssetKey([recipe.name, "tokenized_shards"])

    @dg.asset_check(
        asset=key, blocking=True, description="Rows have targets and context; at most a tenth of the rows was rejected."
    )
    def masks_are_sane(workspace: Workspace) -> dg.AssetCheckResult:
        shards = workspace.store.require(f"{recipe.name}/tokenized_shards")
        if shards.is_empty:
            return dg.AssetCheckResult(passed=True, metadata={"status": "no_data", "reason": shards.content["reason"]})
        details = shards.details
        rejected_share = details["n_rejected"] / (details["n_rejected"] + shards.content["n_rows"])
        passed = 0 < details["trained_share"] < 1 and rejected_share <= 0.1
        metadata = {"trained_share": details["trained_share"], "rejected_share": rejected_share}
        return dg.AssetCheckResult(passed=passed, metadata=metadata)

    return masks_are_sane


def build_proof_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """No row failed a proof (or few enough, by the recipe's `max_unproved_share`); blocks training."""
    key = dg.AssetKey([recipe.name, "tokenized_shards"])
    limit = recipe.shards.max_unproved_share

    @dg.asset_check(
        asset=key,
        blocking=True,
        description="Every row is what a served model is given and writes (setting: shards.max_unproved_share).",
    )
    def rows_are_proved(workspace: Workspace) -> dg.AssetCheckResult:
        shards = workspace.store.require(f"{recipe.name}/tokenized_shards")
        if shards.is_empty:
            return dg.AssetCheckResult(passed=True, metadata={"status": "no_data", "reason": shards.content["reason"]})
        failed = {reason: n for reason, n in shards.details["rejected"].items() if reason in UNPROVED}
        share = sum(failed.values()) / (shards.details["n_rejected"] + shards.content["n_rows"])
        look = f"negtraj show --recipe {recipe.name} --rejected"
        return dg.AssetCheckResult(passed=share <= limit, metadata={"share": share, "limit": limit, "look": look, **failed})

    return rows_are_proved


BUILDERS = (build_selection_check, build_shards_check, build_proof_check)


def build_checks(recipes: Sequence[Recipe]) -> list[dg.AssetChecksDefinition]:
    """All checks of the lineage."""
    per_recipe = [build(recipe) for recipe in recipes for build in BUILDERS]
    return [few_quarantined, *per_recipe]
