"""Loads a causal model from a folder as it was saved, or refuses it: transformers fills what a file lacks with chance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from negtraj_dagster.errors import ModelError

MAX_NAMED = 4
FAULTS = {"missing_keys": "lack", "unexpected_keys": "hold, with no place in the model of config.json,"}


def load_model(folder: Path, dtype: torch.dtype) -> Any:
    """The model with exactly the weights of the folder's safetensors files.

    Raises:
        ModelError: a tensor is missing, left over, of another shape or not finite; names the folder, the tensor and the remedy.
    """
    try:
        model, notes = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"base model folder {folder}: transformers cannot load it ({str(error).splitlines()[0]}); {REMEDY}"
        ) from error
    if faults := [*_faults(notes), *_not_finite(model)]:
        raise ModelError(f"base model folder {folder}: its weights {'; they '.join(faults)}; {REMEDY}")
    return model


REMEDY = "save model and config together with save_pretrained, and copy the folder whole"


def _faults(notes: Mapping[str, Any]) -> list[str]:
    faults = [f"{words} {_some(notes[kind])}" for kind, words in FAULTS.items() if notes[kind]]
    mismatched = [
        f"{name} of shape {tuple(stored)}, expected {tuple(expected)}" for name, stored, expected in notes["mismatched_keys"]
    ]
    return [*faults, *([f"have {_some(mismatched)}"] if mismatched else [])]


def _not_finite(model: Any) -> list[str]:
    names = [name for name, tensor in model.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    return [f"are not finite in {_some(names)}"] if names else []


def _some(names: Any) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:MAX_NAMED]) + (f" and {len(ordered) - MAX_NAMED} more" if len(ordered) > MAX_NAMED else "")
