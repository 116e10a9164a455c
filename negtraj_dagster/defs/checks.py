"""Asset checks: what must hold of a materialization before anything is trained on it."""

from collections.abc import Callable, Sequence

import dagster as dg
import polars as pl

from negtraj_dagster.defs.check_results import judged, without_data
from negtraj_dagster.defs.corpus_checks import build_corpus_checks
from negtraj_dagster.defs.resources import Workspace
from negtraj_dagster.defs.rollouts import landing_is_read
from negtraj_dagster.printable import visible_name
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.reports.build import why_unjudged
from negtraj_dagster.shards.remedies import LEFT_OUT, remedies
from negtraj_dagster.shards.rows import UNPROVED
from negtraj_dagster.store import Published, Store
from negtraj_dagster.strategies import STRATEGIES
from negtraj_dagster.trajectories.select import count_contaminated, count_reasons_by_class

Judge = Callable[[Workspace, Published], dg.AssetCheckResult]
MAX_NAMED_FILES = 10


@dg.asset_check(asset="raw_rollouts", description="Few landed records are unreadable (settings: max_quarantined_share).")
def few_quarantined(workspace: Workspace) -> dg.AssetCheckResult:
    """Bounds the share of records in quarantine, by number and by bytes; a file of which nothing could be read fails it."""
    raw = workspace.store.require("raw_rollouts")
    n_bad, n_good = raw.details["n_quarantined"], raw.content["n_rollouts"]
    n_unread, n_bytes = raw.details.get("n_unread_bytes", 0), raw.details.get("n_bytes", 0)
    share, limit = max(n_bad / max(n_bad + n_good, 1), n_unread / max(n_bytes, 1)), workspace.settings.max_quarantined_share
    lost_files = [file["file"] for file in raw.details["files"] if file["n_quarantined"] and not file["n_rollouts"]]
    numbers = {"n_quarantined": n_bad, "share": share, "limit": limit}
    numbers |= {"n_unread_bytes": n_unread} if n_unread else {}  # one line may hold records that nobody could count
    numbers |= {"files_without_a_rollout": [visible_name(name) for name in lost_files[:MAX_NAMED_FILES]]} if lost_files else {}
    remedy = f"{raw.folder / 'quarantine.jsonl'} has file, place and reason of each; mend the files and materialize again"
    return judged(passed=share <= limit and not lost_files, remedy=remedy, numbers=numbers)


@dg.asset_check(asset="question_sets", description="The questions of every task could be read.")
def questions_are_read(workspace: Workspace) -> dg.AssetCheckResult:
    """Tells of tasks whose question files are broken; the others go on without them."""
    broken = workspace.store.require("question_sets").content.get("broken", {})
    remedy = "; ".join(broken.values())
    return judged(passed=not broken, remedy=remedy, numbers={"n_broken": len(broken), "tasks": ", ".join(broken) or "none"})


def _blocking(recipe: Recipe, stage: str, name: str, description: str, judge: Judge) -> dg.AssetChecksDefinition:
    """A check of one of the recipe's assets; what follows does not run where it fails."""
    key = dg.AssetKey([recipe.name, stage])

    @dg.asset_check(asset=key, name=name, blocking=True, description=description)
    def check(workspace: Workspace) -> dg.AssetCheckResult:
        published = workspace.store.require(f"{recipe.name}/{stage}")
        return without_data(published) if published.is_empty else judge(workspace, published)

    return check


def build_selection_checks(recipe: Recipe) -> list[dg.AssetChecksDefinition]:
    """Checks of what a recipe trains on, and that there is something to evaluate it on afterwards."""

    def has_every_class(workspace: Workspace, selection: Published) -> dg.AssetCheckResult:
        counts = selection.details["n_by_class"]
        missing = [name for name, n in counts.items() if not n]
        left_out = count_reasons_by_class(workspace.store, selection)
        none = "none is labelled so" + (f", {left_out['unknown']}" if "unknown" in left_out else "")
        losses = "; ".join(f"no {name} rollout is left ({left_out.get(name, none)})" for name in missing)
        remedy = (
            f"{losses}: `negtraj list --task {recipe.task}` says what drops each, `negtraj query label_balance` counts them; "
            f"land rollouts of that class, or choose a strategy that does without"
        )
        return judged(passed=not missing, remedy=remedy, numbers={f"n_{name}": n for name, n in counts.items()})

    def none_contaminated(workspace: Workspace, selection: Published) -> dg.AssetCheckResult:
        corpus = workspace.store.require(f"trajectory_corpus/{recipe.task}")
        counts = count_contaminated(workspace.store, selection, corpus, workspace.lineage().scoring.registry)
        allowed = recipe.selection.allow_contaminated
        remedy = (
            "take the profile `strict`, which drops them, or say selection.allow_contaminated = true: the report is then "
            "marked, and the recipe cannot become champion"
        )
        return judged(
            passed=allowed or not any(counts.values()), remedy=remedy, numbers={**counts, "allow_contaminated": allowed}
        )

    def suite_is_ready(workspace: Workspace, selection: Published) -> dg.AssetCheckResult:
        lineage = workspace.lineage()
        if why := why_unjudged(lineage.tasks[recipe.task]):
            return judged(passed=True, remedy="", numbers={"not_evaluated": why})
        split, n_questions = recipe.evaluation.split, len(lineage.respondents.suite(recipe).questions)
        remedy = (
            f"the task {recipe.task} has no question in the split {split!r}, so the checkpoint could not be evaluated: add "
            f"questions to it, or name another split (evaluation.split)"
        )
        return judged(passed=n_questions > 0, remedy=remedy, numbers={"n_questions": n_questions, "split": split})

    stage = "training_selection"
    return [
        _blocking(recipe, stage, "has_every_class", "Every class that the strategy trains has rollouts.", has_every_class),
        _blocking(
            recipe,
            stage,
            "none_contaminated",
            "No selected rollout asks or quotes a question of a gate or test split.",
            none_contaminated,
        ),
        _blocking(recipe, stage, "suite_is_ready", "There are questions to evaluate the checkpoint on.", suite_is_ready),
    ]


def build_shards_checks(recipe: Recipe) -> list[dg.AssetChecksDefinition]:
    """Checks of a recipe's token rows; each blocks training."""
    look = f"`negtraj show --recipe {recipe.name} --rejected` lists the rejected rows with their reasons"

    def masks_are_sane(workspace: Workspace, shards: Published) -> dg.AssetCheckResult:
        share = shards.details["trained_share"]
        remedy = f"all tokens or none are trained: `negtraj show --recipe {recipe.name}` shows the rows; mend the chat template"
        return judged(passed=0 < share < 1, remedy=remedy, numbers={"trained_share": share})

    def every_class_is_left(workspace: Workspace, shards: Published) -> dg.AssetCheckResult:
        limit = recipe.shards.max_rejected_share
        losses = lost_by_class(workspace.store, shards, STRATEGIES[recipe.strategy.name].classes)
        shares = {name: n_rejected / max(n_rejected + n_left, 1) for name, (n_left, n_rejected, _) in losses.items()}
        numbers: dict[str, float | str] = {"limit": limit}
        for name, (n_left, n_rejected, reasons) in losses.items():
            numbers |= {f"n_left_{name}": n_left, f"n_rejected_{name}": n_rejected, f"rejected_share_{name}": shares[name]}
            numbers |= {f"reasons_{name}": reasons} if reasons else {}
        is_passed = all(n_left for n_left, _, _ in losses.values()) and all(share <= limit for share in shares.values())
        what_mends = remedies(sorted(shards.details["rejected"]))
        remedy = f"{look}; {f'{what_mends}. ' if what_mends else ''}shards.max_rejected_share allows more"
        return judged(passed=is_passed, remedy=remedy, numbers=numbers)

    def rows_are_proved(workspace: Workspace, shards: Published) -> dg.AssetCheckResult:
        limit = recipe.shards.max_unproved_share
        failed = {reason: n for reason, n in shards.details["rejected"].items() if reason in UNPROVED}
        share = sum(failed.values()) / (shards.details["n_rejected"] + shards.content["n_rows"])
        remedy = f"{look}; {remedies(failed)}. {LEFT_OUT}"
        return judged(passed=share <= limit, remedy=remedy, numbers={"share": share, "limit": limit, **failed})

    stage = "tokenized_shards"
    return [
        _blocking(recipe, stage, "masks_are_sane", "Some tokens are trained, and not all of them.", masks_are_sane),
        _blocking(
            recipe,
            stage,
            "every_class_is_left",
            "Every class of the strategy has rows, and of none more was rejected than shards.max_rejected_share.",
            every_class_is_left,
        ),
        _blocking(
            recipe,
            stage,
            "rows_are_proved",
            "Every row is what a served model is given and writes (setting: shards.max_unproved_share).",
            rows_are_proved,
        ),
    ]


def lost_by_class(store: Store, shards: Published, classes: Sequence[str]) -> dict[str, tuple[int, int, str]]:
    """By class: rows left, rows rejected, and `over_length 2, no_token 1`."""
    index, rejected = (
        pl.read_parquet(store.file(shards.folder, name), columns=columns, glob=False)
        for name, columns in (("index.parquet", ["class"]), ("rejected.parquet", ["class", "reason"]))
    )
    counts = {}
    for name in classes:
        refused = rejected.filter(pl.col("class") == name)
        by_reason = refused.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
        reasons = ", ".join(f"{reason} {n}" for reason, n in by_reason.rows())
        counts[name] = (index.filter(pl.col("class") == name).height, refused.height, reasons)
    return counts


def build_checks(recipes: Sequence[Recipe]) -> list[dg.AssetChecksDefinition]:
    """All checks of the lineage."""
    per_recipe = [check for recipe in recipes for check in (*build_selection_checks(recipe), *build_shards_checks(recipe))]
    per_task = [check for task in sorted({recipe.task for recipe in recipes}) for check in build_corpus_checks(task)]
    return [questions_are_read, few_quarantined, landing_is_read, *per_task, *per_recipe]
