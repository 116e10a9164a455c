"""Base models that the trainer would train otherwise than they are run are refused by the setting that says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from negtraj_dagster import launch
from negtraj_dagster.checkpoints.dataset import Row
from negtraj_dagster.checkpoints.zero import build_module, parameter_groups, start_engine, start_world
from negtraj_dagster.errors import ModelError, TrainingError
from negtraj_dagster.trainable import check_trainable

REFUSED: dict[str, dict[str, Any]] = {
    "gemma 2": {"final_logit_softcapping": 30.0, "attn_logit_softcapping": None},
    "attention caps": {"attn_logit_softcapping": 50.0},
    "xlstm": {"output_logit_soft_cap": 30.0},
    "cohere": {"logit_scale": 0.0625},
    "granite": {"logits_scaling": 8.0},
    "falcon h1": {"lm_head_multiplier": 0.039},
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen 3 moe": {"num_experts": 128},
    "deepseek": {"n_routed_experts": 256},
    "inside of a text model's": {"text_config": {"num_experts": 16}},
    "t5": {"is_encoder_decoder": True},
    "quantized": {"quantization_config": {"bits": 4}},
}
ACCEPTED: dict[str, dict[str, Any]] = {
    "llama": {},
    "caps that are off": {"final_logit_softcapping": None, "attn_logit_softcapping": None},
    "scales of 1": {"logits_scaling": 1.0, "logit_scale": 1},
    "one expert": {"num_experts": 1, "num_local_experts": None, "enable_moe_block": False},
}


def with_config(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 9, **config}))
    return folder


@pytest.mark.parametrize("config", REFUSED.values(), ids=REFUSED.keys())
def test_a_model_that_would_be_trained_otherwise_is_refused_by_its_setting(tmp_path, config):
    name = next(iter(config.get("text_config", config)))
    with pytest.raises(ModelError, match=rf"config\.json: .*{name} = .*choose a dense decoder"):
        check_trainable(with_config(tmp_path, config))


@pytest.mark.parametrize("config", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_dense_decoder_is_accepted(tmp_path, config):
    check_trainable(with_config(tmp_path, config))


def row(ids: list[int]) -> Row:
    return Row("key-7", "question", "positive", np.array(ids), np.array([2]), np.ones(1, dtype=np.float32))


def test_a_cap_shows_in_a_small_model_whose_logits_are_small(tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
    torch.manual_seed(0)
    Gemma2ForCausalLM(Gemma2Config(vocab_size=32, num_key_value_heads=2, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(TrainingError, match="Gemma2ForCausalLM changes its logits"):
        build_module(tmp_path, rows=[row([1, 2, 3, 4])], seed=0, lora=None)


def test_a_token_that_the_model_has_no_embedding_of_is_refused(material):
    with pytest.raises(TrainingError, match=r"token key key-7: token id 259, .* has 259 embeddings"):
        build_module(material.folder / "base", rows=[row([3, 259, 4])], seed=0, lora=None)


def test_weights_that_are_no_safetensors_are_not_read(material, tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(material.folder / "base")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path)
    with pytest.raises(OSError, match=r"safetensors"):
        build_module(tmp_path, rows=[row([3, 4, 5])], seed=0, lora=None)


def test_norms_and_biases_do_not_decay(material):
    module = build_module(material.folder / "base", rows=[row([3, 4, 5])], seed=0, lora=None)
    module.causal.model.layers[0].mlp.bias = torch.nn.Parameter(torch.zeros(4))
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decaying, others = parameter_groups(list(module.parameters()), 0.1)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all(names[id(parameter)].endswith(("norm.weight", "bias")) for parameter in others["params"])
    assert not any("norm" in names[id(parameter)] for parameter in decaying["params"])
    assert len(decaying["params"]) + len(others["params"]) == len(names)


def test_bf16_without_zero_is_refused_by_name(material):
    module = build_module(material.folder / "base", rows=[row([3, 4, 5])], seed=0, lora=None)
    with pytest.raises(TrainingError, match="dtype = 'bf16' with zero_stage = 0"):
        start_engine(
            module, zero_stage=0, dtype="bf16", micro_batch_size=1, n_micro=1, gradient_clipping=1.0, weight_decay=0.1, lr=1e-3
        )


def test_more_ranks_than_gpus_are_refused_by_their_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_RANK": "2", "WORLD_SIZE": "3", "RANK": "2", "DS_ACCELERATOR": "cuda"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainingError, match=r"training\.ranks = 3: 2 GPUs are visible, one is needed for each rank"):
        start_world()


def test_training_on_the_processor_beside_a_gpu_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    for name, value in {"LOCAL_RANK": "0", "WORLD_SIZE": "1", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(launch, "has_gpu", lambda: True)
    monkeypatch.setattr("deepspeed.init_distributed", lambda **_: None)
    assert start_world().device.type == "cpu"
    assert "sees no GPU: training goes on on the processor" in caplog.text


def test_activations_made_again_give_adapters_the_same_gradients(material):
    import torch

    from negtraj_dagster.checkpoints.dataset import collate
    from negtraj_dagster.checkpoints.zero import Lora

    rows = [row([3, 4, 5, 6]), row([7, 8, 9])]
    gradients = []
    for again in (False, True):
        module = build_module(material.folder / "base", rows=rows, seed=0, lora=Lora(4, 8), checkpoints_gradients=again)
        batch = collate(rows)
        module(batch.ids_BT, batch.places_N, batch.targets_N, batch.weights_N)[0].backward()
        gradients.append({name: weight.grad for name, weight in module.named_parameters() if weight.requires_grad})
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())
    assert any(gradient.abs().max() > 0 for gradient in gradients[1].values())
