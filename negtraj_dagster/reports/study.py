"""What a study tells: every arm's accuracy over seeds, differences paired by seed and question, and accuracy by failures.

`studies.cells` says what is trained, `Lineage.study` trains and asks it.
"""

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.pages import META_POLICY, html_table, page
from negtraj_dagster.recipes import Recipe
from negtraj_dagster.reports.plots import interval_plot
from negtraj_dagster.schema import digest_json
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.studies import Cell, Study, varied

STUDY_VERSION = 1
N_RESAMPLES = 10_000
BOOTSTRAP_SEED = 0
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""97.5 % quantiles of Student's t with 1, 2, … degrees of freedom; beyond them the normal one is 8 % short at most."""
Z_975 = 1.96


@dataclass(frozen=True)
class Outcome:
    """What one cell of a study answered rightly.

    Attributes:
        n_negatives: the number of failures that was asked for; None: the arm's own.
        right: whether each question was answered rightly, by the strict rule.
        families: of the questions that have one.
    """

    arm: str
    n_negatives: int | None
    seed: int
    right: Mapping[str, bool]
    families: Mapping[str, str]

    @property
    def accuracy(self) -> float:
        """Share of the questions that was answered rightly."""
        return sum(self.right.values()) / len(self.right)


def outcome_of(cell: Cell, rows: Sequence[Mapping[str, Any]]) -> Outcome:
    """A cell's scored answers, but for those that the infrastructure ended."""
    answered = [row for row in rows if row["error_class"] != "infrastructure"]
    right = {row["question_id"]: bool(row["strict"]) for row in answered}
    families = {row["question_id"]: row["family"] for row in answered if "family" in row}
    return Outcome(cell.arm, cell.n_negatives, cell.seed, right, families)


def build_study(
    store: Store,
    study: Study,
    outcomes: Sequence[Outcome],
    versions: Mapping[str, Any],
    recipes: Mapping[str, Recipe],
    segments: Iterable[str] = (),
) -> Published:
    """The study's object: study.json, figure.svg and study.html.

    Args:
        store: where it goes.
        study: what it compares.
        outcomes: of every cell.
        versions: what they were asked of, by cell.
        recipes: those that its arms are made from.
        segments: names of those that the answers are of.
    """
    counted = [[o.arm, o.n_negatives, o.seed, sorted(o.right.items()), sorted(o.families.items())] for o in outcomes]
    made_of = {"code": STUDY_VERSION, "study": study.model_dump(mode="json"), **versions, "outcomes": digest_json(counted)}
    negatives = study.negatives
    names = {name: recipe for name, arm in study.arms.items() if (recipe := arm.recipe) is not None}

    def write(folder: Path) -> Built:
        summary = summarize_study(
            outcomes,
            pairs=study.pairs,
            none=negatives.none if negatives else None,
            counts=dict.fromkeys(negatives.arms, negatives.counts) if negatives else None,
            own_counts={name: varied(study, recipes[recipe]).max_negatives for name, recipe in names.items()},
        )
        (folder / "study.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        (folder / "study.html").write_text(study_page(study.name, study.description, summary), encoding="utf-8")
        if "negatives" in summary:
            (folder / "figure.svg").write_text(negatives_plot(summary), encoding="utf-8")
        return Built(content=summary, work={"cells_compared": len(outcomes)}, caches=tuple(segments))

    return store.build(f"study/{study.name}", made_of, write)


def publish_empty_study(store: Store, study: Study, checkpoint: Published) -> Published:
    """The study where there is nothing to train on: an empty object that says why."""
    made_of = {"code": STUDY_VERSION, "empty": checkpoint.version}
    return store.build(f"study/{study.name}", made_of, lambda _: Built(content=checkpoint.content))


def mean_over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard error and 95 % interval (Student's t) of one figure per seed; no interval of one seed."""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return {"by_seed": list(values), "mean": mean, "stderr": None, "low": None, "high": None}
    stderr = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    reach = stderr * (T_975[n - 2] if n - 2 < len(T_975) else Z_975)
    return {"by_seed": list(values), "mean": mean, "stderr": stderr, "low": mean - reach, "high": mean + reach}


def difference(first: Sequence[Outcome], second: Sequence[Outcome]) -> dict[str, Any]:
    """First minus second, paired by seed and question.

    Returns:
        `mean_over_seeds` of the seeds' differences, whose interval tells of the noise of training; and `low_both` and
        `high_both`, a 95 % percentile interval of resampled seeds and questions, which tells of both.
    """
    of_second = {outcome.seed: outcome for outcome in second}
    pairs = [(outcome, of_second[outcome.seed]) for outcome in first if outcome.seed in of_second]
    ids = sorted(set.intersection(*(set(a.right) & set(b.right) for a, b in pairs)))
    table = np.array([[a.right[id_] - b.right[id_] for id_ in ids] for a, b in pairs], dtype=np.float64)
    rng = np.random.Generator(np.random.PCG64(BOOTSTRAP_SEED))
    n_seeds, n_questions = table.shape
    means = np.empty(N_RESAMPLES)
    for n in range(N_RESAMPLES):
        of_questions = table[:, rng.integers(0, n_questions, n_questions)].mean(axis=1)
        means[n] = of_questions[rng.integers(0, n_seeds, n_seeds)].mean()
    low, high = np.percentile(means, [2.5, 97.5])
    over_seeds = mean_over_seeds([float(row.mean()) for row in table])
    return {**over_seeds, "low_both": float(low), "high_both": float(high), "n_questions": n_questions}


def summarize_study(
    outcomes: Sequence[Outcome],
    *,
    pairs: Sequence[tuple[str, str]],
    none: str | None = None,
    counts: Mapping[str, Sequence[int]] | None = None,
    own_counts: Mapping[str, int | None] | None = None,
) -> dict[str, Any]:
    """All that a study tells, as JSON.

    Args:
        outcomes: of every cell.
        pairs: which differences are told.
        none: the arm that stands for no failure at all.
        counts: by arm the numbers of failures that were tried.
        own_counts: by arm the number of failures that its recipe takes.
    """
    whole = [outcome for outcome in outcomes if outcome.n_negatives is None]
    arms = {name: [outcome for outcome in whole if outcome.arm == name] for name in dict.fromkeys(o.arm for o in whole)}
    summary: dict[str, Any] = {
        "arms": {name: mean_over_seeds([outcome.accuracy for outcome in of_arm]) for name, of_arm in arms.items()},
        "pairs": [{"a": a, "b": b, **difference(arms[a], arms[b])} for a, b in pairs],
        "families": _by_family(arms),
        "seeds": sorted({outcome.seed for outcome in whole}),
        "n_questions": len(whole[0].right),
    }
    if counts and none is not None:
        summary["negatives"] = {
            arm: [
                {"count": 0, **summary["arms"][none]},
                *({"count": count, **_at_count(outcomes, arm, count, (own_counts or {}).get(arm))} for count in of_arm),
            ]
            for arm, of_arm in counts.items()
        }
    return summary


def _at_count(outcomes: Sequence[Outcome], arm: str, count: int, own_count: int | None) -> dict[str, Any]:
    n_negatives = None if count == own_count else count
    return mean_over_seeds(
        [outcome.accuracy for outcome in outcomes if (outcome.arm, outcome.n_negatives) == (arm, n_negatives)]
    )


def _by_family(arms: Mapping[str, Sequence[Outcome]]) -> dict[str, dict[str, float]]:
    """By family and arm the mean accuracy over seeds."""
    families: dict[str, dict[str, float]] = {}
    for name, of_arm in arms.items():
        for family in sorted(set(of_arm[0].families.values())):
            rights = [
                right for outcome in of_arm for id_, right in outcome.right.items() if outcome.families.get(id_) == family
            ]
            families.setdefault(family, {})[name] = sum(rights) / len(rights)
    return families


def arm_rows(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every arm's accuracy as tables show it."""
    return [
        {
            "arm": name,
            "accuracy by seed": " / ".join(f"{value:.1%}" for value in figures["by_seed"]),
            "mean": f"{figures['mean']:.1%}",
            "standard error": _points(figures["stderr"]),
        }
        for name, figures in summary["arms"].items()
    ]


def pair_rows(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every paired difference as tables show it."""
    return [
        {
            "difference": f"{pair['a']} − {pair['b']}",
            "by seed": " / ".join(f"{value:+.1%}" for value in pair["by_seed"]),
            "mean": f"{pair['mean']:+.1%}",
            "95 % over seeds": f"{pair['low']:+.1%} to {pair['high']:+.1%}",
            "95 % over seeds and questions": f"{pair['low_both']:+.1%} to {pair['high_both']:+.1%}",
        }
        for pair in summary["pairs"]
    ]


def negatives_rows(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Accuracy by the number of failures: a row per number, a column per arm."""
    curves = summary.get("negatives", {})
    counts = [point["count"] for point in next(iter(curves.values()), [])]
    return [
        {
            "failures": str(count),
            **{arm: f"{points[place]['mean']:.1%} ± {_points(points[place]['stderr'])}" for arm, points in curves.items()},
            "seeds": str(min(len(points[place]["by_seed"]) for points in curves.values())),
        }
        for place, count in enumerate(counts)
    ]


def family_rows(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Mean accuracy by family of questions: a row per family, a column per arm."""
    return [
        {"family": family, **{arm: f"{value:.1%}" for arm, value in of_arms.items()}}
        for family, of_arms in summary["families"].items()
    ]


def negatives_plot(summary: Mapping[str, Any]) -> str:
    """Accuracy over the number of failures with standard errors, as SVG: the paper's Figure 1."""
    series = {
        arm: [(point["count"], point["mean"], point["stderr"] or 0.0) for point in points]
        for arm, points in summary["negatives"].items()
    }
    return interval_plot(series, x_label="failures trained on", y_label="accuracy")


def study_page(name: str, description: str, summary: Mapping[str, Any]) -> str:
    """The study as a page: arms, differences, the figure, families."""
    sections = [f"<p>{html.escape(description)}</p>", html_table(arm_rows(summary)), "<h2>Paired differences</h2>"]
    sections.append(html_table(pair_rows(summary)))
    if "negatives" in summary:
        sections += ["<h2>Accuracy by the number of failures</h2>", negatives_plot(summary)]
        sections.append(html_table(negatives_rows(summary)))
    if summary["families"]:
        sections += ["<h2>By family of questions, mean over seeds</h2>", html_table(family_rows(summary))]
    return page(f"Study {name}", *sections, head=META_POLICY)


def study_markdown(summary: Mapping[str, Any]) -> str:
    """The study's tables as Markdown."""
    n_seeds, n_questions = len(summary["seeds"]), summary["n_questions"]
    parts = [
        f"{n_seeds} seeds, {n_questions} questions.",
        markdown_table(arm_rows(summary)),
        markdown_table(pair_rows(summary)),
    ]
    if "negatives" in summary:
        parts += ["By the number of failures:", markdown_table(negatives_rows(summary))]
    if summary["families"]:
        parts += ["By family of questions, mean over seeds:", markdown_table(family_rows(summary))]
    return "\n\n".join(parts)


def replace_marked(document: str, name: str, text: str) -> str:
    """A document with a text between the marks `<!-- study NAME -->` and `<!-- end of study NAME -->`.

    Raises:
        SettingsError: it has no such marks, once each and in this order.
    """
    begin, end = f"<!-- study {name} -->", f"<!-- end of study {name} -->"
    before, is_begun, rest = document.partition(begin)
    _, is_ended, after = rest.partition(end)
    if not (is_begun and is_ended) or begin in after:
        raise SettingsError(f"the document lacks a line {begin} and, behind it, a line {end}, once each; add them")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as a Markdown table; the first row names the columns."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
