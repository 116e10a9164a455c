"""Asset checks: what must hold of a materialization before anything is trained on it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from negtraj_dagster.defs.resources import Workspace
from negtraj_dagster.defs.trajectories import DEFAULT_PROFILE
from negtraj_dagster.defs.versions import table
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.shards.rows import UNPROVED
from negtraj_dagster.store import Published
from negtraj_dagster.trajectories.select import count_contaminated

MAX_DROP_JUMP = 0.1
MIN_CLASS_SHARE = 0.05
MAX_SHORTCUT = 0.3


@dg.asset_check(asset="raw_rollouts", description="Few landed records are unreadable (settings: max_quarantined_share).")
def few_quarantined(workspace: Workspace) -> dg.AssetCheckResult:
    """Bounds the share of records in quarantine."""
    raw = workspace.store.require("raw_rollouts")
    n_bad, n_good = raw.details["n_quarantined"], raw.content["n_rollouts"]
    share, limit = n_bad / max(n_bad + n_good, 1), workspace.settings.max_quarantined_share
    return dg.AssetCheckResult(passed=share <= limit, metadata={"n_quarantined": n_bad, "share": share, "limit": limit})


def _no_data(published: Published) -> dg.AssetCheckResult:
    """What a check says of an asset that had nothing to work on."""
    return dg.AssetCheckResult(passed=True, metadata={"status": "no_data", "reason": published.content["reason"]})


def build_selection_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """Every class the recipe's strategy trains is there; blocks what follows."""
    key = dg.AssetKey([recipe.name, "training_selection"])

    @dg.asset_check(asset=key, blocking=True, description="Every class that the strategy trains has rollouts.")
    def has_every_class(workspace: Workspace) -> dg.AssetCheckResult:
        selection = workspace.store.require(f"{recipe.name}/training_selection")
        if selection.is_empty:
            return _no_data(selection)
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
            return _no_data(shards)
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
            return _no_data(shards)
        failed = {reason: n for reason, n in shards.details["rejected"].items() if reason in UNPROVED}
        share = sum(failed.values()) / (shards.details["n_rejected"] + shards.content["n_rows"])
        look = f"negtraj show --recipe {recipe.name} --rejected"
        return dg.AssetCheckResult(passed=share <= limit, metadata={"share": share, "limit": limit, "look": look, **failed})

    return rows_are_proved


def build_corpus_checks(task: str) -> list[dg.AssetChecksDefinition]:
    """What a person would want to be told of a corpus; none of them stops a run."""
    key = dg.AssetKey(["trajectory_corpus", task])

    def checked(
        description: str, judge: Callable[[Workspace, Published], dg.AssetCheckResult], name: str
    ) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=key, name=name, description=description)
        def check(workspace: Workspace) -> dg.AssetCheckResult:
            corpus = workspace.store.require(f"trajectory_corpus/{task}")
            if corpus.is_empty:
                return _no_data(corpus)
            return judge(workspace, corpus)

        return check

    return [
        checked(
            f"The share of dropped rollouts moved by at most {MAX_DROP_JUMP:.0%} since the last run.",
            _drop_rate,
            "drop_rate_is_steady",
        ),
        checked(
            f"The smaller class has at least {MIN_CLASS_SHARE:.0%} of the labelled rollouts.",
            _class_balance,
            "classes_are_balanced",
        ),
        checked(
            f"No answer's share differs by more than {MAX_SHORTCUT:.0%} between the classes.", _shortcut, "no_answer_shortcut"
        ),
        checked(
            "No filter drops more than half of a class, and none that dropped something has stopped.",
            _plausible,
            "filters_are_plausible",
        ),
        checked("Every line of overrides.csv and judgements.csv fits a rollout.", _overrides_fit, "overrides_fit"),
    ]


def _warn(*, passed: bool, **metadata: Any) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata=metadata)


def _drop_rate(workspace: Workspace, corpus: Published) -> dg.AssetCheckResult:
    previous = workspace.store.before(corpus.asset)
    before = previous.details if previous else None
    rates = {name: told["drop_rate"] for name, told in corpus.details["profiles"].items()}
    earlier = {name: told["drop_rate"] for name, told in (before or {}).get("profiles", {}).items() if name in rates}
    jumps = {name: rates[name] - rate for name, rate in earlier.items()}
    passed = all(abs(jump) <= MAX_DROP_JUMP for jump in jumps.values())
    told = {f"drop_rate_{name}": rate for name, rate in rates.items()} | {f"jump_{name}": jump for name, jump in jumps.items()}
    return _warn(passed=passed, compared_with="the run before" if before else "nothing: the first run", **told)


def _class_balance(workspace: Workspace, corpus: Published) -> dg.AssetCheckResult:
    labels = corpus.details["labels"]
    known = labels["positive"] + labels["negative"]
    share = min(labels["positive"], labels["negative"]) / known if known else 0.0
    return _warn(passed=share >= MIN_CLASS_SHARE, share_of_smaller_class=share, limit=MIN_CLASS_SHARE, **labels)


def _shortcut(workspace: Workspace, corpus: Published) -> dg.AssetCheckResult:
    found = corpus.details["answer_shortcut"]
    return _warn(
        passed=found["difference"] <= MAX_SHORTCUT,
        limit=MAX_SHORTCUT,
        **found,
        answers=table(corpus.details["answers"]),
        gold_answers=table(corpus.details["gold_answers"]),
    )


def _plausible(workspace: Workspace, corpus: Published) -> dg.AssetCheckResult:
    """Of the default profile: which filters drop over half of a class, and which dropped something before and nothing now."""
    rows, labels = _funnel(corpus.details), corpus.details["labels"]
    dropping = {name: row for name, row in rows.items() if row["severity"] == "drop"}
    classes = [label for label in ("positive", "negative") if labels[label]]
    greedy = [
        f"{name}: {row[f'n_{label}']} of {labels[label]} {label}"
        for name, row in dropping.items()
        for label in classes
        if row[f"n_{label}"] > labels[label] / 2
    ]
    previous = workspace.store.before(corpus.asset)
    earlier = _funnel(previous.details if previous else {})
    silent = [name for name, row in dropping.items() if not _n_hits(row)]
    stopped = [name for name in silent if name in earlier and _n_hits(earlier[name])]
    return _warn(
        passed=not greedy and not stopped,
        over_half=", ".join(greedy) or "none",
        stopped=", ".join(stopped) or "none",
        without_hits=", ".join(silent) or "none",
    )


def _overrides_fit(workspace: Workspace, corpus: Published) -> dg.AssetCheckResult:
    unmatched = workspace.store.require("scored_trajectories").details["unmatched"]
    return _warn(passed=not unmatched, unmatched="; ".join(unmatched[:20]) or "none", n_unmatched=len(unmatched))


def _funnel(details: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    profiles = details.get("profiles", {})
    told: Mapping[str, Any] = profiles.get(DEFAULT_PROFILE) or next(iter(profiles.values()), {"funnel": []})
    return {row["filter"]: row for row in told["funnel"]}


def _n_hits(row: Mapping[str, Any]) -> int:
    return int(row["n_positive"] + row["n_negative"])


def build_contamination_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """No selected row asks or holds an evaluation question, unless the recipe allows it; blocks what follows."""
    key = dg.AssetKey([recipe.name, "training_selection"])

    @dg.asset_check(
        asset=key, blocking=True, description="No selected rollout asks or quotes a question of a gate or test split."
    )
    def none_contaminated(workspace: Workspace) -> dg.AssetCheckResult:
        selection = workspace.store.require(f"{recipe.name}/training_selection")
        if selection.is_empty:
            return _no_data(selection)
        corpus = workspace.store.require(f"trajectory_corpus/{recipe.task}")
        counts = count_contaminated(workspace.store, selection, corpus, workspace.lineage().scoring.registry)
        allowed = recipe.selection.allow_contaminated
        return dg.AssetCheckResult(
            passed=allowed or not any(counts.values()),
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={**counts, "allow_contaminated": allowed},
        )

    return none_contaminated


BUILDERS = (build_selection_check, build_contamination_check, build_shards_check, build_proof_check)


def build_checks(recipes: Sequence[Recipe]) -> list[dg.AssetChecksDefinition]:
    """All checks of the lineage."""
    per_recipe = [build(recipe) for recipe in recipes for build in BUILDERS]
    per_task = [check for task in sorted({recipe.task for recipe in recipes}) for check in build_corpus_checks(task)]
    return [few_quarantined, *per_task, *per_recipe]
