"""What several trials of each question tell: accuracy with an error clustered by question, and pass^k."""

from collections.abc import Mapping, Sequence
from typing import Any

from negtraj_dagster.reports.stats import clustered_mean, pass_at_k, pass_hat_k


def summarize_trials(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean strict accuracy over questions and trials with its clustered standard error and 95 % interval, pass@k and pass^k.

    Trials that the infrastructure ended are left out, and with them the questions that have none left; k goes up to the
    number of trials that every other question has.

    Args:
        rows: scored episodes; several of each question.

    Returns:
        Nothing where fewer than two questions were answered: no error can be told.
    """
    of_question: dict[str, list[bool]] = {}
    for row in rows:
        if row["error_class"] != "infrastructure":
            of_question.setdefault(row["question_id"], []).append(bool(row["strict"]))
    trials = list(of_question.values())
    if len(trials) < 2:
        return {}
    score = clustered_mean(trials)
    n_trials = min(len(of_one) for of_one in trials)
    return {
        "n_questions": len(trials),
        "n_trials": n_trials,
        "mean": score.mean,
        "stderr": score.standard_error,
        "low": score.low,
        "high": score.high,
        **{f"pass@{k}": pass_at_k(trials, k=k) for k in range(1, n_trials + 1)},
        **{f"pass^{k}": pass_hat_k(trials, k=k) for k in range(1, n_trials + 1)},
    }
