"""Runs SQL files over the rows they have not answered yet, and over no others.

Every file has *units* (labels.py) and a cache of its answers per version of the file: a unit is judged once per version.
Row files see conversations, of the new rows only. Set-level filters see narrow rows and signatures, so that a new row is
compared with old ones that are not read again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import duckdb
import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.conversations import read_conversations
from negtraj_dagster.schema import digest, digest_json
from negtraj_dagster.store import Published, Store
from negtraj_dagster.tables import RowCache
from negtraj_dagster.trajectories.labels import Units, filter_units

CHUNK_ROWS = 20_000
"""Rows in DuckDB at a time: bounds memory, whatever the corpus."""
TURNS_JSON = '[{"role": "VARCHAR", "content": "VARCHAR"}]'
HIT_SCHEMA = pl.Schema(
    {"unit_key": pl.String, "rollout_key": pl.String, "step": pl.Int32, "detail": pl.String, "earlier_key": pl.String}
)
SCORE_SCHEMA = pl.Schema({"unit_key": pl.String, "rollout_key": pl.String, "score": pl.Float64})
SIGNATURE_SCHEMA = pl.Schema({"unit_key": pl.String, "rollout_key": pl.String, "said": pl.String, "actions": pl.String})
VERDICT_SCHEMA = pl.Schema(
    {
        "rollout_key": pl.String,
        "filter": pl.String,
        "version": pl.String,
        "reason": pl.String,
        "severity": pl.String,
        "step": pl.Int32,
        "detail": pl.String,
        "earlier_key": pl.String,
    }
)
ROLLOUT_VIEW = ("rollout_key", "task", "question_id", "source", "teacher", "occurrence", "label", "reward", "pred", "gold")


@dataclass(frozen=True)
class TaskRule:
    """What filters know of a task."""

    task: str
    terminal_action: str
    allowed_actions: tuple[str, ...]


def rules_digest(rules: Sequence[TaskRule]) -> str:
    """Identity of what filters know of these tasks."""
    rows = sorted([rule.task, rule.terminal_action, list(rule.allowed_actions)] for rule in rules)
    return digest_json(rows)


Kind = Literal["verdicts", "scores", "signatures"]
SCHEMAS: dict[Kind, pl.Schema] = {"verdicts": HIT_SCHEMA, "scores": SCORE_SCHEMA, "signatures": SIGNATURE_SCHEMA}
COUNTS: dict[Kind, str] = {"verdicts": "judged", "scores": "scored", "signatures": "signed"}
EXPECTED: dict[Kind, dict[str, str]] = {
    "verdicts": {"rollout_key": "VARCHAR", "step": "INTEGER", "detail": "VARCHAR"},
    "scores": {"rollout_key": "VARCHAR", "score": "DOUBLE"},
    "signatures": {"rollout_key": "VARCHAR", "said": "VARCHAR", "actions": "VARCHAR"},
}


@dataclass(frozen=True)
class Job:
    """One SQL file over its units."""

    kind: Kind
    file: sql.SqlFile
    units: Units

    @property
    def scope(self) -> str:
        """Of a filter; row for scores and signatures."""
        return str(self.file.header.get("scope", "row"))

    def cache(self, store: Store) -> RowCache:
        """Answers of this version of the file."""
        table = f"{self.kind}/{self.file.name}/{digest(self.file.version, self.units.context)[:16]}"
        return RowCache(store, table, "unit_key", SCHEMAS[self.kind])


@dataclass
class Judged:
    """All answers by file name, what was computed, and the caches that hold them."""

    answers: dict[str, pl.DataFrame] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)
    caches: list[str] = field(default_factory=list)


def filter_job(filter_: sql.Filter, units: Units) -> Job:
    """A filter over the units it judges."""
    return Job("verdicts", filter_, filter_units(filter_, units))


def judge_rows(
    store: Store, jobs: Sequence[Job], *, labelled: pl.DataFrame, raw: Published, rules: Sequence[TaskRule]
) -> Judged:
    """All answers of row files, computing those that are missing.

    Args:
        store: keeps the answers.
        jobs: what to run.
        labelled: all rollouts in order of arrival, with labels.
        raw: where their conversations are found.
        rules: one per task.
    """
    missing = {job.file.name: job.cache(store).missing(job.units.keys) for job in jobs}
    wanted = pl.concat([frame.select("rollout_key") for frame in missing.values()]).unique()
    needed = labelled.join(wanted, on="rollout_key", how="semi", maintain_order="left")
    for chunk in needed.iter_slices(CHUNK_ROWS) if needed.height else ():
        conversations = read_conversations(store, raw, chunk["base_key"])
        rollouts = chunk.join(conversations, on="base_key", how="left", maintain_order="left")
        with sql.connect() as connection:
            load_row_tables(connection, rollouts, rules)
            for job in jobs:
                mine = missing[job.file.name].join(chunk.select("rollout_key"), on="rollout_key", how="semi")
                if mine.height:
                    job.cache(store).add(mine["unit_key"], _run(connection, job, mine, mine["rollout_key"]))
    return _collect(store, jobs, missing, {"conversations_read": needed.height})


def judge_sets(
    store: Store,
    jobs: Sequence[Job],
    *,
    labelled: pl.DataFrame,
    signatures: pl.DataFrame,
    rule: TaskRule,
    questions: pl.DataFrame,
) -> Judged:
    """All answers of set-level filters, computing those that are missing.

    Args:
        store: keeps the answers.
        jobs: what to run.
        labelled: one task's rollouts in order of arrival, with labels.
        signatures: rollout_key, said, actions.
        rule: of the task.
        questions: of the task (`QUESTION_COLUMNS`).
    """
    missing = {job.file.name: job.cache(store).missing(job.units.keys) for job in jobs}
    if any(frame.height for frame in missing.values()):
        with sql.connect() as connection:
            load_set_tables(connection, labelled, signatures, rule, questions)
            for job in jobs:
                if (mine := missing[job.file.name]).height:
                    job.cache(store).add(mine["unit_key"], _run(connection, job, mine, _visible(job, mine, labelled)))
    return _collect(store, jobs, missing, {})


def _collect(store: Store, jobs: Sequence[Job], missing: Mapping[str, pl.DataFrame], work: dict[str, int]) -> Judged:
    judged = Judged(work=work)
    for job in jobs:
        name, cache = job.file.name, job.cache(store)
        judged.answers[name] = cache.rows(job.units.keys)
        judged.caches += [store.name(folder) for folder in cache.segments()]
        judged.work[f"{COUNTS[job.kind]}_{name}"] = missing[name].height
    return judged


def verdict_rows(filter_: sql.Filter, hits: pl.DataFrame, units: pl.DataFrame) -> pl.DataFrame:
    """A filter's hits as verdicts (`VERDICT_SCHEMA`) on the rollouts it applies to."""
    if filter_.applies_to != "both":
        concerned = units.filter(pl.col("label") == filter_.applies_to)
        hits = hits.join(concerned.select("rollout_key"), on="rollout_key", how="semi")
    made = hits.select(
        "rollout_key",
        pl.lit(filter_.name).alias("filter"),
        pl.lit(filter_.version).alias("version"),
        pl.lit(str(filter_.header["reason"])).alias("reason"),
        pl.lit(filter_.severity).alias("severity"),
        "step",
        "detail",
        "earlier_key",
    )
    return made.cast(VERDICT_SCHEMA)  # type: ignore[arg-type]


def _visible(job: Job, mine: pl.DataFrame, labelled: pl.DataFrame) -> pl.Series:
    """What a set-level filter sees: rows to be judged, for group filters with all rows of their questions."""
    if job.scope == "corpus":
        return labelled["rollout_key"]
    if job.scope != "group":
        return mine["rollout_key"]
    asked = labelled.join(mine.select("rollout_key"), on="rollout_key", how="semi").select("task", "question_id").unique()
    return labelled.join(asked, on=["task", "question_id"], how="semi")["rollout_key"]


def _run(connection: duckdb.DuckDBPyConnection, job: Job, mine: pl.DataFrame, visible: pl.Series) -> pl.DataFrame:
    set_wanted(connection, visible)
    expect, names = EXPECTED[job.kind], SCHEMAS[job.kind].names()
    if job.kind == "verdicts" and job.scope in ("group", "corpus"):
        expect = {**expect, "earlier_key": "VARCHAR"}
    rows = sql.select(connection, job.file, expect=expect)
    if job.kind == "verdicts" and "earlier_key" not in expect:
        rows = rows.with_columns(pl.lit(None, dtype=pl.String).alias("earlier_key"))
    rows = rows.join(mine.select("rollout_key", "unit_key"), on="rollout_key", how="inner")
    return rows.select(names).cast(SCHEMAS[job.kind])  # type: ignore[arg-type]


def load_row_tables(connection: duckdb.DuckDBPyConnection, rollouts: pl.DataFrame, rules: Sequence[TaskRule]) -> None:
    """Load what row files see (sql/README.md): `rollouts` with conversations, `steps`, `tasks`.

    Args:
        connection: a fresh one.
        rollouts: labelled rows with their conversation.
        rules: one per task that has rollouts.
    """
    _load(connection, "rollouts_frame", rollouts.sort("ingest_seq").select(*ROLLOUT_VIEW, "conversation"))
    connection.execute(
        f"""create table all_rollouts as
        select * exclude (conversation), from_json(conversation, '{TURNS_JSON}') as conversation from rollouts_frame"""
    )
    _load(connection, "tasks", _task_table(rules))
    connection.execute("create view rollouts as select * from all_rollouts")
    connection.execute(f"create table all_steps as {sql.load_one('model/steps.sql').body}")
    connection.execute("create table wanted_keys (rollout_key varchar)")
    for name, table in (("rollouts", "all_rollouts"), ("steps", "all_steps")):
        connection.execute(f"create or replace view {name} as select * from {table} semi join wanted_keys using (rollout_key)")
    sql.lock_down(connection)


def load_set_tables(
    connection: duckdb.DuckDBPyConnection,
    rollouts: pl.DataFrame,
    signatures: pl.DataFrame,
    rule: TaskRule,
    questions: pl.DataFrame,
) -> None:
    """Load what set-level filters see: `rollouts` without conversations, `signatures`, `tasks`, `questions`."""
    _load(connection, "all_rollouts", rollouts.select(*ROLLOUT_VIEW, "ingest_seq").sort("ingest_seq"))
    _load(connection, "all_signatures", signatures.select("rollout_key", "said", "actions"))
    _load(connection, "tasks", _task_table([rule]))
    _load(connection, "questions", questions)
    connection.execute("create table wanted_keys (rollout_key varchar)")
    for name in ("rollouts", "signatures"):
        connection.execute(f"create view {name} as select * from all_{name} semi join wanted_keys using (rollout_key)")
    sql.lock_down(connection)


def _load(connection: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame) -> None:
    connection.register("incoming", frame.to_arrow())
    connection.execute(f"create table {name} as select * from incoming")
    connection.unregister("incoming")


def _task_table(rules: Sequence[TaskRule]) -> pl.DataFrame:
    return pl.DataFrame(
        [(rule.task, rule.terminal_action, list(rule.allowed_actions)) for rule in rules],
        schema={"task": pl.String, "terminal_action": pl.String, "allowed_actions": pl.List(pl.String)},
        orient="row",
    )


def set_wanted(connection: duckdb.DuckDBPyConnection, keys: pl.Series) -> None:
    """Restrict the views `rollouts` and `steps` to these rollouts."""
    connection.execute("delete from wanted_keys")
    connection.execute("insert into wanted_keys select unnest($keys)", {"keys": keys.unique().to_list()})
