"""Which base models this trainer can follow, judged by their config.json: what it would train otherwise than they are run.

Reads JSON only: a refusal shows when the base model is published, not in a trainer that took seconds to start.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import ModelError

LOGIT_KEYS = ("lm_head_multiplier",)
"""Beside every key that names logits and what caps or scales them."""


def check_trainable(folder: Path) -> None:
    """Refuse a model whose loss this trainer does not compute, by the setting that says so.

    Raises:
        ModelError: lists every such setting, and what to do.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if faults := [f"{name} = {value!r} ({why})" for name, value, why in _faults(config)]:
        raise ModelError(f"base model file {path}: {'; '.join(faults)}; choose a dense decoder without them")


def _faults(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    text = config.get("text_config")
    settings = {**config, **text} if isinstance(text, dict) else dict(config)
    for name, value in sorted(settings.items()):
        if "expert" in name and _is_number(value) and value > 1:
            yield name, value, "a mixture of experts, whose routing loss this trainer leaves out"
        elif _caps_logits(name) and _is_number(value) and value not in (0, 1):
            if name.startswith("attn"):
                yield name, value, "attention scores are capped, which fast attention kernels leave out"
            else:
                yield name, value, "logits are capped or scaled, in training they would not be"
        elif name == "is_encoder_decoder" and value is True:
            yield name, value, "an encoder and a decoder"
        elif name == "quantization_config" and value:
            yield name, "…", "quantized weights, which cannot be trained"


def _caps_logits(name: str) -> bool:
    return name in LOGIT_KEYS or ("logit" in name and ("cap" in name or "scal" in name))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
