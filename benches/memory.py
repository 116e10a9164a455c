"""What a training is said to need beside what it took: each line one training, estimate and largest resident memory of a rank.

    python benches/memory.py

A decoder of 100 million weights made here, rows of 8 tokens (what is kept of the weights) and of 1,024 (activations); each
setting in a process of its own, as trainings run. A GPU is left out: on a processor all is in one memory.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from negtraj_dagster.checkpoints.memory import estimate_memory
from negtraj_dagster.recipes import TrainingSettings
from tests.checkpoints.conftest import SETTINGS, Material, write_index, write_segment

SHAPE = {"hidden_size": 1024, "num_hidden_layers": 6, "intermediate_size": 2736, "num_attention_heads": 8}
N_ROWS = 8
CASES: list[tuple[int, dict[str, Any]]] = [
    *((8, {"zero_stage": stage}) for stage in range(4)),
    *((8, {"zero_stage": stage, "ranks": 2}) for stage in (2, 3)),
    (8, {"zero_stage": 2, "dtype": "bf16"}),
    (8, {"zero_stage": 3, "dtype": "bf16"}),
    (8, {"zero_stage": 2, "adaptation": "lora"}),
    (1024, {"zero_stage": 2, "adaptation": "lora"}),
    (1024, {"zero_stage": 2}),
    (1024, {"zero_stage": 2, "gradient_checkpointing": True}),
]


def make_model(folder: Path) -> None:
    """Random weights of the shape, with the byte tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from negtraj_dagster.modeling import make_base_model

    make_base_model("bytes", folder, texts=[], format_strings=[])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000, num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True, **SHAPE
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def material(folder: Path, n_tokens: int) -> Material:
    """Rows of this length, a half of each trained."""
    rows = [
        {
            "token_key": f"key-{i}",
            "input_ids": [3 + (i + 7 * j) % 250 for j in range(n_tokens)],
            "span_start": [n_tokens // 2],
            "span_end": [n_tokens],
            "span_weight": [1.0],
            "n_tokens": n_tokens,
            "n_trained": n_tokens - n_tokens // 2,
        }
        for i in range(N_ROWS)
    ]
    write_segment(folder / "a.arrow", rows)
    write_segment(folder / "b.arrow", [])
    write_index(folder / "index.parquet", [(str(row["token_key"]), 1.0, 1) for row in rows])
    return Material(folder)


def main() -> None:
    """Print a line for each case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "base")
        for number, (n_tokens, changes) in enumerate(CASES):
            settings = {"steps": 2, "lr": 1e-4, "batch_size": 2, "micro_batch_size": 2, **changes}
            needs = estimate_memory(folder / "base", TrainingSettings(**{**SETTINGS, **settings}), longest=n_tokens)
            made = material(folder, n_tokens).train(f"out-{number}", **settings)
            result = json.loads((made / "result.json").read_text())
            took = max(result["peak_rss_bytes"], result["export_peak_rss_bytes"])
            said = sum(needs.host.values())
            figures = {"estimate_GB": round(said / 1e9, 2), "peak_GB": round(took / 1e9, 2), "ratio": round(said / took, 2)}
            print(json.dumps({"tokens": n_tokens, **changes, **figures}), flush=True)


if __name__ == "__main__":
    main()
