"""Rows of a micro-batch behind one another in one long row, instead of padded below one another.

Positions begin anew with each row, and no mask is given: transformers then keeps rows apart (its masking_utils), by
variable-length kernels where the model uses flash attention, else by a block-diagonal mask; on a processor each row is attended
to by itself (`row_attention`). A model that does not keep them apart is found out before the first step, and trained unpacked.

Shape legend: T tokens of all rows together, N trained positions in them.
"""

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from negtraj_dagster import _trajtok  # noqa: TID251 - the bins are the crate's, and nothing else of it is used here
from negtraj_dagster.checkpoints.dataset import PAD_ID, MicroBatch, Row, collate
from negtraj_dagster.checkpoints.row_attention import leave_row_attention, use_row_attention
from negtraj_dagster.checkpoints.world import World

LOG = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Of packed and separate losses, relative to the largest."""
N_CHECKED = 4


def pack_share(step_rows: Sequence[Row], *, rank: int, ranks: int, n_micro: int) -> list[list[Row]]:
    """A rank's rows of a step, as `n_micro` micro-batches of as equal a number of tokens as bins allow."""
    lengths = [len(row.input_ids) for row in step_rows]
    n_slots = ranks * n_micro
    low, high = max(max(lengths), -(-sum(lengths) // n_slots)), sum(lengths)
    while low < high:  # the least capacity with which there are bins enough
        middle = (low + high) // 2
        low, high = (low, middle) if len(_trajtok.pack(lengths, middle)) <= n_slots else (middle + 1, high)
    bins = _trajtok.pack(lengths, high)
    bins += [[] for _ in range(n_slots - len(bins))]
    return [[step_rows[i] for i in bins[slot * ranks + rank]] for slot in range(n_micro)]


def collate_packed(rows: Sequence[Row]) -> MicroBatch:
    """One row [1, T] of all rows; no rows give one padding token and no targets."""
    lengths = [len(row.input_ids) for row in rows]
    starts = np.cumsum([0, *lengths])[:-1]
    ids = np.concatenate([row.input_ids for row in rows]) if rows else np.full(1, PAD_ID)
    positions = np.concatenate([np.arange(length) for length in lengths]) if rows else np.zeros(1, dtype=np.int64)
    places = [row.target_places.astype(np.int64) + (start - 1) for row, start in zip(rows, starts, strict=True)]
    places_N = np.concatenate(places) if rows else np.empty(0, dtype=np.int64)
    weights_N = np.concatenate([row.target_weights for row in rows]) if rows else np.empty(0, dtype=np.float32)
    rows_N = np.repeat(np.arange(len(rows)), [len(row.target_places) for row in rows])
    ids_1T = ids.astype(np.int64)[None]
    arrays = (ids_1T, places_N, ids_1T[0][places_N + 1], weights_N, rows_N, positions[None])
    return MicroBatch(*map(torch.from_numpy, arrays))


def use_fast_attention(model: Any, *, dtype: str, world: World) -> None:
    """Have a model attend so that packed rows cost no mask: in bf16 on a GPU by flash attention where that is installed."""
    if world.device.type == "cpu":
        use_row_attention(model)
    elif world.device.type == "cuda" and dtype == "bf16" and importlib.util.find_spec("flash_attn"):
        model.set_attn_implementation("flash_attention_2")


def keeps_rows_apart(engine: Any, rows: Sequence[Row], *, world: World) -> bool:
    """Whether this very model gives the same losses for rows packed and one by one. Every rank calls this.

    One that does with a mask alone gets its mask back. Where it does not, a warning says by how much.
    """
    distinct = sorted({row.token_key: row for row in rows if row.weight > 0}.values(), key=lambda row: len(row.input_ids))
    sample = [*distinct[: N_CHECKED - 1], *distinct[N_CHECKED - 1 :][-1:]]  # the shortest, and the longest
    if len(sample) < 2:
        LOG.warning("training.packing: one row alone shows nothing of how this model keeps rows apart: it is trained unpacked")
        return False
    allowed = TOLERANCE[next(engine.module.parameters()).dtype]
    difference = _difference(engine, sample, world=world)
    if not difference <= allowed and leave_row_attention(engine.module.causal):
        difference = _difference(engine, sample, world=world)
    if difference <= allowed:
        return True
    LOG.warning(
        "training.packing: this model lets packed rows see one another (losses differ by %.1e, allowed %.0e): it is trained "
        "unpacked",
        difference,
        allowed,
    )
    return False


def _difference(engine: Any, sample: Sequence[Row], *, world: World) -> float:
    """Of the losses of rows packed and one by one, the largest of any rank, relative to the largest loss."""
    was_training = engine.module.training
    engine.eval()
    with torch.no_grad():
        _, together_N = collate_packed(sample).to(world.device).run(engine)
        alone_N = torch.cat([collate([row]).to(world.device).run(engine)[1] for row in sample])
    engine.train(was_training)
    difference = (together_N - alone_N).abs().max() / alone_N.abs().max().clamp(min=1.0)
    if world.ranks > 1:
        torch.distributed.all_reduce(difference, op=torch.distributed.ReduceOp.MAX)
    return float(difference)
