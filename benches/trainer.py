"""The trainer beside TRL, transformers' Trainer and a plain DeepSpeed loop: the same rows and steps, on one core in fp32.

    make bench-trainer                                     # 32k and 151k tokens of vocabulary, three rounds: about an hour
    make bench-trainer BENCH="--vocabulary 32k --rounds 1 --steps 5"

Real StrategyQA rollouts of NAT, tokenized with a mask by trajtok, train a Llama of four layers of 256 from random weights. Ours
runs as the asset runs it, a child of `launch.run_child`, with rows padded (the default) and packed; each peer in a process of
its own, from an environment of the bench's own. The first step is outside of the clock. Prints a JSON object a line: per round
and trainer tokens a second, peak memory and the largest difference of a loss from ours; then ratios, the median of the rounds'
own, with their range.
"""

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benches"))

import pyarrow as pa  # noqa: E402
import pyarrow.ipc  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from negtraj_dagster.chat_templates import make_template  # noqa: E402
from negtraj_dagster.checkpoints.dataset import load_rows, plan_steps  # noqa: E402
from negtraj_dagster.recipes import TrainingSettings  # noqa: E402
from negtraj_dagster.schema import conditioned_json  # noqa: E402
from tests.support.real_tokenizers import real_tokenizer  # noqa: E402

TOKENIZERS = {"32k": "mistral_v1", "151k": "qwen"}
PEERS = ("trl", "hf", "deepspeed")
REQUIREMENTS = ("trl==1.14.2", "transformers==5.23.0", "torch", "datasets", "deepspeed==0.19.8", "accelerate")
MAX_TOKENS = 1024
TRAINING = {"lr": 1e-4, "warmup_share": 0.0, "min_lr_share": 1.0, "weight_decay": 0.0, "save_every_steps": 0}
"""One learning rate, no decay, no states; for the rest the settings that a recipe has by default."""
OURS = {"ours": False, "ours_packed": True}
"""Whether each of ours packs a micro-batch's rows."""

Row = dict[str, Any]


def main() -> None:
    """Make the rows, run the rounds, print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", nargs="*", default=list(TOKENIZERS), choices=TOKENIZERS)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--environment", type=Path, help="the peers' Python environment; made where none is named")
    parser.add_argument("--core", type=int, default=0)
    arguments = parser.parse_args()
    environment = arguments.environment or peers_environment()
    with tempfile.TemporaryDirectory(prefix="negtraj-bench-trainer-") as scratch:
        for vocabulary in arguments.vocabulary:
            for line in run(arguments, Path(scratch) / vocabulary, vocabulary, environment):
                print(json.dumps(line), flush=True)


def peers_environment() -> Path:
    """The peers' Python environment, in the benches' cache."""
    digest = hashlib.sha256(" ".join(REQUIREMENTS).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("NEGTRAJ_BENCH_CACHE", "~/.cache/negtraj-bench")).expanduser() / f"trainers-{digest}"
    if not (folder / "done").exists():
        uv = str(ROOT / ".venv-uv/bin/uv")
        subprocess.run([uv, "venv", "-q", "--clear", folder, "--python", sys.executable], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", folder / "bin/python", *REQUIREMENTS], check=True)
        (folder / "done").touch()
    return folder


def run(arguments: argparse.Namespace, folder: Path, vocabulary: str, environment: Path) -> Iterator[Row]:
    """A vocabulary's lines."""
    folder.mkdir()
    make_model(folder / "base", TOKENIZERS[vocabulary])
    counts = write_rows(folder, arguments.rows)
    steps = planned(folder, arguments.batch, arguments.steps)
    (folder / "rows.json").write_text(json.dumps([row for step in steps for row in step]))
    n_tokens = sum(len(row["input_ids"]) for step in steps[1:] for row in step)
    yield {"name": f"trainer/{vocabulary}/rows", **counts, "timed_tokens": n_tokens}
    speeds: dict[str, list[float]] = {name: [] for name in (*OURS, *arguments.peers)}
    memory: dict[str, list[float]] = {name: [] for name in speeds}
    for number in range(arguments.rounds):
        losses: list[float] = []
        for name in speeds:
            if name in OURS:
                done = train_ours(arguments, folder / f"{name}-{number}", packing=OURS[name])
            else:
                done = train_peer(arguments, folder, environment, name)
            losses = losses or done["losses"]
            speeds[name].append(n_tokens / done["seconds"])
            memory[name].append(done["peak_MiB"])
            differing = max(abs(our - their) for our, their in zip(losses, done["losses"], strict=True))
            figures = {"tokens_per_s": round(n_tokens / done["seconds"]), "peak_MiB": done["peak_MiB"]}
            versions = done.get("versions", {})
            yield {"name": f"trainer/{vocabulary}/{name}", **figures, "loss_differs_by": round(differing, 7), **versions}
    for ours, peer in product(OURS, arguments.peers):
        for what, values, unit in (("speed", speeds, "tokens/s"), ("memory", memory, "MiB")):
            ratios = [own / theirs for own, theirs in zip(values[ours], values[peer], strict=True)]
            yield {
                "name": f"trainer/{vocabulary}/{what}/{ours}",
                "peer_name": peer,
                "ours": round(statistics.median(values[ours])),
                "peer": round(statistics.median(values[peer])),
                "unit": unit,
                "ratio": round(statistics.median(ratios), 2),
                "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
                "rounds": len(ratios),
            }


def make_model(folder: Path, tokenizer: str) -> None:
    """Random weights, the embedding shared with the output layer, and a real tokenizer."""
    code = (
        "import sys, torch; from transformers import LlamaConfig, LlamaForCausalLM as M; torch.manual_seed(0)\n"
        "from tokenizers import Tokenizer; n = Tokenizer.from_file(sys.argv[2]).get_vocab_size()\n"
        "M(LlamaConfig(vocab_size=(n + 63) // 64 * 64, hidden_size=256, intermediate_size=688, num_hidden_layers=4,"
        " num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True,"
        " bos_token_id=None, eos_token_id=None)).save_pretrained(sys.argv[1])"
    )
    folder.mkdir()
    with_chatml(real_tokenizer(tokenizer), folder / "tokenizer.json")
    subprocess.run([sys.executable, "-c", code, folder, folder / "tokenizer.json"], check=True, capture_output=True)
    names = {"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def with_chatml(source: Path, target: Path) -> None:
    """The tokenizer with ChatML's tokens, where it lacks them."""
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_file(str(source))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")])
    tokenizer.save(str(target))


def write_rows(folder: Path, n_rows: int) -> Row:
    """A segment and an index, as `tokenized_shards` publishes them."""
    nat = Path(os.environ.get("NEGTRAJ_NAT_DIR", ROOT.parent / "shared/data/nat"))
    rollouts = [
        rollout
        for name in ("positive", "negative")
        for rollout in json.loads((nat / f"strategyqa/strategyqa_gpt-3.5_{name}.json").read_text(encoding="utf-8"))
        if rollout["conversations"]
    ]
    random.Random(0).shuffle(rollouts)
    published = json.loads((nat / "prompts/StrategyQA/StrategyQA_conversation.json").read_text(encoding="utf-8"))
    instruction = published["one-shot"]["conversations"][0]["content"].split("Question:")[0]
    lines = (nat / "strategyqa/train.jsonl").read_text(encoding="utf-8").splitlines()
    questions = {line["id"]: line["question"] for line in map(json.loads, lines)}
    conversations = {}
    for number, rollout in enumerate(rollouts):
        prompt = {"role": "user", "content": f"{instruction}Question: {questions.get(rollout['id'], '')}", "weight": 0.0}
        turns = [{key: turn[key] for key in ("role", "content")} for turn in rollout["conversations"]]
        weighed = [{**turn, "weight": float(turn["role"] == "assistant")} for turn in turns]
        conversations[f"{number:064x}"] = conditioned_json([prompt, *weighed], None, None)  # type: ignore[list-item]
    tokenizer = make_template("chatml").open_tokenizer(folder / "base" / "tokenizer.json", max_tokens=MAX_TOKENS)
    encoded = pa.record_batch(tokenizer.encode(list(conversations), list(conversations.values()))).slice(0, n_rows)
    with pa.ipc.new_file(str(folder / "rows.arrow"), encoded.schema) as writer:
        writer.write_batch(encoded)
    keys = encoded["token_key"].to_pylist()
    columns = {"token_key": keys, "question_id": keys, "class": ["positive"] * len(keys), "weight": [1.0] * len(keys)}
    pq.write_table(pa.table({**columns, "repeat": [1] * len(keys)}), folder / "index.parquet")
    n_tokens, n_trained = (sum(encoded[name].to_pylist()) for name in ("n_tokens", "n_trained"))
    return {"rows": len(keys), "tokens": n_tokens, "trained_share": round(n_trained / n_tokens, 3)}


def planned(folder: Path, batch: int, n_steps: int) -> list[list[dict[str, list[int]]]]:
    """Each step's rows as the peers take them: ids, and labels that are -100 where nothing is trained."""
    rows = load_rows(folder / "index.parquet", [folder / "rows.arrow"])
    steps = list(islice(plan_steps(rows, batch_size=batch, seed=0), n_steps))
    assert all(len(step) == batch for step in steps), "a peer's steps are of one size: let --rows be a multiple of --batch"
    return [[labelled(row) for row in step] for step in steps]


def labelled(row: Any) -> dict[str, list[int]]:
    """A row of the trainer's with labels."""
    labels = [-100] * len(row.input_ids)
    for place in row.target_places.tolist():
        labels[place] = int(row.input_ids[place])
    return {"input_ids": row.input_ids.tolist(), "labels": labels}


def train_ours(arguments: argparse.Namespace, out: Path, *, packing: bool) -> Row:
    """As the asset trains: a child that writes its curve and result."""
    folder = out.parent
    sizes = {"steps": arguments.steps, "batch_size": arguments.batch, "micro_batch_size": arguments.micro_batch}
    training = TrainingSettings.model_validate({**TRAINING, **sizes, "packing": packing}).model_dump(
        mode="json", exclude={"warm_start"}
    )
    job = {"out_dir": str(out), "base_model_dir": str(folder / "base"), "index_path": str(folder / "index.parquet")}
    job |= {"segment_paths": [str(folder / "rows.arrow")], "training": training}
    job |= {"card": {"chat_template": make_template("chatml").to_json()}, "states": None}
    (folder / "ours.json").write_text(json.dumps(job))
    code = (
        "import sys; from pathlib import Path; from negtraj_dagster.launch import run_child;"
        "run_child('negtraj_dagster.checkpoints.train', Path(sys.argv[1]))"
    )
    command = ["taskset", "-c", str(arguments.core), sys.executable, "-c", code, str(folder / "ours.json")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    curve = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    result = json.loads((out / "result.json").read_text())
    seconds = curve[-1]["seconds"] - curve[0]["seconds"]
    peak = round(result["peak_rss_bytes"] / 2**20)
    return {"seconds": seconds, "losses": [line["loss"] for line in curve], "peak_MiB": peak, "versions": result["versions"]}


def train_peer(arguments: argparse.Namespace, folder: Path, environment: Path, name: str) -> Row:
    """A peer's seconds, losses and peak memory."""
    command = ["taskset", "-c", str(arguments.core), str(environment / "bin/python"), str(ROOT / "benches/peers/trainers.py")]
    numbers = map(str, (arguments.steps, arguments.batch, arguments.micro_batch))
    threads = {"OMP_NUM_THREADS": "1", "PATH": f"{environment / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*command, name, str(folder / "base"), str(folder / "rows.json"), *numbers],
        env={**os.environ, **threads},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    trained: Row = json.loads(done.stdout.splitlines()[-1])
    return trained


if __name__ == "__main__":
    main()
