"""Losses by class, and of questions that are held out: measured, never trained."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from negtraj_dagster.checkpoints.dataset import Row, load_rows, plan_steps
from negtraj_dagster.checkpoints.losses import hold_out
from negtraj_dagster.errors import ChildRunError
from tests.checkpoints.conftest import Material
from tests.checkpoints.test_train import read_curve
from tests.checkpoints.zero_grid import loss_of_all_logits

SHARE = 0.3


def rows_of(material: Material) -> list[Row]:
    return load_rows(material.folder / "index.parquet", [material.folder / f"{name}.arrow" for name in "ab"])


def row(question: str, token_key: str = "key", class_name: str = "positive", n: int = 4) -> Row:
    return Row(token_key, question, class_name, np.arange(n, dtype=np.int32), np.array([2]), np.array([1.0]))


@pytest.fixture(scope="module")
def held_out_run(material: Material):
    """Two ranks, a quarter of the questions held out, measured every five steps of twelve."""
    return material.train("held_out", heldout_share=SHARE, ranks=2, steps=12, micro_batch_size=3)


def mean_loss(model, rows: Sequence[Row]) -> float:
    return float(loss_of_all_logits(model, rows).detach()) / sum(row.weight for row in rows)


def test_a_question_is_held_out_whole_and_stays_so_when_others_come() -> None:
    rows = [row(f"question-{i // 3}", f"key-{i}") for i in range(300)]
    trained, held_out = hold_out(rows, SHARE)
    sides = [{row.question_id for row in side} for side in (trained, held_out)]
    assert not sides[0] & sides[1]
    assert len(trained) + len(held_out) == 300
    assert 0.2 < len(held_out) / 300 < 0.4
    assert hold_out([*rows, row("question-new")], SHARE)[1][: len(held_out)] == held_out


def test_what_is_held_out_counts_once_and_what_is_trained_as_often_as_it_repeats() -> None:
    repeated = [row(f"question-{i}", f"key-{i}") for i in range(50)] * 3
    trained, held_out = hold_out(repeated, SHARE)
    assert len(trained) == 3 * (50 - len(held_out))
    assert len({row.token_key for row in held_out}) == len(held_out)


def test_the_held_out_loss_is_the_exported_models_own(material: Material, held_out_run) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(held_out_run / "model", dtype=torch.float32)
    _, held_out = hold_out(rows_of(material), SHARE)
    curve, result = read_curve(held_out_run), json.loads((held_out_run / "result.json").read_text())
    assert [line["step"] for line in curve if line["heldout_loss"] is not None] == [5, 10, 12]
    assert curve[-1]["heldout_loss"] == pytest.approx(mean_loss(model, held_out), abs=1e-5)
    for name, loss in curve[-1]["heldout_by_class"].items():
        assert loss == pytest.approx(mean_loss(model, [row for row in held_out if row.class_name == name]), abs=1e-5)
    assert result["n_heldout_rows"] == len(held_out) > 0
    assert result["heldout_loss"] == curve[-1]["heldout_loss"]
    assert result["lowest_heldout_loss"] == min(line["heldout_loss"] for line in curve if line["heldout_loss"] is not None)


def test_losses_by_class_make_up_the_loss(material: Material, held_out_run) -> None:
    trained, _ = hold_out(rows_of(material), SHARE)
    for line, step_rows in zip(read_curve(held_out_run), plan_steps(trained, batch_size=8, seed=0), strict=False):
        weights = {name: sum(row.weight for row in step_rows if row.class_name == name) for name in line["loss_by_class"]}
        parts = sum(loss * weights[name] for name, loss in line["loss_by_class"].items())
        assert parts / sum(weights.values()) == pytest.approx(line["loss"], abs=1e-5)


def test_measuring_changes_no_weight(material: Material) -> None:
    from safetensors.torch import load_file

    often, seldom = (
        material.train(f"measured-{every}", heldout_share=SHARE, heldout_every_steps=every, steps=4, zero_stage=3)
        for every in (1, 100)
    )
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (often, seldom)]
    assert all(tensor.equal(weights[1][name]) for name, tensor in weights[0].items())


def test_a_class_that_is_held_out_whole_is_refused_by_name(material: Material) -> None:
    with pytest.raises(ChildRunError, match=r"heldout_share = 0\.999 holds out every row of class 'negative', 'positive'"):
        material.train("all_held_out", heldout_share=0.999)
