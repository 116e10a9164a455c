"""One task's corpus: its rollouts with questions joined, set-level verdicts, quality and funnel under every profile."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.comparable import COMPARABLE_VERSION
from negtraj_dagster.conversations import read_conversations
from negtraj_dagster.errors import StoreError
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tables import frame_digest
from negtraj_dagster.trajectories.fixed_verdicts import overrule, question_verdicts
from negtraj_dagster.trajectories.funnel import answer_shortcut, answers_by_class, funnel_of, per_source
from negtraj_dagster.trajectories.judging.contract import check_registry
from negtraj_dagster.trajectories.judging.rules import TaskRule, token_limits
from negtraj_dagster.trajectories.quality import profile_qualities, profile_verdicts
from negtraj_dagster.trajectories.score import Scoring, answers_digest
from negtraj_dagster.trajectories.set_judging import CorpusInputs, SetJudge, set_filters
from negtraj_dagster.trajectories.signatures import (
    QUOTES_IDENTITY,
    SKETCH_IDENTITY,
)

CORPUS_VERSION = 2
"""Rises when the corpus comes out differently from the same rollouts, verdicts and SQL."""
N_SAMPLES = 5
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
SAMPLE_COLUMNS = ("filter", "reason", "rollout_key", "question_id", "label", "source", "step", "detail", "conversation")


def build_corpus(store: Store, inputs: CorpusInputs, rule: TaskRule, scoring: Scoring) -> Published:
    """The task's corpus, judging only what is new.

    Args:
        store: where row caches and objects live.
        inputs: the present `raw_rollouts`, `scored_trajectories` and `question_sets`.
        rule: what SQL files know of the task.
        scoring: the SQL files.

    Raises:
        StoreError: the scores were not made from these rollouts, so some rollouts would pass filters that never saw them.
        SqlContractError: a SQL file breaks its contract, or fails; what the others said is kept.
    """
    if inputs.scored.details["raw_version"] != inputs.raw.version:
        raise StoreError("scored_trajectories was made from other rollouts than the present ones; materialize it again first")
    filters = set_filters(scoring.registry)
    profiles = sql.load_profiles(scoring.registry)
    made_of = {
        "code": CORPUS_VERSION,
        "raw_rollouts": inputs.raw.version,
        "scored_trajectories": inputs.scored.version,
        "questions": inputs.questions.content["tasks"].get(rule.task, {}).get("rows", "none"),
        "task": rule.identity(),
        "token_limits": token_limits([rule]) if any(file.reads("max_tokens") for file in filters) else "",
        "signatures": [SKETCH_IDENTITY, QUOTES_IDENTITY, COMPARABLE_VERSION],
        "sql/quality": scoring.registry.one("selection", "quality").version,
        **{f"sql/{file.name}/{file.version[:8]}": answers_digest(file) for file in filters},
        **{f"profile/{name}": profile.identity() for name, profile in profiles.items()},
    }

    def write(folder: Path) -> Built:
        return _Corpus(store, inputs, rule, scoring, profiles).write(folder)

    return store.build(f"trajectory_corpus/{rule.task}", made_of, write)


class _Corpus:
    """Makes one corpus object."""

    def __init__(
        self, store: Store, inputs: CorpusInputs, rule: TaskRule, scoring: Scoring, profiles: Mapping[str, sql.Profile]
    ) -> None:
        self.store, self.inputs, self.rule, self.scoring, self.profiles = store, inputs, rule, scoring, profiles
        self.filters = set_filters(scoring.registry)

    def write(self, folder: Path) -> Built:
        with sql.Session(self.scoring.limits) as session:
            check_registry(self.scoring.registry, session)
            return self._write(folder, session)

    def _write(self, folder: Path, session: sql.Session) -> Built:
        judge = SetJudge(self.store, self.inputs, self.rule, self.scoring)
        rollouts = judge.read_rollouts()
        if rollouts.is_empty():
            reason = f"no rollouts of task {self.rule.task} have landed, or all are refused"
            return Built(content={"status": "no_data", "reason": reason})
        keys = rollouts.select("rollout_key")
        rows = judge.compare(rollouts)
        judged, set_verdicts = judge.ask(session, rows, self.filters)
        session.reset()  # lets go of the tables before the largest ones are read
        scores = self._read_scored("scores").join(keys, on="rollout_key", how="semi", maintain_order="left")
        row_verdicts = self._read_scored("verdicts").join(keys, on="rollout_key", how="semi")
        verdicts = pl.concat([row_verdicts, *set_verdicts, *question_verdicts(rollouts, judge.questions)])
        verdicts = overrule(verdicts, self._read_scored("decisions").join(rollouts, on="rollout_key", how="semi"))
        verdicts = verdicts.sort("rollout_key", "filter", "version", "step", "earlier_key", "detail")
        corpus = _with_questions(rollouts, judge.questions)
        qualities = self._qualities(session, keys, verdicts, scores)
        tables = {"corpus": corpus, "verdicts": verdicts, "qualities": qualities, "pairs": rows.pairs, "scores": scores}
        samples = rejected_samples(self.store, self.inputs.raw, rollouts, verdicts)
        for name, table in (*tables.items(), ("rejected_samples", samples)):
            table.rechunk().write_parquet(folder / f"{name}.parquet")
        return Built(
            content={**{name: frame_digest(table) for name, table in tables.items()}, "n_rollouts": corpus.height},
            details={
                "labels": _count_labels(corpus),
                "answers": answers_by_class(corpus, "answer"),
                "gold_answers": answers_by_class(corpus, "gold"),
                "answer_shortcut": answer_shortcut(corpus),
                "profiles": {
                    name: _profile_details(profile, corpus, verdicts, qualities) for name, profile in self.profiles.items()
                },
                "sql": [[str(file.path), file.name, file.version] for file in self.filters],
            },
            work=judged.work | {"texts_searched": judge.quote_index.n_searched},
            caches=(*judged.caches, *judge.quote_index.caches),
        )

    def _read_scored(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.store.file(self.inputs.scored.folder, f"{name}.parquet"), glob=False)

    def _qualities(
        self, session: sql.Session, keys: pl.DataFrame, verdicts: pl.DataFrame, scores: pl.DataFrame
    ) -> pl.DataFrame:
        formula = self.scoring.registry.one("selection", "quality")
        acting = [(profile, profile_verdicts(verdicts, profile)) for profile in self.profiles.values()]
        qualities = profile_qualities(session, acting, keys["rollout_key"], scores, formula)
        return qualities.sort("profile", "rollout_key")


def _with_questions(rollouts: pl.DataFrame, questions: pl.DataFrame) -> pl.DataFrame:
    by_id = questions.select("question_id", "split", "question_hash").unique("question_id", keep="first")
    return rollouts.join(by_id, on="question_id", how="left").select(CORPUS_COLUMNS).sort("ingest_seq")


def _profile_details(
    profile: sql.Profile, corpus: pl.DataFrame, verdicts: pl.DataFrame, qualities: pl.DataFrame
) -> dict[str, object]:
    """What a profile makes of the corpus, in numbers."""
    acting = profile_verdicts(verdicts, profile)
    quality = qualities.filter(pl.col("profile") == profile.name).select("rollout_key", "quality")
    judged = corpus.join(quality, on="rollout_key", how="left", maintain_order="left")
    return {
        "funnel": funnel_of(judged, acting, profile),
        "per_source": per_source(judged, acting, profile),
        "drop_rate": round(acting.filter(pl.col("severity") == "drop")["rollout_key"].n_unique() / corpus.height, 4),
        "acting": [_acts(file) for file in profile.filters],
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
    descriptions = rollouts.select("rollout_key", "question_id", "label", "source", "base_key")
    rows = sample.join(descriptions, on="rollout_key", how="left", maintain_order="left")
    texts = read_conversations(store, raw, rows["base_key"]).select("base_key", "conversation")
    return rows.join(texts, on="base_key", how="left", maintain_order="left").select(SAMPLE_COLUMNS)
