"""Six steps of an engine of each stage and number format beside a plain fp32 loop. A child of test_zero_grid.py.

    python -m tests.checkpoints.zero_grid FOLDER fp32:0 bf16:2 fp32:3:all:again ...

A third word is what is offloaded; the fourth has activations made again in the backward pass.
Prints one JSON object: the loop's losses, and of each engine its first step's length over the loop's, its losses and norms.
"""

import json
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from negtraj_dagster.checkpoints import zero
from negtraj_dagster.checkpoints.dataset import Row, load_rows, plan_steps, step_weight
from negtraj_dagster.checkpoints.train import quiet_libraries

ADAMW: dict[str, Any] = {"lr": 0.005, "betas": (0.9, 0.98)}
WEIGHT_DECAY = 0.1
N_STEPS = 6


def main(folder: Path, engines: Sequence[str]) -> None:
    quiet_libraries()
    rows = load_rows(folder / "index.parquet", [folder / f"{name}.arrow" for name in "ab"])
    plan = list(islice(plan_steps(rows, batch_size=8, seed=0), N_STEPS))
    losses, first_step = plain_loop(folder / "base", rows, plan)
    world, results = zero.start_world(), {}
    for engine in engines:
        results[engine] = run(folder / "base", rows, plan, engine, first_step, world)
    print(json.dumps({"losses": losses, "engines": results}))


def plain_loop(base: Path, rows: list[Row], plan: list[list[Row]]) -> tuple[list[float], torch.Tensor]:
    module = zero.build_module(base, rows=rows, seed=0, lora=None)
    start, first_step, losses = weights(module), None, []
    optimizer = torch.optim.AdamW(zero.parameter_groups(list(module.parameters()), WEIGHT_DECAY), **ADAMW)
    for number, step in enumerate(plan):
        loss = loss_of_all_logits(module.causal, step) / step_weight(step, number)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        first_step = weights(module) - start if first_step is None else first_step
    assert first_step is not None
    return losses, first_step


def loss_of_all_logits(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    """Row by row, the model's own logits at every place: nothing of the trainer's batching, places and chunks."""
    losses = []
    for row in rows:
        ids = torch.from_numpy(row.input_ids.astype("int64"))
        logits = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0]
        places = torch.from_numpy(row.target_places.astype("int64"))
        ce = torch.nn.functional.cross_entropy(logits[places - 1].float(), ids[places], reduction="none")
        losses.append((ce * torch.from_numpy(row.target_weights)).sum())
    return torch.stack(losses).sum()


def run(
    base: Path, rows: list[Row], plan: list[list[Row]], name: str, first_step: torch.Tensor, world: zero.World
) -> dict[str, Any]:
    dtype, stage_text, offload, again = (*name.split(":"), "none", "")[:4]
    stage = int(stage_text)
    module = zero.build_module(base, rows=rows, seed=0, lora=None, checkpoints_gradients=bool(again))
    start, ratio, steps = weights(module), 0.0, []
    engine = zero.start_engine(
        module,
        zero_stage=stage,
        dtype=dtype,
        micro_batch_size=8,
        n_micro=1,
        gradient_clipping=1.0,
        weight_decay=WEIGHT_DECAY,
        offload=offload,
        **ADAMW,
    )
    for number, step in enumerate(plan):
        steps.append(zero.train_step(engine, [step], step, step_weight(step, number), world=world))
        if number == 0:
            with zero.whole_parameters(engine.module, zero_stage=stage):
                ratio = float((weights(engine.module) - start).norm() / first_step.norm())
    return {"first_step": ratio, "losses": [done.loss for done in steps], "norms": [done.grad_norm for done in steps]}


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().float().reshape(-1).cpu() for parameter in module.parameters()])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
