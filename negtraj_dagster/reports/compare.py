"""Compares the arms of a line on the same questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.launch import RunChild
from negtraj_dagster.reports.answers import INFRASTRUCTURE, Respondent, ask, asked_digest
from negtraj_dagster.reports.build import Suite
from negtraj_dagster.reports.metrics import score_rows, summarize_rows
from negtraj_dagster.reports.stats import holm, mcnemar_exact, paired_bootstrap, paired_mean_p
from negtraj_dagster.reports.summarize import comparison_page
from negtraj_dagster.schema import canonical_json
from negtraj_dagster.store import Built, Published, Store, read_json_lines

COMPARE_VERSION = 4
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


@dataclass(frozen=True)
class BaseArm:
    """A base model of the line, untrained, on the arms' questions."""

    name: str
    respondent: Respondent
    suite: Suite

    @property
    def identity(self) -> tuple[str, object]:
        """Names what it is asked, prompts included, and the rule that scores."""
        asked = asked_digest(self.respondent, self.suite.questions, self.suite.trials)
        return asked, self.respondent.task.version


def compare_arms(
    store: Store, line: str, arms: Sequence[Arm], bases: Sequence[BaseArm], notes: Sequence[str], run_child: RunChild
) -> Published:
    """The line's comparison: each arm's numbers beside the base model's, each pair's paired tests.

    Args:
        store: where it goes.
        line: its name.
        arms: the line's recipes; those without data are listed apart.
        bases: what the arms were trained from; a row each.
        notes: sentences that belong under the table (repeated rows and the like).
        run_child: starts the evaluator, where a base model was not asked yet.
    """
    made_of = {
        "code": COMPARE_VERSION,
        **{f"arm/{arm.recipe}": [arm.role, arm.report.version, arm.checkpoint.version, arm.selection.version] for arm in arms},
        **{base.name: [*base.identity, base.suite.digest] for base in bases},
        "notes": list(notes),
    }
    return store.build(
        f"recipe_comparison/{line}",
        made_of,
        lambda folder: _compare(store, folder, line, arms, bases, notes, run_child),
    )


def _compare(
    store: Store,
    folder: Path,
    line: str,
    arms: Sequence[Arm],
    bases: Sequence[BaseArm],
    notes: Sequence[str],
    run_child: RunChild,
) -> Built:
    empty = {arm.recipe: arm.report.content["reason"] for arm in arms if arm.report.is_empty}
    present = [arm for arm in arms if not arm.report.is_empty]
    if not present:
        return Built(content={"status": "no_data", "reason": "; ".join(f"{name}: {why}" for name, why in empty.items())})
    _refuse_unlike(line, present)
    outcomes = {arm.recipe: _outcomes(store, arm) for arm in present}
    rows = sorted((_arm_row(arm) for arm in present), key=lambda row: (-row["accuracy"], row["recipe"]))
    names = [row["recipe"] for row in rows]
    asked = {
        base.name: ask(store, base.respondent, base.suite.questions, run_child, trials=base.suite.trials) for base in bases
    }
    base_rows = [_base_row(base, asked[base.name].rows) for base in bases]
    pairs = [_pair(a, b, outcomes[a], outcomes[b]) for a, b in combinations(names, 2)]
    comparison = {
        "line": line,
        "arms": rows,
        "bases": base_rows,
        "pairs": _with_holm(pairs),
        "notes": list(notes) + [f"{name} has no data: {why}" for name, why in empty.items()],
    }
    (folder / "comparison.json").write_text(canonical_json(comparison), encoding="utf-8")
    curves = {arm.recipe: arm.checkpoint.details["loss_curve"] for arm in present}
    (folder / "comparison.html").write_text(comparison_page(line, comparison, curves), encoding="utf-8")
    # seconds differ from run to run: in the version they would make everything below stale
    timeless = [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
    content = {"arms": timeless, "bases": base_rows, "pairs": comparison["pairs"], "without_data": empty}
    work = {"arms_compared": len(rows), "questions_asked": sum(answers.n_asked for answers in asked.values())}
    caches = tuple(name for answers in asked.values() for name in answers.segments)
    return Built(content=content, details={"comparison": comparison}, work=work, volatile=CLOCKED, caches=caches)


def _refuse_unlike(line: str, arms: Sequence[Arm]) -> None:
    """Answers to other questions, or by other rules, are not compared."""
    if len({arm.report.content["suite"] for arm in arms}) > 1:
        raise StoreError(
            f"the arms of line {line} were evaluated on different questions or answers; give them the same [evaluation] table "
            f"and materialize their evaluation_report again"
        )
    first = arms[0]
    for other in arms[1:]:
        if first.report.content.get("rules") != other.report.content.get("rules"):
            raise StoreError(
                f"the arms of line {line} were asked by different rules: {first.recipe} and {other.recipe} differ in "
                f"{_differences(first.report, other.report)}; give them the same [evaluation] table and materialize their "
                "evaluation_report again"
            )


def _differences(one: Published, other: Published) -> str:
    """What of two reports' rules differs, by name with both values."""
    flat = [_flat(report.details.get("rules", {})) for report in (one, other)]
    names = sorted(name for name in flat[0].keys() | flat[1].keys() if flat[0].get(name) != flat[1].get(name))
    texts = [f"{name} ({flat[0].get(name)} and {flat[1].get(name)})" for name in names]
    return ", ".join(texts) or "how often each question is asked, or in the code that asks"


def _flat(rules: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in rules.items() if name != "limits"}, **rules.get("limits", {})}


def _outcomes(store: Store, arm: Arm) -> dict[str, float]:
    """Per question the share of its trials that was answered rightly; none of those that the infrastructure ended."""
    of_question: dict[str, list[bool]] = {}
    for episode in read_json_lines(store.file(arm.report.folder, "episodes.jsonl")):
        if episode["error_class"] != INFRASTRUCTURE:
            of_question.setdefault(episode["question_id"], []).append(bool(episode["strict"]))
    return {question_id: sum(trials) / len(trials) for question_id, trials in of_question.items()}


def _base_row(base: BaseArm, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    metrics = summarize_rows(score_rows(rows, base.suite.questions, base.respondent.task))
    return {
        "recipe": base.name,
        "role": "untrained",
        **_accuracies(metrics),
        "steps": 0,
        "tokens": 0,
        "trained_share": 0.0,
        "seconds": 0.0,
    }


def _accuracies(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "accuracy": metrics["accuracy_strict"],
        "accuracy_low": metrics["accuracy_strict_low"],
        "accuracy_high": metrics["accuracy_strict_high"],
        "n_questions": metrics["n_questions"],
        "n_infrastructure": metrics["n_infrastructure"],
    }


def _arm_row(arm: Arm) -> dict[str, Any]:
    content, result = arm.report.content, arm.checkpoint.details["result"]
    clean = content.get("clean")
    return {
        "recipe": arm.recipe,
        "role": arm.role,
        **_accuracies(content["metrics"]),
        "accuracy_clean": clean and clean["accuracy_strict"],
        "n_clean": clean and clean["n"],
        "steps": result["steps"],
        "tokens": result["tokens"],
        "trained_share": result["trained_share"],
        "seconds": round(result["seconds"], 1),
        "n_by_class": arm.selection.details["n_by_class"],
        "contaminated": content["contaminated"],
        "suite": content["suite"],
        "rules": content.get("rules"),
        "checkpoint": arm.checkpoint.version,
    }


def _pair(a: str, b: str, of_a: Mapping[str, float], of_b: Mapping[str, float]) -> dict[str, Any]:
    ids = sorted(of_a.keys() & of_b.keys())
    right_a, right_b = [of_a[id_] for id_ in ids], [of_b[id_] for id_ in ids]
    n_only_a, n_only_b = (sum(x > y for x, y in zip(*pair, strict=True)) for pair in ((right_a, right_b), (right_b, right_a)))
    low, high = paired_bootstrap(right_a, right_b, seed=BOOTSTRAP_SEED) if ids else (-1.0, 1.0)
    has_shares = any(value not in (0.0, 1.0) for value in (*right_a, *right_b))
    p_value = paired_mean_p(right_a, right_b) if has_shares else mcnemar_exact(n_only_a, n_only_b)
    return {
        "a": a,
        "b": b,
        "n": len(ids),
        "difference": (sum(right_a) - sum(right_b)) / max(len(ids), 1),
        "low": low,
        "high": high,
        "n_only_a": n_only_a,
        "n_only_b": n_only_b,
        "p_value": p_value,
    }


def _with_holm(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pairs with `p_holm`: their p among all pairs of the line."""
    adjusted = holm([pair["p_value"] for pair in pairs])
    return [{**pair, "p_holm": p_value} for pair, p_value in zip(pairs, adjusted, strict=True)]
