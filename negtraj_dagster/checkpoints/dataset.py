"""Reads token segments and an index into training rows, and plans which rows each optimiser step trains.

The plan depends on rows, batch size and seed only: any number of ranks and any micro-batch size train the same rows.

Shape legend: B rows of a micro-batch, T tokens of its longest row, N trained positions in it.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq
import torch

from negtraj_dagster.errors import TrainingError

PAD_ID = 0
"""Any id would do: padding stands right of every row, is never attended to by a row and never a target."""

BATCHES_PER_BUCKET = 8
"""Rows are sorted by length within a bucket of this many batches: little padding, order still random."""

MAX_NAMED_KEYS = 8
INDEX_COLUMNS = ["token_key", "question_id", "class", "weight", "repeat"]
LISTS = ("input_ids", "span_start", "span_end", "span_weight")


@dataclass(frozen=True)
class Row:
    """A tokenized conversation.

    Attributes:
        question_id: what it answers; rows of one question are trained together or held out together.
        class_name: what it is trained as.
        input_ids: int32 [n_tokens], in the segment's own memory.
        target_places: int32 [n]; places p >= 1 whose token is a target. It is predicted from place p - 1.
        target_weights: float32 [n]; span weight times the index's row weight.
    """

    token_key: str
    question_id: str
    class_name: str
    input_ids: npt.NDArray[np.int32]
    target_places: npt.NDArray[np.int32]
    target_weights: npt.NDArray[np.float32]

    @property
    def weight(self) -> float:
        """The row's share of a step's normaliser."""
        return float(self.target_weights.sum(dtype=np.float64))


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass needs.

    Attributes:
        ids_BT: int64, padded on the right.
        places_N: int64; flat places in [B * T] of the tokens *before* each target.
        targets_N: int64.
        weights_N: float32.
        rows_N: int64; which of the batch's rows a target is in.
        positions_BT: int64, where rows are packed behind one another; None where each stands alone.
    """

    ids_BT: torch.Tensor
    places_N: torch.Tensor
    targets_N: torch.Tensor
    weights_N: torch.Tensor
    rows_N: torch.Tensor
    positions_BT: torch.Tensor | None = None

    def to(self, device: torch.device) -> "MicroBatch":
        """The same batch on a device."""
        moved: dict[str, Any] = {name: None if tensor is None else tensor.to(device) for name, tensor in vars(self).items()}
        return replace(self, **moved)

    def run(self, module: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What `TargetLoss`, or an engine around it, makes of the batch: its loss, and float32 [N] of each target's."""
        loss, losses_N = module(self.ids_BT, self.places_N, self.targets_N, self.weights_N, self.positions_BT)
        return loss, losses_N


def load_rows(index_path: Path, segment_paths: Sequence[Path]) -> list[Row]:
    """The rows an index names, each as often as its `repeat` says, in the index's order.

    Args:
        index_path: Parquet with token_key, question_id, class, weight, repeat.
        segment_paths: Arrow IPC files with token_key, input_ids, span_start, span_end, span_weight.

    Raises:
        TrainingError: an unreadable file, an empty index, or keys that no segment holds (named).
    """
    index = _read(index_path, lambda path: pq.read_table(path, columns=INDEX_COLUMNS))
    if index.num_rows == 0:
        raise TrainingError(f"{index_path}: no rows, expected at least one; select trajectories before training")
    token_keys = set(index["token_key"].to_pylist())
    stored = _read_segments(segment_paths, pa.array(sorted(token_keys)))
    if missing := sorted(token_keys - stored.keys()):
        some_keys = ", ".join(missing[:MAX_NAMED_KEYS]) + (", …" if len(missing) > MAX_NAMED_KEYS else "")
        raise TrainingError(
            f"{index_path}: {len(missing)} of {len(token_keys)} token keys are in none of {len(segment_paths)} segments: "
            f"{some_keys}; materialize tokenized_shards again"
        )
    rows: list[Row] = []
    for entry in index.to_pylist():
        if not 0 <= entry["weight"] < float("inf"):
            raise TrainingError(
                f"{index_path}, token key {entry['token_key']}: weight {entry['weight']}, expected a number >= 0; "
                f"materialize tokenized_shards again"
            )
        tokens = stored[entry["token_key"]]
        weights = tokens.target_weights * np.float32(entry["weight"])
        row = Row(entry["token_key"], entry["question_id"], entry["class"], tokens.input_ids, tokens.target_places, weights)
        rows += [row] * entry["repeat"]
    if not rows:
        raise TrainingError(f"{index_path}: every row has repeat 0; expected at least one row to train")
    return rows


def plan_steps(rows: Sequence[Row], *, batch_size: int, seed: int) -> Iterator[list[Row]]:
    """Yield the global rows of one optimiser step after another, epoch after epoch, without end.

    An epoch shuffles all rows, sorts them by length within buckets and shuffles each bucket's batches; its last batch
    may be smaller than `batch_size`. The first step of all has the longest row: a machine that is too small for it fails
    then, not after hours.
    """
    rng = random.Random(seed)
    bucket_size = batch_size * BATCHES_PER_BUCKET
    order = list(range(len(rows)))
    longest = max(order, key=lambda i: len(rows[i].input_ids), default=0)
    is_first_step = True
    while True:
        rng.shuffle(order)
        starts = list(range(0, len(order), bucket_size))
        if is_first_step:
            starts.insert(0, starts.pop(order.index(longest) // bucket_size))
        for start in starts:
            bucket = sorted(order[start : start + bucket_size], key=lambda i: len(rows[i].input_ids))
            batches = [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
            rng.shuffle(batches)
            if is_first_step:
                batches.sort(key=lambda batch: longest not in batch)
                is_first_step = False
            yield from ([rows[i] for i in batch] for batch in batches)


def rank_share(step_rows: Sequence[Row], *, rank: int, ranks: int, micro_batch_size: int, n_micro: int) -> list[list[Row]]:
    """A rank's rows of a step, as `n_micro` micro-batches; some are empty where the step's rows run out."""
    starts = [(i * ranks + rank) * micro_batch_size for i in range(n_micro)]
    return [list(step_rows[start : start + micro_batch_size]) for start in starts]


def collate(rows: Sequence[Row]) -> MicroBatch:
    """Pad rows on the right into one micro-batch; no rows give one padding token and no targets."""
    width = max((len(row.input_ids) for row in rows), default=1)
    ids_BT = np.full((max(len(rows), 1), width), PAD_ID, dtype=np.int64)
    for i, row in enumerate(rows):
        ids_BT[i, : len(row.input_ids)] = row.input_ids
    places = [row.target_places.astype(np.int64) + (i * width - 1) for i, row in enumerate(rows)]
    places_N = np.concatenate(places) if rows else np.empty(0, dtype=np.int64)
    targets_N = ids_BT.reshape(-1)[places_N + 1]
    weights_N = np.concatenate([row.target_weights for row in rows]) if rows else np.empty(0, dtype=np.float32)
    rows_N = np.repeat(np.arange(len(rows)), [len(row.target_places) for row in rows])
    return MicroBatch(*(torch.from_numpy(array) for array in (ids_BT, places_N, targets_N, weights_N, rows_N)))


def step_weight(step_rows: Sequence[Row], step: int) -> float:
    """Sum of target weights of a step's rows, over all ranks.

    Raises:
        TrainingError: it is 0, so the step has no loss.
    """
    weight = sum(row.weight for row in step_rows)
    if weight <= 0:
        raise TrainingError(
            f"step {step + 1}: rows {name_rows(step_rows)} have no trained token, expected a weight above 0; "
            "look at their spans and index weights"
        )
    return weight


def name_rows(rows: Sequence[Row]) -> str:
    """Token keys for a message, the first few of them."""
    keys = [row.token_key for row in rows]
    return ", ".join(keys[:MAX_NAMED_KEYS]) + (", …" if len(keys) > MAX_NAMED_KEYS else "")


def _read(path: Path, read: Callable[[Path], pa.Table]) -> pa.Table:
    try:
        return read(path)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}); materialize tokenized_shards again") from error


@dataclass(frozen=True)
class _Tokens:
    """A row's tokens and targets, as a segment has them; see `Row`."""

    input_ids: npt.NDArray[np.int32]
    target_places: npt.NDArray[np.int32]
    target_weights: npt.NDArray[np.float32]


def _read_segments(segment_paths: Sequence[Path], wanted: pa.Array) -> dict[str, _Tokens]:
    """The wanted rows; of a segment its keys and offsets are read, and of the rest what belongs to these."""
    stored: dict[str, _Tokens] = {}
    for path in segment_paths:
        table = _read(path, lambda path: pa.ipc.open_file(pa.memory_map(str(path))).read_all())
        for batch in table.to_batches():  # one, as segments are written; to join several would copy them
            columns = {name: _column(batch, name, path) for name in ("token_key", *LISTS)}
            is_wanted = pc.is_in(columns["token_key"], value_set=wanted)
            lists = [_slices(columns[name]) for name in LISTS]
            for number in np.flatnonzero(is_wanted.to_numpy(zero_copy_only=False)):
                token_key = columns["token_key"][int(number)].as_py()
                if token_key not in stored:
                    ids, starts, ends, weights = (values[offsets[number] : offsets[number + 1]] for offsets, values in lists)
                    stored[token_key] = _tokens(token_key, ids, starts, ends, weights, path)
    return stored


def _column(batch: pa.RecordBatch, name: str, path: Path) -> pa.Array:
    if name not in batch.schema.names or batch.column(name).null_count:
        found = "nulls in it" if name in batch.schema.names else "no such column"
        raise TrainingError(f"{path}, {name}: {found}; materialize tokenized_shards again")
    return batch.column(name)


def _slices(column: pa.Array) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Offsets of a list column, and all its values; neither is copied."""
    return column.offsets.to_numpy(), column.values.to_numpy()


def _tokens(
    token_key: str,
    ids: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
    path: Path,
) -> _Tokens:
    """Spans as target places; the first token is never a target, nothing stands before it to predict it from."""
    weight_T = np.zeros(len(ids), dtype=np.float32)
    for start, end, weight in zip(starts.tolist(), ends.tolist(), weights.tolist(), strict=True):
        if not (0 <= start <= end <= len(ids) and 0 <= weight < float("inf")):
            raise TrainingError(
                f"{path}, token key {token_key}: span [{start}, {end}) of weight {weight} in a row of {len(ids)} "
                "tokens; expected 0 <= start <= end <= n_tokens and weight >= 0; materialize tokenized_shards again"
            )
        weight_T[start:end] = weight
    weight_T[:1] = 0.0
    places = np.flatnonzero(weight_T)
    return _Tokens(ids, places.astype(np.int32), weight_T[places])
