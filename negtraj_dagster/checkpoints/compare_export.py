"""Compares a handed-out folder with what was trained, in a process that knows only the files.

Run as a child: `python -m negtraj_dagster.checkpoints.compare_export CONFIG.json`. Reads `model/`, and where there is one the
adapter on its base model, runs both on token rows, and writes `result.json`. Shape legend: T tokens, N trained positions, V
vocabulary.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from negtraj_dagster import launch
from negtraj_dagster.checkpoints.dataset import Row, load_rows
from negtraj_dagster.checkpoints.export import LOGIT_TOLERANCE
from negtraj_dagster.checkpoints.loading import load_model
from negtraj_dagster.checkpoints.train import quiet_libraries
from negtraj_dagster.errors import TrainingError
from negtraj_dagster.store import replace_text

LOG = logging.getLogger(__name__)

N_ROWS = 8
MIN_AGREEMENT = 0.9
"""Of the most likely tokens of a merged bf16 model with those of its adapter: less is no rounding any more."""


def main(config_path: Path) -> None:
    """Compare what a config file names.

    Raises:
        TrainingError: the model's loss is not finite, or its adapter says something else.
    """
    launch.die_with_parent()
    quiet_libraries()
    config = json.loads(config_path.read_text(encoding="utf-8"))
    torch.set_num_threads(config["threads"])
    rows = load_rows(Path(config["index_path"]), [Path(path) for path in config["segment_paths"]])
    rows = sorted({row.token_key: row for row in rows if row.weight > 0}.values(), key=lambda row: row.token_key)[:N_ROWS]
    folder = Path(config["folder"])
    merged = AutoModelForCausalLM.from_pretrained(folder / "model", use_safetensors=True).eval()
    logits = [logits_of(merged, row) for row in rows]
    result: dict[str, Any] = {"n_rows": len(rows), "n_targets": sum(len(row.target_places) for row in rows)}
    result["loss"] = mean_loss(rows, logits)
    result["template_writes_prompt"] = written_prompt(folder / "model", config["prompt"]) == config["prompt_text"]
    if not result["loss"] < float("inf"):
        raise TrainingError(f"{folder / 'model'}: loss {result['loss']} on {len(rows)} token rows of its shards; train again")
    if (folder / "adapter").is_dir():
        adapted = load_adapted(Path(config["base_model_dir"]), folder / "adapter", merged.dtype)
        result["adapter"] = compare(logits, [logits_of(adapted, row) for row in rows], merged.dtype, folder)
    replace_text(Path(config["out_dir"]) / "result.json", json.dumps(result, indent=2) + "\n")


def written_prompt(model_dir: Path, prompt: list[dict[str, Any]]) -> str | None:
    """What the folder's own chat template, which a server uses, makes of a prompt; None where it refuses it."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir)
        return str(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # templates raise what they like
        LOG.warning("%s: the chat template cannot write the prompt (%s)", model_dir, error)
        return None


def load_adapted(base_model_dir: Path, adapter_dir: Path, dtype: torch.dtype) -> Any:
    """The adapter alone, on the base model it was trained on."""
    import peft

    return peft.PeftModel.from_pretrained(load_model(base_model_dir, dtype), adapter_dir).eval()


def logits_of(model: Any, row: Row) -> torch.Tensor:
    """float32 [N, V]: before each trained token."""
    ids_1T = torch.from_numpy(row.input_ids.astype("int64")).unsqueeze(0)
    places_N = torch.from_numpy(row.target_places.astype("int64")) - 1
    with torch.inference_mode():
        logits_NV: torch.Tensor = model(input_ids=ids_1T, use_cache=False).logits[0, places_N].float()
    return logits_NV


def mean_loss(rows: list[Row], logits: list[torch.Tensor]) -> float:
    """sum(w * cross-entropy) / sum(w)."""
    total = 0.0
    for row, logits_NV in zip(rows, logits, strict=True):
        targets_N = torch.from_numpy(row.input_ids[row.target_places].astype("int64"))
        losses_N = torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")
        total += float((losses_N * torch.from_numpy(row.target_weights)).sum())
    return total / sum(row.weight for row in rows)


def compare(merged: list[torch.Tensor], adapted: list[torch.Tensor], dtype: torch.dtype, folder: Path) -> dict[str, float]:
    """The largest difference of logits, and how often the most likely token is the same.

    Raises:
        TrainingError: fp32 logits differ by more than rounding, or bf16's by more than the most likely token mostly survives.
    """
    difference = max(float((a - b).abs().max()) for a, b in zip(merged, adapted, strict=True))
    largest = max(float(logits.abs().max()) for logits in merged)
    n_same = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in zip(merged, adapted, strict=True))
    agreement = n_same / sum(len(logits) for logits in merged)
    allowed = LOGIT_TOLERANCE[dtype] * max(1.0, largest)
    if (dtype == torch.float32 and difference > allowed) or agreement < MIN_AGREEMENT:
        raise TrainingError(
            f"{folder}: the merged model is not its adapter: logits differ by {difference:.2e} (allowed {allowed:.0e}), "
            f"{agreement:.1%} of the most likely tokens are the same; train again"
        )
    return {"max_difference": difference, "top1_agreement": agreement}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
