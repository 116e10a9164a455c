"""Compares the arms of a line on the same questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.reports.stats import mcnemar_exact, paired_bootstrap
from negtraj_dagster.reports.summarize import comparison_page
from negtraj_dagster.schema import canonical_json
from negtraj_dagster.store import Built, Published, Store, read_json_lines

COMPARE_VERSION = 3
BOOTSTRAP_SEED = 0
CLOCKED = ("comparison.json", "comparison.html")
"""They tell how long training took."""


@dataclass(frozen=True)
class Arm:
    """A recipe of the line with its present checkpoint, shards and report."""

    recipe: str
    role: str
    report: Published
    checkpoint: Published
    selection: Published


def compare_arms(store: Store, line: str, arms: Sequence[Arm], notes: Sequence[str]) -> Published:
    """The line's comparison: each arm's numbers, each pair's paired tests.

    Args:
        store: where it goes.
        line: its name.
        arms: the line's recipes; those without data are listed apart.
        notes: sentences that belong under the table (repeated rows and the like).
    """
    made_of = {
        "code": COMPARE_VERSION,
        **{f"arm/{arm.recipe}": [arm.role, arm.report.version, arm.checkpoint.version, arm.selection.version] for arm in arms},
        "notes": list(notes),
    }
    return store.build(f"recipe_comparison/{line}", made_of, lambda folder: _compare(store, folder, line, arms, notes))


def _compare(store: Store, folder: Path, line: str, arms: Sequence[Arm], notes: Sequence[str]) -> Built:
    empty = {arm.recipe: arm.report.content["reason"] for arm in arms if arm.report.is_empty}
    present = [arm for arm in arms if not arm.report.is_empty]
    if not present:
        return Built(content={"status": "no_data", "reason": "; ".join(f"{name}: {why}" for name, why in empty.items())})
    if len({arm.report.content["suite"] for arm in present}) > 1:
        raise StoreError(
            f"the arms of line {line} were evaluated on different questions or answers; give them the same [evaluation] table "
            f"and materialize their evaluation_report again"
        )
    if len({arm.report.content.get("rules") for arm in present}) > 1:
        raise StoreError(
            f"the arms of line {line} were asked or scored by different rules (tools, decoding, scorer, code); materialize "
            "their evaluation_report again"
        )
    outcomes = {arm.recipe: _outcomes(store, arm) for arm in present}
    rows = sorted((_arm_row(arm) for arm in present), key=lambda row: (-row["accuracy"], row["recipe"]))
    names = [row["recipe"] for row in rows]
    comparison = {
        "line": line,
        "arms": rows,
        "pairs": [_pair(a, b, outcomes[a], outcomes[b]) for a, b in combinations(names, 2)],
        "notes": list(notes) + [f"{name} has no data: {why}" for name, why in empty.items()],
    }
    (folder / "comparison.json").write_text(canonical_json(comparison), encoding="utf-8")
    right = [{"recipe": name, "right": sorted(key for key, is_right in outcomes[name].items() if is_right)} for name in names]
    (folder / "right.jsonl").write_text("".join(f"{canonical_json(row)}\n" for row in right), encoding="utf-8")
    curves = {arm.recipe: arm.checkpoint.details["loss_curve"] for arm in present}
    (folder / "comparison.html").write_text(comparison_page(line, comparison, curves), encoding="utf-8")
    # seconds differ from run to run: in the version they would make everything below stale
    timeless = [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
    content = {"arms": timeless, "pairs": comparison["pairs"], "without_data": empty}
    return Built(content=content, details={"comparison": comparison}, work={"arms_compared": len(rows)}, volatile=CLOCKED)


def _outcomes(store: Store, arm: Arm) -> dict[str, bool]:
    episodes = read_json_lines(store.file(arm.report.folder, "episodes.jsonl"))
    return {episode["question_id"]: bool(episode["strict"]) for episode in episodes}


def _arm_row(arm: Arm) -> dict[str, Any]:
    metrics, result = arm.report.content["metrics"], arm.checkpoint.details["result"]
    return {
        "recipe": arm.recipe,
        "role": arm.role,
        "accuracy": metrics["accuracy_strict"],
        "accuracy_low": metrics["accuracy_strict_low"],
        "accuracy_high": metrics["accuracy_strict_high"],
        "n_questions": metrics["n"],
        "steps": result["steps"],
        "tokens": result["tokens"],
        "trained_share": result["trained_share"],
        "seconds": round(result["seconds"], 1),
        "n_by_class": arm.selection.details["n_by_class"],
        "contaminated": arm.report.content["contaminated"],
        "suite": arm.report.content["suite"],
        "rules": arm.report.content.get("rules"),
        "checkpoint": arm.checkpoint.version,
    }


def _pair(a: str, b: str, of_a: Mapping[str, bool], of_b: Mapping[str, bool]) -> dict[str, Any]:
    ids = sorted(of_a)
    right_a, right_b = [of_a[id_] for id_ in ids], [of_b[id_] for id_ in ids]
    n_only_a = sum(x and not y for x, y in zip(right_a, right_b, strict=True))
    n_only_b = sum(y and not x for x, y in zip(right_a, right_b, strict=True))
    low, high = paired_bootstrap(right_a, right_b, seed=BOOTSTRAP_SEED)
    return {
        "a": a,
        "b": b,
        "difference": (n_only_a - n_only_b) / len(ids),
        "low": low,
        "high": high,
        "n_only_a": n_only_a,
        "n_only_b": n_only_b,
        "p_value": mcnemar_exact(n_only_a, n_only_b),
    }
