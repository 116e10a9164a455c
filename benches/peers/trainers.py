"""One peer trains the rows of a file, in their order, in this process; `make bench-trainer` runs it.

    python trainers.py trl|hf|deepspeed MODEL_FOLDER ROWS_JSON N_STEPS BATCH MICRO_BATCH

Prints one JSON object: seconds of all steps but the first, losses, peak memory, versions. fp32 on one processor, AdamW of one
learning rate, no decay, gradients clipped at 1; every loss is the mean over a step's trained tokens.
"""

import json
import os
import resource
import sys
import tempfile
import time
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments  # noqa: E402

SCRATCH = tempfile.TemporaryDirectory()
IGNORED = -100
LR, BETA_2 = 1e-4, 0.98

Rows = list[dict[str, list[int]]]


class Clock(TrainerCallback):
    """When the first step had ended, and the last; and each step's loss."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended.append(time.perf_counter())

    def on_log(self, _arguments: Any, _state: Any, _control: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


def collate(rows: Rows) -> dict[str, torch.Tensor]:
    """Padded on the right."""
    width = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, fill: int) -> torch.Tensor:
        return torch.tensor([row[name] + [fill] * (width - len(row[name])) for row in rows])

    mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
    return {"input_ids": padded("input_ids", 0), "labels": padded("labels", IGNORED), "attention_mask": torch.tensor(mask)}


def train_with_trainer(name: str, model: Any, folder: str, rows: Rows, n_steps: int, batch: int, micro: int) -> Clock:
    """transformers' Trainer, or TRL's on it, with their defaults but for what makes the steps alike."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    clock = Clock()
    alike: dict[str, Any] = {
        "output_dir": SCRATCH.name,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch // micro,
        "max_steps": n_steps,
        "learning_rate": LR,
        "adam_beta2": BETA_2,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": False,
    }
    if name == "trl":
        from trl import SFTConfig, SFTTrainer

        names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", **names)
        config = SFTConfig(max_length=None, **alike)
        trainer: Trainer = SFTTrainer(
            model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[clock]
        )
    else:
        arguments = TrainingArguments(**alike)
        trainer = Trainer(
            model=model, args=arguments, train_dataset=Dataset.from_list(rows), data_collator=collate, callbacks=[clock]
        )
    trainer.train()
    return clock


def train_with_deepspeed(model: Any, rows: Rows, n_steps: int, batch: int, micro: int) -> Clock:
    """ZeRO 2 around the model as it is, with logits at every place."""
    import deepspeed

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    os.environ.setdefault("MASTER_PORT", str(20000 + os.getpid() % 20000))
    deepspeed.ops.__dict__.setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, BETA_2), weight_decay=0.0, fused=True)
    settings = {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": batch // micro,
        "gradient_clipping": 1.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        "zero_optimization": {"stage": 2, "overlap_comm": False, "contiguous_gradients": True},
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    clock = Clock()
    for step in range(n_steps):
        step_rows = rows[step * batch : (step + 1) * batch]
        n_trained = sum(label != IGNORED for row in step_rows for label in row["labels"][1:])
        total = 0.0
        for start in range(0, batch, micro):
            inputs = collate(step_rows[start : start + micro])
            labels = inputs.pop("labels")[:, 1:]
            logits = engine(**inputs, use_cache=False).logits[:, :-1].float()
            summed = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
            )
            loss = summed / n_trained
            engine.backward(loss, scale_wrt_gas=False)
            engine.step()
            total += loss.item()
        clock.losses.append(total)
        clock.ended.append(time.perf_counter())
    return clock


def main() -> None:
    """Train and print."""
    name, folder, rows_path = sys.argv[1:4]
    n_steps, batch, micro = map(int, sys.argv[4:7])
    torch.set_num_threads(1)
    with open(rows_path, encoding="utf-8") as file:
        rows: Rows = json.load(file)
    transformers.utils.logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    if name == "deepspeed":
        clock = train_with_deepspeed(model, rows, n_steps, batch, micro)
    else:
        clock = train_with_trainer(name, model, folder, rows, n_steps, batch, micro)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    if name == "trl":
        import trl

        versions["trl"] = trl.__version__
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = clock.ended[-1] - clock.ended[0]
    print(json.dumps({"seconds": seconds, "losses": clock.losses, "peak_MiB": round(peak_mb), "versions": versions}))


if __name__ == "__main__":
    main()
