"""One task's corpus: its rollouts with questions joined, set-level verdicts, quality and funnel under every profile."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.comparable import COMPARABLE_VERSION, read_json_texts
from negtraj_dagster.conversations import iter_conversations, read_conversations, read_index
from negtraj_dagster.errors import SqlContractError, StoreError
from negtraj_dagster.schema import EVALUATION_SPLITS, digest
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tables import RowCache, frame_digest
from negtraj_dagster.trajectories.contract import check_registry
from negtraj_dagster.trajectories.funnel import answer_shortcut, answers_by_class, funnel_of, per_source
from negtraj_dagster.trajectories.judge import N_VERIFIED, VERDICT_SCHEMA, Job, Judge, Judged, filter_jobs, verdict_rows
from negtraj_dagster.trajectories.loading import SHOWN, load_set_tables, show_only, show_questions
from negtraj_dagster.trajectories.quality import profile_qualities, profile_verdicts
from negtraj_dagster.trajectories.rules import TaskRule, token_limits
from negtraj_dagster.trajectories.score import Scoring, restore_facts, said_of
from negtraj_dagster.trajectories.signatures import (
    KEPT_SKETCH_SCHEMA,
    QUOTE_SCHEMA,
    QUOTE_TYPES,
    QUOTES_IDENTITY,
    SKETCH_IDENTITY,
    find_pairs,
    find_quotes,
)
from negtraj_dagster.trajectories.units import Units, set_units

LOG = logging.getLogger(__name__)

CORPUS_VERSION = 2
"""Rises when the corpus comes out differently from the same rollouts, verdicts and SQL."""
ALWAYS_DROPPING = {
    "unknown_question": "its question is in no question set",
    "evaluation_question": "its question is held out for evaluation",
    "override": "a person dropped it",
}
"""Verdicts of this module, with their reasons; every profile drops them."""
OVERRULED = "overruled"
"""Severity of a verdict that a person set aside (`keep` in overrides.csv)."""
N_SAMPLES = 5
QUOTE_CHUNK_BYTES = 64_000_000
CORPUS_COLUMNS = (
    "rollout_key",
    "ingest_seq",
    "question_id",
    "split",
    "question_hash",
    "source",
    "teacher",
    "label",
    "style",
    "answer",
    "gold",
    "base_key",
)
QUOTE_KEY_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {"base_key": pl.String, **QUOTE_TYPES}
QUOTE_KEY_SCHEMA = pl.Schema(QUOTE_KEY_TYPES)
SAMPLE_COLUMNS = ("filter", "reason", "rollout_key", "question_id", "label", "source", "step", "detail", "conversation")


@dataclass(frozen=True)
class Made:
    """What a corpus is made of."""

    raw: Published
    scored: Published
    questions: Published


def build_corpus(store: Store, made: Made, rule: TaskRule, scoring: Scoring) -> Published:
    """The task's corpus, judging only what is new.

    Args:
        store: where row caches and objects live.
        made: the present `raw_rollouts`, `scored_trajectories` and `question_sets`.
        rule: what SQL files know of the task.
        scoring: the SQL files.

    Raises:
        StoreError: the scores were not made from these rollouts, so some rollouts would pass filters that never saw them.
        SqlContractError: a SQL file breaks its contract, or fails; what the others said is kept.
    """
    if made.scored.details["raw_version"] != made.raw.version:
        raise StoreError("scored_trajectories was made from other rollouts than the present ones; materialize it again first")
    filters = [each for each in sql.filter_variants(scoring.registry) if not each.is_of_rows]
    profiles = sql.load_profiles(scoring.registry)
    made_of = {
        "code": CORPUS_VERSION,
        "raw_rollouts": made.raw.version,
        "scored_trajectories": made.scored.version,
        "questions": made.questions.content["tasks"].get(rule.task, {}).get("rows", "none"),
        "task": rule.identity(),
        "token_limits": token_limits([rule]) if any(each.reads("max_tokens") for each in filters) else "",
        "signatures": [SKETCH_IDENTITY, QUOTES_IDENTITY, COMPARABLE_VERSION],
        "sql/quality": scoring.registry.one("selection", "quality").version,
        **{f"sql/{each.name}/{each.version[:8]}": said_of(each) for each in filters},
        **{f"profile/{name}": profile.identity() for name, profile in profiles.items()},
    }

    def write(folder: Path) -> Built:
        return _Corpus(store, made, rule, scoring, filters, profiles).write(folder)

    return store.build(f"trajectory_corpus/{rule.task}", made_of, write)


def load_task(session: sql.Session, store: Store, made: Made, rule: TaskRule, scoring: Scoring) -> pl.DataFrame:
    """Load what set-level filters see of a task, and lock the session; its rollouts with labels, in order of arrival.

    Texts that were not searched for evaluation questions yet are read, and what is found is kept in the store.
    """
    return _Corpus(store, made, rule, scoring, (), {}).load(session)


class _Corpus:
    def __init__(
        self,
        store: Store,
        made: Made,
        rule: TaskRule,
        scoring: Scoring,
        filters: Sequence[sql.Filter],
        profiles: Mapping[str, sql.Profile],
    ) -> None:
        self.store, self.made, self.rule, self.scoring = store, made, rule, scoring
        self.filters, self.profiles = filters, profiles
        self.questions = self._read(made.questions, "questions").filter(pl.col("task") == rule.task)
        self.caches: list[str] = []

    def write(self, folder: Path) -> Built:
        with sql.Session(self.scoring.limits) as session:
            check_registry(self.scoring.registry, session)
            return self._write(folder, session)

    def _write(self, folder: Path, session: sql.Session) -> Built:
        rollouts = read_index(self.store, self.made.raw).filter(pl.col("task") == self.rule.task)
        if rollouts.is_empty():
            reason = f"no rollouts of task {self.rule.task} have landed, or all are refused"
            return Built(content={"status": "no_data", "reason": reason})
        rollouts = self._labelled(rollouts)
        keys = rollouts.select("rollout_key")
        scores = self._read(self.made.scored, "scores").join(keys, on="rollout_key", how="semi", maintain_order="left")
        row_verdicts = self._read(self.made.scored, "verdicts").join(keys, on="rollout_key", how="semi")
        pairs = self._pairs(rollouts)
        quotes, n_searched = self._quotes(rollouts)
        judged, set_verdicts = self._judge_sets(session, rollouts, pairs, quotes)
        verdicts = pl.concat([row_verdicts, *set_verdicts, *_question_verdicts(rollouts, self.questions)])
        verdicts = self._overruled(verdicts, rollouts).sort("rollout_key", "filter", "version", "step", "earlier_key", "detail")
        asked = self.questions.select("question_id", "split", "question_hash").unique("question_id", keep="first")
        corpus = rollouts.join(asked, on="question_id", how="left").select(CORPUS_COLUMNS).sort("ingest_seq")
        qualities = self._qualities(session, keys, verdicts, scores)
        tables = {"corpus": corpus, "verdicts": verdicts, "qualities": qualities, "pairs": pairs, "scores": scores}
        samples = rejected_samples(self.store, self.made.raw, rollouts, verdicts)
        for name, table in (*tables.items(), ("rejected_samples", samples)):
            table.rechunk().write_parquet(folder / f"{name}.parquet")
        judged.work |= {"texts_searched": n_searched}
        return Built(
            content={**{name: frame_digest(table) for name, table in tables.items()}, "n_rollouts": corpus.height},
            details={
                "labels": _count_labels(corpus),
                "answers": answers_by_class(corpus, "answer"),
                "gold_answers": answers_by_class(corpus, "gold"),
                "answer_shortcut": answer_shortcut(corpus),
                "profiles": {name: self._told(profile, corpus, verdicts, qualities) for name, profile in self.profiles.items()},
                "sql": [[str(each.path), each.name, each.version] for each in self.filters],
            },
            work=judged.work,
            caches=(*judged.caches, *self.caches),
        )

    def load(self, session: sql.Session) -> pl.DataFrame:
        """Load what set-level filters see of the task; its rollouts with labels."""
        rollouts = read_index(self.store, self.made.raw).filter(pl.col("task") == self.rule.task)
        rollouts = self._labelled(rollouts)
        pairs = self._pairs(rollouts)
        self._load_sets(session, rollouts.select("rollout_key"), rollouts, pairs, self._quotes(rollouts)[0])
        return rollouts

    def _labelled(self, rollouts: pl.DataFrame) -> pl.DataFrame:
        labels = self._read(self.made.scored, "labels")
        return rollouts.join(labels, on="rollout_key", how="inner", maintain_order="left")

    def _read(self, published: Published, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.store.file(published.folder, f"{name}.parquet"), glob=False)

    def _pairs(self, rollouts: pl.DataFrame) -> pl.DataFrame:
        """Rollouts that resemble each other."""
        cache = RowCache(self.store, self.scoring.sketch_table(), "fact_key", KEPT_SKETCH_SCHEMA)
        sketches = cache.rows(rollouts).unique("fact_key", keep="first")
        if (lost := rollouts.join(sketches, on="fact_key", how="anti")).height:
            LOG.warning("%d rollouts have no sketch in the store any more: made again", lost.height)
            restore_facts(self.store, self.made.raw, self.made.questions, self.scoring)
            sketches = cache.rows(rollouts).unique("fact_key", keep="first")
        rows = rollouts.select("rollout_key", "question_id", "fact_key").join(
            sketches, on="fact_key", how="left", maintain_order="left"
        )
        return find_pairs(rows).sort("rollout_key", "other_key")

    def _quotes(self, rollouts: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """What rollouts hold of the evaluation questions; texts that were not searched yet are read and searched."""
        held_out = self.questions.filter(pl.col("split").is_in(EVALUATION_SPLITS)).sort("question_id")
        identity = digest(
            QUOTES_IDENTITY, *(f"{key} {text}" for key, text in held_out.select("question_id", "question").rows())
        )
        cache = RowCache(self.store, f"quotes/{identity[:16]}", "base_key", QUOTE_KEY_SCHEMA)
        missing = cache.missing(rollouts.select("base_key").unique())
        if held_out.is_empty():
            return QUOTE_SCHEMA.to_frame(), 0
        made = [QUOTE_KEY_SCHEMA.to_frame()]
        for texts in (
            iter_conversations(self.store, self.made.raw, missing["base_key"], max_bytes=QUOTE_CHUNK_BYTES)
            if missing.height
            else ()
        ):
            words = read_json_texts(texts["conversation"])
            found = find_quotes(texts["base_key"], words, held_out["question_id"], held_out["question"])
            made.append(
                found.rename({"rollout_key": "base_key"}).with_columns(rollout_key=pl.lit("")).select(QUOTE_KEY_SCHEMA.names())
            )
        if missing.height:
            cache.add(missing["base_key"], pl.concat(made))
        self.caches += [self.store.name(folder) for folder in cache.segments()]
        known = cache.rows(rollouts).drop("rollout_key")
        joined = rollouts.select("rollout_key", "base_key").join(known, on="base_key", how="inner")
        return joined.select(QUOTE_SCHEMA.names()).sort("rollout_key", "question_id"), missing.height

    def _judge_sets(
        self, session: sql.Session, rollouts: pl.DataFrame, pairs: pl.DataFrame, quotes: pl.DataFrame
    ) -> tuple[Judged, list[pl.DataFrame]]:
        held_out = frame_digest(self.questions.filter(pl.col("split").is_in(EVALUATION_SPLITS)).drop("facts"))
        units = set_units((each.scope for each in self.filters), rollouts, pairs, quotes, held_out)
        limits = token_limits([self.rule])

        def units_of(file: sql.Filter) -> Units:
            mine = units[file.scope]
            more = [text for name, text in (("max_tokens", limits), ("words", str(COMPARABLE_VERSION))) if file.reads(name)]
            return Units(mine.keys, digest(mine.context, *more)) if more else mine

        jobs = filter_jobs(self.filters, units_of)
        judge = Judge(self.store)
        missing = {job.name: judge.missing(job) for job in jobs}
        seen = {job.name: _visible(job.scope, missing[job.name], rollouts, pairs) for job in jobs}
        if any(each.height for each in missing.values()):
            self._load_sets(session, pl.concat(list(seen.values())).unique(), rollouts, pairs, quotes)
            mark = session.mark()
            shown: pl.DataFrame | None = None
            for job in jobs:
                if missing[job.name].height and (shown is None or not shown.equals(seen[job.name])):
                    session.rewind(mark)
                    shown = seen[job.name]
                    show_only(session, SHOWN, shown["rollout_key"])
                show_questions(session, has_held_out=job.scope == "reference")
                judge.ask(session, job, missing[job.name])
            self._verify(session, judge, [(job, missing[job.name]) for job in jobs], mark, rollouts, pairs)
        judged = judge.finish(jobs)
        for job in jobs:
            _check_earlier(job.file, judged.answers[job.name], rollouts)
        verdicts = [
            verdict_rows(job.file, judged.answers[job.name], rollouts) for job in jobs if isinstance(job.file, sql.Filter)
        ]
        return judged, verdicts

    def _verify(
        self,
        session: sql.Session,
        judge: Judge,
        asked: Sequence[tuple[Job, pl.DataFrame]],
        mark: int,
        rollouts: pl.DataFrame,
        pairs: pl.DataFrame,
    ) -> None:
        """Ask every file a second time about a few rollouts, showing what its scope allows and nothing else."""
        for job, mine in asked:
            if mine.height <= N_VERIFIED or job.scope == "corpus":
                continue
            sample = mine.sort("rollout_key").head(N_VERIFIED)
            session.rewind(mark)
            seen = _visible(job.scope, sample, rollouts, pairs)
            show_only(session, SHOWN, seen["rollout_key"])
            show_questions(session, has_held_out=job.scope == "reference")
            judge.verify(session, job, sample["rollout_key"])

    def _load_sets(
        self, session: sql.Session, seen: pl.DataFrame, rollouts: pl.DataFrame, pairs: pl.DataFrame, quotes: pl.DataFrame
    ) -> None:
        """Load what any of the filters sees."""
        near, said = (
            frame.join(seen, on="rollout_key", how="semi") for frame in (pairs, self._read(self.made.scored, "signatures"))
        )
        load_set_tables(
            session,
            rollouts.join(seen, on="rollout_key", how="semi", maintain_order="left"),
            signatures=said,
            pairs=near,
            quotes=quotes.join(seen, on="rollout_key", how="semi"),
            rule=self.rule,
            questions=self.questions,
        )

    def _overruled(self, verdicts: pl.DataFrame, rollouts: pl.DataFrame) -> pl.DataFrame:
        """The verdicts with what people decided: `drop` adds one, `keep` sets one filter's aside."""
        decisions = self._read(self.made.scored, "decisions").join(rollouts, on="rollout_key", how="semi")
        if decisions.is_empty():
            return verdicts
        told = decisions.with_columns(told=pl.format("by {}: {}", "by", "why"))
        drops = told.filter(pl.col("field") == "drop").select("rollout_key", detail="told")
        verdicts = pl.concat([verdicts, _drop(drops, "override")])
        kept = told.filter(pl.col("field") == "keep").select("rollout_key", "told", filter="value")
        joined = verdicts.join(kept, on=["rollout_key", "filter"], how="left", maintain_order="left")
        is_kept = pl.col("told").is_not_null() & ~pl.col("filter").is_in(list(ALWAYS_DROPPING))
        return joined.with_columns(
            severity=pl.when(is_kept).then(pl.lit(OVERRULED)).otherwise("severity"),
            detail=pl.when(is_kept).then(pl.concat_str("detail", pl.lit("; overruled "), "told")).otherwise("detail"),
        ).select(VERDICT_SCHEMA.names())

    def _qualities(
        self, session: sql.Session, keys: pl.DataFrame, verdicts: pl.DataFrame, scores: pl.DataFrame
    ) -> pl.DataFrame:
        formula = self.scoring.registry.one("selection", "quality")
        acting = [(profile, profile_verdicts(verdicts, profile)) for profile in self.profiles.values()]
        made = profile_qualities(session, acting, keys["rollout_key"], scores, formula)
        return made.sort("profile", "rollout_key")

    def _told(
        self, profile: sql.Profile, corpus: pl.DataFrame, verdicts: pl.DataFrame, qualities: pl.DataFrame
    ) -> dict[str, object]:
        mine = profile_verdicts(verdicts, profile)
        quality = qualities.filter(pl.col("profile") == profile.name).select("rollout_key", "quality")
        judged = corpus.join(quality, on="rollout_key", how="left", maintain_order="left")
        return {
            "funnel": funnel_of(judged, mine, profile),
            "per_source": per_source(judged, mine, profile),
            "drop_rate": round(mine.filter(pl.col("severity") == "drop")["rollout_key"].n_unique() / corpus.height, 4),
            "acting": [_acts(each) for each in profile.filters],
            **_quality_means(judged),
        }


def _acts(each: sql.Filter) -> dict[str, object]:
    """What the profile makes of a filter, so that a later object can be compared with this one."""
    return {
        "filter": each.name,
        "version": each.version,
        "severity": each.severity,
        "names_nearest_twin": each.names_nearest_twin,
        "parameters": dict(each.parameters),
    }


def _visible(scope: str, missing: pl.DataFrame, rollouts: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """What a filter sees (rollout_key): the rows to be judged, with those of their questions, or that resemble them."""
    mine = missing.select("rollout_key")
    if missing.height in (0, rollouts.height):
        return mine.sort("rollout_key")
    if scope == "group":
        asked = rollouts.join(mine, on="rollout_key", how="semi").select("task", "question_id").unique()
        mine = rollouts.join(asked, on=["task", "question_id"], how="semi").select("rollout_key")
    elif scope == "corpus":
        mine = rollouts.select("rollout_key")
    elif scope == "pairs":
        near = pairs.join(mine, on="rollout_key", how="semi").select(rollout_key="other_key")
        mine = pl.concat([mine, near]).unique()
    return mine.sort("rollout_key")


def _check_earlier(file: sql.SqlFile, hits: pl.DataFrame, rollouts: pl.DataFrame) -> None:
    """Refuse an `earlier_key` that is no earlier rollout: it would drop nothing, or the rows that it should re-admit."""
    order = rollouts.select("rollout_key", "ingest_seq")
    named = hits.drop_nulls("earlier_key").join(order, on="rollout_key", how="inner")
    named = named.join(order.rename({"rollout_key": "earlier_key", "ingest_seq": "earlier_seq"}), on="earlier_key", how="left")
    wrong = named.filter(~(pl.col("earlier_seq") < pl.col("ingest_seq")).fill_null(value=False))
    if wrong.height:
        raise SqlContractError(
            f"{file.path}: names {wrong['earlier_key'][0]!r} as the earlier twin of {wrong['rollout_key'][0]}; none of the "
            f"task's rollouts that came earlier has this key: compare ingest_seq"
        )


def _question_verdicts(rollouts: pl.DataFrame, questions: pl.DataFrame) -> list[pl.DataFrame]:
    """Verdicts no profile can switch off: the question is in no question set (there is no prompt), or is held out."""
    held_out = questions.filter(pl.col("split").is_in(EVALUATION_SPLITS))
    orphans = rollouts.join(questions.select("question_id").unique(), on="question_id", how="anti")
    evaluated = rollouts.join(held_out.select("question_id").unique(), on="question_id", how="semi")
    detail = pl.format("question id {}", "question_id").alias("detail")
    return [
        _drop(orphans.select("rollout_key", detail), "unknown_question"),
        _drop(evaluated.select("rollout_key", detail), "evaluation_question"),
    ]


def _drop(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    columns = {
        "filter": name,
        "version": "1",
        "reason": ALWAYS_DROPPING[name],
        "severity": "drop",
        "step": None,
        "earlier_key": None,
    }
    made = rows.select("rollout_key", "detail", *(pl.lit(value).alias(name) for name, value in columns.items()))
    return made.select(VERDICT_SCHEMA.names()).cast(VERDICT_SCHEMA)  # type: ignore[arg-type]


def _count_labels(corpus: pl.DataFrame) -> dict[str, int]:
    counts = dict(corpus["label"].value_counts().rows())
    return {label: counts.get(label, 0) for label in ("positive", "negative", "unknown")}


def _quality_means(corpus: pl.DataFrame) -> dict[str, float | None]:
    means = {}
    for label in ("positive", "negative"):
        mean = corpus.filter(pl.col("label") == label)["quality"].mean()
        means[f"mean_quality_{label}"] = round(float(mean), 4) if isinstance(mean, float) else None
    return means


def rejected_samples(store: Store, raw: Published, rollouts: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
    """Up to five rejected rollouts per filter (`SAMPLE_COLUMNS`), with the offending step, for people to look at."""
    drops = verdicts.filter(pl.col("severity") == "drop").unique(["rollout_key", "filter"], keep="first", maintain_order=True)
    sample = drops.group_by("filter", maintain_order=True).head(N_SAMPLES)
    named = rollouts.select("rollout_key", "question_id", "label", "source", "base_key")
    rows = sample.join(named, on="rollout_key", how="left", maintain_order="left")
    texts = read_conversations(store, raw, rows["base_key"]).select("base_key", "conversation")
    return rows.join(texts, on="base_key", how="left", maintain_order="left").select(SAMPLE_COLUMNS)
