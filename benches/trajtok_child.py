"""Our side of benches/trajtok.py, one measurement a process. Prints one JSON object; what it holds, the functions say."""

import argparse
import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from negtraj_dagster import _trajtok  # noqa: TID251 - measures the compiled module itself

clock = time.process_time if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter
CAPACITY = 4096
BATCH = 1000
N_TOUCHED = 50


def load(path: Path) -> _trajtok.Tokenizer:
    """The tokenizer, bound to ChatML."""
    return _trajtok.Tokenizer(path, template="chatml", max_tokens=CAPACITY)


def read_batches(path: Path, n_conversations: int | None) -> Iterator[list[str]]:
    """The lines of a file, as conversations that `encode` reads."""
    with path.open(encoding="utf-8") as file:
        lines = itertools.islice(file, n_conversations)
        while batch := [_weighted(line) for line in itertools.islice(lines, BATCH)]:
            yield batch


def _weighted(line: str) -> str:
    turns = json.loads(line)["messages"]
    messages = [{"role": turn["role"], "content": turn["content"], "weight": float(turn["loss"])} for turn in turns]
    return json.dumps({"messages": messages}, ensure_ascii=False)


def prepare(path: Path, out: Path, tokenizer: _trajtok.Tokenizer) -> dict[str, Any]:
    """JSONL to token rows in an Arrow IPC file and packing bins beside it: `_trajtok.prepare`, or the same from Python."""
    if hasattr(_trajtok, "prepare"):
        return dict(_trajtok.prepare(path, out, tokenizer, CAPACITY, n_threads=1))
    n_tokens, lengths = 0, []
    writer = None
    for batch in read_batches(path, None):
        rows = pa.record_batch(tokenizer.encode([""] * len(batch), batch))
        writer = writer or pa.ipc.new_file(out / "rows.arrow", rows.schema)
        writer.write_batch(rows)
        lengths += rows.column("n_tokens").to_pylist()
    assert writer is not None
    writer.close()
    bins = _trajtok.pack(lengths, CAPACITY)
    table = pa.table({"rows": pa.array(bins, pa.list_(pa.int32()))})
    with pa.ipc.new_file(out / "bins.arrow", table.schema) as bins_writer:
        bins_writer.write_table(table)
    n_tokens = sum(lengths)
    return {"n_tokens": n_tokens, "n_rows": len(bins), "proof": False}


def measure_path(tokenizer: _trajtok.Tokenizer, path: Path, out: Path) -> dict[str, Any]:
    """`seconds` of `prepare` over the whole file."""
    _touch(tokenizer, path)
    start = clock()
    result = prepare(path, out, tokenizer)
    return {"seconds": clock() - start, "encoder": tokenizer.encoder, **result}


def measure_encode(tokenizer: _trajtok.Tokenizer, path: Path, _out: Path) -> dict[str, Any]:
    """`seconds` of encoding alone, of as many threads as the process may run; files and JSON are read before."""
    conversations = [row for batch in read_batches(path, None) for row in batch]
    keys = [""] * len(conversations)
    _touch(tokenizer, path)
    start = time.perf_counter()
    tokenizer.encode(keys, conversations)
    return {"seconds": time.perf_counter() - start, "encoder": tokenizer.encoder}


def measure_memory(tokenizer: _trajtok.Tokenizer, path: Path, out: Path) -> dict[str, Any]:
    """`growth_mb`: the most anonymous memory while `prepare` runs, above what the loaded tokenizer needs."""
    _touch(tokenizer, path)
    before = _anonymous_mb()
    peak, is_done = [before], threading.Event()

    def watch() -> None:
        while not is_done.wait(0.01):
            peak[0] = max(peak[0], _anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    prepare(path, out, tokenizer)
    is_done.set()
    watcher.join()
    return {"growth_mb": peak[0] - before, "encoder": tokenizer.encoder}


def _touch(tokenizer: _trajtok.Tokenizer, path: Path) -> None:
    for batch in read_batches(path, N_TOUCHED):
        tokenizer.encode([""] * len(batch), batch)


def _anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


MEASURES = {"path": measure_path, "encode": measure_encode, "memory": measure_memory}


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("conversations", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    print(json.dumps(MEASURES[args.measure](load(args.tokenizer), args.conversations, args.out)))


if __name__ == "__main__":
    main()
