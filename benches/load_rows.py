"""What a trainer reads and holds of its rows: a few of many, as an index names them.

    python benches/load_rows.py                    # 1,000,000 rows of 500 tokens in ten segments, one row in twenty selected

Segments are written and dropped from the page cache; then a process of its own calls `load_rows`, makes one micro-batch of
every row, and prints a JSON object: seconds, peak memory, what of it is its own (pages of mapped files the kernel may take
back), and bytes that were read from the disk beside those that the segments have.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

N_SPANS = 5
SEED = 0


def main() -> None:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--segments", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps(load(arguments.load)))
        return
    with tempfile.TemporaryDirectory(prefix="negtraj-bench-rows-") as scratch:
        folder = Path(scratch)
        write(folder, arguments.rows, arguments.tokens, arguments.segments, arguments.share)
        done = subprocess.run([sys.executable, __file__, "--load", scratch], capture_output=True, text=True, check=True)
        size = sum(path.stat().st_size for path in folder.glob("*.arrow"))
        print(json.dumps({"rows": arguments.rows, "segments_MB": round(size / 1e6, 1), **json.loads(done.stdout)}))


def write(folder: Path, n_rows: int, n_tokens: int, n_segments: int, share: float) -> None:
    """Segments as `tokenized_shards` publishes them, one record batch each, and an index of some of their rows."""
    draw = np.random.default_rng(SEED)
    per_segment = n_rows // n_segments
    selected: list[str] = []
    for segment in range(n_segments):
        keys = [f"{segment * per_segment + number:064x}" for number in range(per_segment)]
        starts = np.sort(draw.integers(1, n_tokens - 40, (per_segment, N_SPANS)).astype(np.int32), axis=1)
        columns = {
            "token_key": pa.array(keys),
            "input_ids": _lists(draw.integers(0, 151_000, per_segment * n_tokens).astype(np.int32), n_tokens),
            "span_start": _lists(starts.reshape(-1), N_SPANS),
            "span_end": _lists((starts + 35).reshape(-1), N_SPANS),
            "span_weight": _lists(np.ones(per_segment * N_SPANS, dtype=np.float32), N_SPANS),
        }
        batch = pa.RecordBatch.from_pydict(columns)
        path = folder / f"{segment}.arrow"
        with pa.ipc.new_file(str(path), batch.schema) as writer:
            writer.write_batch(batch)
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        selected += [keys[at] for at in np.flatnonzero(draw.random(per_segment) < share)]
    index = {
        "token_key": selected,
        "question_id": selected,
        "class": ["positive"] * len(selected),
        "weight": [1.0] * len(selected),
        "repeat": [1] * len(selected),
    }
    pq.write_table(pa.table(index), folder / "index.parquet")


def _lists(values: np.ndarray, length: int) -> pa.ListArray:
    offsets = np.arange(0, len(values) + 1, length, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def load(folder: Path) -> dict[str, float]:
    """What loading costs, and going through all rows once."""
    from negtraj_dagster.checkpoints.dataset import collate, load_rows

    before = _status("VmRSS"), _bytes_read()
    started = time.perf_counter()
    rows = load_rows(folder / "index.parquet", sorted(folder.glob("*.arrow")))
    loaded_s, loaded = time.perf_counter() - started, (_status("VmHWM"), _status("RssAnon"), _bytes_read())
    n_tokens = sum(collate([row]).ids_BT.numel() for row in rows)
    return {
        "selected": len(rows),
        "tokens": n_tokens,
        "seconds": round(loaded_s, 2),
        "peak_MiB": round(loaded[0]),
        "own_MiB": round(loaded[1]),
        "before_MiB": round(before[0]),
        "read_MB": round((loaded[2] - before[1]) / 1e6, 1),
        "read_after_all_rows_MB": round((_bytes_read() - before[1]) / 1e6, 1),
    }


def _status(name: str) -> float:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 1024


def _bytes_read() -> int:
    (line,) = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("read_bytes:")]
    return int(line.split()[1])


if __name__ == "__main__":
    main()
