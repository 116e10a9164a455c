"""What memory a training needs, told before it starts: from config.json, the weights' headers and the longest row.

Whole copies of the trained weights were measured (`benches/memory.py`: DeepSpeed 0.19.8, one and two ranks, each ZeRO stage);
activations are what a decoder of Llama's kind keeps of a token for the backward pass. Nothing here loads torch.
"""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import TrainingError
from negtraj_dagster.modeling import tensor_shapes
from negtraj_dagster.recipes import TrainingSettings

LOG = logging.getLogger(__name__)

LIBRARIES_BYTES = 950_000_000
"""Of one rank on a processor: torch, transformers and DeepSpeed themselves."""
CHUNK_BYTES = 200_000_000
"""Logits of one chunk of the loss, and what is formed of them (`chunked_loss.CHUNK_LOGITS`)."""
COPIES = {
    ("fp32", 0): (5.7, 0.0),
    ("fp32", 1): (3.9, 3.4),
    ("fp32", 2): (3.2, 3.2),
    ("fp32", 3): (4.4, 3.6),
    ("bf16", 1): (0.5, 5.8),
    ("bf16", 2): (0.5, 5.8),
    ("bf16", 3): (2.1, 4.4),
}
"""(a, b): a + b / ranks copies in fp32 of the trained weights on each rank, at the highest: weights, gradients, what is being
reduced, fp32 masters and AdamW's two moments."""
LORA_COPIES = 2.7
"""Of all weights, where adapters are trained: the frozen ones, and those that the export merges and reads again."""
MOMENTS = {0: 2.0, 1: 3.0, 2: 3.0, 3: 3.0}
"""Of `COPIES` what `offload` moves to the host: AdamW's moments, with ZeRO the masters, too; divided by the ranks."""
OVERHEAD = 1.25
"""Of activations: what the backward pass makes meanwhile, and what an allocator cannot use again; seen with SmolLM2."""
OUTSIDE_LAYERS = ("embed", "lm_head", "wte", "wpe")
REMEDIES = (
    "lower training.micro_batch_size or shards.max_tokens, set training.gradient_checkpointing = true, "
    "training.adaptation = 'lora' or, on a GPU, training.offload, or choose a smaller base model; more training.ranks divide "
    "what training.zero_stage shards"
)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one rank needs at the highest, by what needs them.

    Attributes:
        host: parts in the machine's memory.
        device: parts in a GPU's memory; empty on a processor.
    """

    host: Mapping[str, int]
    device: Mapping[str, int]


def estimate_memory(base_model_dir: Path, settings: TrainingSettings, *, longest: int, has_gpu: bool = False) -> MemoryEstimate:
    """What a training with these settings needs.

    Args:
        base_model_dir: Hugging Face layout.
        settings: the recipe's.
        longest: tokens of the longest row.
        has_gpu: whether it runs on GPUs.
    """
    shapes = tensor_shapes(base_model_dir)
    n_all = sum(math.prod(shape) for shape in shapes.values())
    is_lora = settings.adaptation == "lora"
    n_trained = _adapter_size(shapes, settings.lora_r) if is_lora else n_all
    fixed, shared = COPIES.get((settings.dtype, settings.zero_stage), COPIES["fp32", settings.zero_stage])
    copies = fixed + shared / settings.ranks
    optimizer = MOMENTS[settings.zero_stage] / (settings.ranks if settings.zero_stage else 1)
    weights = 4 * n_all * (LORA_COPIES if is_lora else 1.0)
    rows = max(1, min(settings.micro_batch_size, -(-settings.batch_size // settings.ranks)))
    parts = {
        "weights": int(weights),
        "optimizer": int(4 * n_trained * optimizer),
        "gradients and buffers": int(max(0.0, 4 * n_trained * (copies - optimizer - 1.0))),
        f"activations of {rows} x {longest} tokens": _activations(base_model_dir, settings, n_tokens=rows * longest),
        "loss": CHUNK_BYTES,
    }
    if not has_gpu:
        return MemoryEstimate({**parts, "libraries": LIBRARIES_BYTES}, {})
    moved = {"none": (), "optimizer": ("optimizer",), "all": ("optimizer", "weights")}[settings.offload]
    host = {"weights while they are loaded": 4 * n_all, **{name: parts[name] for name in moved}, "libraries": LIBRARIES_BYTES}
    return MemoryEstimate(host, {name: size for name, size in parts.items() if name not in moved})


def check_fits(parts: Mapping[str, int], *, ranks: int, available: int | None, place: str, check: str) -> None:
    """Refuse what cannot fit, or warn of it.

    Args:
        parts: bytes by what needs them, of one rank.
        ranks: that share the memory.
        available: bytes that are free; None = unknown.
        place: whose memory it is.
        check: `refuse` or `warn`.

    Raises:
        TrainingError: the sum, its parts and what lowers them.
    """
    needed = ranks * sum(parts.values())
    if available is None or needed <= available:
        return
    listed = ", ".join(f"{name} {_gb(size)}" for name, size in parts.items())
    each = f" for each of {ranks} ranks" if ranks > 1 else ""
    message = (
        f"training needs about {_gb(needed)} of {place}, {_gb(available)} are available: {listed}{each}; {REMEDIES}. "
        "training.memory_check = 'warn' starts it all the same"
    )
    if check == "refuse":
        raise TrainingError(message)
    LOG.warning("%s", message)


GROUP_2 = ("memory.max", "memory.current", "inactive_file")
GROUP_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""A control group's files of its limit and what is used of it, and what of that `memory.stat` says are files' pages."""


def available_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What this machine, and the control groups that this process is in, have free; None where none of them says so."""
    limits = [_free_of_machine(proc / "meminfo"), *_free_of_groups(proc / "self" / "cgroup", cgroup)]
    return min((limit for limit in limits if limit is not None), default=None)


def _free_of_machine(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _free_of_groups(own: Path, mount: Path) -> list[int]:
    """Of version 2 and of version 1, of this process's group and of all that it is in: any may have least left.

    Args:
        own: `/proc/self/cgroup`, lines of `number:controllers:/path/of/the/group`. In a container the path may be the host's:
            what is mounted is then the container's own group, which is looked at in any case.
        mount: where groups are mounted.
    """
    try:
        entries = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        entries = []
    free = []
    for files, root, controller in ((GROUP_2, mount, ""), (GROUP_1, mount / "memory", "memory")):
        paths = [path for _, names, path in entries if controller in names.split(",") and ".." not in path]
        groups = [root, *(root / group.strip("/") for path in paths for group in (path, *map(str, Path(path).parents)))]
        free += [limit for group in dict.fromkeys(groups) if (limit := _free_of_group(group, *files)) is not None]
    return free


def _free_of_group(group: Path, limit: str, used: str, cached: str) -> int | None:
    """Its limit without what is used, apart from files' pages, which give way; None where it has none."""
    try:
        allowed = int((group / limit).read_text())  # `max`, no number, where there is none
        counts = dict(line.split(" ", 1) for line in (group / "memory.stat").read_text().splitlines() if " " in line)
        return allowed - int((group / used).read_text()) + int(counts.get(cached, 0))
    except (OSError, ValueError):
        return None


def _activations(base_model_dir: Path, settings: TrainingSettings, *, n_tokens: int) -> int:
    """Of each layer and token the inputs of its products, norms and non-linearities: 8 hidden widths, 4 of the feed-forward
    layer, 2 of keys or values, as torch's saved tensors were counted for Llama and Qwen2."""
    config = json.loads((base_model_dir / "config.json").read_text(encoding="utf-8"))
    config |= config.get("text_config") or {}
    hidden, n_layers = _number(config, "hidden_size", "n_embd"), _number(config, "num_hidden_layers", "n_layer")
    feed_forward = _number(config, "intermediate_size", "n_inner") or 4 * hidden
    n_heads = _number(config, "num_attention_heads", "n_head") or 1
    head = _number(config, "head_dim") or hidden // n_heads
    keys = head * (_number(config, "num_key_value_heads") or n_heads)
    of_layer = 8 * hidden + 4 * feed_forward + 2 * keys
    kept = n_layers * hidden + 2 * of_layer if settings.gradient_checkpointing else (n_layers + 1) * of_layer
    return int(OVERHEAD * n_tokens * (kept + 2 * hidden) * (2 if settings.dtype == "bf16" else 4))


def _number(config: Mapping[str, Any], *names: str) -> int:
    return next((int(config[name]) for name in names if isinstance(config.get(name), int)), 0)


def _adapter_size(shapes: Mapping[str, tuple[int, ...]], r: int) -> int:
    matrices = [shape for name, shape in shapes.items() if len(shape) == 2 and not any(part in name for part in OUTSIDE_LAYERS)]
    return sum(r * (rows + columns) for rows, columns in matrices)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
