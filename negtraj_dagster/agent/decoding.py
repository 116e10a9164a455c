"""How an agent's turns are decoded when a checkpoint is evaluated. No torch here."""

from collections.abc import Mapping
from typing import Any

DECODING: Mapping[str, Any] = {"do_sample": False, "num_beams": 1}
"""Greedy. Whatever else `generate` knows (penalties, suppressed tokens, lengths) stays as transformers sets it where a model's
folder says nothing: a base model's generation_config.json decides nothing."""
