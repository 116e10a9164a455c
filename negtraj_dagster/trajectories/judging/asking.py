"""Shows a session what each SQL file may see and asks it; a second time about a few rows, shown alone.

To show other rows means to take the session back to a mark and load it anew, which costs more than most files do. So files
that see the same rows are asked one after the other, and the session is loaded again only where the rows differ.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.trajectories.judging.judge import N_VERIFIED, Job, Judge
from negtraj_dagster.trajectories.judging.loading import show_all, show_only

Visible = Callable[[Job, pl.DataFrame], pl.Series]
"""The rollouts that a file may see when it is asked about some rows (rollout_key, unit_key), by key, ascending."""


@dataclass(frozen=True)
class Request:
    """A file, and the rows it is asked about.

    Attributes:
        missing: rollout_key, unit_key: what it has not answered yet.
        visible: keys of the rollouts it sees meanwhile, ascending.
    """

    job: Job
    missing: pl.DataFrame
    visible: pl.Series


@dataclass(frozen=True)
class Stage:
    """A session with a stage's tables.

    Attributes:
        show: narrows the session's tables to these rollouts.
        prepare: what a file needs beside them.
    """

    session: sql.Session
    show: Callable[[pl.Series], None]
    prepare: Callable[[Job], None] = lambda job: None


def ask_all(judge: Judge, stage: Stage, requests: Sequence[Request]) -> int:
    """Ask every file about its rows; returns the mark to which the session can be taken back."""
    mark = stage.session.mark()
    present: pl.Series | None = None
    for request in requests:
        if not request.missing.height:
            continue
        if present is None or not present.equals(request.visible):
            stage.session.rewind(mark)
            stage.show(request.visible)
            present = request.visible
        stage.prepare(request.job)
        judge.ask(stage.session, request.job, request.missing, request.visible)
    return mark


def verify_all(judge: Judge, stage: Stage, mark: int, requests: Sequence[Request], visible_to: Visible) -> None:
    """Ask every file again about a few of its rows together, then about one that it hit and one that it did not, each alone.

    A file that now says otherwise looked at rows it may not see: its answers would change with the batches in which rollouts
    arrive, so it fails (`Judge.verify`). Every time it is shown what its scope allows.

    Args:
        judge: was asked the requests.
        stage: the session.
        mark: where `ask_all` began.
        requests: as they were asked.
        visible_to: what a file may see when it is asked about some rows.
    """
    present: pl.Series | None = None
    for sample in [*_samples(requests, visible_to), *_alone(judge, requests, visible_to)]:
        if present is None or not present.equals(sample.visible):
            stage.session.rewind(mark)
            stage.show(sample.visible)
            present = sample.visible
        stage.prepare(sample.job)
        judge.verify(stage.session, sample.job, sample.missing["rollout_key"])


def _samples(requests: Sequence[Request], visible_to: Visible) -> Iterator[Request]:
    for request in requests:
        if request.missing.height > N_VERIFIED and request.job.scope != "corpus":
            sample = request.missing.sort("rollout_key").head(N_VERIFIED)
            yield Request(request.job, sample, visible_to(request.job, sample))


def _alone(judge: Judge, requests: Sequence[Request], visible_to: Visible) -> list[Request]:
    """One row a request; those that are shown the same rows stand together, so that the session is loaded once for them."""
    by_visible: dict[tuple[str, ...], list[Request]] = {}
    for request in _each_alone(judge, requests, visible_to):
        by_visible.setdefault(tuple(request.visible), []).append(request)
    return [request for alike in by_visible.values() for request in alike]


def _each_alone(judge: Judge, requests: Sequence[Request], visible_to: Visible) -> Iterator[Request]:
    for request in requests:
        if request.missing.height > 1 and request.job.scope != "corpus":
            is_hit = pl.col("rollout_key").is_in(judge.last_hits(request.job).implode())
            rows = request.missing.sort("rollout_key")
            for row in (rows.filter(~is_hit).head(1), rows.filter(is_hit).head(1)):
                if row.height:
                    yield Request(request.job, row, visible_to(request.job, row))


def row_stage(session: sql.Session, tables: Sequence[str], n_rows: int) -> Stage:
    """The stage of files that see single rollouts: these tables, narrowed to the rollouts that are asked about."""

    def show(visible: pl.Series) -> None:
        show_all(session, tables) if len(visible) == n_rows else show_only(session, tables, visible)

    return Stage(session, show)


def row_request(job: Job, missing: pl.DataFrame) -> Request:
    """A request of a file that sees the rows it is asked about."""
    return Request(job, missing, own_rows(job, missing))


def own_rows(job: Job, missing: pl.DataFrame) -> pl.Series:
    """What a file of scope row sees."""
    return missing["rollout_key"].sort()
