"""trajtok's packing, signatures and reading beside their peers, in one run, on one core.

Prints one JSON object a line: name, peer_name, ours, peer, unit, ratio (ours / peer, above 1 is faster), note. Peers are no
dependency of this repository; they live in a throw-away environment, from the root of the repository:

    uv venv /tmp/peers
    uv pip install --python /tmp/peers/bin/python rensa trl orjson pyarrow polars numpy
    PYTHONPATH=. /tmp/peers/bin/python benches/trajtok_data.py

Each round runs ours and the peer one after the other, so that a busy machine slows both; a row holds the medians.
"""

import argparse
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from negtraj_dagster import _trajtok  # noqa: TID251 - measures the compiled module itself

CAPACITY = 4096
N_WORDS = 5
N_PERMUTATIONS = 128

Comparison = tuple[str, str, Callable[[], Any], Callable[[], Any], float, str, str]
"""Name, peer, ours, theirs, amount per run, its unit, note."""


def main() -> None:
    """Run every comparison and print its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds, at least 7 for a figure to quote")
    parser.add_argument("--only", default="", help="run comparisons whose name contains this")
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = "1"  # before the module starts its threads
    os.environ["POLARS_MAX_THREADS"] = "1"
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        for made in (compare_packing, compare_signatures, lambda: compare_reading(Path(folder))):
            for comparison in made():
                if args.only in comparison[0]:
                    sys.stdout.write(json.dumps(measure(comparison, args.rounds)) + "\n")
                    sys.stdout.flush()


def measure(comparison: Comparison, rounds: int) -> dict[str, Any]:
    """Medians of interleaved rounds, as amounts per second."""
    name, peer_name, ours, peer, amount, unit, note = comparison
    ours(), peer()
    pairs = [(_seconds(ours), _seconds(peer)) for _ in range(rounds)]
    ours_s, peer_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "name": name,
        "peer_name": peer_name,
        "ours": round(amount / ours_s, 1),
        "peer": round(amount / peer_s, 1),
        "unit": unit,
        "ratio": round(peer_s / ours_s, 2),
        "note": note,
    }


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def log_normal_lengths(n: int) -> np.ndarray:
    """Tokens per conversation: log-normal around 812, clipped to 16..4096."""
    lengths = np.random.default_rng(7).lognormal(math.log(812), 0.72, n)
    return np.clip(lengths, 16, CAPACITY).astype(np.int64)


def compare_packing() -> Iterator[Comparison]:
    """Best-fit decreasing of one batch."""
    from datasets import Dataset, disable_progress_bars
    from trl import pack_dataset

    disable_progress_bars()
    lengths = log_normal_lengths(20_000)
    values = pa.array(np.zeros(lengths.sum(), np.int8))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    rows = Dataset(pa.table({"input_ids": pa.LargeListArray.from_arrays(offsets, values)}))

    def peer() -> Any:
        return pack_dataset(
            rows, CAPACITY, "bfd", {"batch_size": len(lengths), "keep_in_memory": True, "load_from_cache_file": False}
        )

    n_ours, n_peer = _trajtok.pack_flat(lengths, CAPACITY).n_rows, len(peer())
    many = log_normal_lengths(1_000_000)
    ours_s = statistics.median(_seconds(lambda: _trajtok.pack_flat(many, CAPACITY)) for _ in range(7))
    note = (
        f"{n_ours} bins against {n_peer}; the peer moves the tokens too, ours says where they go, and takes "
        f"{ours_s:.3f} s for 1 000 000 rows"
    )
    yield "pack 20 000 rows", "TRL bfd, one batch", lambda: _trajtok.pack_flat(lengths, CAPACITY), peer, 20_000, "rows/s", note


def make_texts(n: int, n_words: int) -> list[str]:
    """Texts of random words, a few thousand different ones."""
    chance = random.Random(1)
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.choice([2, 3, 4, 5, 5, 6, 7, 9]))) for _ in range(20_000)]
    return [" ".join(chance.choices(words, k=n_words)) for _ in range(n)]


def compare_signatures() -> Iterator[Comparison]:
    """MinHash of 5-grams, and decontamination by 13-grams."""
    import rensa

    texts = make_texts(2_000, 400)
    column, megabytes = pl.Series(texts), sum(map(len, texts)) / 1e6
    made = [_word_ngrams(text, N_WORDS) for text in texts]

    def sign(ngrams: list[str]) -> Any:
        signature = rensa.RMinHash(num_perm=N_PERMUTATIONS, seed=1)
        signature.update(ngrams)
        return signature.digest()

    ours = lambda: _trajtok.minhash(column, n_words=N_WORDS, permutations=N_PERMUTATIONS)  # noqa: E731 - used twice
    note = "from text to signatures; the peer's n-grams are made in Python, as it asks for"
    yield (
        *("minhash from text", "rensa RMinHash", ours, lambda: [sign(_word_ngrams(text, N_WORDS)) for text in texts]),
        *(megabytes, "MB/s", note),
    )
    note = "the peer is given its n-grams ready-made; ours still starts from text and makes band hashes too"
    yield "minhash, n-grams given", "rensa RMinHash", ours, lambda: [sign(ngrams) for ngrams in made], megabytes, "MB/s", note
    references = make_texts(500, 40)
    known = {ngram for text in references for ngram in _word_ngrams(text, 13)}
    held = pl.Series(references)
    yield (
        *("contaminated by 500 references", "a Python set of 13-grams", lambda: _trajtok.contaminated(column, held)),
        lambda: [not known.isdisjoint(_word_ngrams(text, 13)) for text in texts],
        *(megabytes, "MB/s", "the peer says yes or no, ours which reference and how much of it"),
    )


def _word_ngrams(text: str, n_words: int) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[at : at + n_words]) for at in range(len(words) - n_words + 1)]


def write_records(path: Path, n: int) -> None:
    """Conversations of six turns, one JSON object a line."""
    texts = iter(make_texts(6 * n, 60))
    with path.open("w") as file:
        for at in range(n):
            turns = [
                {
                    "role": ("user", "assistant")[turn % 2],
                    "content": f"Thought: {next(texts)}\nAction: search[é]",
                    "loss": turn % 2 == 1,
                }
                for turn in range(6)
            ]
            file.write(json.dumps({"conversations": turns, "info": {"reward": True}, "id": at}, ensure_ascii=False) + "\n")


def compare_reading(folder: Path) -> Iterator[Comparison]:
    """JSON lines into memory."""
    import orjson
    import pyarrow.json

    path = folder / "rollouts.jsonl"
    write_records(path, 10_000)
    megabytes = path.stat().st_size / 1e6

    def read_with_orjson() -> list[Any]:
        with path.open("rb") as file:
            return [orjson.loads(line) for line in file]

    def ours() -> int:
        return sum(batch.n_rows for batch in _trajtok.read_records(path))

    peers = {
        "pyarrow.json": (lambda: pyarrow.json.read_json(path, pyarrow.json.ReadOptions(use_threads=False)), "typed columns"),
        "orjson, line by line": (read_with_orjson, "Python objects"),
        "polars read_ndjson": (lambda: pl.read_ndjson(path), "typed columns"),  # noqa: TID251 - the peer
    }
    for name, (peer, makes) in peers.items():
        note = f"ours makes record bytes with digests and judges strictly; the peer makes {makes} and stops at a bad record"
        yield "read JSON lines", name, ours, peer, megabytes, "MB/s", note


if __name__ == "__main__":
    main()
