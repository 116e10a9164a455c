"""Every engine takes the steps of a plain fp32 loop: exactly in fp32, within its rounding in bf16."""

import json
import subprocess
import sys
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from negtraj_dagster.checkpoints.dataset import load_rows, plan_steps, step_weight
from negtraj_dagster.launch import child_env
from tests.checkpoints.conftest import Material
from tests.checkpoints.test_train import read_curve
from tests.checkpoints.zero_grid import loss_of_all_logits

REPOSITORY = Path(__file__).parents[2]
N_STEPS = 8
LR = 1e-3
"""AdamW moves a weight whose gradient is rounding alone by as much as any other: what two sums differ by grows with it."""


def run_grid(folder: Path, *engines: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.checkpoints.zero_grid", str(folder), *engines]
    done = subprocess.run(command, cwd=REPOSITORY, env=child_env(), capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def check(result: dict[str, Any]) -> None:
    for name, engine in result["engines"].items():
        exact = name.startswith("fp32")
        assert engine["first_step"] == pytest.approx(1.0, abs=1e-4 if exact else 0.01), name
        assert engine["losses"][-1] == pytest.approx(result["losses"][-1], abs=1e-4 if exact else 0.02), name


def test_bf16_takes_the_steps_of_a_plain_loop(material):
    check(run_grid(material.folder, "bf16:2"))


def test_offloading_and_making_activations_again_change_no_step(material):
    check(run_grid(material.folder, "fp32:2:optimizer:again", "fp32:3:all:again"))


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["none", "optimizer", "all"])
def test_every_offload_takes_the_steps_of_a_plain_loop(material, offload):
    least = {"none": 0, "optimizer": 1, "all": 3}[offload]
    engines = [("fp32", stage) for stage in range(least, 4)] + [("bf16", stage) for stage in range(max(1, least), 4)]
    check(run_grid(material.folder, *(f"{dtype}:{stage}:{offload}:again" for dtype, stage in engines)))


@pytest.mark.slow
def test_every_stage_and_number_format_takes_the_steps_of_a_plain_loop(material):
    check(run_grid(material.folder, *(f"fp32:{stage}" for stage in range(4)), *(f"bf16:{stage}" for stage in (1, 2, 3))))


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_ranks_and_micro_batches_train_to_the_weights_of_a_plain_loop(
    material: Material, zero_stage: int, ranks: int, micro_batch_size: int
) -> None:
    """8 steps in fp32, rows of unequal lengths and weights; the loop has all logits, and the trainer's learning rates."""
    losses, weights = plain_run(material)
    changes = {"zero_stage": zero_stage, "ranks": ranks, "micro_batch_size": micro_batch_size}
    folder = material.train(f"grid-{zero_stage}-{ranks}-{micro_batch_size}", steps=N_STEPS, lr=LR, **changes)
    exported = load_file(folder / "model" / "model.safetensors")
    assert [line["loss"] for line in read_curve(folder)] == pytest.approx(losses, abs=1e-5)
    for name, tensor in exported.items():
        assert float((tensor - weights[name]).abs().max()) <= 1e-5, name


@cache
def plain_run(material: Material) -> tuple[list[float], dict[str, Any]]:
    """Losses, and weights after 8 steps."""
    from negtraj_dagster.checkpoints import zero
    from negtraj_dagster.checkpoints.schedule import learning_rate
    from negtraj_dagster.checkpoints.train import read_job

    settings = read_job(material.config("plain", steps=N_STEPS, lr=LR)).training
    rows = load_rows(material.folder / "index.parquet", [material.folder / f"{name}.arrow" for name in "ab"])
    model = AutoModelForCausalLM.from_pretrained(material.folder / "base", dtype=torch.float32)
    groups = zero.parameter_groups(list(model.parameters()), settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=settings.peak_lr, betas=settings.betas)
    losses = []
    for number, step in enumerate(islice(plan_steps(rows, batch_size=settings.batch_size, seed=settings.seed), N_STEPS)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(number, settings)
        loss = loss_of_all_logits(model, step) / step_weight(step, number)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clipping)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, {name: tensor.detach() for name, tensor in model.state_dict().items()}
