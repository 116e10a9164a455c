"""Losses by class, over micro-batches and ranks, of rows that a step trained or that are held out.

Shape legend: N trained positions.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from negtraj_dagster.checkpoints.dataset import MicroBatch, Row, collate, rank_share
from negtraj_dagster.checkpoints.world import World


class ClassSums:
    """Losses of rows summed up by class, over micro-batches and ranks."""

    def __init__(self, rows: Sequence[Row], world: World) -> None:
        self._world = world
        self.weights: dict[str, float] = {}
        for row in rows:
            self.weights[row.class_name] = self.weights.get(row.class_name, 0.0) + row.weight
        self._numbers = {name: i for i, name in enumerate(sorted(self.weights))}
        self._sums = torch.zeros(len(self._numbers), dtype=torch.float64, device=world.device)

    def add(self, rows: Sequence[Row], batch: MicroBatch, losses_N: torch.Tensor) -> None:
        """What a micro-batch of this rank cost."""
        if not rows:
            return
        classes = torch.tensor([self._numbers[row.class_name] for row in rows], device=self._world.device)
        self._sums.index_add_(0, classes[batch.rows_N], (losses_N.detach() * batch.weights_N).double())

    def means(self) -> dict[str, float]:
        """sum(w * ce) / sum(w) of each class that has a weight; every rank calls this once."""
        if self._world.ranks > 1:
            torch.distributed.all_reduce(self._sums)
        sums = self._sums.tolist()
        return {name: sums[i] / self.weights[name] for name, i in self._numbers.items() if self.weights[name] > 0}


def measure_loss(engine: Any, rows: Sequence[Row], *, micro_batch_size: int, world: World) -> tuple[float, dict[str, float]]:
    """(loss, loss by class) of rows that are not trained; every rank calls this, each computes its share."""
    by_length = sorted(rows, key=lambda row: len(row.input_ids))
    n_micro = -(-len(by_length) // (micro_batch_size * world.ranks))
    shares = rank_share(by_length, rank=world.rank, ranks=world.ranks, micro_batch_size=micro_batch_size, n_micro=n_micro)
    sums = ClassSums(by_length, world)
    engine.eval()
    with torch.no_grad():
        for share in shares:
            batch = collate(share).to(world.device)
            _, losses_N = batch.run(engine)
            sums.add(share, batch, losses_N)
    engine.train()
    by_class = sums.means()
    weights = {name: sums.weights[name] for name in by_class}
    return sum(by_class[name] * weight for name, weight in weights.items()) / sum(weights.values()), by_class


def hold_out(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    """(trained, held out): a question's rows are all on one side, by its id alone, so that new data move no old row.

    What is held out stands there once, whatever its `repeat` is.
    """
    trained: list[Row] = []
    held_out: dict[tuple[str, str], Row] = {}
    for row in rows:
        draw = int.from_bytes(hashlib.sha256(f"held out {row.question_id}".encode()).digest()[:8], "big") / 2**64
        if draw < share and row.weight > 0:  # without a weight there is nothing to measure
            held_out[row.token_key, row.class_name] = row
        elif draw >= share:
            trained.append(row)
    return trained, list(held_out.values())
