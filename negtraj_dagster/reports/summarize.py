"""Writes the HTML pages people read: one recipe's report, and a line's comparison. Self-contained, no script."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from negtraj_dagster.pages import html_table, page
from negtraj_dagster.reports.plots import bar_plot, line_plot

MAX_EPISODES = 40


def report_page(recipe: str, metrics: Mapping[str, Any], episodes: Sequence[Mapping[str, Any]], *, contaminated: bool) -> str:
    """One recipe's evaluation: its numbers and its first episodes, wrong ones first."""
    note = ""
    if contaminated:
        note = (
            '<p class="note">Contaminated: some training rollouts asked questions of this suite. No champion comes of it.</p>'
        )
    numbers = [{"metric": name, "value": _number(value)} for name, value in sorted(metrics.items())]
    ordered = sorted(episodes, key=lambda episode: (episode["strict"], episode["question_id"]))
    blocks = "".join(_episode(episode) for episode in ordered[:MAX_EPISODES])
    heading = f"<h2>Episodes ({min(len(ordered), MAX_EPISODES)} of {len(ordered)}, wrong ones first)</h2>"
    return page(f"Evaluation of {recipe}", note, html_table(numbers), heading, blocks)


def _episode(episode: Mapping[str, Any]) -> str:
    verdict = "right" if episode["strict"] else "wrong"
    turns = "\n".join(f"{turn['role']}: {turn['content']}" for turn in episode["turns"])
    prediction = html.escape(str(episode["prediction"]))
    return (
        f'<details><summary class="{verdict}">{verdict}: {html.escape(episode["question_id"])} said {prediction}</summary>'
        f"<pre>{html.escape(turns)}</pre></details>"
    )


def comparison_page(line: str, comparison: Mapping[str, Any], curves: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """A line's arms side by side: table, bars with intervals, paired tests, loss curves."""
    arms = comparison["arms"]
    bars = [(arm["recipe"], arm["accuracy"], arm["accuracy_low"], arm["accuracy_high"]) for arm in arms]
    losses = {name: [(x, y) for x, y in points] for name, points in curves.items()}
    sections = [html_table([format_arm(arm) for arm in arms])]
    sections += [f"<p>{html.escape(note)}</p>" for note in comparison["notes"]]
    if bars:
        sections += ["<h2>Strict accuracy, 95 % Wilson interval</h2>", bar_plot(bars, y_label="accuracy")]
    sections += [
        "<h2>Paired comparisons on the same questions</h2>",
        html_table([format_pair(p) for p in comparison["pairs"]]),
    ]
    if losses:
        sections += ["<h2>Training loss</h2>", line_plot(losses, x_label="step", y_label="loss")]
    return page(f"Comparison of line {line}", *sections)


def format_arm(arm: Mapping[str, Any]) -> dict[str, str]:
    """One arm as the demo's table shows it."""
    return {
        "arm": arm["recipe"],
        "role": arm["role"],
        "accuracy": f"{arm['accuracy']:.1%}",
        "95 % interval": f"{arm['accuracy_low']:.1%} to {arm['accuracy_high']:.1%}",
        "questions": str(arm["n_questions"]),
        "steps": str(arm["steps"]),
        "tokens": f"{arm['tokens']:,}",
        "trained share": f"{arm['trained_share']:.1%}",
        "seconds": f"{arm['seconds']:.0f}",
    }


def format_pair(pair: Mapping[str, Any]) -> dict[str, str]:
    """One paired comparison."""
    return {
        "comparison": f"{pair['a']} − {pair['b']}",
        "difference": f"{pair['difference']:+.1%}",
        "95 % interval": f"{pair['low']:+.1%} to {pair['high']:+.1%}",
        "only first right": str(pair["n_only_a"]),
        "only second right": str(pair["n_only_b"]),
        "McNemar p": f"{pair['p_value']:.2g}",
    }


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
