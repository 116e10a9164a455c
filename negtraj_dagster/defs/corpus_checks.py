"""Asset checks of a corpus: what a person would want to hear of it before anything is selected; none of them stops a run."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import polars as pl

from negtraj_dagster.defs.check_results import judged, without_data
from negtraj_dagster.defs.resources import Workspace
from negtraj_dagster.defs.versions import table
from negtraj_dagster.sql import DEFAULT_PROFILE
from negtraj_dagster.store import Published

MAX_DROP_JUMP = 0.1
MIN_CLASS_SHARE = 0.05
MAX_SHORTCUT = 0.3
MAX_UNKNOWN_QUESTIONS = 0.05
MIN_SOURCE_ROWS = 3
N_EXAMPLES = 5


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
                return without_data(corpus)
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
            "No filter drops two rollouts or more that are over half of a class, and none that dropped something has stopped.",
            _plausible,
            "filters_are_plausible",
        ),
        checked("Every line of overrides.csv and judgements.csv fits a rollout.", _overrides_fit, "overrides_fit"),
        checked(
            f"At most {MAX_UNKNOWN_QUESTIONS:.0%} of the rollouts ask a question that no question set has.",
            _questions_known,
            "questions_are_known",
        ),
    ]


def _warn(*, passed: bool, remedy: str, **numbers: Any) -> dg.AssetCheckResult:
    return judged(passed=passed, remedy=remedy, severity=dg.AssetCheckSeverity.WARN, numbers=numbers)


def _questions_known(workspace: Workspace, corpus: Published) -> dg.AssetCheckResult:
    tables = (workspace.store.file(corpus.folder, f"{name}.parquet") for name in ("verdicts", "corpus"))
    verdicts, rows = (pl.read_parquet(file, glob=False) for file in tables)
    unknown = verdicts.filter(pl.col("filter") == "unknown_question").select("rollout_key").unique()
    unknown_rows = rows.join(unknown, on="rollout_key", how="semi")
    share = unknown_rows.height / max(rows.height, 1)
    examples = ", ".join(unknown_rows["question_id"].unique(maintain_order=True).head(N_EXAMPLES).to_list()) or "none"
    task = corpus.asset.partition("/")[2]
    remedy = (
        f"these rollouts are dropped: their question_id is in no split of the task {task}. Give them the ids of its question "
        f"set (the view `questions` of catalog.duckdb has them), or land them under the task they belong to"
    )
    numbers = {"n_unknown": unknown_rows.height, "share": share, "limit": MAX_UNKNOWN_QUESTIONS, "examples": examples}
    if lost := _lost_sources(rows, unknown_rows):
        numbers["sources_without_a_known_question"] = ", ".join(lost[:N_EXAMPLES])
    return judged(passed=share <= MAX_UNKNOWN_QUESTIONS and not lost, remedy=remedy, numbers=numbers)


def _lost_sources(rows: pl.DataFrame, unknown_rows: pl.DataFrame) -> list[str]:
    """Sources that ask unknown questions alone: a small one would not show in the share of the whole task."""
    counts = rows.group_by("source").len("n").join(unknown_rows.group_by("source").len("n_unknown"), on="source")
    is_lost = (pl.col("n") >= MIN_SOURCE_ROWS) & (pl.col("n_unknown") == pl.col("n"))
    return [source or "(no source)" for source in counts.filter(is_lost)["source"].sort().to_list()]


def _drop_rate(workspace: Workspace, corpus: Published) -> dg.AssetCheckResult:
    previous = workspace.store.before(corpus.asset)
    before = previous.details if previous else None
    rates = {name: numbers["drop_rate"] for name, numbers in corpus.details["profiles"].items()}
    earlier = {name: numbers["drop_rate"] for name, numbers in (before or {}).get("profiles", {}).items() if name in rates}
    jumps = {name: rates[name] - rate for name, rate in earlier.items()}
    is_passed = all(abs(jump) <= MAX_DROP_JUMP for jump in jumps.values())
    numbers = {f"drop_rate_{name}": rate for name, rate in rates.items()} | {
        f"jump_{name}": jump for name, jump in jumps.items()
    }
    remedy = "`negtraj diff previous current` says which rollouts flipped, and by whose doing"
    compared = "the run before" if before else "nothing: the first run"
    return _warn(passed=is_passed, remedy=remedy, compared_with=compared, **numbers)


def _class_balance(workspace: Workspace, corpus: Published) -> dg.AssetCheckResult:
    labels = corpus.details["labels"]
    n_labelled = labels["positive"] + labels["negative"]
    share = min(labels["positive"], labels["negative"]) / n_labelled if n_labelled else 0.0
    remedy = "a model learns little of a class this small: collect more of it, or repeat it (selection.repeat_positives)"
    return _warn(passed=share >= MIN_CLASS_SHARE, remedy=remedy, share_of_smaller_class=share, limit=MIN_CLASS_SHARE, **labels)


def _shortcut(workspace: Workspace, corpus: Published) -> dg.AssetCheckResult:
    shortcut = corpus.details["answer_shortcut"]
    return _warn(
        passed=shortcut["difference"] <= MAX_SHORTCUT,
        remedy="a model can tell the classes by the answer alone: balance the answers of the landed rollouts",
        limit=MAX_SHORTCUT,
        **shortcut,
        answers=table(corpus.details["answers"]),
        gold_answers=table(corpus.details["gold_answers"]),
    )


def _plausible(workspace: Workspace, corpus: Published) -> dg.AssetCheckResult:
    """Of the default profile: which filters drop over half of a class (and two or more), and which have stopped."""
    rows, labels = _funnel(corpus.details), corpus.details["labels"]
    dropping = {name: row for name, row in rows.items() if row["severity"] == "drop"}
    classes = [label for label in ("positive", "negative") if labels[label]]
    greedy = [
        f"{name}: {row[f'n_{label}']} of {labels[label]} {label}"
        for name, row in dropping.items()
        for label in classes
        if row[f"n_{label}"] > max(labels[label] / 2, 1)
    ]
    previous = workspace.store.before(corpus.asset)
    earlier = _funnel(previous.details if previous else {})
    silent = [name for name, row in dropping.items() if not _n_hits(row)]
    stopped = [name for name in silent if name in earlier and _n_hits(earlier[name])]
    return _warn(
        passed=not greedy and not stopped,
        remedy="`negtraj list --dropped-by FILTER` names the rollouts; docs/quality.md says how to change a filter",
        over_half=", ".join(greedy) or "none",
        stopped=", ".join(stopped) or "none",
        without_hits=", ".join(silent) or "none",
    )


def _overrides_fit(workspace: Workspace, corpus: Published) -> dg.AssetCheckResult:
    unmatched = workspace.store.require("scored_trajectories").details["unmatched"]
    remedy = "mend or delete these lines; `negtraj list` names the keys that there are"
    return _warn(passed=not unmatched, remedy=remedy, unmatched="; ".join(unmatched[:20]) or "none", n_unmatched=len(unmatched))


def _funnel(details: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    profiles = details.get("profiles", {})
    numbers: Mapping[str, Any] = profiles.get(DEFAULT_PROFILE) or next(iter(profiles.values()), {"funnel": []})
    return {row["filter"]: row for row in numbers["funnel"]}


def _n_hits(row: Mapping[str, Any]) -> int:
    return int(row["n_positive"] + row["n_negative"])
