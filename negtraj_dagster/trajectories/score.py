"""The stage `scored_trajectories`: labels, per-rollout verdicts and scores of every rollout."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.conversations import iter_conversations, read_index
from negtraj_dagster.errors import SqlContractError
from negtraj_dagster.schema import EVALUATION_SPLITS, digest_json
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tables import RowCache, frame_digest
from negtraj_dagster.tasks import Task
from negtraj_dagster.tasks.recorded import UNKNOWN_ANSWER
from negtraj_dagster.trajectories.judging.asking import ask_all, own_rows, row_request, row_stage, verify_all
from negtraj_dagster.trajectories.judging.contract import check_registry
from negtraj_dagster.trajectories.judging.judge import Job, Judge, Judged, applicable, filter_jobs, verdict_rows
from negtraj_dagster.trajectories.judging.loading import load_conversations, load_row_tables, make_model
from negtraj_dagster.trajectories.judging.rules import TaskRule, token_limits
from negtraj_dagster.trajectories.judging.units import Units, row_units
from negtraj_dagster.trajectories.labels import LABEL_SCHEMA, Labeller
from negtraj_dagster.trajectories.overrides import Decisions, read_decisions
from negtraj_dagster.trajectories.signatures import KEPT_SKETCH_SCHEMA, SKETCH_IDENTITY, sketch

SCORED_VERSION = 2
"""Rises when labels, verdicts or scores come out differently from the same rollouts and the same SQL."""
CHUNK_BYTES = 48_000_000
"""Conversation text in DuckDB at a time: bounds memory, whatever the corpus."""
KEPT_ROWS = 100_000
"""Rollouts after which what was found is published: bounds memory, and a run that is killed begins there again."""
FACT_SCHEMA = pl.Schema(
    {
        "fact_key": pl.String,
        "rollout_key": pl.String,
        "style": pl.String,
        "answer": pl.String,
        "last_words": pl.String,
        "text_hash": pl.String,
        "actions_hash": pl.String,
    }
)
"""What is known of a rollout before it has a label: how the agent spoke, what it answered, hashes of what it said and did."""


UNSEEN = ("origin_file", "origin_place", "subject", "session", "licence", "origin_url", "parent", "question_group")
"""Columns of the index that neither labels nor SQL files look at."""
JUDGED_COLUMNS = ("ingest_seq", "task", *LABEL_SCHEMA)
"""What is still asked of a rollout once it is judged."""


@dataclass(frozen=True)
class Scoring:
    """What the stage works with, besides the rollouts.

    Attributes:
        registry: the SQL files.
        rules: task -> what SQL files know of it.
        tasks: task -> its scoring rule.
        scorers: whose word on an outcome counts, in order.
        limits: of one query.
    """

    registry: sql.Registry
    rules: Mapping[str, TaskRule]
    tasks: Mapping[str, Task]
    scorers: Sequence[str]
    limits: sql.Limits

    @cached_property
    def filters(self) -> list[sql.Filter]:
        """Row filters, each variant that a profile uses."""
        return [file for file in sql.filter_variants(self.registry) if file.is_of_rows]

    def fact_table(self) -> str:
        """Name of the cache of facts: another one when what makes them changes."""
        return f"facts/{self._identity('outcomes', 'signatures')}"

    def sketch_table(self) -> str:
        """Name of the cache of sketches."""
        return f"sketches/{self._identity('texts')}"

    def _identity(self, *names: str) -> str:
        return digest_json([SKETCH_IDENTITY, *(self.registry.model(name).version for name in names)])[:16]


def score_rollouts(store: Store, raw: Published, questions: Published, scoring: Scoring) -> Published:
    """Labels, row verdicts and scores of every rollout.

    Args:
        store: where the row caches live.
        raw: the present `raw_rollouts`.
        questions: the present `question_sets`.
        scoring: SQL files, task rules and scorers.

    Raises:
        SqlContractError: a SQL file breaks its contract, or fails; what the others said is kept.
        SettingsError: a line of overrides.csv or judgements.csv is wrong.
    """
    decisions, labeller = _decisions(store, raw, scoring)
    files = (*scoring.filters, *scoring.registry.scores)
    asked_digests = {name: task["asked"] for name, task in questions.content["tasks"].items()}
    made_of = {
        "code": SCORED_VERSION,
        "raw_rollouts": raw.version,
        "labels": labeller.identity(),
        "decisions": frame_digest(decisions.drops_and_keeps()),
        "sketches": SKETCH_IDENTITY,
        "questions": digest_json(asked_digests),
        "tasks": digest_json({name: rule.identity() for name, rule in sorted(scoring.rules.items())}),
        "token_limits": token_limits(scoring.rules.values()) if any(file.reads("max_tokens") for file in files) else "",
        **{f"model/{name}": scoring.registry.model(name).version for name in ("outcomes", "signatures", "texts")},
        **{f"sql/{file.name}/{file.version[:8]}": answers_digest(file) for file in files},
    }
    return store.build(
        "scored_trajectories", made_of, lambda folder: _Stage(store, raw, questions, scoring, labeller, decisions).write(folder)
    )


def _decisions(store: Store, raw: Published, scoring: Scoring) -> tuple[Decisions, Labeller]:
    """What people decided of the rollouts, and the labeller that goes by it."""
    decisions = read_decisions(store, read_index(store, raw)["rollout_key"], (file.name for file in scoring.registry.filters))
    return decisions, Labeller(tuple(scoring.scorers), scoring.tasks, decisions.labels(), decisions.judgements)


def restore_facts(store: Store, raw: Published, questions: Published, scoring: Scoring) -> None:
    """Make facts and sketches again that the present `scored_trajectories` had and that are gone from the store.

    They are no part of that object, so that nothing else would notice that they were damaged or lost.
    """
    decisions, labeller = _decisions(store, raw, scoring)
    stage = _Stage(store, raw, questions, scoring, labeller, decisions)
    stage.restore()


def answers_digest(file: sql.SqlFile) -> str:
    """Digest of a file's answers and of what they are called: reason, severity, weight."""
    return digest_json([file.version, file.header.model_dump(mode="json", exclude={"doc", "params"})])


def asked_rollouts(
    store: Store, raw: Published, questions: Published, rules: Mapping[str, TaskRule], *, without: Collection[str] = ()
) -> pl.DataFrame:
    """All rollouts with their task's rule and their question, which is null where it is held out or unknown.

    For `without` see `read_index`.
    """
    table = pl.read_parquet(store.file(questions.folder, "questions.parquet"), glob=False)
    open_questions = table.filter(~pl.col("split").is_in(EVALUATION_SPLITS)).unique(["task", "question_id"], keep="first")
    answer = pl.when(pl.col("answer") != UNKNOWN_ANSWER).then("answer")
    open_questions = open_questions.select("task", "question_id", "question", "facts", "question_hash", answer)
    identities = {name: rule.identity() for name, rule in rules.items()}
    index = read_index(store, raw, without=without).with_columns(
        rule=pl.col("task").replace_strict(identities, default="", return_dtype=pl.String)
    )
    index = index.join(open_questions, on=["task", "question_id"], how="left", maintain_order="left")
    fact_key = pl.concat_str("rollout_key", pl.col("rule").str.slice(0, 8))
    return index.with_columns(truth=pl.coalesce("answer", "gold"), fact_key=fact_key).drop("answer")


class _Stage:
    def __init__(
        self, store: Store, raw: Published, questions: Published, scoring: Scoring, labeller: Labeller, decisions: Decisions
    ) -> None:
        self.store, self.raw, self.scoring, self.labeller, self.decisions = store, raw, scoring, labeller, decisions
        asked = asked_rollouts(store, raw, questions, scoring.rules, without=UNSEEN)
        self.questions = asked.select("task", "question_id", "question", "facts").unique(["task", "question_id"])
        self.index = asked.drop("question", "facts")  # texts that stand in many rows are given to a chunk's alone
        self.facts = RowCache(store, scoring.fact_table(), "fact_key", FACT_SCHEMA)
        self.sketches = RowCache(store, scoring.sketch_table(), "fact_key", KEPT_SKETCH_SCHEMA)
        self.judge = Judge(store)
        self.is_verified = False
        self.keeps_answers = True

    def write(self, folder: Path) -> Built:
        facts = self.facts.rows(self.index)
        labelled_before = self._label(facts)
        labelled_now = self._read_new(labelled_before)
        labelled = pl.concat([labelled_before.select(JUDGED_COLUMNS), *labelled_now]).sort("ingest_seq")
        jobs = self._jobs(row_units(labelled))
        judged = self.judge.finish(jobs)
        judged.work["conversations_read"] = self.n_read
        return self._built(folder, labelled, jobs, judged)

    def restore(self) -> None:
        """Read the rollouts whose facts or sketches are gone; what files say meanwhile is not kept."""
        self.keeps_answers = False
        self._read_new(self._label(self.facts.rows(self.index)))

    def _label(self, facts: pl.DataFrame) -> pl.DataFrame:
        """Rollouts whose facts are known, in order of arrival, with labels."""
        known_facts = facts.drop("rollout_key", "text_hash", "actions_hash")
        return self.labeller.label(self.index.join(known_facts, on="fact_key", how="inner", maintain_order="left"))

    def _jobs(self, units: Units) -> list[Job]:
        limits = Units(units.keys, token_limits(self.scoring.rules.values()))

        def of(file: sql.SqlFile) -> Units:
            return limits if file.reads("max_tokens") else units

        return [
            *filter_jobs(self.scoring.filters, of),
            *(Job("scores", score, of(score)) for score in self.scoring.registry.scores),
        ]

    def _read_new(self, known: pl.DataFrame) -> list[pl.DataFrame]:
        """Read the conversations that some file has not seen, and ask the files; the labels of those that had none."""
        keys = self.index.select("rollout_key", "fact_key")
        lacking = pl.concat([self.facts.missing(keys), self.sketches.missing(keys)]).unique("rollout_key")
        missing = {job.name: self.judge.missing(job) for job in self._jobs(row_units(known))}
        needed = pl.concat([lacking, *missing.values()], how="diagonal").select("rollout_key").unique()
        rows = self.index.join(needed, on="rollout_key", how="semi", maintain_order="left")
        self.n_read = rows.height
        new_labels: list[pl.DataFrame] = []
        facts: list[tuple[pl.DataFrame, pl.DataFrame]] = []
        n_unkept = 0
        with sql.Session(self.scoring.limits) as session:
            check_registry(self.scoring.registry, session)
            for texts in self._texts(rows):
                chunk = rows.join(texts, on="base_key", how="inner", maintain_order="left")
                labelled, chunk_facts = self._read_chunk(session, chunk, lacking, known, missing)
                new = labelled.join(known, on="rollout_key", how="anti", maintain_order="left")
                new_labels.append(new.select(JUDGED_COLUMNS))
                facts.append(chunk_facts)
                n_unkept += chunk.height
                if n_unkept >= KEPT_ROWS:
                    self._keep(facts)
                    session.renew()
                    facts, n_unkept = [], 0
        self._keep(facts)
        return new_labels

    def _keep(self, facts: Sequence[tuple[pl.DataFrame, pl.DataFrame]]) -> None:
        for cache, frames in zip((self.facts, self.sketches), zip(*facts, strict=True), strict=bool(facts)):
            if (new := cache.missing(pl.concat(frames))).height:
                cache.add(new["fact_key"], new)
        if self.keeps_answers:
            self.judge.keep(self._jobs(Units(pl.DataFrame())))  # not made at import: a fork would hang on polars' threads

    def _texts(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        if rows.height:
            yield from iter_conversations(self.store, self.raw, rows["base_key"], max_bytes=CHUNK_BYTES)

    def _read_chunk(
        self,
        session: sql.Session,
        chunk: pl.DataFrame,
        lacking: pl.DataFrame,
        known: pl.DataFrame,
        missing: Mapping[str, pl.DataFrame],
    ) -> tuple[pl.DataFrame, tuple[pl.DataFrame, pl.DataFrame]]:
        """Ask all files about some rollouts; their labels, and the facts and sketches of those that had none."""
        load_conversations(session, chunk, self.scoring.rules.values())
        keys = chunk.select("rollout_key")
        new = lacking.join(keys, on="rollout_key", how="semi")
        models = self._models(has_new=new.height > 0)
        make_model(session, models)
        facts, sketches = FACT_SCHEMA.to_frame(), KEPT_SKETCH_SCHEMA.to_frame()
        labelled = known.join(keys, on="rollout_key", how="semi")
        if new.height:
            facts, sketches = self._facts(session, new)
            unlabelled = facts.join(labelled, on="rollout_key", how="anti")
            labelled = pl.concat([labelled, self._label(unlabelled)]).sort("ingest_seq")
        asked = labelled.join(self.questions, on=["task", "question_id"], how="left", maintain_order="left", nulls_equal=True)
        load_row_tables(session, asked, self.decisions.judgements)
        tables = ["rollouts", "judgements", *(model.name for model in models)]
        requests = []
        for job in self._jobs(row_units(labelled)):
            unanswered = self.judge.missing(job) if new.height else missing[job.name].join(keys, on="rollout_key", how="semi")
            if unanswered.height:
                requests.append(row_request(job, unanswered))
        stage = row_stage(session, tables, labelled.height)
        mark = ask_all(self.judge, stage, requests)
        if requests and not self.is_verified:
            self.is_verified = True
            verify_all(self.judge, stage, mark, requests, own_rows)
        return labelled, (facts, sketches)

    def _models(self, *, has_new: bool) -> list[sql.SqlFile]:
        registry = self.scoring.registry
        if has_new:
            return [registry.model(name) for name in sql.MODEL_ORDER]
        jobs = [*self.scoring.filters, *registry.scores]
        names = {model.name for job in jobs for model in registry.model_files(job)}
        return [registry.model(name) for name in sql.MODEL_ORDER if name in names]

    def _facts(self, session: sql.Session, new: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        outcomes = session.query("select rollout_key, style, answer, last_words from outcomes")
        signed = session.query("select rollout_key, text_hash, actions_hash from signatures")
        texts = session.query("select rollout_key, text from texts")
        facts = (
            new.select("fact_key", "rollout_key")
            .join(outcomes, on="rollout_key", how="left")
            .join(signed, on="rollout_key", how="left")
        )
        if (without_outcome := facts.filter(pl.col("style").is_null())).height:
            raise SqlContractError(
                f"{self.scoring.registry.model('outcomes').path}: no row for rollout {without_outcome['rollout_key'][0]}"
            )
        texts_by_key = new.select("fact_key", "rollout_key").join(texts, on="rollout_key", how="inner")
        sketches = sketch(texts_by_key["text"]).with_columns(texts_by_key["fact_key"]).select(KEPT_SKETCH_SCHEMA.names())
        silent = facts.join(texts_by_key, on="fact_key", how="anti").select("fact_key", sketch=None, bands=None)
        return facts.select(FACT_SCHEMA.names()), pl.concat([sketches, silent.cast(KEPT_SKETCH_SCHEMA)])  # type: ignore[arg-type]

    def _built(self, folder: Path, labelled: pl.DataFrame, jobs: Sequence[Job], judged: Judged) -> Built:
        verdicts = [
            verdict_rows(job.file, judged.answers.pop(job.name), labelled) for job in jobs if isinstance(job.file, sql.Filter)
        ]
        scores = [_score_rows(job, judged.answers.pop(job.name), labelled) for job in jobs if isinstance(job.file, sql.Score)]
        signatures = self.facts.rows(self.index).select("rollout_key", "text_hash", "actions_hash").drop_nulls("text_hash")
        tables = {
            "verdicts": pl.concat(verdicts).sort("rollout_key", "filter", "version", "step", "detail"),
            "scores": pl.concat(scores).sort("rollout_key", "score_name"),
            "signatures": signatures.sort("rollout_key"),
            "labels": labelled.select(LABEL_SCHEMA.names()),
            "decisions": self.decisions.drops_and_keeps(),
        }
        for name, table in tables.items():
            table.rechunk().write_parquet(folder / f"{name}.parquet")
        caches = [
            *judged.caches,
            *(self.store.name(segment) for cache in (self.facts, self.sketches) for segment in cache.segments()),
        ]
        return Built(
            content={**{name: frame_digest(table) for name, table in tables.items()}, "n_rollouts": labelled.height},
            details={
                "raw_version": self.raw.version,
                "n_verdicts": tables["verdicts"].height,
                "hits": _hits(tables["verdicts"], labelled),
                "labels": _count(labelled, "task", "label", "scorer"),
                "styles": _count(labelled, "task", "style"),
                "unmatched": list(self.decisions.unmatched),
                "n_overrides": len(self.decisions.overrides),
                "replaced_sql": [list(pair) for pair in self.scoring.registry.replaced],
            },
            work=judged.work,
            caches=tuple(caches),
        )


def _score_rows(job: Job, answers: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    assert isinstance(job.file, sql.Score)
    concerned = applicable(job.file, labelled)
    if concerned.height < labelled.height:
        answers = answers.join(concerned.select("rollout_key"), on="rollout_key", how="semi")
    return answers.select("rollout_key", pl.lit(job.file.name).alias("score_name"), "score")


def _count(rows: pl.DataFrame, *by: str) -> list[dict[str, Any]]:
    return rows.group_by(by).len("n_rollouts").sort(by).to_dicts()


def _hits(verdicts: pl.DataFrame, rollouts: pl.DataFrame) -> list[dict[str, object]]:
    counts = (
        verdicts.select("rollout_key", "filter", "reason", "severity")
        .unique()
        .join(rollouts.select("rollout_key", "task", "label"), on="rollout_key")
        .group_by("task", "filter", "reason", "severity", "label")
        .len("n_rollouts")
        .sort("task", "filter", "label")
    )
    return counts.to_dicts()
