"""A byte-level base model and a few token rows, made once for the trainer's tests."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from negtraj_dagster.chat_templates import make_template
from negtraj_dagster.checkpoints.states import StatePlace
from negtraj_dagster.launch import run_child
from negtraj_dagster.modeling import CHAT_TEMPLATE, make_base_model

OWN_TEMPLATE = f"{{# the recipe's own #}}{CHAT_TEMPLATE}"
CARD = {"strategy": "nat", "chat_template": make_template("own.jinja", OWN_TEMPLATE).to_json()}
TRAINER = "negtraj_dagster.checkpoints.train"
SEGMENT_SCHEMA = pa.schema(
    [
        ("token_key", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("span_start", pa.list_(pa.int32())),
        ("span_end", pa.list_(pa.int32())),
        ("span_weight", pa.list_(pa.float32())),
        ("n_tokens", pa.int32()),
        ("n_trained", pa.int32()),
    ]
)
INDEX_SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("token_key", pa.string()),
        ("rollout_key", pa.string()),
        ("question_id", pa.string()),
        ("class", pa.string()),
        ("weight", pa.float32()),
        ("repeat", pa.int32()),
    ]
)
SETTINGS: dict[str, Any] = {
    "steps": 20,
    "batch_size": 8,
    "micro_batch_size": 8,
    "lr": 0.005,
    "warmup_share": 0.05,
    "schedule": "cosine",
    "min_lr_share": 0.05,
    "betas": [0.9, 0.98],
    "weight_decay": 0.1,
    "decay": "matrices",
    "gradient_clipping": 1.0,
    "seed": 0,
    "zero_stage": 2,
    "ranks": 1,
    "dtype": "fp32",
    "adaptation": "full",
    "lora_r": 4,
    "lora_alpha": 8,
    "packing": False,
    "gradient_checkpointing": False,
    "offload": "none",
    "memory_check": "refuse",
    "heldout_share": 0.0,
    "heldout_every_steps": 5,
    "loggers": [],
    "threads": 1,
    "log_every_steps": 5,
    "save_every_steps": 5,
    "keep_last": 2,
}


@dataclass(frozen=True)
class Material:
    """Where the trainer's inputs lie, and a folder for its outputs."""

    folder: Path

    def place(self, states: str, **changes: Any) -> StatePlace:
        """Where a training's states go."""
        every_steps, keep_last = (changes.get(name, SETTINGS[name]) for name in ("save_every_steps", "keep_last"))
        return StatePlace(self.folder / "states" / states, "tiny/checkpoint", states, every_steps, keep_last)

    def config(self, name: str, *, states: str | None = None, **changes: Any) -> Path:
        """Write a config file whose outputs go to `name`, and whose states, if any, to `states`."""
        config = {
            "out_dir": str(self.folder / name),
            "base_model_dir": str(self.folder / "base"),
            "index_path": str(self.folder / "index.parquet"),
            "segment_paths": [str(self.folder / "a.arrow"), str(self.folder / "b.arrow")],
            "training": {**SETTINGS, **changes},
            "card": CARD,
            "states": self.place(states, **changes).to_json() if states else None,
        }
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(config))
        return path

    def train(self, name: str, *, states: str | None = None, extra_env: dict[str, str] | None = None, **changes: Any) -> Path:
        """Run the trainer; returns its output folder."""
        config_path = self.config(name, states=states, **changes)
        result_path = self.folder / name / "result.json"
        ranks = changes.get("ranks", 1)
        run_child(TRAINER, config_path, ranks=ranks, threads=1, extra_env=extra_env, result_path=result_path)
        return self.folder / name


def segment_row(i: int) -> dict[str, Any]:
    """Rows of unequal lengths: two trained spans of unequal weights, the pattern learnable."""
    n = 12 + 5 * (i % 7)
    spans = [(4, 8, 1.0), (n - 3, n, 0.5)]
    return {
        "token_key": f"key-{i}",
        "input_ids": [3 + (i % 5 + j * 7) % 50 for j in range(n)],
        "span_start": [start for start, _, _ in spans],
        "span_end": [end for _, end, _ in spans],
        "span_weight": [weight for _, _, weight in spans],
        "n_tokens": n,
        "n_trained": 7,
    }


def write_segment(path: Path, rows: list[dict[str, Any]]) -> None:
    with pa.ipc.new_file(str(path), SEGMENT_SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, SEGMENT_SCHEMA))


def write_index(path: Path, entries: list[tuple[str, float, int]]) -> None:
    """(token key, weight, repeat) each; two rows a question, one of each class."""
    rows = [
        {
            "position": i,
            "token_key": key,
            "rollout_key": f"rollout-{i}",
            "question_id": f"question-{i // 2}",
            "class": "negative" if i % 2 else "positive",
            "weight": w,
            "repeat": n,
        }
        for i, (key, w, n) in enumerate(entries)
    ]
    pq.write_table(pa.Table.from_pylist(rows, INDEX_SCHEMA), path)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return write_material(tmp_path_factory.mktemp("trainer"))


def write_material(folder: Path) -> Material:
    make_base_model("bytes", folder / "base", texts=[], format_strings=[])
    rows = [segment_row(i) for i in range(21)]
    write_segment(folder / "a.arrow", rows[:10])
    write_segment(folder / "b.arrow", rows[10:])
    write_index(folder / "index.parquet", [(row["token_key"], 0.5 + i % 3, 1 + i % 2) for i, row in enumerate(rows)])
    return Material(folder)
