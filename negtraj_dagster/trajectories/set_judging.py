"""Asks set-level filters about a task: they see narrow rows, pairs and quotes of all its rollouts, and no text again."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.comparable import COMPARABLE_VERSION
from negtraj_dagster.conversations import read_index
from negtraj_dagster.errors import SqlContractError
from negtraj_dagster.schema import EVALUATION_SPLITS, digest
from negtraj_dagster.store import Published, Store
from negtraj_dagster.tables import frame_digest
from negtraj_dagster.trajectories.judging.asking import Request, Stage, ask_all, verify_all
from negtraj_dagster.trajectories.judging.judge import Job, Judge, Judged, filter_jobs, verdict_rows
from negtraj_dagster.trajectories.judging.loading import SHOWN, load_set_tables, show_only, show_questions
from negtraj_dagster.trajectories.judging.rules import TaskRule, token_limits
from negtraj_dagster.trajectories.judging.units import Units, set_units
from negtraj_dagster.trajectories.labels import LABEL_SCHEMA
from negtraj_dagster.trajectories.likeness import QuoteIndex, pair_rollouts
from negtraj_dagster.trajectories.score import UNSEEN, Scoring


@dataclass(frozen=True)
class CorpusInputs:
    """What a corpus is made of."""

    raw: Published
    scored: Published
    questions: Published


@dataclass(frozen=True)
class TaskRows:
    """A task's rollouts as set-level filters see them.

    Attributes:
        rollouts: with labels, in order of arrival.
        pairs: of rollouts whose texts are alike, both ways round.
        quotes: of evaluation questions.
    """

    rollouts: pl.DataFrame
    pairs: pl.DataFrame
    quotes: pl.DataFrame


def set_filters(registry: sql.Registry) -> list[sql.Filter]:
    """The filters that see more than a row."""
    return [file for file in sql.filter_variants(registry) if not file.is_of_rows]


class SetJudge:
    """A task's set-level filters, asked about what is new."""

    def __init__(self, store: Store, inputs: CorpusInputs, rule: TaskRule, scoring: Scoring) -> None:
        self.store, self.inputs, self.rule, self.scoring = store, inputs, rule, scoring
        self.questions = self._read(inputs.questions, "questions").filter(pl.col("task") == rule.task)
        self.quote_index = QuoteIndex(store, self.questions)

    def read_rollouts(self) -> pl.DataFrame:
        """The task's rollouts with labels, in order of arrival."""
        rollouts = read_index(self.store, self.inputs.raw, without=(*UNSEEN, "score"))
        rollouts = rollouts.filter(pl.col("task") == self.rule.task)
        columns = [name for name in LABEL_SCHEMA if name not in ("scorer", "scorer_version", "by", "why")]
        labels = self._read(self.inputs.scored, "labels", columns)
        return rollouts.join(labels, on="rollout_key", how="inner", maintain_order="left")

    def compare(self, rollouts: pl.DataFrame) -> TaskRows:
        """The rollouts with what they resemble and quote."""
        raw, questions = self.inputs.raw, self.inputs.questions
        pairs = pair_rollouts(self.store, raw, questions, self.scoring, rollouts)
        return TaskRows(rollouts, pairs, self.quote_index.quotes(raw, rollouts))

    def load(self, session: sql.Session, rows: TaskRows, keys: pl.DataFrame) -> None:
        """Load what any of the filters sees of these rollouts (rollout_key)."""
        signatures = self._read(self.inputs.scored, "signatures")
        load_set_tables(
            session,
            rows.rollouts.join(keys, on="rollout_key", how="semi", maintain_order="left"),
            signatures=signatures.join(keys, on="rollout_key", how="semi"),
            pairs=rows.pairs.join(keys, on="rollout_key", how="semi"),
            quotes=rows.quotes.join(keys, on="rollout_key", how="semi"),
            rule=self.rule,
            questions=self.questions,
        )

    def ask(self, session: sql.Session, rows: TaskRows, filters: Sequence[sql.Filter]) -> tuple[Judged, list[pl.DataFrame]]:
        """All answers of the filters, and their verdicts; only what is new is asked."""
        jobs = self._jobs(rows, filters)
        judge = Judge(self.store)
        self.ask_about(session, judge, rows, [(job, judge.missing(job)) for job in jobs])
        judged = judge.finish(jobs)
        verdicts = []
        for job in jobs:
            assert isinstance(job.file, sql.Filter)
            answers = judged.answers.pop(job.name)
            _check_earlier(job.file, answers, rows.rollouts)
            verdicts.append(verdict_rows(job.file, answers, rows.rollouts))
        return judged, verdicts

    def ask_about(
        self, session: sql.Session, judge: Judge, rows: TaskRows, missing: Sequence[tuple[Job, pl.DataFrame]]
    ) -> None:
        """Ask each file about its rows, and a second time about a few of them."""

        def visible_to(job: Job, units: pl.DataFrame) -> pl.Series:
            return _visible(job.scope, units, rows)["rollout_key"]

        requests = [Request(job, units, visible_to(job, units)) for job, units in missing if units.height]
        if not requests:
            return
        self.load(session, rows, pl.concat([request.visible for request in requests]).unique().to_frame())
        stage = Stage(
            session,
            show=lambda keys: show_only(session, SHOWN, keys),
            prepare=lambda job: show_questions(session, has_held_out=job.scope == "reference"),
        )
        mark = ask_all(judge, stage, requests)
        verify_all(judge, stage, mark, requests, visible_to)

    def _jobs(self, rows: TaskRows, filters: Sequence[sql.Filter]) -> list[Job]:
        held_out_rows = self.questions.filter(pl.col("split").is_in(EVALUATION_SPLITS))
        held_out = frame_digest(held_out_rows.drop("facts", "prompt", strict=False))
        units = set_units((filter_.scope for filter_ in filters), rows.rollouts, rows.pairs, rows.quotes, held_out)
        also_read = {"max_tokens": token_limits([self.rule]), "words": str(COMPARABLE_VERSION)}

        def units_of(file: sql.Filter) -> Units:
            of_scope = units[file.scope]
            identities = [identity for name, identity in also_read.items() if file.reads(name)]
            return Units(of_scope.keys, digest(of_scope.context, *identities)) if identities else of_scope

        return filter_jobs(filters, units_of)

    def _read(self, published: Published, name: str, columns: list[str] | None = None) -> pl.DataFrame:
        return pl.read_parquet(self.store.file(published.folder, f"{name}.parquet"), columns=columns, glob=False)


def _visible(scope: str, missing: pl.DataFrame, rows: TaskRows) -> pl.DataFrame:
    """What a filter sees (rollout_key): the rows to be judged, with those of their questions, or that resemble them."""
    rollouts = rows.rollouts
    keys = missing.select("rollout_key")
    if missing.height in (0, rollouts.height):
        return keys.sort("rollout_key")
    if scope == "group":
        questions = rollouts.join(keys, on="rollout_key", how="semi").select("task", "question_id").unique()
        keys = rollouts.join(questions, on=["task", "question_id"], how="semi").select("rollout_key")
    elif scope == "corpus":
        keys = rollouts.select("rollout_key")
    elif scope == "pairs":
        near = rows.pairs.join(keys, on="rollout_key", how="semi").select(rollout_key="other_key")
        keys = pl.concat([keys, near]).unique()
    return keys.sort("rollout_key")


def _check_earlier(file: sql.SqlFile, hits: pl.DataFrame, rollouts: pl.DataFrame) -> None:
    """Refuse an `earlier_key` that is no earlier rollout: it would drop nothing, or the rows that it should re-admit."""
    order = rollouts.select("rollout_key", "ingest_seq")
    twins = hits.drop_nulls("earlier_key").join(order, on="rollout_key", how="inner")
    twins = twins.join(order.rename({"rollout_key": "earlier_key", "ingest_seq": "earlier_seq"}), on="earlier_key", how="left")
    wrong = twins.filter(~(pl.col("earlier_seq") < pl.col("ingest_seq")).fill_null(value=False))
    if wrong.height:
        raise SqlContractError(
            f"{file.path}: names {wrong['earlier_key'][0]!r} as the earlier twin of {wrong['rollout_key'][0]}; none of the "
            f"task's rollouts that came earlier has this key: compare ingest_seq"
        )
