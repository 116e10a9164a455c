"""Exports a trained engine as a Hugging Face folder (for LoRA: adapter and merged model) and proves it by reloading."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from negtraj_dagster.checkpoints.loading import load_model
from negtraj_dagster.checkpoints.serving import EndToken, name_end_token, save_adapter, stop_at
from negtraj_dagster.checkpoints.world import World
from negtraj_dagster.checkpoints.zero import Lora, TargetLoss, add_lora, whole_parameters
from negtraj_dagster.errors import TrainingError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
LOGIT_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


def export_model(
    engine: Any,
    out_dir: Path,
    *,
    base_model_dir: Path,
    zero_stage: int,
    lora: Lora | None,
    world: World,
    ids_BT: torch.Tensor,
    ends: Sequence[EndToken],
    chat_template: str | None = None,
) -> None:
    """Write `out_dir/model` (and `out_dir/adapter` for LoRA) on rank 0. Every rank must call this.

    Args:
        engine: a DeepSpeed engine around a TargetLoss.
        out_dir: where the folders go: the trainer's scratch folder, which becomes `objects/<recipe>/checkpoint/<key>` when the
            store publishes it.
        base_model_dir: source of configuration and tokenizer.
        zero_stage: the engine's.
        lora: as trained; None for full weights.
        world: this process.
        ids_BT: int64, unpadded; the reloaded model must give the trained one's logits on them.
        ends: by which a turn ends in the rows; the folder's own defaults stop at them.
        chat_template: Jinja text that the rows were written by, which a server of the model has to use; None leaves the base
            model's own.

    Raises:
        TrainingError: the export has missing, empty or non-finite tensors, or other logits.
    """
    module: TargetLoss = engine.module
    module.eval()
    with torch.no_grad():
        trained_BTV = module.causal(input_ids=ids_BT.to(world.device), use_cache=False).logits.float().cpu()
    with whole_parameters(module, zero_stage=zero_stage):
        state = _trained_state(module, lora, zero_stage=zero_stage) if world.rank == 0 else {}
    if world.rank != 0:
        return
    dtype = next(module.parameters()).dtype
    model_dir = out_dir / "model"
    if lora:
        model = _merge(base_model_dir, out_dir / "adapter", state, lora, dtype)
    else:
        model = _with_weights(base_model_dir, state, dtype)
    stop_at(model, ends)
    model.save_pretrained(model_dir)
    del model, state  # the reloaded one takes their place
    for name in TOKENIZER_FILES:
        if (base_model_dir / name).is_file():
            shutil.copyfile(base_model_dir / name, model_dir / name)
    name_end_token(model_dir, ends)
    if chat_template is not None:
        (model_dir / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    verify_export(model_dir, ids_BT=ids_BT, expected_BTV=trained_BTV, dtype=dtype)


def verify_export(model_dir: Path, *, ids_BT: torch.Tensor, expected_BTV: torch.Tensor, dtype: torch.dtype) -> None:
    """Reload an exported folder and compare it with what was trained.

    Raises:
        TrainingError: empty or non-finite tensors, tensors the model lacks or has too many of, or other logits.
    """
    faults = [fault for path in sorted(model_dir.glob("*.safetensors")) for fault in _faults(path)]
    model, notes = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype, use_safetensors=True, output_loading_info=True)
    faults += [
        f"{kind.replace('_', ' ')}: {sorted(notes[kind])}" for kind in ("missing_keys", "unexpected_keys") if notes[kind]
    ]
    with torch.no_grad():
        difference = float((model.eval()(input_ids=ids_BT, use_cache=False).logits.float() - expected_BTV).abs().max())
    allowed = LOGIT_TOLERANCE[dtype] * max(1.0, float(expected_BTV.abs().max()))  # bf16's steps grow with the logits
    if not difference <= allowed:
        faults.append(f"logits differ from the trained model's by {difference:.2e}, allowed {allowed:.0e}")
    if faults:
        raise TrainingError(f"{model_dir}: the export does not hold what was trained: {'; '.join(faults)}; train again")


def _faults(path: Path) -> Iterator[str]:
    """Of one file, one tensor in memory at a time."""
    with safe_open(path, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - the file is no mapping
            tensor = tensors.get_tensor(name)
            if tensor.numel() == 0:
                yield f"{name} is empty"
            elif not bool(torch.isfinite(tensor).all()):
                yield f"{name} has non-finite values"


def _trained_state(module: TargetLoss, lora: Lora | None, *, zero_stage: int) -> dict[str, torch.Tensor]:
    """By name, on the CPU. What ZeRO-3 has gathered is there for as long as it is, and copied."""
    import peft

    state = peft.get_peft_model_state_dict(module.model) if lora else module.causal.state_dict()
    return {name: tensor.detach().to("cpu", copy=zero_stage == 3) for name, tensor in state.items()}


def _with_weights(base_model_dir: Path, state: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """A model whose weights are these very tensors: none are drawn, none copied."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base_model_dir), dtype=dtype)
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    return model


def _merge(base_model_dir: Path, adapter_dir: Path, state: dict[str, torch.Tensor], lora: Lora, dtype: torch.dtype) -> Any:
    """Save the adapter; return a fresh base model with it merged in, for the trained one is the engine's."""
    import peft

    fresh = add_lora(load_model(base_model_dir, dtype), lora)
    peft.set_peft_model_state_dict(fresh, state)
    save_adapter(fresh, adapter_dir)
    return fresh.merge_and_unload()
