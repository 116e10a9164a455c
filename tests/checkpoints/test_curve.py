"""What is told of a training: its line of progress, its sums, its curves."""

import json
from dataclasses import asdict

import pytest

from negtraj_dagster.checkpoints.curve import StepRecord, progress_line, thin_curves, totals


def record(step: int, *, heldout: float | None = None, classes: tuple[str, ...] = ("negative", "positive")) -> StepRecord:
    by_class = {name: step + i for i, name in enumerate(classes)}
    measured = {"heldout_loss": heldout, "heldout_by_class": {"negative": heldout, "positive": heldout}} if heldout else {}
    return StepRecord(step, step + 0.5, by_class, 1e-3, 0.84, 8, 800, 300, step * 0.1, **measured)


def test_progress_says_each_classs_loss_and_the_held_out_one() -> None:
    curve = [record(1), record(2, heldout=0.7)]
    assert progress_line(curve, 4) == (
        "step 2/4 loss 2.500 (negative 2.000, positive 3.000) held out 0.700 (negative 0.700, positive 0.700) lr 1.0e-03 "
        "8.0k tok/s grad_norm 0.84 0:00 left"
    )


def test_one_class_is_not_told_twice() -> None:
    assert "(" not in progress_line([record(1, classes=("positive",))], 4)


def test_totals_take_each_classs_last_steps_and_the_lowest_held_out_loss() -> None:
    curve = [record(1, heldout=0.9), record(2, heldout=0.3), record(3, classes=("negative",)), record(4, heldout=0.4)]
    told = totals(curve, n_rows=16, batch_size=8)
    assert told["final_loss_by_class"] == pytest.approx({"negative": 2.5, "positive": (2 + 3 + 5) / 3})
    assert (told["heldout_loss"], told["lowest_heldout_loss"], told["lowest_heldout_step"]) == (0.4, 0.3, 2)
    assert (told["epochs"], told["rows_seen"], told["trained_share"]) == (2.0, 32, 0.375)


def test_curves_are_means_of_neighbouring_steps() -> None:
    records = [json.loads(json.dumps(asdict(record(step, heldout=5.0 if step % 4 == 0 else None)))) for step in range(1, 9)]
    assert thin_curves(records, n_points=4) == {
        "loss": [[2, 2.0], [4, 4.0], [6, 6.0], [8, 8.0]],
        "negative": [[2, 1.5], [4, 3.5], [6, 5.5], [8, 7.5]],
        "positive": [[2, 2.5], [4, 4.5], [6, 6.5], [8, 8.5]],
        "held out": [[4, 5.0], [8, 5.0]],
    }
    assert thin_curves([{"step": 1, "loss": 2.0, "loss_by_class": {"positive": 2.0}, "heldout_loss": None}]) == {
        "loss": [[1, 2.0]]
    }
