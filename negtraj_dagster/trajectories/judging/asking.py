"""Shows a session what each SQL file may see and asks it; a second time about a few rows, shown alone.

To show other rows means to take the session back to a mark and load it anew, which costs more than most files do. So files
that see the same rows are asked one after the other, and the session is loaded again only where the rows differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.trajectories.judging.judge import Job, Judge


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
    shown: pl.Series | None = None
    for request in requests:
        if not request.missing.height:
            continue
        if shown is None or not shown.equals(request.visible):
            stage.session.rewind(mark)
            stage.show(request.visible)
            shown = request.visible
        stage.prepare(request.job)
        judge.ask(stage.session, request.job, request.missing)
    return mark


def verify_all(judge: Judge, stage: Stage, mark: int, samples: Sequence[Request]) -> None:
    """Ask every file again about its sample, shown what its scope allows and nothing else.

    A file that now says otherwise looked at rows it may not see: its answers would change with the batches in which rollouts
    arrive, so it fails (`Judge.verify`).
    """
    shown: pl.Series | None = None
    for sample in samples:
        if shown is None or not shown.equals(sample.visible):
            stage.session.rewind(mark)
            stage.show(sample.visible)
            shown = sample.visible
        stage.prepare(sample.job)
        judge.verify(stage.session, sample.job, sample.missing["rollout_key"])
