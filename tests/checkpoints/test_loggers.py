"""Loggers are told of every step, once, also where the training goes on after a kill."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from negtraj_dagster.checkpoints import loggers
from negtraj_dagster.checkpoints.curve import StepRecord
from negtraj_dagster.checkpoints.loggers import Tracked, check_loggers, open_loggers
from negtraj_dagster.errors import TrainingError


def record(step: int) -> StepRecord:
    by_class = {"negative": step + 0.25, "positive": step + 0.75}
    return StepRecord(step, step + 0.5, by_class, 1e-3, 0.9, 8, 800, 300, step * 0.1, heldout_loss=9.0 if step == 4 else None)


def train_with_a_kill(name: str, folder: Path) -> None:
    """Steps 1 to 3, of which the state after step 2 was saved; then 3 and 4 by another attempt."""
    tracked = Tracked(folder, "tiny-0123", {"steps": 4, "lr": 0.1})
    for n_begun, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with open_loggers([name], tracked, n_begun=n_begun) as log:
            for step in steps:
                log(record(step))


def test_tensorboard_has_every_step_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_with_a_kill("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "tiny-0123"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/all")] == [(step, step + 0.5) for step in (1, 2, 3, 4)]
    assert [event.value for event in events.Scalars("loss/positive")] == [1.75, 2.75, 3.75, 4.75]
    assert [(event.step, event.value) for event in events.Scalars("heldout_loss/all")] == [(4, 9.0)]


def test_mlflow_has_one_run_of_all_steps(tmp_path: Path) -> None:
    train_with_a_kill("mlflow", tmp_path)
    from mlflow import MlflowClient

    client = MlflowClient((tmp_path / "mlflow").as_uri())
    (experiment,) = [each for each in client.search_experiments() if each.name == "negtraj"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.data.params) == ("tiny-0123", {"steps": "4", "lr": "0.1"})
    history = [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, "loss/all")]
    assert sorted(history) == [(step, step + 0.5) for step in (1, 2, 3, 4)], "each once"


def test_mlflow_asks_no_server(tmp_path: Path) -> None:
    """In a process of its own: it tells nobody anything where it finds pytest's variable."""
    code = (
        "import socket, sys; from pathlib import Path\n"
        "def refuse(*args, **kwargs): print('CONNECTED', args); raise OSError('no network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from negtraj_dagster.checkpoints.loggers import Tracked, open_loggers\n"
        "from tests.checkpoints.test_loggers import record\n"
        "with open_loggers(['mlflow'], Tracked(Path(sys.argv[1]), 'r', {}), n_begun=0) as log: log(record(1))\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled; print(is_telemetry_disabled())"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTEST_CURRENT_TEST", "CI")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"]


def test_a_logger_that_is_not_installed_is_refused_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loggers.MODULES, "trackio", "no_such_module")
    with pytest.raises(TrainingError, match=r"names trackio, not installed; pip install 'negtraj-dagster\[trackio\]'"):
        check_loggers(["tensorboard", "trackio"])
    check_loggers(["tensorboard"])


def test_every_logger_that_a_recipe_may_name_can_be_opened() -> None:
    from typing import get_args

    from negtraj_dagster.recipes import TrainingSettings

    named = get_args(get_args(TrainingSettings.model_fields["loggers"].annotation)[0])
    assert set(named) == loggers.OPENERS.keys() == loggers.MODULES.keys()
