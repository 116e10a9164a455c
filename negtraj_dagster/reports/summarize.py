"""Writes the HTML pages people read: one recipe's report, and a line's comparison. Self-contained, no script."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from negtraj_dagster.pages import META_POLICY, html_table, page
from negtraj_dagster.reports.plots import bar_plot, line_plot

Metrics = Mapping[str, Any]
Row = Mapping[str, Any]

CLASS_WORDS = {
    "right": "right",
    "wrong_answer": "another answer",
    "format": "an answer or an action in another form than was asked for",
    "unknown_tool": "called a tool that there is not",
    "tool_error": "its tool calls failed",
    "loop": "did the same again and again",
    "unfinished": "used all its turns",
    "over_long": "the conversation filled the model's positions",
    "infrastructure": "ended by the machine or the server: neither right nor wrong",
}


def report_page(
    recipe: str,
    metrics: Metrics,
    rows: Sequence[Row],
    *,
    contaminated: bool,
    families: Sequence[Row] = (),
    trials: Metrics | None = None,
    clean: Metrics | None = None,
) -> str:
    """One recipe's evaluation: its numbers, and every episode, those that went wrong first and by the way they did.

    Args:
        recipe: its name.
        metrics: of `summarize_rows`.
        rows: scored episodes.
        contaminated: whether training rollouts asked questions of the suite.
        families: of `by_family`.
        trials: of `summarize_trials`, where each question was asked more than once.
        clean: metrics of the questions that no training rollout asked, of a contaminated suite.
    """
    notes = ""
    if contaminated:
        notes += (
            '<p class="note">Contaminated: some training rollouts asked questions of this suite. No champion comes of it.'
            f"{'' if clean is None else _clean_sentence(clean)}</p>"
        )
    if metrics["n_infrastructure"]:
        notes += (
            f'<p class="note">{metrics["n_infrastructure"]} episodes were ended by the machine or the server. They count as '
            "neither right nor wrong, and are asked again by the next run.</p>"
        )
    numbers = [{"metric": name, "value": _number(value)} for name, value in sorted(metrics.items()) if name != "error_classes"]
    classes = [
        {"episodes that ended so": name, "n": n, "what it is": CLASS_WORDS[name]}
        for name, n in metrics["error_classes"].items()
    ]
    sections = [notes, html_table(classes), html_table(numbers)]
    if families:
        sections += ["<h2>By family of questions</h2>", html_table([format_family(family) for family in families])]
    if trials:
        values = [{"metric": name, "value": _number(value)} for name, value in trials.items()]
        sections += ["<h2>Trials of each question</h2>", html_table(values)]
    sections.append(f"<h2>All {len(rows)} episodes</h2>")
    for name in (*(name for name in metrics["error_classes"] if name != "right"), "right"):
        of_class = [row for row in rows if row["error_class"] == name]
        if of_class:
            episodes = "".join(_episode(row) for row in sorted(of_class, key=lambda row: (row["question_id"], row["trial"])))
            sections.append(f"<h3>{name} ({len(of_class)}): {CLASS_WORDS[name]}</h3>{episodes}")
    return page(f"Evaluation of {recipe}", *sections, head=META_POLICY)


def _clean_sentence(clean: Metrics) -> str:
    return (
        f" Of the {clean['n']} questions that no training rollout asked, {clean['accuracy_strict']:.1%} were answered rightly "
        f"({clean['accuracy_strict_low']:.1%} to {clean['accuracy_strict_high']:.1%})."
    )


def format_family(family: Row) -> dict[str, str]:
    """One family of questions as tables show it."""
    return {
        "family": family["family"],
        "accuracy": f"{family['accuracy_strict']:.1%}",
        "95 % interval": f"{family['accuracy_strict_low']:.1%} to {family['accuracy_strict_high']:.1%}",
        "questions": str(family["n"]),
    }


def _episode(row: Row) -> str:
    colour = "right" if row["strict"] else "wrong"
    turns = "\n".join(f"{turn['role']}: {turn_text(turn)}" for turn in row["turns"])
    trial = f", trial {row['trial'] + 1}" if row["trial"] else ""
    answer = "no answer" if row["prediction"] is None else f"answered {row['prediction']}"
    error = f"\n[{row['error']}]" if row.get("error") else ""
    return (
        f'<details><summary class="{colour}">{html.escape(row["question_id"])}{trial}: {html.escape(answer)}</summary>'
        f"<pre>{html.escape(turns + error)}</pre></details>"
    )


def turn_text(turn: Row) -> str:
    """What a turn says, its reasoning and its calls included."""
    reasoning = f"<think>{turn['reasoning']}</think>\n" if "reasoning" in turn else ""
    calls = "".join(f"\n{call['name']}({call['arguments']})" for call in turn.get("tool_calls", ()))
    return f"{reasoning}{turn['content']}{calls}"


def comparison_page(line: str, comparison: Mapping[str, Any], curves: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """A line's arms side by side: table, bars with intervals, paired tests, loss curves."""
    arms = [*comparison["arms"], *comparison["bases"]]
    bars = [(arm["recipe"], arm["accuracy"], arm["accuracy_low"], arm["accuracy_high"]) for arm in arms]
    losses = {name: [(x, y) for x, y in points] for name, points in curves.items()}
    sections = [f"<p>{html.escape(sentence)}</p>" for sentence in who_won(comparison)]
    sections.append(html_table(format_arms(comparison)))
    sections += [f"<p>{html.escape(note)}</p>" for note in comparison["notes"]]
    if bars:
        sections += ["<h2>Strict accuracy, 95 % interval</h2>", bar_plot(bars, y_label="accuracy")]
    sections += [
        "<h2>Paired comparisons on the same questions</h2>",
        html_table([format_pair(p) for p in comparison["pairs"]]),
    ]
    if losses:
        sections += ["<h2>Training loss</h2>", line_plot(losses, x_label="step", y_label="loss")]
    return page(f"Comparison of line {line}", *sections, head=META_POLICY)


SIGNIFICANCE = 0.05


def who_won(comparison: Mapping[str, Any]) -> list[str]:
    """What the paired tests say, in sentences: which differences are more than chance, all tests counted (Holm)."""
    sentences = []
    for pair in comparison["pairs"]:
        first, second = (pair["a"], pair["b"]) if pair["difference"] >= 0 else (pair["b"], pair["a"])
        difference = f"{abs(pair['difference']):.1%}"
        if pair["p_holm"] < SIGNIFICANCE:
            sentences.append(
                f"{first} is better than {second} by {difference} of the questions (p {pair['p_holm']:.2g}, Holm)."
            )
        else:
            sentences.append(f"{first} and {second} cannot be told apart ({difference}, p {pair['p_holm']:.2g}, Holm).")
    return sentences


def format_arms(comparison: Mapping[str, Any]) -> list[dict[str, str]]:
    """The arms and what they were trained from, as tables show them."""
    arms = [*comparison["arms"], *comparison["bases"]]
    has_clean = any(arm.get("n_clean") for arm in arms)
    return [_format_arm(arm, has_clean=has_clean) for arm in arms]


def _format_arm(arm: Mapping[str, Any], *, has_clean: bool) -> dict[str, str]:
    clean = f"{arm['accuracy_clean']:.1%} of {arm['n_clean']}" if arm.get("n_clean") else "-"
    return {
        "arm": arm["recipe"],
        "role": arm["role"],
        "accuracy": f"{arm['accuracy']:.1%}",
        "95 % interval": f"{arm['accuracy_low']:.1%} to {arm['accuracy_high']:.1%}",
        "questions": str(arm["n_questions"]),
        **({"not asked in training": clean} if has_clean else {}),
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
        "paired p": f"{pair['p_value']:.2g}",
        "Holm p": f"{pair['p_holm']:.2g}",
    }


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
