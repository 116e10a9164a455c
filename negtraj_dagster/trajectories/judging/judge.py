"""Runs SQL files over the rows they have not answered yet, and over no others.

Every file has *units* (units.py) and a cache of its answers per version of the file: a unit is judged once per version.
Row files see conversations, of the new rows only. Set-level filters see narrow rows, signatures, pairs and quotes, so that a
new row is compared with old ones that are not read again. A file that fails stops the run when all others have answered: what
they said is kept.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.errors import SqlContractError
from negtraj_dagster.schema import digest
from negtraj_dagster.store import Store
from negtraj_dagster.tables import VerdictCache
from negtraj_dagster.trajectories.judging.contract import SCORE_COLUMNS, columns_of
from negtraj_dagster.trajectories.judging.units import Units

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
MAX_DETAIL_CHARS = 500

ALLOWED = {
    "row": "the rollout alone",
    "group": "the rollouts of its question",
    "reference": "the rollout and the evaluation questions",
    "pairs": "the rollout and those it is paired with",
    "corpus": "everything",
}
MAX_TOGETHER = 500_000
"""Answers of several files that are looked through in one join."""
N_VERIFIED = 40
"""Rollouts that every file is asked about a second time in a run, alone."""

Kind = Literal["verdicts", "scores"]
SCHEMAS: dict[Kind, pl.Schema] = {"verdicts": HIT_SCHEMA, "scores": SCORE_SCHEMA}
COUNTS: dict[Kind, str] = {"verdicts": "judged", "scores": "scored"}


@dataclass(frozen=True)
class Job:
    """One SQL file over its units."""

    kind: Kind
    file: sql.SqlFile
    units: Units

    @property
    def scope(self) -> str:
        """Of a filter; row for scores."""
        return self.file.scope if isinstance(self.file, sql.Filter) else "row"

    @property
    def name(self) -> str:
        """Of its cache: unlike for any other version of the file."""
        return f"{self.kind}/{self.file.name}/{digest(self.file.version, self.units.context)[:16]}"

    def cache(self, store: Store) -> VerdictCache:
        """Answers of this version of the file."""
        return VerdictCache(store, self.name, "unit_key", SCHEMAS[self.kind])


@dataclass
class Judged:
    """All answers by job name, what was computed, and the caches that hold them."""

    answers: dict[str, pl.DataFrame] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)
    caches: list[str] = field(default_factory=list)


class Judge:
    """Asks jobs about rows, chunk by chunk, and keeps what they say.

    Args:
        store: keeps the answers.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[tuple[str, ...], pl.DataFrame] = {}
        self._missing: dict[tuple[int, tuple[str, ...]], tuple[pl.DataFrame, pl.DataFrame]] = {}
        self._asked: dict[str, list[pl.DataFrame]] = {}
        self._said: dict[str, list[pl.DataFrame]] = {}
        self._n_asked: Counter[str] = Counter()
        self.failures: dict[str, SqlContractError] = {}

    def missing(self, job: Job) -> pl.DataFrame:
        """The units (rollout_key, unit_key) that a job has not answered; equal lists of keys are read and compared once."""
        cache = job.cache(self.store)
        name = tuple(cache.lists())
        if name not in self._known:
            self._known[name] = cache.keys()
        units_and_cache = (id(job.units.keys), name)
        if units_and_cache not in self._missing:
            missing = job.units.keys.join(self._known[name], on="unit_key", how="anti", maintain_order="left")
            self._missing[units_and_cache] = (job.units.keys, missing)  # the keys are kept, or another frame might get their id
        return self._missing[units_and_cache][1]

    def ask(self, session: sql.Session, job: Job, missing: pl.DataFrame, visible: pl.Series) -> None:
        """Run a job's file over what the session holds; keep what it says of the missing units.

        Args:
            session: shows what the file may see.
            job: the file.
            missing: rollout_key, unit_key.
            visible: keys of the rollouts that the session shows.
        """
        if job.name in self.failures or not missing.height:
            return
        try:
            rows = answer(session, job.file, job.kind)
        except SqlContractError as error:
            self._fail(job, error)
            return
        unknown = rows.filter(~pl.col("rollout_key").is_in(visible.implode()))
        if unknown.height:
            key = unknown["rollout_key"][0]
            self._fail(job, SqlContractError(f"{job.file.path}: returns the rollout_key {key!r}, which it was not shown"))
            return
        rows = rows.join(missing.select("rollout_key", "unit_key"), on="rollout_key", how="inner", maintain_order="left")
        self._asked.setdefault(job.name, []).append(missing.select("unit_key"))
        self._n_asked[job.name] += missing.height
        self._said.setdefault(job.name, []).append(rows.select(SCHEMAS[job.kind].names()).cast(SCHEMAS[job.kind]))  # type: ignore[arg-type]

    def last_hits(self, job: Job) -> pl.Series:
        """Keys of the rollouts that the job hit when it was last asked."""
        answers = self._said.get(job.name)
        return answers[-1]["rollout_key"].unique() if answers else pl.Series(dtype=pl.String)

    def answers(self, job: Job) -> pl.DataFrame:
        """What a job said so far in this run.

        Raises:
            SqlContractError: it failed.
        """
        if job.name in self.failures:
            raise self.failures[job.name]
        return pl.concat([SCHEMAS[job.kind].to_frame(), *self._said.get(job.name, [])])

    def verify(self, session: sql.Session, job: Job, sample: pl.Series) -> None:
        """Ask a job again about a few rollouts, the session showing what their verdicts may depend on and nothing else.

        A file that now says otherwise looks at rows it may not: its answers would change with the batches rollouts arrive in.
        """
        if job.name in self.failures or not self._said.get(job.name):
            return
        names = [name for name in SCHEMAS[job.kind].names() if name != "unit_key"]
        before = self._said[job.name][-1].filter(pl.col("rollout_key").is_in(sample.implode())).select(names).sort(names)
        try:
            again = answer(session, job.file, job.kind)
        except SqlContractError as error:
            self._fail(job, error)
            return
        after = again.filter(pl.col("rollout_key").is_in(sample.implode())).select(names)
        after = after.cast(dict(before.schema)).sort(names)  # type: ignore[arg-type]
        if not _is_close(before, after):
            unlike = pl.concat([before, after]).filter(~pl.struct(names).is_duplicated())["rollout_key"]
            key = unlike[0] if len(unlike) else sample[0]
            self._fail(
                job,
                SqlContractError(
                    f"{job.file.path}: what it says of rollout {key} changes with the other rollouts it sees; scope "
                    f"{job.scope} allows {ALLOWED[job.scope]}. Look at no more, order ties, or declare scope corpus"
                ),
            )

    def _fail(self, job: Job, error: SqlContractError) -> None:
        """Forget what a job said since it was last kept; what was kept of it stays an answer of this version."""
        self.failures[job.name] = error
        self._asked.pop(job.name, None)
        self._said.pop(job.name, None)
        self._n_asked.pop(job.name, None)

    def keep(self, jobs: Iterable[Job]) -> None:
        """Publish what the jobs said so far and forget it here: memory does not grow with the rollouts that are asked about."""
        for job in jobs:
            if asked_frames := self._asked.pop(job.name, []):
                keys = pl.concat(asked_frames)["unit_key"]
                job.cache(self.store).add(keys, pl.concat(self._said.pop(job.name)))
        self._known, self._missing = {}, {}

    def finish(self, jobs: Sequence[Job]) -> Judged:
        """Keep everything that was said, then all answers of the jobs.

        Raises:
            SqlContractError: a file failed; what the others said is kept, and the next run asks this one only.
        """
        judged = Judged()
        self.keep(jobs)
        for job in jobs:
            count = f"{COUNTS[job.kind]}_{job.file.name}"
            judged.work[count] = judged.work.get(count, 0) + self._n_asked[job.name]
        if self.failures:
            raise SqlContractError("\n".join(map(str, self.failures.values())))
        for job in jobs:
            cache = job.cache(self.store)
            folders = cache.segments()
            judged.answers[job.name] = cache.rows_of(folders)
            judged.caches += [self.store.name(folder) for folder in folders]
        _keep_present(judged.answers, jobs)
        return judged


def _keep_present(answers: dict[str, pl.DataFrame], jobs: Sequence[Job]) -> None:
    """Leave out what was said of units that are no more; jobs that share their units are asked in one join."""
    by_units: dict[int, list[Job]] = {}
    for job in jobs:
        by_units.setdefault(id(job.units.keys), []).append(job)
    for alike in by_units.values():
        unit_keys = alike[0].units.keys.select("unit_key")
        for kind in SCHEMAS:
            job_names = [job.name for job in alike if job.kind == kind]
            if not job_names:
                continue
            for some in _in_parts(job_names, answers):
                _keep_units(some, answers, unit_keys)


def _in_parts(job_names: Sequence[str], answers: Mapping[str, pl.DataFrame]) -> Iterator[list[str]]:
    """Jobs whose answers are few enough together: joined, they stand in memory twice."""
    part: list[str] = []
    n_rows = 0
    for name in job_names:
        if part and n_rows + answers[name].height > MAX_TOGETHER:
            yield part
            part, n_rows = [], 0
        part.append(name)
        n_rows += answers[name].height
    if part:
        yield part


def _keep_units(job_names: Sequence[str], answers: dict[str, pl.DataFrame], unit_keys: pl.DataFrame) -> None:
    sizes = [answers[name].height for name in job_names]
    numbers = pl.Series("job", range(len(job_names)), dtype=pl.UInt16).repeat_by(pl.Series(sizes)).explode()
    together = pl.concat([answers[name] for name in job_names]).with_columns(numbers.drop_nulls().alias("job"))
    present = together.join(unit_keys, on="unit_key", how="semi", maintain_order="left").partition_by("job", as_dict=True)
    for number, name in enumerate(job_names):
        answers_of_job = present.get((number,))
        answers[name] = answers[name].clear() if answers_of_job is None else answers_of_job.drop("job")


def _is_close(before: pl.DataFrame, after: pl.DataFrame) -> bool:
    """Equal rows; scores up to the order in which floats were added."""
    if before.height != after.height or "score" not in before.columns:
        return before.equals(after)
    same = before.drop("score").equals(after.drop("score"))
    return same and bool(((before["score"] - after["score"]).abs() < 1e-9).all())


def answer(session: sql.Session, file: sql.SqlFile, kind: Kind) -> pl.DataFrame:
    """What a file says of the rows in the session, in the columns of its kind.

    Raises:
        SqlContractError: it fails, or says something that is no verdict or no score; names the file and the rollout.
    """
    if kind == "scores":
        rows = session.select(file, expect=SCORE_COLUMNS)
        bad = rows.filter(~pl.col("score").cast(pl.Float64).is_between(0, 1).fill_null(value=False))
        if bad.height:
            raise SqlContractError(
                f"{file.path}: score {bad['score'][0]} of rollout {bad['rollout_key'][0]}; expected a number from 0 to 1, and "
                f"no row for a rollout that has no such score"
            )
        if (twice := rows.filter(pl.col("rollout_key").is_duplicated())).height:
            raise SqlContractError(
                f"{file.path}: returns rollout {twice['rollout_key'][0]} twice; a score is one row a rollout"
            )
        return rows.cast({"score": pl.Float64})
    assert isinstance(file, sql.Filter)
    rows = session.select(file, expect=columns_of(file))
    if rows["rollout_key"].null_count():
        raise SqlContractError(f"{file.path}: returns a row without rollout_key; name the rollout that is rejected")
    if "earlier_key" not in rows.columns:
        rows = rows.with_columns(earlier_key=pl.lit(None, dtype=pl.String))
    try:
        typed = rows.cast({"rollout_key": pl.String, "step": pl.Int32, "detail": pl.String, "earlier_key": pl.String})
    except pl.exceptions.PolarsError as error:
        raise SqlContractError(f"{file.path}: a verdict does not fit its columns ({str(error).splitlines()[0]})") from None
    return typed.with_columns(pl.col("detail").str.slice(0, MAX_DETAIL_CHARS))


def filter_jobs(filters: Iterable[sql.Filter], units_of: Callable[[sql.Filter], Units]) -> list[Job]:
    """A job for every filter."""
    return [Job("verdicts", file, units_of(file)) for file in filters]


def verdict_rows(filter_: sql.Filter, hits: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    """A filter's hits as verdicts (`VERDICT_SCHEMA`) on the rollouts it applies to: by class, and by the style they speak."""
    concerned = applicable(filter_, labelled)
    if concerned.height < labelled.height:
        hits = hits.join(concerned.select("rollout_key"), on="rollout_key", how="semi")
    verdicts = hits.select(
        "rollout_key",
        pl.lit(filter_.name).alias("filter"),
        pl.lit(filter_.version).alias("version"),
        pl.lit(filter_.header.reason).alias("reason"),
        pl.lit(filter_.severity).alias("severity"),
        "step",
        "detail",
        "earlier_key",
    )
    return verdicts.cast(VERDICT_SCHEMA)  # type: ignore[arg-type]


def applicable(file: sql.Filter | sql.Score, labelled: pl.DataFrame) -> pl.DataFrame:
    """The rollouts that a filter or score is about. To all others it does not apply, which is not to pass it."""
    applies, style = file.header.applies_to, file.header.style
    if applies != "both":
        labelled = labelled.filter(pl.col("label") == applies)
    return labelled if style == "any" else labelled.filter(pl.col("style") == style)
