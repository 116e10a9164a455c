"""The assets themselves, from a landed file of rollouts to proved token rows, beside TRL, transformers and LLaMA-Factory.

    make bench-path                                   # 100,000 rollouts, five rounds: about half an hour
    make bench-path BENCH="--rollouts 20000 --rounds 2"
    make bench-path BENCH="--template qwen3.jinja"    # a Jinja template, rendered by the peers, too

NAT's real StrategyQA rollouts, again and again with a letter changed in three of ten words, land as one file. Every asset is
built through `Lineage`, from nothing, in a process of its own on one core, every child on that core; a round ends with each
peer tokenizing the first conversations of the same rows. Prints a JSON object a line: per stage wall and CPU seconds (children
counted), rows a second, and peak memory (of the process and its children together); then ratios by the peers of the same
round, as the median and the range. benches/README.md says what a line holds.
"""

import argparse
import json
import os
import random
import re
import shutil
import statistics
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
sys.path.insert(0, str(ROOT / "benches"))

from trajtok import LLAMAFACTORY, PATHS, PEERS, peers_environment  # noqa: E402

from negtraj_dagster.lineage import Lineage  # noqa: E402
from negtraj_dagster.settings import BaseModelSource, RolloutSource, Settings, WordtrapsSettings  # noqa: E402
from negtraj_dagster.sql.session import end_idle  # noqa: E402
from negtraj_dagster.store import Store  # noqa: E402
from tests.support.real_tokenizers import real_tokenizer  # noqa: E402

WORD = re.compile(r"[A-Za-z]{4,}")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
RECIPE = """
task = "strategyqa"
base_model = "bench"
description = "all rollouts"
role = "study"
line = "bench"
[strategy]
name = "nat"
[selection]
profile = "paper"
allow_contaminated = true
[shards]
chat_template = {template}
max_tokens = 4096
[training]
steps = 1
"""
JUDGING = ("scored_trajectories", "trajectory_corpus/strategyqa")
STAGES = ("raw_rollouts", *JUDGING, "bench/training_selection", "bench/tokenized_shards")
CLASSES = ("positive", "negative")
PEAK_MIB = [0.0]
WATCH_S = 0.02

Row = dict[str, Any]


def main() -> None:
    """Make the rollouts, run the rounds, print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-rows", type=int, default=2000, help="conversations that a peer tokenizes in a round")
    parser.add_argument("--peers", nargs="*", default=list(PATHS), choices=PATHS)
    parser.add_argument("--environment", type=Path, help="the peers' Python environment; made where none is named")
    parser.add_argument("--template", default="chatml", help="a native template's name, or a file of Jinja text")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--build", nargs=2, metavar=("HOME", "ASSET"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        build_one(Path(arguments.build[0]), arguments.build[1])
        return
    environment = arguments.environment or peers_environment(cache_folder())
    with tempfile.TemporaryDirectory(prefix="negtraj-bench-path-") as scratch:
        for line in run(arguments, Path(scratch), environment):
            print(json.dumps(line), flush=True)


def cache_folder() -> Path:
    """Where `make bench-trajtok` keeps the peers, too."""
    return Path(os.environ.get("NEGTRAJ_BENCH_CACHE", "~/.cache/negtraj-bench")).expanduser()


def run(arguments: argparse.Namespace, scratch: Path, environment: Path) -> Iterator[Row]:
    """All rounds' lines, then the ratios."""
    published = Path(os.environ.get("NEGTRAJ_NAT_DIR", ROOT.parent / "shared/data/nat"))
    nat = scratch / "nat"  # its questions and prompts: what it has of rollouts is in the landed file
    shutil.copytree(published, nat, ignore=shutil.ignore_patterns("*positive*", "*negative*"))
    template = scratch / "template"
    template.write_text(arguments.template)
    landed = scratch / "landed" / "rollouts.jsonl"
    landed.parent.mkdir()
    write_rollouts(published, landed, arguments.rollouts)
    make_model(scratch / "model")
    yield {"name": "path/landed", "rollouts": arguments.rollouts, "MB": round(landed.stat().st_size / 1e6, 1)}
    totals: list[dict[str, float]] = []
    peers: dict[str, list[float]] = {peer: [] for peer in arguments.peers}
    for _ in range(arguments.rounds):
        home = scratch / "home"
        shutil.rmtree(home, ignore_errors=True)
        prepare_home(home, nat)
        stages = {}
        for asset in STAGES:
            stages[asset] = measure(home, asset, arguments.core)
            yield {"name": f"path/{asset}", **stages[asset]}
        totals.append(sums(stages))
        rows = first_conversations(home, scratch / "rows.jsonl", arguments.peer_rows)
        for peer in arguments.peers:
            speed = measure_peer(environment, peer, rows, arguments.peer_rows, arguments.core)
            peers[peer].append(speed)
            yield {"name": f"path/peer/{PATHS[peer]}", "rows_per_s": round(speed)}
    yield from ratios(totals, peers)


def sums(stages: dict[str, Row]) -> dict[str, float]:
    """Rows a second of a round: all of it, and without the judging."""
    n_rows = stages["bench/tokenized_shards"]["rows"]
    seconds = sum(stage["wall_s"] for stage in stages.values())
    judging = sum(stages[asset]["wall_s"] for asset in JUDGING)
    return {
        "landed to proved rows, judging apart": n_rows / (seconds - judging),
        "landed to proved rows": n_rows / seconds,
        "tokenized_shards": n_rows / stages["bench/tokenized_shards"]["wall_s"],
    }


def ratios(totals: list[dict[str, float]], peers: dict[str, list[float]]) -> Iterator[Row]:
    """Ours by each peer's of the same round."""
    for name in totals[0]:
        ours = [total[name] for total in totals]
        for peer, theirs in peers.items():
            of_rounds = [our / their for our, their in zip(ours, theirs, strict=True)]
            yield {
                "name": f"path/{name}",
                "peer_name": PATHS[peer] if peer != "llamafactory" else LLAMAFACTORY,
                "ours": round(statistics.median(ours)),
                "peer": round(statistics.median(theirs)),
                "unit": "rows/s",
                "ratio": round(statistics.median(of_rounds), 2),
                "ratio_range": [round(min(of_rounds), 2), round(max(of_rounds), 2)],
                "rounds": len(ours),
            }


def write_rollouts(nat: Path, path: Path, n_rollouts: int) -> None:
    """NAT's rollouts in its own format, as JSON lines; from the second copy on in other words."""
    real = [
        {**rollout, "info": {"reward": class_name == "positive", "pred": ""}}
        for class_name in CLASSES
        for rollout in json.loads((nat / f"strategyqa/strategyqa_gpt-3.5_{class_name}.json").read_text(encoding="utf-8"))
    ]
    draw = random.Random(0)

    def change(match: re.Match[str]) -> str:
        word = match.group()
        if draw.random() >= 0.3:
            return word
        at = draw.randrange(len(word))
        return word[:at] + draw.choice(LETTERS) + word[at + 1 :]

    with path.open("w", encoding="utf-8") as lines:
        for number in range(n_rollouts):
            rollout = real[number % len(real)]
            if number >= len(real):
                turns = [{**turn, "content": WORD.sub(change, turn["content"])} for turn in rollout["conversations"]]
                rollout = {**rollout, "conversations": turns}
            lines.write(json.dumps(rollout, ensure_ascii=False) + "\n")


def make_model(folder: Path) -> None:
    """A model of next to no weights with Qwen's tokenizer: the rows are real, nothing is trained."""
    code = (
        "import sys; from transformers import LlamaConfig, LlamaForCausalLM as M\n"
        "M(LlamaConfig(vocab_size=152064, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,"
        " num_key_value_heads=1, head_dim=8)).save_pretrained(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True)
    shutil.copy(real_tokenizer("qwen"), folder / "tokenizer.json")
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def settings_of(home: Path) -> Settings:
    """A deployment whose only rollouts are the landed file."""
    scratch = home.parent
    return Settings(
        home=home,
        nat_dir=Path((home / "nat_dir").read_text()),
        wordtraps=WordtrapsSettings(enabled=False),
        recipe_dirs=(home / "recipes",),
        base_models={"bench": BaseModelSource(folder=scratch / "model")},
        sources={"bench": RolloutSource(task="strategyqa", format="nat", path=scratch / "landed")},
    )


def prepare_home(home: Path, nat: Path) -> None:
    """What is no part of the path: the recipe, the questions, the base model."""
    template = (home.parent / "template").read_text()
    (home / "recipes").mkdir(parents=True)
    (home / "recipes" / "bench.toml").write_text(RECIPE.format(template=json.dumps(template)))
    (home / "nat_dir").write_text(str(nat))
    for asset in ("question_sets", "base_model/bench"):
        subprocess.run([sys.executable, __file__, "--build", str(home), asset], check=True, capture_output=True)


def build_one(home: Path, asset: str) -> None:
    """One asset in this process; prints what it cost as JSON."""

    def refuse(module: str, config: Path, ranks: int, threads: int) -> None:
        raise RuntimeError(f"{module}: no child makes anything of this path")

    lineage = Lineage(Store(home), settings_of(home), refuse)
    threading.Thread(target=watch_memory, daemon=True).start()
    started, cpu = time.perf_counter(), cpu_seconds()
    published = lineage.build(asset)
    end_idle()  # the SQL process counts once it has ended
    wall_s, cpu_s = time.perf_counter() - started, cpu_seconds() - cpu
    n_rows = published.work.get("rows_tokenized") or published.content.get("n_rollouts") or 0
    print(
        json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "peak_mib": round(PEAK_MIB[0]), "rows": n_rows, "work": published.work})
    )


def watch_memory() -> None:
    """Keep the most that this process and its children held at one time (`PEAK_MIB`).

    What the kernel says of children that have ended counts what their parent held when it started them.
    """
    while True:
        PEAK_MIB[0] = max(PEAK_MIB[0], tree_mib(os.getpid()))
        time.sleep(WATCH_S)


def tree_mib(pid: int) -> float:
    """Resident memory of a process and of all below it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        below = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    except OSError:  # it has just ended
        return 0.0
    resident = re.search(r"VmRSS:\s+(\d+)", status)
    return (int(resident[1]) / 1024 if resident else 0.0) + sum(map(tree_mib, below))


def cpu_seconds() -> float:
    """Of this process and of all children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(home: Path, asset: str, core: int) -> Row:
    """Build one asset in a process pinned to a core, which its children inherit."""
    command = ["taskset", "-c", str(core), sys.executable, __file__, "--build", str(home), asset]
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    measured: Row = json.loads(done.stdout.splitlines()[-1])
    if measured["rows"]:
        measured["rows_per_s"] = round(measured["rows"] / measured["wall_s"])
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in measured.items()}


def first_conversations(home: Path, path: Path, n_rows: int) -> Path:
    """Conversations as the peers read them: NAT's prompt before each rollout."""
    from negtraj_dagster.respondents import conditioning
    from negtraj_dagster.schema import Question

    lineage = Lineage(Store(home), settings_of(home), lambda *_: None)
    made_with = conditioning(lineage.recipes["bench"], lineage.settings)
    with (home.parent / "landed" / "rollouts.jsonl").open(encoding="utf-8") as landed, path.open("w", encoding="utf-8") as rows:
        for line in landed:
            rollout = json.loads(line)
            if not rollout["conversations"] or n_rows == 0:
                continue
            label = "positive" if rollout["info"]["reward"] else "negative"
            question = Question("strategyqa", str(rollout["id"]), "train", "Is it so?", "true")
            turns = made_with.strategy.condition(made_with.prompter, question, rollout["conversations"], label)
            messages = [{"role": turn["role"], "content": turn["content"], "loss": turn["weight"] > 0} for turn in turns]
            rows.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
            n_rows -= 1
    return path


def measure_peer(environment: Path, peer: str, rows: Path, n_rows: int, core: int) -> float:
    """Conversations a second that a peer makes rows of, without imports and loading."""
    python, tokenizer = str(environment / "bin/python"), str(real_tokenizer("qwen"))
    command = ["taskset", "-c", str(core), python, str(PEERS / "paths.py"), peer, tokenizer, str(rows), str(n_rows)]
    stubs = {
        **os.environ,
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(environment / "stubs"),
    }
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=stubs)
    return n_rows / float(json.loads(done.stdout.splitlines()[-1])["seconds"])


if __name__ == "__main__":
    main()
