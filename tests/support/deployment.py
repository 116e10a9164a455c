"""A small deployment to change and rebuild: own questions, own rollouts, one recipe, and a trainer that is real or counts."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from negtraj_dagster import paths
from negtraj_dagster.graph import keys_in_order
from negtraj_dagster.launch import RunChild, run_child
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.settings import load_settings
from negtraj_dagster.shards.reader import read_shards
from negtraj_dagster.store import Published, Store, load_manifest
from tests.support.weights import write_model_files

N_QUESTIONS, N_SAMPLES, N_FILES, N_TEST = 100, 3, 4, 8
RECIPE = """
description = "{name}"
task = "strategyqa"
line = "tiny"
role = "candidate"
base_model = "tiny"
[selection]
profile = "paper" # a label that flips late contradicts its answer, which the strict profile would drop
[strategy]
name = "nat"
[shards]
chat_template = "chatml"
max_tokens = 2048
[training]
steps = 4
lr = 0.002
batch_size = 8
seed = {seed}
log_every_steps = 2
[evaluation]
max_turns = 2
max_new_tokens_per_turn = 8
"""
TOML = """
[wordtraps]
enabled = false
[base_models.tiny]
folder = "{folder}/model"
"""


def make_deployment(root: Path, base_model: Path) -> Path:
    """Write everything a run reads under `root`: question files, landed rollouts, a recipe, a base model, settings."""
    home = root / "home"
    landing = home / "landing" / "strategyqa" / "negtraj"
    questions = root / "nat" / "strategyqa"
    for folder in (landing, questions, root / "recipes"):
        folder.mkdir(parents=True)
    shutil.copytree(base_model, root / "model")
    (root / "negtraj.toml").write_text(TOML.format(folder=root))
    (root / "recipes" / "tiny_nat.toml").write_text(RECIPE.format(name="tiny_nat", seed=0))
    write_lines(questions / "train.jsonl", [question(n, "train") for n in range(N_QUESTIONS)])
    write_lines(questions / "test_random_500.jsonl", [question(n, "test") for n in range(N_TEST)])
    (questions / "none_positive.json").write_text("[]")
    rows = [rollout(n, sample) for sample in range(N_SAMPLES) for n in range(N_QUESTIONS)]
    size = len(rows) // N_FILES
    for number in range(N_FILES):
        write_lines(landing / f"part-{number}.jsonl", rows[number * size : (number + 1) * size])
    return root


def question(number: int, split: str) -> dict[str, Any]:
    """A yes/no question that shares no run of words with another split's."""
    words = {
        "train": f"Would pebble {number} outweigh feather {number}",
        "test": f"Could river {number} freeze by month {number}",
    }
    answer = (number % 2 == 0) == (split == "test")  # what the rollouts' labels agree with
    return {"id": f"{split}-{number}", "question": f"{words[split]}?", "answer": answer, "facts": [f"fact {number}"]}


def rollout(number: int, sample: int) -> dict[str, Any]:
    """An episode on training question `number`; every sample acts otherwise, every second one is right."""
    return {
        "question_id": f"train-{number}",
        "source": f"sample-{sample}",
        "reward": (number + sample) % 2 == 0,
        "messages": [
            {"role": "assistant", "content": f"Thought: look up case {sample}.\nAction: search[pebble {number} way {sample}]"},
            {"role": "user", "content": f"Observation: stones, {number}, {sample}"},
            {"role": "assistant", "content": f"Thought: so it is.\nAction: finish[{'yes' if sample % 2 else 'no'}]"},
        ],
    }


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """A JSON-lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Its rows."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def landed(root: Path) -> list[Path]:
    """The landed files, by name."""
    return sorted((root / "home" / "landing" / "strategyqa" / "negtraj").iterdir())


def environment(root: Path) -> dict[str, str]:
    """What makes a process see this deployment."""
    return {
        "NEGTRAJ_HOME": str(root / "home"),
        "NEGTRAJ_SETTINGS": str(root / "negtraj.toml"),
        "NEGTRAJ_NAT_DIR": str(root / "nat"),
        "NEGTRAJ_RECIPES": str(root / "recipes"),
    }


@dataclass
class Ran:
    """What one run published and computed."""

    published: dict[str, Published]

    @property
    def rebuilt(self) -> list[str]:
        """Assets that were not reused."""
        return [asset for asset, each in self.published.items() if not each.reused]

    def count(self, *names: str) -> int:
        """The sum of some counts over all assets."""
        return sum(each.work.get(name, 0) for each in self.published.values() for name in names)

    def judged(self) -> dict[str, int]:
        """Rows each SQL file has judged, those that judged none left out."""
        return {
            name: n
            for each in self.published.values()
            for name, n in each.work.items()
            if n and name.startswith(("judged_", "scored_"))
        }


def run(root: Path, child: RunChild) -> Ran:
    """One nightly run of every `tiny` recipe, in this process."""
    os.environ.update(environment(root))
    settings = load_settings()
    lineage = Lineage(Store(settings.home), settings, child)
    recipes = [recipe for recipe in lineage.recipes.values() if recipe.line == "tiny"]
    return Ran({asset: lineage.build(asset) for asset in keys_in_order(recipes)})


@dataclass(frozen=True)
class FirstRun:
    """A deployment that has run once. It is changed where it stands and put back from a copy: paths are inputs."""

    root: Path
    saved: Path
    ran: Ran
    fingerprints: dict[str, Any]
    child: RunChild

    def put_back(self) -> None:
        """Undo whatever was done to it since."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.saved, self.root)


def run_first(folder: Path, base_model: Path, child: RunChild) -> FirstRun:
    """Make a deployment in `folder`, run it once, keep a copy."""
    root = make_deployment(folder / "d", base_model)
    with pytest.MonkeyPatch.context() as patch:
        see(patch, root)
        ran = run(root, child)
        prints = fingerprints(root, ran)
    shutil.copytree(root, folder / "saved")
    return FirstRun(root, folder / "saved", ran, prints, child)


def see(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Make this process see the deployment until the patch is undone."""
    for name, value in environment(root).items():
        monkeypatch.setenv(name, value)


def from_nothing(root: Path, elsewhere: Path) -> Path:
    """A copy of the deployment's inputs alone: what landed, the order it arrived in, settings, recipes, models."""
    kept = ("nat", "recipes", "model")
    for name in kept:
        shutil.copytree(root / name, elsewhere / name)
    (elsewhere / "negtraj.toml").write_text((root / "negtraj.toml").read_text().replace(str(root), str(elsewhere)))
    shutil.copytree(root / "home" / "landing", elsewhere / "home" / "landing")
    shutil.copy(root / "home" / "arrivals.jsonl", elsewhere / "home" / "arrivals.jsonl")
    return elsewhere


def fingerprints(root: Path, ran: Ran) -> dict[str, Any]:
    """Per asset all that must be equal from build to build: version, content, every file's bytes but clocks', token rows."""
    made: dict[str, Any] = {}
    for asset, each in ran.published.items():
        manifest = load_manifest(each.folder, asset, each.key)
        files = {name: entry["sha256"] for name, entry in manifest["files"].items() if not entry.get("volatile")}
        made[asset] = [each.version, each.content, files]
        if asset.endswith("/tokenized_shards"):
            made[f"{asset}, rows"] = rows_digest(root / "home", asset.split("/")[0])
    return made


def rows_digest(home: Path, recipe: str) -> str:
    """All training rows of a recipe, byte by byte, as the plain reader gives them."""
    hasher = hashlib.sha256()
    for row in read_shards(home, recipe):
        hasher.update(f"{row.token_key} {row.class_name} {row.repeat} ".encode())
        hasher.update(row.input_ids.tobytes() + row.loss_weights.tobytes())
    return hasher.hexdigest()


def real_child(module: str, config: Path, ranks: int, threads: int) -> None:
    """DeepSpeed and generation."""
    run_child(module, config, ranks=ranks, threads=threads)


def counting_child(module: str, config: Path, ranks: int, threads: int) -> None:
    """In place of trainer and evaluator: files that are a function of what those would read, made in no time."""
    job = json.loads(config.read_text())
    out = Path(job["out_dir"])
    if module.endswith("train"):
        _pretend_training(job, out)
    elif module.endswith("evaluate"):
        _pretend_evaluation(job, out)
    else:
        raise AssertionError(f"unexpected child {module}")


def _pretend_training(job: Mapping[str, Any], out: Path) -> None:
    index = pq.read_table(job["index_path"]).to_pylist()
    stored = {}
    for path in job["segment_paths"]:
        stored |= {row["token_key"]: row for row in pa.ipc.open_file(path).read_all().to_pylist()}
    seen = json.dumps([[stored[row["token_key"]], row["weight"], row["repeat"]] for row in index], sort_keys=True)
    weights = (Path(job["base_model_dir"]) / "model.safetensors").read_bytes()
    training = {name: value for name, value in job["training"].items() if name not in ("save_every_steps", "keep_last")}
    digest = hashlib.sha256(seen.encode() + json.dumps(training, sort_keys=True).encode() + weights).hexdigest()
    write_model_files(out / "model", digest.encode())
    (out / "curve.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0, "loss_by_class": {}, "heldout_loss": None}) + "\n")
    result = {"steps": job["training"]["steps"], "resumed_behind_step": 0, "engine": "DeepSpeedEngine"}
    result |= {"tokens": 1, "trained_share": 0.5, "seconds": 0.1}
    (out / "result.json").write_text(json.dumps(result))


def _pretend_evaluation(job: Mapping[str, Any], out: Path) -> None:
    from negtraj_dagster.agent.loop import Episode
    from negtraj_dagster.reports.evaluate import read_jobs, write_answers

    jobs = read_jobs(Path(job["questions_path"]))
    model = (Path(job["model_dir"]) / "model.safetensors").read_bytes()[-64:].hex()  # the digest that stands for weights
    episodes = []
    for each in jobs:
        asked = each["turns"][0]["content"]
        answer = "yes" if int(hashlib.sha256(f"{model} {asked}".encode()).hexdigest(), 16) % 2 else "no"
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": f"Action: finish[{answer}]"}]
        episodes.append(Episode(each["question_id"], turns, 1, answer, "finished", 1))
    write_answers(out / "answers-00000.jsonl", episodes, jobs)
    (out / "result.json").write_text("{}")


RUNNER = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.support.deployment import counting_child, run
ran = run(Path({root!r}), counting_child)
print(json.dumps({{"rebuilt": ran.rebuilt, "work": {{a: p.work for a, p in ran.published.items()}},
                   "versions": {{a: p.version for a, p in ran.published.items()}}}}))
"""


def run_refactored(root: Path, code: Path) -> dict[str, Any]:
    """Run in another process from a copy of the package whose every module is rewritten: no comment, no line as it was."""
    package = Path(paths.__file__).parent
    shutil.copytree(package, code / "negtraj_dagster", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (code / "negtraj_dagster").rglob("*.py"):
        path.write_text(ast.unparse(ast.parse(path.read_text())))
    shutil.copytree(paths.PACKAGE_ROOT / "recipes", code / "recipes")
    shutil.copytree(paths.PACKAGE_ROOT / "sql", code / "sql")
    for path in (code / "sql").rglob("*.sql"):
        header, body = path.read_text().split("*/", 1)
        path.write_text(f"{header}*/\n-- reformatted\n" + body.replace("\n", "\n\n    "))
    script = RUNNER.format(tests=str(Path(__file__).resolve().parents[2]), root=str(root))
    environ = {**os.environ, "PYTHONPATH": str(code)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, cwd=code, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))
