"""A model is trained with exactly the weights of its files, or refused by the tensor that is not as its config says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from negtraj_dagster.checkpoints.loading import load_model
from negtraj_dagster.errors import ModelError

Tensors = dict[str, torch.Tensor]
QUERY = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.norm.weight"


def tiny(folder: Path, *, is_tied: bool) -> Path:
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=is_tied)).save_pretrained(folder)
    return folder


def change(folder: Path, edit: Callable[[Tensors], Tensors], config: dict[str, Any]) -> None:
    save_file(edit(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


def keep(tensors: Tensors) -> Tensors:
    return tensors


REFUSED: dict[str, tuple[Callable[[Tensors], Tensors], dict[str, Any], str]] = {
    "a projection is missing": (lambda t: {k: v for k, v in t.items() if "q_proj" not in k}, {}, f"lack {QUERY}, "),
    "a layer more in the config": (keep, {"num_hidden_layers": 3}, r"lack model\.layers\.2\..* and 5 more"),
    "a layer less in the config": (keep, {"num_hidden_layers": 1}, r"hold, with no place in the model .* model\.layers\.1\."),
    "a head that is not tied": (keep, {"tie_word_embeddings": False}, "lack lm_head.weight"),
    "another shape": (lambda t: {**t, QUERY: torch.zeros(8, 16)}, {}, rf"have {QUERY} of shape \(8, 16\), expected \(16, 16\)"),
    "no number": (lambda t: {**t, NORM: torch.full((16,), float("nan"))}, {}, f"not finite in {NORM}"),
    "an infinite number": (lambda t: {**t, NORM: torch.full((16,), float("inf"))}, {}, f"not finite in {NORM}"),
    "another family": (keep, {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "lack|cannot load"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_weights_that_are_not_those_of_the_config_are_refused_by_name(name: str, tmp_path: Path) -> None:
    edit, config, message = REFUSED[name]
    change(tiny(tmp_path, is_tied=True), edit, config)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path, torch.float32)
    assert str(tmp_path) in str(caught.value)
    assert "save_pretrained" in str(caught.value)


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "not tied"])
def test_a_model_as_it_was_saved_is_loaded(is_tied: bool, tmp_path: Path) -> None:
    tiny(tmp_path, is_tied=is_tied)
    loaded = load_model(tmp_path, torch.float32).state_dict()
    saved = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items())


def test_buffers_and_a_doubled_tied_head_of_other_versions_are_no_fault(tmp_path: Path) -> None:
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}
    change(tiny(tmp_path, is_tied=True), lambda t: {**t, **more, "lm_head.weight": t["model.embed_tokens.weight"].clone()}, {})
    load_model(tmp_path, torch.float32)
