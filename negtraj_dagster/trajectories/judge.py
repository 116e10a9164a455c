"""Runs SQL filters and scores over the rows they have not judged yet, and over no others.

Every file has *units* (labels.py) and a cache of its answers per version of the file: a unit is judged once per version.
Only rows that some file has to judge, with the earlier rows of their question for group filters, are loaded at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.conversations import read_conversations
from negtraj_dagster.schema import digest_json
from negtraj_dagster.store import Published, Store
from negtraj_dagster.tables import RowCache
from negtraj_dagster.trajectories.labels import filter_units

CHUNK_ROWS = 20_000
"""Rows in DuckDB at a time: bounds memory, whatever the corpus."""
TURNS_JSON = '[{"role": "VARCHAR", "content": "VARCHAR"}]'
HIT_SCHEMA = pl.Schema(
    {"unit_key": pl.String, "rollout_key": pl.String, "step": pl.Int32, "detail": pl.String, "earlier_key": pl.String}
)
SCORE_SCHEMA = pl.Schema({"unit_key": pl.String, "rollout_key": pl.String, "score": pl.Float64})
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
HIT_COLUMNS = {"rollout_key": "VARCHAR", "step": "INTEGER", "detail": "VARCHAR"}
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


@dataclass(frozen=True)
class Job:
    """One SQL file over its units: columns rollout_key, label, unit_key."""

    file: sql.SqlFile
    units: pl.DataFrame

    @property
    def scope(self) -> str:
        """row for scores, too."""
        return str(self.file.header.get("scope", "row"))

    @property
    def schema(self) -> pl.Schema:
        """Of the cached answers."""
        return HIT_SCHEMA if isinstance(self.file, sql.Filter) else SCORE_SCHEMA

    def cache(self, store: Store) -> RowCache:
        """Answers of this version of the file."""
        kind = "verdicts" if isinstance(self.file, sql.Filter) else "scores"
        return RowCache(store, f"{kind}/{self.file.name}/{self.file.version[:16]}", "unit_key", self.schema)


@dataclass
class Judged:
    """All answers by file name, what was computed, and the caches that hold them."""

    answers: dict[str, pl.DataFrame] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)
    caches: list[str] = field(default_factory=list)


def filter_job(filter_: sql.Filter, units: pl.DataFrame) -> Job:
    """A filter over the units it judges."""
    return Job(filter_, filter_units(filter_, units))


def judge(
    store: Store,
    jobs: Sequence[Job],
    *,
    labelled: pl.DataFrame,
    raw: Published,
    rules: Sequence[TaskRule],
    questions: pl.DataFrame | None = None,
) -> Judged:
    """All answers of all files, computing those that are missing.

    Args:
        store: keeps the answers.
        jobs: what to run.
        labelled: the rollouts concerned in order of arrival, with labels.
        raw: where their conversations are found.
        rules: of the tasks concerned.
        questions: `QUESTION_COLUMNS`, or None where no file may see them.
    """
    missing = {job.file.name: job.cache(store).missing(job.units) for job in jobs}
    needed = _needed(jobs, missing, labelled)
    for chunk in _chunks(jobs, needed):
        _judge_chunk(store, jobs, missing, chunk, raw, rules, questions)
    judged = Judged(work={"conversations_read": needed.height})
    for job in jobs:
        name, cache = job.file.name, job.cache(store)
        judged.answers[name] = cache.rows(job.units)
        judged.caches += [store.name(folder) for folder in cache.segments()]
        judged.work[f"{'judged' if isinstance(job.file, sql.Filter) else 'scored'}_{name}"] = missing[name].height
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


def _needed(jobs: Sequence[Job], missing: Mapping[str, pl.DataFrame], labelled: pl.DataFrame) -> pl.DataFrame:
    """Rows to load: those to be judged, and for group filters the rows of their questions."""
    keys = [missing[job.file.name].select("rollout_key") for job in jobs]
    wanted = pl.concat(keys).unique() if keys else pl.DataFrame(schema={"rollout_key": pl.String})
    rows = labelled.join(wanted, on="rollout_key", how="semi", maintain_order="left")
    grouped = [missing[job.file.name].select("rollout_key") for job in jobs if job.scope == "group"]
    if any(frame.height for frame in grouped):
        asked = labelled.join(pl.concat(grouped).unique(), on="rollout_key", how="semi").select("task", "question_id").unique()
        beside = labelled.join(asked, on=["task", "question_id"], how="semi")
        rows = pl.concat([rows, beside]).unique("rollout_key").sort("ingest_seq")
    if any(job.scope == "corpus" and missing[job.file.name].height for job in jobs):
        rows = labelled
    return rows


def _chunks(jobs: Sequence[Job], needed: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows in parts, a question's rows together; one part where a filter has to see everything."""
    if not needed.height:
        return
    if any(job.scope == "corpus" for job in jobs):
        yield needed
        return
    sizes = needed.group_by("task", "question_id", maintain_order=True).len("n_rows")
    sizes = sizes.with_columns(part=(pl.col("n_rows").cum_sum() - 1) // CHUNK_ROWS)
    parts = needed.join(sizes.select("task", "question_id", "part"), on=["task", "question_id"], maintain_order="left")
    for part in sorted(parts["part"].unique()):
        yield parts.filter(pl.col("part") == part).drop("part")


def _judge_chunk(
    store: Store,
    jobs: Sequence[Job],
    missing: Mapping[str, pl.DataFrame],
    chunk: pl.DataFrame,
    raw: Published,
    rules: Sequence[TaskRule],
    questions: pl.DataFrame | None,
) -> None:
    conversations = read_conversations(store, raw, chunk["base_key"])
    rollouts = chunk.join(conversations, on="base_key", how="left", maintain_order="left")
    with sql.connect() as connection:
        load_tables(connection, rollouts, rules, questions)
        for job in jobs:
            mine = missing[job.file.name].join(chunk.select("rollout_key"), on="rollout_key", how="semi")
            if mine.height:
                visible = _visible(job, mine, chunk)
                job.cache(store).add(mine["unit_key"], _run(connection, job, mine, visible))


def _visible(job: Job, mine: pl.DataFrame, chunk: pl.DataFrame) -> pl.Series:
    if job.scope not in ("group", "corpus"):
        return mine["rollout_key"]
    if job.scope == "corpus":
        return chunk["rollout_key"]
    asked = chunk.join(mine.select("rollout_key"), on="rollout_key", how="semi").select("task", "question_id").unique()
    return chunk.join(asked, on=["task", "question_id"], how="semi")["rollout_key"]


def _run(connection: duckdb.DuckDBPyConnection, job: Job, mine: pl.DataFrame, visible: pl.Series) -> pl.DataFrame:
    set_wanted(connection, visible)
    if not isinstance(job.file, sql.Filter):
        rows = sql.select(connection, job.file, expect={"rollout_key": "VARCHAR", "score": "DOUBLE"})
    else:
        has_earlier = job.scope in ("group", "corpus")
        expect = {**HIT_COLUMNS, **({"earlier_key": "VARCHAR"} if has_earlier else {})}
        rows = sql.select(connection, job.file, expect=expect)
        if not has_earlier:
            rows = rows.with_columns(pl.lit(None, dtype=pl.String).alias("earlier_key"))
    rows = rows.join(mine.select("rollout_key", "unit_key"), on="rollout_key", how="inner")
    return rows.select(job.schema.names()).cast(job.schema)  # type: ignore[arg-type]


def load_tables(
    connection: duckdb.DuckDBPyConnection,
    rollouts: pl.DataFrame,
    rules: Sequence[TaskRule],
    questions: pl.DataFrame | None,
) -> None:
    """Load the documented tables (sql/README.md) as `all_rollouts`, `all_steps`, `tasks`, `questions`.

    Args:
        connection: a fresh one.
        rollouts: labelled rows with their conversation.
        rules: one per task that has rollouts.
        questions: `QUESTION_COLUMNS`, or None where no filter in this stage may see them.
    """
    connection.register("rollouts_frame", rollouts.select(*ROLLOUT_VIEW, "ingest_seq", "conversation").to_arrow())
    connection.execute(
        f"""create table all_rollouts as
        select * exclude (conversation), from_json(conversation, '{TURNS_JSON}') as conversation
        from rollouts_frame order by ingest_seq"""
    )
    tasks = pl.DataFrame(
        [(rule.task, rule.terminal_action, list(rule.allowed_actions)) for rule in rules],
        schema={"task": pl.String, "terminal_action": pl.String, "allowed_actions": pl.List(pl.String)},
        orient="row",
    )
    connection.register("tasks_frame", tasks.to_arrow())
    connection.execute("create table tasks as select * from tasks_frame")
    if questions is not None:
        connection.register("questions_frame", questions.to_arrow())
        connection.execute("create table questions as select * from questions_frame")
    connection.execute("create view rollouts as select * from all_rollouts")
    steps = sql.load_one("model/steps.sql")
    connection.execute(f"create table all_steps as {steps.body}")
    for name in ("rollouts_frame", "tasks_frame", *(["questions_frame"] if questions is not None else [])):
        connection.unregister(name)
    connection.execute("create table wanted_keys (rollout_key varchar)")
    connection.execute(
        "create or replace view rollouts as select * from all_rollouts semi join wanted_keys using (rollout_key)"
    )
    connection.execute("create view steps as select * from all_steps semi join wanted_keys using (rollout_key)")
    sql.lock_down(connection)


def set_wanted(connection: duckdb.DuckDBPyConnection, keys: pl.Series) -> None:
    """Restrict the views `rollouts` and `steps` to these rollouts."""
    connection.execute("delete from wanted_keys")
    connection.execute("insert into wanted_keys select unnest($keys)", {"keys": keys.unique().to_list()})
