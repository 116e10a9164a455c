"""What a small change costs: the stages from landed files to token rows on many generated rollouts.

    python benches/incremental.py [N_ROLLOUTS] [--keep FOLDER]

Every state of the landing folder is built in a process of its own, as a nightly run would be. Prints a table and one JSON
object a line: what was read, judged and tokenized, as shares of all rollouts, and the time as a share of the full build.
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from negtraj_dagster.launch import run_child  # noqa: E402
from negtraj_dagster.lineage import Lineage  # noqa: E402
from negtraj_dagster.rollouts.collect import land_teacher_rollouts  # noqa: E402
from negtraj_dagster.settings import Settings, WordtrapsSettings  # noqa: E402
from negtraj_dagster.store import Store  # noqa: E402

SAMPLES = 10
"""Rollouts per question."""
ROWS_PER_FILE = 1000
RECIPE = """
task = "wordtraps"
base_model = "wordtraps"
description = "all rollouts"
role = "candidate"
line = "bench"
[strategy]
name = "nat"
[shards]
max_tokens = 4096
[training]
steps = 1
"""
WORDS = "first then now next so well right okay carefully slowly again simply maybe surely clearly hence".split()  # noqa: SIM905
N_WORDS = 250
"""Added to a rollout: about 2 kB each then, as in NAT's StrategyQA files."""


def settings_of(home: Path, n_questions: int) -> Settings:
    """A deployment with enough questions, ours alone landing rollouts."""
    sizes = WordtrapsSettings(enabled=True, n_train_questions=n_questions, n_gate_questions=50, n_test_questions=50)
    return Settings(home=home, wordtraps=sizes, recipe_dirs=(home / "recipes",))


def generate(home: Path, n_rollouts: int) -> None:
    """Land `n_rollouts` rollouts: the scripted teacher's episodes, ten wordings each, a thousand to a file."""
    n_questions = n_rollouts // SAMPLES
    (home / "recipes").mkdir(parents=True)
    (home / "recipes" / "bench_nat.toml").write_text(RECIPE)
    (home / "n_questions").write_text(str(n_questions))
    path = land_teacher_rollouts(settings_of(home, n_questions))
    assert path is not None
    episodes = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("")  # the teacher finds its file there and lands nothing
    settings = settings_of(home, n_questions)
    Lineage(Store(home), settings, run_plainly).base_model("wordtraps")  # made once, whatever lands: no part of a build
    rows = [reworded(episode, sample) for sample in range(SAMPLES) for episode in episodes]
    for number, start in enumerate(range(0, len(rows), ROWS_PER_FILE)):
        write_rows(path.parent / f"batch-{number:04d}.jsonl", rows[start : start + ROWS_PER_FILE])


def run_plainly(module: str, config: Path, ranks: int, threads: int) -> None:
    """Run a child."""
    run_child(module, config, ranks=ranks, threads=threads)


def reworded(episode: dict, sample: int) -> dict:
    """The same episode in other words and with another first action: another rollout, not a duplicate."""
    rng = random.Random(f"{episode['question_id']} {sample}")
    said = " ".join(rng.choices(WORDS, k=N_WORDS))
    first, *rest = episode["messages"]
    content = first["content"].replace("Thought: ", f"Thought: {said}. ", 1).replace("]", f"+{sample}-{sample}]")
    changed = {**first, "content": content}
    return {**episode, "source": f"sampler-{sample}", "messages": [changed, *rest]}


def write_rows(path: Path, rows: list[dict]) -> None:
    """A landed file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict]:
    """The rows of a landed file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def batches(home: Path) -> list[Path]:
    """All landed batches."""
    return sorted((home / "landing" / "wordtraps" / "negtraj").glob("batch-*.jsonl"))


def append(home: Path) -> None:
    """1 % new rollouts of old questions, in a new file."""
    files = batches(home)
    rows = [row for path in files[: max(1, len(files) // SAMPLES)] for row in read_rows(path)]
    n_new = max(1, len(files) * ROWS_PER_FILE // 100)
    write_rows(files[0].with_name("batch-9999.jsonl"), [reworded(row, 99) for row in rows[:n_new]])


def edit(home: Path) -> None:
    """1 % of the records reworded where they stand, some in every file."""
    for path in batches(home):
        rows = read_rows(path)
        for place in range(0, len(rows), 100):
            rows[place] = {**reworded(rows[place], 1000), "source": rows[place]["source"]}
        write_rows(path, rows)


def relabel(home: Path) -> None:
    """1 % of the rewards turned round, some in every file."""
    for path in batches(home):
        rows = read_rows(path)
        for place in range(50, len(rows), 100):
            rows[place]["reward"] = not rows[place]["reward"]
        write_rows(path, rows)


def nothing(home: Path) -> None:
    """No change."""


STEPS: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("full build", nothing),
    ("no change", nothing),
    ("1 % new rollouts", append),
    ("1 % edited in place", edit),
    ("1 % late labels", relabel),
    ("no change again", nothing),
)
ASSETS = ("raw_rollouts", "scored_trajectories", "trajectory_corpus/wordtraps", "bench_nat/training_selection")
SHARDS = "bench_nat/tokenized_shards"


def build_once(home: Path) -> None:
    """One nightly run up to the token rows; prints what it did as JSON."""
    settings = settings_of(home, int((home / "n_questions").read_text()))
    lineage = Lineage(Store(home), settings, run_plainly)
    work: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for asset in ("question_sets", "base_model/wordtraps", *ASSETS, SHARDS):
        started = time.perf_counter()
        published = lineage.build(asset)
        seconds[asset] = round(time.perf_counter() - started, 3)
        for name, n in published.work.items():
            work[name] = work.get(name, 0) + n
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"work": work, "seconds": seconds, "peak_rss_mib": usage.ru_maxrss // 1024}))


def measure(home: Path) -> dict:
    """Run `build_once` in a process of its own, imports counted."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--build", str(home)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"wall_s": round(time.perf_counter() - started, 2), **json.loads(done.stdout.splitlines()[-1])}


def main(n_rollouts: int, home: Path) -> None:
    """Measure every step and print the table."""
    started = time.perf_counter()
    generate(home, n_rollouts)
    n_bytes = sum(path.stat().st_size for path in batches(home))
    print(
        f"{n_rollouts} rollouts, {n_bytes / 1e6:.0f} MB landed, generated in {time.perf_counter() - started:.0f} s", flush=True
    )
    full_s = 0.0
    for name, change in STEPS:
        change(home)
        measured = measure(home)
        full_s = full_s or measured["wall_s"]
        work = measured["work"]
        judged = max(n for key, n in work.items() if key.startswith(("judged_", "scored_")))
        row = {
            "name": f"incremental/{name}",
            "wall_s": measured["wall_s"],
            "share_of_full": round(measured["wall_s"] / full_s, 4),
            "read_share": work["records_read"] / n_rollouts,
            "conversations_share": work["conversations_read"] / n_rollouts,
            "judged_share": judged / n_rollouts,
            "tokenized_share": work["rows_tokenized"] / n_rollouts,
            "peak_rss_mib": measured["peak_rss_mib"],
            "seconds": measured["seconds"],
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("n_rollouts", nargs="?", type=int, default=100_000)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--build", type=Path)
    options = parser.parse_args()
    if options.build:
        build_once(options.build)
    else:
        folder = options.keep or Path(tempfile.mkdtemp(prefix="negtraj-bench-"))
        try:
            main(options.n_rollouts, folder)
        finally:
            if not options.keep:
                shutil.rmtree(folder, ignore_errors=True)
