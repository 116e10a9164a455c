"""What an evaluation counts: each episode's scores and the one class it is of, and the numbers of a suite. Pure functions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from negtraj_dagster.reports.stats import clustered_mean, wilson
from negtraj_dagster.schema import Question, canonical_json
from negtraj_dagster.tasks import Task

ERROR_CLASSES = (
    "right",
    "wrong_answer",
    "format",
    "unknown_tool",
    "tool_error",
    "loop",
    "unfinished",
    "over_long",
    "infrastructure",
)
"""Every episode is of one. `right` is by the strict rule; `infrastructure` counts as neither right nor wrong."""
N_OF_A_LOOP = 3
"""An agent that says the same so often in an episode turns in circles."""

Row = Mapping[str, Any]


def score_rows(rows: Iterable[Row], questions: Sequence[Question], task: Task) -> list[dict[str, Any]]:
    """Answers with `strict`, `lenient`, `error_class`; `f1` where the task's rule has one, `family` where questions have one.

    Args:
        rows: of `answers.ask`.
        questions: with what is right.
        task: whose rule scores.
    """
    by_id = {question.question_id: question for question in questions}
    scored = []
    for row in rows:
        question = by_id[row["question_id"]]
        score = task.score(row["prediction"], question.answer)
        verdict = {"strict": score.strict, "lenient": score.lenient, **({} if score.f1 is None else {"f1": score.f1})}
        family = {} if question.family is None else {"family": question.family}
        episode = {name: value for name, value in row.items() if name != "answer_key"}
        scored.append({**episode, **verdict, "error_class": error_class({**row, **verdict}, task), **family})
    return scored


def error_class(row: Row, task: Task) -> str:
    """Which of `ERROR_CLASSES` a scored episode is of.

    A finished one whose answer is right but for its form, or of another kind than is asked for, is a `format` error. One that
    did not finish is told by what it did most often wrong; an agent that repeats itself is a `loop` before that.
    """
    if row["status"] == "infrastructure":
        return "infrastructure"
    if row["strict"]:
        return "right"
    if row["status"] == "overlong":
        return "over_long"
    if row["status"] == "finished":
        is_of_kind = row["prediction"] is not None and task.is_valid_answer(row["prediction"])
        return "format" if row["lenient"] or not is_of_kind else "wrong_answer"
    turns = Counter(_act(turn) for turn in row["turns"] if turn["role"] == "assistant")
    if turns and max(turns.values()) >= N_OF_A_LOOP:
        return "loop"
    counts = {"format": row["n_format_errors"], "unknown_tool": row["n_unknown_tools"], "tool_error": row["n_tool_errors"]}
    worst = max(counts, key=lambda name: counts[name])
    return worst if counts[worst] else "unfinished"


def _act(turn: Row) -> str:
    """What a turn says and calls; ids tell calls apart that are alike."""
    calls = [[call["name"], call["arguments"]] for call in turn.get("tool_calls", ())]
    return canonical_json([turn["content"], calls])


def summarize_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts, accuracies with 95 % intervals, rates per assistant turn (`_rate`) or per tool call, turns and tokens.

    Intervals are Wilson's; of several trials a question they are normal ones of an error clustered by question.

    Episodes that the infrastructure ended are counted apart (`n_infrastructure`) and in nothing else.
    """
    answered = [row for row in rows if row["error_class"] != "infrastructure"]
    n, n_turns = len(answered), sum(row["n_assistant_turns"] for row in answered)
    n_calls = sum(row["n_tool_calls"] for row in answered)
    n_questions = len({row["question_id"] for row in answered})
    metrics: dict[str, Any] = {"n": n, "n_questions": n_questions, "n_infrastructure": len(rows) - n}
    for kind in ("strict", "lenient"):
        metrics |= _accuracy(kind, answered)
    overlaps = [row["f1"] for row in answered if "f1" in row]
    if overlaps:
        metrics["mean_f1"] = sum(overlaps) / len(overlaps)
    classes = Counter(row["error_class"] for row in rows)
    return {
        **metrics,
        "finished_share": sum(row["status"] == "finished" for row in answered) / max(n, 1),
        "format_error_rate": sum(row["n_format_errors"] for row in answered) / max(n_turns, 1),
        "unknown_tool_rate": sum(row["n_unknown_tools"] for row in answered) / max(n_turns, 1),
        "tool_error_rate": sum(row["n_tool_errors"] for row in answered) / max(n_calls, 1),
        "mean_turns": n_turns / max(n, 1),
        "mean_generated_tokens": sum(row.get("n_generated_tokens", 0) for row in answered) / max(n, 1),
        "error_classes": {name: classes[name] for name in ERROR_CLASSES if classes[name]},
    }


def _accuracy(kind: str, rows: Sequence[Row]) -> dict[str, Any]:
    n, n_right = len(rows), sum(row[kind] for row in rows)
    low, high = _interval(kind, rows)
    return {
        f"n_{kind}": n_right,
        f"accuracy_{kind}": n_right / max(n, 1),
        f"accuracy_{kind}_low": low,
        f"accuracy_{kind}_high": high,
    }


def _interval(kind: str, rows: Sequence[Row]) -> tuple[float, float]:
    if not rows:
        return 0.0, 1.0
    of_question: dict[str, list[float]] = {}
    for row in rows:
        of_question.setdefault(row["question_id"], []).append(float(row[kind]))
    trials = list(of_question.values())
    if len(trials) == len(rows):
        return wilson(int(sum(row[kind] for row in rows)), len(rows))
    score = clustered_mean(trials) if len(trials) > 1 else None
    if score is None or score.standard_error == 0:  # all alike: as if each question had been asked once
        return wilson(round(len(trials) * sum(map(sum, trials)) / len(rows)), len(trials))
    return max(0.0, score.low), min(1.0, score.high)


def by_family(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Per family of questions its `n` and strict accuracy with its interval; empty where questions have none."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        if "family" in row and row["error_class"] != "infrastructure":
            families.setdefault(row["family"], []).append(row)
    return [
        {"family": name, "n": len(of_family), **_accuracy("strict", of_family)} for name, of_family in sorted(families.items())
    ]
