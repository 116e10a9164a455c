"""What only a GPU can show: its optimizer, its collectives, its memory (`make test-gpu`); skipped where there is none."""

import json
from typing import Any

import pytest

from negtraj_dagster.launch import has_gpu
from tests.checkpoints.conftest import Material
from tests.checkpoints.test_resume import SAVES, kill_somewhere, result
from tests.checkpoints.test_train import read_curve
from tests.checkpoints.test_zero_grid import check, run_grid

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not has_gpu(), reason="no GPU is visible")]


def losses(folder: Any) -> list[float]:
    return [line["loss"] for line in read_curve(folder)]


def n_gpus() -> int:
    import torch

    return torch.cuda.device_count()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_stage_takes_the_steps_of_a_plain_loop(gpu_material: Material, dtype: str) -> None:
    check(run_grid(gpu_material.folder, *(f"{dtype}:{stage}" for stage in range(dtype == "bf16", 4))))


@pytest.mark.parametrize("offload", ["optimizer", "all"])
def test_what_is_offloaded_takes_the_same_steps(gpu_material: Material, offload: str) -> None:
    check(run_grid(gpu_material.folder, f"fp32:3:{offload}:again", f"bf16:3:{offload}:"))


def test_the_trainer_runs_on_the_gpu_and_says_what_it_took(gpu_material: Material) -> None:
    told = json.loads((gpu_material.train("on_gpu") / "result.json").read_text())
    assert told["device"] == "cuda:0"
    assert told["peak_gpu_bytes"] > 0


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_killed_training_goes_on(gpu_material: Material, zero_stage: int) -> None:
    changes = {**SAVES, "zero_stage": zero_stage}
    whole = gpu_material.train(f"whole-{zero_stage}", **changes)
    kill_somewhere(gpu_material, f"killed-{zero_stage}", 0, **changes)
    last = gpu_material.train(f"killed-{zero_stage}", states=f"killed-{zero_stage}", **changes)
    assert result(last)["resumed_behind_step"] > 0
    assert losses(last) == pytest.approx(losses(whole), abs=1e-5)


def test_two_gpus_train_what_one_does_and_go_on_as_one(gpu_material: Material) -> None:
    if n_gpus() < 2:
        pytest.skip("one GPU is visible, two are needed")
    one = gpu_material.train("one", **SAVES)
    two = gpu_material.train("two", **{**SAVES, "ranks": 2})
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_packed_rows_are_trained_as_rows_alone(gpu_material: Material, dtype: str) -> None:
    unpacked, packed = (gpu_material.train(f"packing-{dtype}-{on}", packing=on, dtype=dtype, steps=5) for on in (False, True))
    assert losses(packed) == pytest.approx(losses(unpacked), abs=1e-4 if dtype == "fp32" else 2e-2)
