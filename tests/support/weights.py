"""A model folder that costs nothing: a real safetensors file of one small tensor, and the config that belongs to it."""

import json
import struct
from pathlib import Path


def write_model_files(folder: Path, content: bytes) -> None:
    """Write `model.safetensors`, whose one tensor are these bytes, and `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    header = {"model.norm.weight": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + content)
    config = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8, "num_attention_heads": 1, "vocab_size": 8}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
