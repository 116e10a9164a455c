"""trajtok beside others, side by side in one run: encoders, whole data paths, two cores, memory, and what encoding leaves over.

    make bench-trajtok                      # everything, at least seven rounds; about an hour
    make bench-trajtok BENCH=--quick        # two rounds, less memory; the figures are rough
    make bench-trajtok BENCH="--only path"  # the measurements whose names begin so

Prints a JSON object a line; benches/README.md says what it holds. Linux only. The peers' environment, their Rust crate and the
corpora are made in a cache folder outside of the repository.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.corpora import (  # noqa: E402
    Conversation,
    adversarial_texts,
    hostile_conversations,
    real_conversations,
)
from tests.support.hf_reference import added_tokens  # noqa: E402
from tests.support.real_tokenizers import real_tokenizer, tokenizer_names  # noqa: E402

PEERS = ROOT / "benches/peers"
CHILD = [sys.executable, str(ROOT / "benches/trajtok_child.py")]
LLAMAFACTORY = "llamafactory==0.9.5"
ENCODERS = ("tokenizers-0.23", "tokenizers-1.0rc", "fastokens", "splintr", "kitoken")
PATHS = {"trl": "TRL 1.16 SFTTrainer", "transformers": "transformers 5.23 chat template", "llamafactory": "LLaMA-Factory 0.9.5"}
PATH_TOKENIZER = "qwen"
HOSTILE_COPIES = 2
"""About 11 MB: the first pass of an encoder's cold measurement."""
ROUNDS, QUICK_ROUNDS = 7, 2
MEMORY_MB, QUICK_MEMORY_MB = (5, 500), (5, 50)
MEMORY_ROUNDS = 1
"""Memory hardly varies, and 500 MB take minutes."""

Result = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Commands that are run in turns, and what makes rows of their results.

    Attributes:
        name: what `--only` picks it by.
        sides: per side the command; it prints one JSON object last.
        rows: from each side's results, one a round.
        n_cores: per side the cores it is pinned to; 1 where absent.
        n_rounds: instead of the run's.
    """

    name: str
    sides: dict[str, list[str]]
    rows: Callable[[Mapping[str, list[Result]]], Iterable[Row]]
    n_cores: Mapping[str, int] = field(default_factory=dict)
    n_rounds: int | None = None


# --- What is measured ------------------------------------------------------------------------------------------------------


def encoder_case(name: str, crate: Path, corpora: Path) -> Case:
    """One tokenizer in every encoder of the Rust crate, on one core."""
    tokenizer = str(real_tokenizer(name))
    sides = {side: [str(crate), side, tokenizer, str(corpora), "--check"] for side in ("trajtok", *ENCODERS)}
    return Case(f"encoder/{name}", sides, partial(_encoder_rows, name))


def _encoder_rows(name: str, results: Mapping[str, list[Result]]) -> Iterator[Row]:
    for peer in ENCODERS:
        for kind in ("cold", "warm"):
            row = compare(f"encoder/{name}/{kind}", peer, results["trajtok"], results[peer], kind, unit="MB/s")
            yield row | {
                "differing": results["trajtok"][0].get("differing"),
                "peer_differing": results[peer][0].get("differing"),
            }


def path_case(corpus: str, environment: Path, corpora: Path, scratch: Path, n_rows: int) -> Case:
    """JSONL to packed token rows, each peer's own way, on one core."""
    tokenizer, rows = str(real_tokenizer(PATH_TOKENIZER)), corpora / f"{corpus}.jsonl"
    script = [str(environment / "bin/python"), str(PEERS / "paths.py")]
    peers = {peer: [*script, peer, tokenizer, str(rows), str(n_rows)] for peer in PATHS}
    ours = {"trajtok": [*CHILD, "path", tokenizer, str(rows), str(scratch)]}
    return Case(f"path/{corpus}", ours | peers, partial(_path_rows, corpus, _text_mb(rows)))


def _path_rows(corpus: str, text_mb: float, results: Mapping[str, list[Result]]) -> Iterator[Row]:
    speeds = {side: [_speed(result, text_mb) for result in rounds] for side, rounds in results.items()}
    for peer, peer_name in PATHS.items():
        yield compare(f"path/{corpus}", peer_name, speeds["trajtok"], speeds[peer], "speed", unit="MB/s")


def cores_case(corpora: Path, scratch: Path) -> Case:
    """Encoding on two cores against one."""
    rows = corpora / "hostile.jsonl"
    command = [*CHILD, "encode", str(real_tokenizer(PATH_TOKENIZER)), str(rows), str(scratch)]
    sides = {"two cores": command, "one core": command}

    def report(results: Mapping[str, list[Result]]) -> Iterator[Row]:
        ours, peer = ([_speed(result, _text_mb(rows)) for result in results[side]] for side in sides)
        yield compare("cores/hostile", "the same on one core", ours, peer, "speed", unit="MB/s")

    return Case("cores", sides, report, n_cores={"two cores": 2})


def total_case(crate: Path, corpora: Path, scratch: Path) -> Case:
    """The whole data path against the encoder alone, in seconds, on one core; both cold."""
    tokenizer, rows = str(real_tokenizer(PATH_TOKENIZER)), corpora / "hostile.jsonl"
    encode = [str(crate), "trajtok", tokenizer, str(corpora)]
    sides = {"total": [*CHILD, "path", tokenizer, str(rows), str(scratch)], "encode": encode}

    def report(results: Mapping[str, list[Result]]) -> Iterator[Row]:
        text_mb = _text_mb(rows)
        alone = [each | {"seconds": text_mb / each["cold"]} if "cold" in each else each for each in results["encode"]]
        yield compare("total/hostile", "the encoder alone", results["total"], alone, "seconds", unit="s")

    return Case("total", sides, report)


def memory_case(conversations: list[Conversation], cache: Path, scratch: Path, sizes_mb: tuple[int, int]) -> Case:
    """Anonymous memory of the data path: a large input against a small one."""
    tokenizer = str(real_tokenizer(PATH_TOKENIZER))
    small, large = sizes_mb
    sides = {
        f"{size} MB": [*CHILD, "memory", tokenizer, str(hostile_file(conversations, cache, size)), str(scratch)]
        for size in (large, small)
    }

    def report(results: Mapping[str, list[Result]]) -> Iterator[Row]:
        ours, peer = (results[f"{size} MB"] for size in (large, small))
        yield compare(f"memory/{large} MB", f"the same on {small} MB", ours, peer, "growth_mb", unit="MB")

    return Case("memory", sides, report, n_rounds=MEMORY_ROUNDS)


def _speed(result: Result, text_mb: float) -> Result:
    return result | {"speed": text_mb / result["seconds"]} if "seconds" in result else result


def compare(name: str, peer_name: str, ours: list[Result], peer: list[Result], key: str, *, unit: str) -> Row:
    """The medians of a figure, and the median over the rounds of ours by the peer's."""
    row: Row = {"name": name, "peer_name": peer_name, "unit": unit, "rounds": len(ours)}
    errors = {side: results[0]["error"] for side, results in (("ours", ours), ("peer", peer)) if "error" in results[0]}
    if errors:
        return row | {"ours": _median(ours, key), "peer": _median(peer, key), "ratio": None, "error": errors}
    ratios = [mine[key] / other[key] for mine, other in zip(ours, peer, strict=True) if other[key]]
    row |= {
        "ours": _median(ours, key),
        "peer": _median(peer, key),
        "ratio": _rounded(statistics.median(ratios)) if ratios else None,
    }
    row |= {"ratio_range": [_rounded(min(ratios)), _rounded(max(ratios))] if ratios else None}
    return row | {"encoder": ours[0].get("encoder"), "proof": bool(ours[0].get("proof", False))}


def _median(results: list[Result], key: str) -> float | None:
    figures = [result[key] for result in results if key in result]
    return _rounded(statistics.median(figures)) if figures else None


def _rounded(figure: float) -> float:
    return float(f"{figure:.4g}")


# --- What the measurements need --------------------------------------------------------------------------------------------


def peers_environment(cache: Path) -> Path:
    """The peers' Python environment, made from their lock; `done` in it says that it is whole."""
    lock = PEERS / "requirements.lock"
    digest = hashlib.sha256(lock.read_bytes() + LLAMAFACTORY.encode()).hexdigest()[:16]
    folder = cache / f"python-{digest}"
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    uv, python = _tool("uv"), str(folder / "bin/python")
    subprocess.run([uv, "venv", "-q", folder, "--python", sys.executable], check=True)
    subprocess.run([uv, "pip", "sync", "-q", "--python", python, "--require-hashes", lock], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "--no-deps", LLAMAFACTORY], check=True)
    (folder / "stubs").mkdir()
    (folder / "stubs/torchaudio.py").touch()  # LLaMA-Factory imports it for audio alone
    (folder / "done").touch()
    return folder


def _tool(name: str) -> str:
    """A program on the path or, for uv, where the Makefile puts it."""
    found = shutil.which(name) or shutil.which(name, path=str(ROOT / ".venv-uv/bin"))
    if found is None:
        sys.exit(f"{name} is missing: install it, then run make bench-trajtok again")
    return found


def encoders_crate(cache: Path) -> Path:
    """The Rust peers' program, built with its own lock; minutes the first time."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", cache / "target"))
    manifest = PEERS / "encoders/Cargo.toml"
    command = [_tool("cargo"), "build", "--release", "--locked", "--quiet", "--manifest-path", str(manifest)]
    subprocess.run([*command, "--target-dir", str(target)], check=True)
    return target / "release/encoders"


def write_corpora(conversations: list[Conversation], folder: Path) -> None:
    """`real`, `hostile` (twice), `hostile_once` and `adversarial`, a conversation a line."""
    folder.mkdir(parents=True, exist_ok=True)
    hostile = list(hostile_conversations(conversations, copies=HOSTILE_COPIES))
    added = {token for name in tokenizer_names() for token in added_tokens(real_tokenizer(name))}
    plain = (text for text in adversarial_texts() if not any(token in text for token in added))
    _write(folder / "real.jsonl", conversations)
    _write(folder / "hostile.jsonl", hostile)
    _write(folder / "hostile_once.jsonl", hostile[: len(conversations)])
    _write(folder / "adversarial.jsonl", ([{"role": "user", "content": text, "weight": 0.0}] for text in plain))


def hostile_file(conversations: list[Conversation], cache: Path, size_mb: int) -> Path:
    """At least so much text, no two copies alike; kept for the next run."""
    path = cache / f"hostile-{size_mb}mb.jsonl"
    if path.exists():
        return path
    text_mb = sum(len(turn["content"].encode()) for row in conversations for turn in row) / 1e6
    n_rows = round(len(conversations) * size_mb / text_mb)
    _write(path, islice(hostile_conversations(conversations, copies=n_rows // len(conversations) + 1), n_rows))
    return path


def _write(path: Path, conversations: Iterable[Conversation]) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")  # another run may read the same file
    with unfinished.open("w", encoding="utf-8") as file:
        for conversation in conversations:
            messages = [{"role": t["role"], "content": t["content"], "loss": t["weight"] > 0} for t in conversation]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    unfinished.rename(path)


def _text_mb(path: Path) -> float:
    with path.open(encoding="utf-8") as lines:
        return sum(len(turn["content"].encode()) for line in lines for turn in json.loads(line)["messages"]) / 1e6


# --- Running it ------------------------------------------------------------------------------------------------------------


def run_side(command: list[str], n_cores: int, first_core: int, extra: Mapping[str, str]) -> Result:
    """One fresh process, pinned."""
    cores = ",".join(str(first_core + number) for number in range(n_cores))
    settings = {"RAYON_NUM_THREADS": str(n_cores), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **extra}
    ran = subprocess.run(
        [_tool("taskset"), "-c", cores, *command], capture_output=True, text=True, env={**os.environ, **settings}, check=False
    )
    if ran.returncode != 0:
        return {"error": (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1]}
    result: Result = json.loads(ran.stdout.strip().splitlines()[-1])
    return result


def run_case(case: Case, n_rounds: int, first_core: int, extra: Mapping[str, str]) -> Iterator[Row]:
    """All rounds of a case: the sides take turns inside of each."""
    results: dict[str, list[Result]] = {side: [] for side in case.sides}
    for number in range(case.n_rounds or n_rounds):
        for side, command in case.sides.items():
            if number > 0 and "--check" in command:
                command = [part for part in command if part != "--check"]  # ids do not change from round to round
            results[side].append(run_side(command, case.n_cores.get(side, 1), first_core, extra))
        print(f"{case.name}: round {number + 1}", file=sys.stderr, flush=True)
    yield from case.rows(results)


def main() -> None:
    """Measure, a JSON object a line on stdout, progress on stderr."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two rounds and a tenth of the memory test's input")
    parser.add_argument("--only", default="", help="measurements whose names begin so: encoder, path, cores, total, memory")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a machine that others use too")
    parser.add_argument("--core", type=int, default=0, help="the core to pin to, and the first of two")
    args = parser.parse_args()
    cache = Path(os.environ.get("NEGTRAJ_BENCH_CACHE", Path.home() / ".cache/negtraj-bench"))
    nat_dir = Path(os.environ.get("NEGTRAJ_NAT_DIR", ROOT.parent / "shared/data/nat"))
    if not nat_dir.is_dir():
        sys.exit(f"{nat_dir}: no such folder; NEGTRAJ_NAT_DIR names one in NAT's layout, whose conversations are measured")
    conversations = real_conversations(nat_dir)
    corpora = cache / "corpora"
    write_corpora(conversations, corpora)
    with tempfile.TemporaryDirectory(dir=cache) as name:
        scratch, extra = Path(name), {"BENCH_CLOCK": args.clock, "PYTHONPATH": str(ROOT)}
        cases: dict[str, Callable[[], list[Case]]] = {
            "encoder": lambda: [encoder_case(each, encoders_crate(cache), corpora) for each in tokenizer_names()],
            "path": lambda: [
                path_case(corpus, peers_environment(cache), corpora, scratch, len(conversations))
                for corpus in ("real", "hostile_once")
            ],
            "cores": lambda: [cores_case(corpora, scratch)],
            "total": lambda: [total_case(encoders_crate(cache), corpora, scratch)],
            "memory": lambda: [memory_case(conversations, cache, scratch, QUICK_MEMORY_MB if args.quick else MEMORY_MB)],
        }
        for kind, make in cases.items():
            if not (kind.startswith(args.only) or args.only.startswith(kind)):
                continue
            if kind == "path":
                extra["PYTHONPATH"] += os.pathsep + str(peers_environment(cache) / "stubs")
            for case in make():
                if case.name.startswith(args.only):
                    for row in run_case(case, QUICK_ROUNDS if args.quick else ROUNDS, args.core, extra):
                        print(json.dumps(row | {"clock": args.clock}), flush=True)


if __name__ == "__main__":
    main()
