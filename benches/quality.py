"""What judging costs: all filters and scores on many generated rollouts, then a night's 1 %, then nothing new.

    python benches/quality.py [--rollouts 100000] [--long] [--keep FOLDER]
    python benches/quality.py --signatures

Every state is built in a process of its own, on one core. Prints CPU seconds and peak memory of scored_trajectories and
trajectory_corpus with their SQL processes, and one JSON object a line. `--long`: rollouts of 200 kB (10,000 of them unless
said otherwise).
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from negtraj_dagster.launch import run_child  # noqa: E402
from negtraj_dagster.lineage import Lineage  # noqa: E402
from negtraj_dagster.settings import Settings, WordtrapsSettings  # noqa: E402
from negtraj_dagster.store import Store  # noqa: E402

SAMPLES = 5
ROWS_PER_FILE = 2000
SHORT_CHARS, LONG_CHARS = 1800, 200_000
N_WORDS = 20_000
N_TEST = 500
WATCH_S = 0.02
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def words(rng: random.Random) -> list[str]:
    """A vocabulary with frequencies as in prose: few words make up most of a text."""
    made = ["".join(rng.choices(LETTERS, k=rng.randint(2, 9))) for _ in range(N_WORDS)]
    return [word for place, word in enumerate(made) for _ in range(max(1, 2000 // (place + 1)))]


def rollout(rng: random.Random, pool: list[str], question: str, sample: int, n_chars: int) -> dict[str, Any]:
    """A ReAct episode of about `n_chars` characters, shaped as NAT's: short thoughts, long observations; some have defects."""
    n_steps = rng.randint(2, 4)
    chars_a_step = n_chars // n_steps

    def text(share: float) -> str:
        return " ".join(rng.choices(pool, k=max(3, int(share * chars_a_step / 6))))

    messages = []
    for step in range(n_steps):
        is_last = step == n_steps - 1
        thought = "" if rng.random() < 0.05 else f"Thought: {text(0.2)}.\n\n"
        answer = rng.choice(["Yes", "No", "Uncertain"])
        action = f"finish[{answer}]" if is_last else f"search[{' '.join(rng.choices(pool, k=3))}]"
        messages.append({"role": "assistant", "content": f"{thought}Action: {action}"})
        if not is_last:
            messages.append({"role": "user", "content": f"Observation: {text(0.8)}"})
    right = rng.random() < 0.4
    return {"question_id": question, "source": f"0.{sample}", "messages": messages, "reward": right}


def generate(home: Path, n_rollouts: int, n_chars: int) -> Iterator[None]:
    """Land `n_rollouts` rollouts, then 1 % more."""
    rng = random.Random(0)
    pool = words(rng)
    nat = home / "nat" / "strategyqa"
    nat.mkdir(parents=True)
    for name, split, n in (("train.jsonl", "train", n_rollouts // SAMPLES), ("test_random_500.jsonl", "test", N_TEST)):
        with (nat / name).open("w") as file:
            for number in range(n):
                row = {"id": f"{split}{number}", "question": " ".join(rng.choices(pool, k=rng.randint(6, 20))) + "?"}
                row |= {"answer": rng.random() < 0.5, "facts": [" ".join(rng.choices(pool, k=9)) for _ in range(3)]}
                file.write(json.dumps(row) + "\n")
    (nat / "none_positive.json").write_text("[]")
    landing = home / "landing" / "strategyqa" / "negtraj"
    landing.mkdir(parents=True)
    for first, last, name in ((0, n_rollouts, "a"), (n_rollouts, n_rollouts + n_rollouts // 100, "z")):
        for start in range(first, last, ROWS_PER_FILE):
            with (landing / f"{name}{start:08}.jsonl").open("w") as file:
                for number in range(start, min(start + ROWS_PER_FILE, last)):
                    question = f"train{number % max(n_rollouts // SAMPLES, 1)}"
                    file.write(json.dumps(rollout(rng, pool, question, number % SAMPLES, n_chars)) + "\n")
        yield


def build(home: Path) -> None:
    """One run of the data stages; a JSON line with what each took."""
    settings = Settings(home=home, nat_dir=home / "nat", wordtraps=WordtrapsSettings(enabled=False))
    lineage = Lineage(Store(home), settings, run_child)
    for asset in ("question_sets", "raw_rollouts"):
        lineage.build(asset)
    told: dict[str, Any] = {"import_rss_mb": _rss_mb(os.getpid())}
    for asset in ("scored_trajectories", "trajectory_corpus/strategyqa"):
        watch = _Watch()
        before, start = _cpu(), time.monotonic()
        published = lineage.build(asset)
        work = max((n for name, n in published.work.items() if name.startswith("judged_")), default=0)
        told[asset.split("/")[0]] = {
            "cpu_s": round(_cpu() - before, 2),
            "wall_s": round(time.monotonic() - start, 2),
            "peak_mb": watch.stop(),
            "judged": work,
        }
        told["left"] = published.details.get("labels", {}) if "corpus" in asset else {}
    print(json.dumps(told))


def _cpu() -> float:
    """CPU seconds of this process and all its children, the SQL process that is kept for the next session among them."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime + sum(map(_cpu_of, _children()))


def _children() -> list[int]:
    return [int(child) for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]


def _cpu_of(process: int) -> float:
    """CPU seconds of a running child, user and system."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended, and counts among the ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Watch:
    """The largest sum of resident memory of this process and its children, looked at often."""

    def __init__(self) -> None:
        self._peak, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(WATCH_S):
            self._peak = max(self._peak, _rss_mb(os.getpid()) + sum(map(_rss_mb, _children())))

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self._peak


def _rss_mb(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
    except (OSError, IndexError):
        return 0


def run(home: Path) -> dict[str, Any]:
    """Build in a process of its own, on one core."""
    command = [sys.executable, __file__, "--build", str(home)]
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure_signatures(n_rollouts: int) -> None:
    """CPU seconds of near duplicates and of the search for evaluation questions, beside rensa where that is installed."""
    import polars as pl

    from negtraj_dagster.trajectories.signatures import SHINGLE_WORDS, find_pairs, find_quotes, sketch

    rng = random.Random(0)
    pool = words(rng)
    texts = [" ".join(rng.choices(pool, k=110)) for _ in range(n_rollouts)]
    for place in range(0, n_rollouts, 50):  # two in a hundred nearly repeat the one before
        texts[place] = f"{texts[place - 1]} indeed"
    said = pl.Series(texts, dtype=pl.String)
    keys = pl.Series([f"{number:064}" for number in range(n_rollouts)], dtype=pl.String)
    questions = pl.Series([f"q{number // SAMPLES}" for number in range(n_rollouts)], dtype=pl.String)
    start = _cpu()
    sketches = sketch(said)
    signed = _cpu()
    rows = pl.DataFrame({"rollout_key": keys, "question_id": questions}).with_row_index("at")
    pairs = find_pairs(rows, sketches)
    paired = _cpu()
    ours = paired - start
    print(
        f"sketches {signed - start:.2f} CPU s, pairs {paired - signed:.2f} CPU s, {pairs.height} pairs of {n_rollouts:,} texts"
    )
    held = pl.Series([" ".join(rng.choices(pool, k=rng.randint(8, 20))) for _ in range(N_TEST)], dtype=pl.String)
    start = _cpu()
    find_quotes(keys, said, pl.Series([f"t{number}" for number in range(N_TEST)]), held)
    megabytes = said.str.len_bytes().sum() / 1e6
    print(f"quotes of {N_TEST} questions: {megabytes / (_cpu() - start):.0f} MB a CPU s")
    try:
        import rensa  # type: ignore[import-not-found]
    except ImportError:
        print("rensa is not installed here: `uv pip install rensa` for its figure")
        return
    start = _cpu()
    index = rensa.RMinHashLSH(threshold=0.8, num_perm=128, num_bands=16)
    for number, text in enumerate(texts):
        said_words = text.split()
        signature = rensa.RMinHash(num_perm=128, seed=1)
        signature.update([" ".join(said_words[at : at + SHINGLE_WORDS]) for at in range(len(said_words) - SHINGLE_WORDS + 1)])
        index.query(signature)
        index.insert(number, signature)
    peer = _cpu() - start
    print(f"rensa, signatures and candidates that nobody verified: {peer:.2f} CPU s, {peer / ours:.1f} times ours")


def main() -> None:
    """Generate, build thrice, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--signatures", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(options.build)
        return
    n_rollouts = options.rollouts or (10_000 if options.long else 100_000)
    if options.signatures:
        measure_signatures(n_rollouts)
        return
    home = options.keep or Path(tempfile.mkdtemp(prefix="bench-quality-"))
    states = generate(home, n_rollouts, LONG_CHARS if options.long else SHORT_CHARS)
    print(f"{'state':>12}{'stage':>24}{'CPU s':>9}{'wall s':>9}{'peak MB':>9}{'judged':>9}")
    results = []
    for state in ("full", "night, 1 %", "nothing new"):
        next(states, None)
        told = run(home)
        results.append({"state": state, **told})
        for stage in ("scored_trajectories", "trajectory_corpus"):
            row = told[stage]
            print(f"{state:>12}{stage:>24}{row['cpu_s']:>9}{row['wall_s']:>9}{row['peak_mb']:>9}{row['judged']:>9}", flush=True)
    total = [sum(each[stage]["cpu_s"] for stage in ("scored_trajectories", "trajectory_corpus")) for each in results]
    print(f"full {total[0]:.1f} CPU s for {n_rollouts:,} rollouts; the night {total[1] / total[0]:.1%} of it")
    for each in results:
        print(json.dumps(each))
    if not options.keep:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
