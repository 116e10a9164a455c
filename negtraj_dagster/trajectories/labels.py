"""Labels with their provenance: what the record says, what the task says of the answer, what a person decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from negtraj_dagster.schema import Label, digest_json
from negtraj_dagster.tables import digest_rows
from negtraj_dagster.tasks import Task
from negtraj_dagster.trajectories.overrides import Override

LABELS_VERSION = 3
"""recorded: the reward that came with the rollout. task_strict, task_lenient: the task's rule on the answer, read again."""
LABEL_SCHEMA = pl.Schema(
    {
        "rollout_key": pl.String,
        "label": pl.String,
        "scorer": pl.String,
        "scorer_version": pl.String,
        "recorded": pl.Boolean,
        "task_strict": pl.Boolean,
        "task_lenient": pl.Boolean,
        "is_valid_answer": pl.Boolean,
        "answer": pl.String,
        "truth": pl.String,
        "by": pl.String,
        "why": pl.String,
        "style": pl.String,
        "row_unit": pl.String,
        "fact_key": pl.String,
    }
)
"""One rollout's label: who gave it (`scorer`, or `override` with by and why), and what each scorer says."""
VISIBLE = ("task", "question_id", "source", "teacher", "occurrence", "reward", "pred", "gold")
"""What a filter sees of the record besides its conversation, which the rollout's key covers."""
DERIVED = ("label", "style", "answer", "task_strict", "task_lenient", "is_valid_answer", "question_hash", "rule", "judgement")
ASKED_SCHEMA = pl.Schema(dict.fromkeys(("task", "style", "answer", "truth"), pl.String))
LABEL_SCORES = pl.Schema(dict.fromkeys(("task_strict", "task_lenient", "is_valid_answer"), pl.Boolean))
"""What a task says of an answer, and what it goes by."""


@dataclass(frozen=True)
class Labeller:
    """Gives every rollout its label.

    Args:
        scorers: in order; the first that knows decides.
        tasks: by name; a task's version is its scorers'.
        overrides: decisions of people by rollout; they win.
        judgements: rollout_key, judge, score, note.
    """

    scorers: Sequence[str]
    tasks: Mapping[str, Task]
    overrides: Mapping[str, Override]
    judgements: pl.DataFrame

    def identity(self) -> str:
        """Digest of what decides labels besides the rollouts: part of the object's key, not of a row's."""
        decisions = sorted([override.key, override.value, override.by, override.why] for override in self.overrides.values())
        versions = sorted(
            [name, task.version, *([] if task.min_score is None else [task.min_score])] for name, task in self.tasks.items()
        )
        judged = digest_json(self.judgements.rows())
        return digest_json([LABELS_VERSION, list(self.scorers), versions, decisions, judged])

    def label(self, rollouts: pl.DataFrame) -> pl.DataFrame:
        """Add what each scorer says, `label` with its provenance, and `row_unit`: the digest of all that a row file can see.

        A row that nobody can label is `unknown`: neither positive nor negative. A flipped label is a new unit, not a new
        rollout, and a scorer's new version makes new units of the rows that it judges otherwise only.

        Args:
            rollouts: index rows with `answer`, `last_words`, `style`, `rule`, `truth` (JSON text) and `question_hash`.
        """
        bounds = {name: task.min_score for name, task in self.tasks.items() if task.min_score is not None}
        bound = pl.col("task").replace_strict(bounds or {"": None}, default=None, return_dtype=pl.Float64)
        recorded = pl.coalesce("reward", pl.col("score") >= bound)
        scored = self._scored(self._with_unfinished_answers(rollouts)).with_columns(recorded=recorded)
        first = pl.coalesce(*(pl.col(name) for name in self.scorers))
        by = pl.coalesce(*(pl.when(pl.col(name).is_not_null()).then(pl.lit(name)) for name in self.scorers))
        label = (
            pl.when(first).then(pl.lit(Label.POSITIVE.value))
            .when(~first).then(pl.lit(Label.NEGATIVE.value))
            .otherwise(pl.lit(Label.UNKNOWN.value))
        )  # fmt: skip
        versions = {name: str(task.version) for name, task in self.tasks.items()}
        version = pl.col("task").replace_strict(versions, default="", return_dtype=pl.String)
        labelled = scored.with_columns(label=label, scorer=by.fill_null("none"))
        is_task = pl.col("scorer").str.starts_with("task_")
        labelled = labelled.with_columns(scorer_version=pl.when(is_task).then(version).otherwise(pl.lit("1")))
        labelled = self._overridden(labelled)
        judged = labelled.join(self._judgement_digests(), on="rollout_key", how="left", maintain_order="left")
        units = digest_rows(judged.select("rollout_key", *DERIVED, *VISIBLE), prefix="row")
        return judged.with_columns(units.alias("row_unit"))

    def _with_unfinished_answers(self, rollouts: pl.DataFrame) -> pl.DataFrame:
        """Answers of agents with tool calls that no terminal call gave: `pred`, or last words that are an answer alone.

        A sentence is judged by nobody: which of its words is the answer the record knows, and its reward.
        """
        unfinished = rollouts.filter(pl.col("answer").is_null() & pl.col("last_words").is_not_null())
        rows = [
            (task, words, self._is_answer(task, words))
            for task, words in unfinished.select("task", "last_words").unique().rows()
        ]
        schema = {"task": pl.String, "last_words": pl.String, "is_answer": pl.Boolean}
        judged = rollouts.join(
            pl.DataFrame(rows, schema=schema, orient="row"), on=["task", "last_words"], how="left", maintain_order="left"
        )
        words = pl.when(pl.col("is_answer")).then(pl.col("last_words"))
        pred = pl.when((pl.col("style") != "react") & (pl.col("pred").str.strip_chars() != "")).then(pl.col("pred"))
        return judged.with_columns(answer=pl.coalesce("answer", pred, words)).drop("last_words", "is_answer")

    def _is_answer(self, name: str, words: str) -> bool:
        task = self.tasks.get(name)
        return task is not None and task.scores_answers and task.is_valid_answer(words)

    def _scored(self, rollouts: pl.DataFrame) -> pl.DataFrame:
        """Each (task, style, answer, truth) is scored once."""
        answers = rollouts.select(*ASKED_SCHEMA).unique()
        rows = [(*row, *self._verdict(*row)) for row in answers.rows()]
        table = pl.DataFrame(rows, schema={**ASKED_SCHEMA, **LABEL_SCORES}, orient="row")
        return rollouts.join(table, on=list(ASKED_SCHEMA), how="left", nulls_equal=True, maintain_order="left")

    def _verdict(
        self, name: str, style: str, answer: str | None, truth: str | None
    ) -> tuple[bool | None, bool | None, bool | None]:
        """What the task says of an answer: `LABEL_SCORES`."""
        task = self.tasks.get(name)
        if answer is None or task is None or not task.scores_answers:
            return None, None, None
        plain = task.plain_answer(answer) if style == "native" else answer
        is_valid = task.is_valid_answer(plain)
        if truth is None:
            return None, None, is_valid
        try:
            score = task.score(plain, truth)
        except (ValueError, TypeError):  # a recorded gold that is no answer of this task
            return None, None, is_valid
        return score.strict, score.lenient, is_valid

    def _overridden(self, labelled: pl.DataFrame) -> pl.DataFrame:
        rows = [
            (key, override.value, "override", "1", override.by, override.why)
            for key, override in sorted(self.overrides.items())
        ]
        names = ("rollout_key", "label", "scorer", "scorer_version", "by", "why")
        table = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
        return labelled.with_columns(by=pl.lit(None, pl.String), why=pl.lit(None, pl.String)).update(
            table, on="rollout_key", how="left"
        )

    def _judgement_digests(self) -> pl.DataFrame:
        rows: dict[str, list[tuple[Any, ...]]] = {}
        for key, *judgement in self.judgements.rows():
            rows.setdefault(key, []).append(tuple(judgement))
        digests = [(key, digest_json(judgement)) for key, judgement in rows.items()]
        return pl.DataFrame(digests, schema={"rollout_key": pl.String, "judgement": pl.String}, orient="row")
