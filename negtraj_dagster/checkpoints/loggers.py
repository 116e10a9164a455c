"""Passes a training's steps on to what people watch trainings with: TensorBoard, MLflow, Trackio; extras, none online."""

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negtraj_dagster.checkpoints.curve import StepRecord
from negtraj_dagster.errors import TrainingError

Log = Callable[[StepRecord], None]
PROJECT = "negtraj"
MODULES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "trackio": "trackio"}
"""By a logger's name, which is its extra's, too, the module that it needs."""


@dataclass(frozen=True)
class Tracked:
    """What a training is called there.

    Attributes:
        folder: where loggers keep what they are told, each in its own below it.
        run: names this training; the same when it goes on after a kill.
        settings: shown beside it.
    """

    folder: Path
    run: str
    settings: Mapping[str, Any]


def no_log(record: StepRecord) -> None:
    """Tell nobody."""


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers whose packages are not installed, before anything is trained.

    Raises:
        TrainingError: names them and how they are installed.
    """
    if missing := [name for name in names if importlib.util.find_spec(MODULES[name]) is None]:
        raise TrainingError(
            f"training.loggers names {', '.join(missing)}, not installed; pip install "
            f"'negtraj-dagster[{','.join(missing)}]', or leave them out"
        )


@contextmanager
def open_loggers(names: Sequence[str], tracked: Tracked, *, n_begun: int) -> Iterator[Log]:
    """Yield a function that passes a step on to all of them.

    Args:
        names: of `MODULES`.
        tracked: what is trained.
        n_begun: steps that an earlier attempt took, and told of.
    """
    check_loggers(names)
    with ExitStack() as stack:
        logs = [stack.enter_context(OPENERS[name](tracked, n_begun)) for name in names]

        def log(record: StepRecord) -> None:
            for each in logs:
                each(record)

        yield log


LAST_FIGURE = "grad_norm"
"""A step that has it was told of whole."""


def figures(record: StepRecord) -> dict[str, float]:
    """A step's numbers by the names they have in every logger."""
    of_class = {f"loss/{name}": loss for name, loss in record.loss_by_class.items()}
    held_out = {} if record.heldout_loss is None else {"heldout_loss/all": record.heldout_loss}
    held_out |= {f"heldout_loss/{name}": loss for name, loss in (record.heldout_by_class or {}).items()}
    return {"loss/all": record.loss, **of_class, **held_out, "lr": record.lr, "grad_norm": record.grad_norm}


@contextmanager
def _tensorboard(tracked: Tracked, n_begun: int) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    folder = tracked.folder / "tensorboard" / tracked.run
    with SummaryWriter(str(folder), purge_step=n_begun + 1) as writer:

        def log(record: StepRecord) -> None:
            for name, value in figures(record).items():
                writer.add_scalar(name, value, record.step)

        yield log


@contextmanager
def _mlflow(tracked: Tracked, n_begun: int) -> Iterator[Log]:
    del n_begun
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}  # it would ask a server, and tell it of runs
    os.environ.pop("MLFLOW_RUN_ID", None)  # another run's
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # a folder needs no server; it says that a database would be faster
    import mlflow

    mlflow.set_tracking_uri((tracked.folder / "mlflow").resolve().as_uri())
    mlflow.set_experiment(PROJECT)
    earlier = mlflow.search_runs(experiment_names=[PROJECT], filter_string=f"run_name = '{tracked.run}'", output_format="list")
    with mlflow.start_run(run_id=earlier[0].info.run_id if earlier else None, run_name=tracked.run):
        known_steps = set()  # behind its last state an earlier attempt may have told of steps that are taken again, the same
        if earlier:
            history = mlflow.MlflowClient().get_metric_history(earlier[0].info.run_id, LAST_FIGURE)
            known_steps = {metric.step for metric in history}
        else:
            mlflow.log_params(dict(tracked.settings))

        def log(record: StepRecord) -> None:
            if record.step not in known_steps:
                mlflow.log_metrics(figures(record), step=record.step)

        yield log


@contextmanager
def _trackio(tracked: Tracked, n_begun: int) -> Iterator[Log]:
    del n_begun  # steps that are taken again stand there twice, the same
    folder = tracked.folder / "trackio"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TRACKIO_DIR"] = str(folder)
    os.environ.pop("TRACKIO_SPACE_ID", None)  # would send all of it there
    import trackio

    run = trackio.init(project=PROJECT, name=tracked.run, config=dict(tracked.settings), resume="allow")
    try:
        yield lambda record: run.log(figures(record), step=record.step)
    finally:
        run.finish()


OPENERS: dict[str, Callable[[Tracked, int], Any]] = {"tensorboard": _tensorboard, "mlflow": _mlflow, "trackio": _trackio}
