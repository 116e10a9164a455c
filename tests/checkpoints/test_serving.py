"""An exported folder by its own defaults does what was trained and evaluated: it stops there, and decodes so."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from negtraj_dagster.agent.clients import TransformersPolicy, chat_encoder
from negtraj_dagster.chat_templates import ChatTemplate, make_template
from negtraj_dagster.checkpoints.export import export_model
from negtraj_dagster.checkpoints.serving import read_end_tokens, save_adapter
from negtraj_dagster.checkpoints.zero import Lora, TargetLoss, World, add_lora
from negtraj_dagster.modeling import CHAT_TEMPLATE, TURN_END

CONVERSATION = [{"role": "user", "content": "How many?"}]
OWN_END = CHAT_TEMPLATE.replace("<|im_end|>", "<|endoftext|>")
TEMPLATES = {
    "chatml": (ChatTemplate("chatml"), 2),
    "a template that ends with another token": (make_template("own.jinja", OWN_END), 0),
}
BASE_ENDS: dict[str, dict[str, Any]] = {
    "the template's": {"eos_token_id": 2},
    "another one": {"eos_token_id": 0},
    "several others": {"eos_token_id": [0, 1]},
    "none": {},
    "with sampling": {"eos_token_id": 0, "do_sample": True, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.05},
    "as shipped for qwen2.5": {"pad_token_id": 0, "do_sample": False, "max_new_tokens": 2048, "eos_token_id": 0},
}


def variant(base_model: Path, folder: Path, generation: dict[str, Any], **config: Any) -> Path:
    """The base model with other settings in its folder."""
    shutil.copytree(base_model, folder)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    old = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**old, "eos_token_id": generation.get("eos_token_id"), **config}))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    own_end = {"__type": "AddedToken", "content": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "eos_token": own_end}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}))
    return folder


def export(model: Any, base: Path, out: Path, template: ChatTemplate) -> Path:
    engine = SimpleNamespace(module=TargetLoss(model))
    export_model(
        engine,
        out,
        base_model_dir=base,
        zero_stage=0,
        lora=None,
        world=World(0, 1, torch.device("cpu")),
        ids_BT=torch.tensor([[5, 6, 7, 8]]),
        ends=read_end_tokens(template, base),
        chat_template=template.jinja,
    )
    return out / "model"


@pytest.mark.parametrize(("template", "end_id"), TEMPLATES.values(), ids=TEMPLATES.keys())
@pytest.mark.parametrize("generation", BASE_ENDS.values(), ids=BASE_ENDS.keys())
def test_every_file_of_an_export_names_the_end_that_its_rows_have(base_model, tmp_path, generation, template, end_id):
    base = variant(base_model, tmp_path / "base", generation)
    model = AutoModelForCausalLM.from_pretrained(base, use_safetensors=True)
    folder = export(model, base, tmp_path / "out", template)
    settings = json.loads((folder / "generation_config.json").read_text())
    end = ["<|endoftext|>", "", TURN_END][end_id]
    assert settings["eos_token_id"] == json.loads((folder / "config.json").read_text())["eos_token_id"] == end_id
    assert AutoTokenizer.from_pretrained(folder).eos_token == end
    assert json.loads((folder / "special_tokens_map.json").read_text())["eos_token"] == end
    assert not settings.keys() & {"temperature", "top_k", "repetition_penalty", "max_new_tokens"}
    assert not settings.get("do_sample")


@pytest.mark.parametrize(("template", "end_id"), TEMPLATES.values(), ids=TEMPLATES.keys())
def test_a_greedy_turn_by_the_folders_own_defaults_ends_where_the_evaluators_does(base_model, tmp_path, template, end_id):
    base = variant(base_model, tmp_path / "base", {"eos_token_id": 2 - end_id, "repetition_penalty": 1.3})
    chat = chat_encoder(base / "tokenizer.json", template=template, max_tokens=9999)
    prompt = chat.encode(CONVERSATION)
    model = AutoModelForCausalLM.from_pretrained(base, use_safetensors=True)
    teach(model, prompt, [*range(50, 60), end_id])
    folder = export(model, base, tmp_path / "out", template)
    policy = TransformersPolicy(folder, chat=chat, max_new_tokens_per_turn=40, batch_size=1)
    policy.act([CONVERSATION])
    served = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).eval()
    written = served.generate(torch.tensor([prompt]), max_new_tokens=40)[0, len(prompt) :].tolist()
    assert (written[-1], len(written)) == (end_id, policy.n_generated_tokens)
    assert len(written) == 11


def teach(model: Any, prompt: list[int], answer: list[int]) -> None:
    """Some steps on one row: enough to say it by heart."""
    ids = torch.tensor([[*prompt, *answer]])
    labels = torch.tensor([[-100] * len(prompt) + answer])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(200):
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.02:
            break


def test_settings_of_an_old_config_are_not_exported(base_model, tmp_path):
    base = variant(base_model, tmp_path / "base", {"eos_token_id": 0}, repetition_penalty=1.3, top_k=5)
    (base / "generation_config.json").unlink()
    model = AutoModelForCausalLM.from_pretrained(base, use_safetensors=True)
    folder = export(model, base, tmp_path / "out", ChatTemplate("chatml"))
    for name in ("config.json", "generation_config.json"):
        assert not json.loads((folder / name).read_text()).keys() & {"repetition_penalty", "top_k"}


def small_adapter(home: Path, base_model: Path) -> Path:
    base = home / "base"
    shutil.copytree(base_model, base)
    torch.manual_seed(0)
    model = add_lora(AutoModelForCausalLM.from_pretrained(base, use_safetensors=True), Lora(4, 8))
    for name, parameter in sorted(model.named_parameters()):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    save_adapter(model, home / "adapter")
    return home / "adapter"


def test_an_adapter_is_the_same_in_any_home_and_loads_after_a_move(base_model, tmp_path):
    import peft

    first, second = (small_adapter(tmp_path / name, base_model) for name in ("first", "second"))
    files = sorted(path.name for path in first.iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    assert [(first / name).read_bytes() for name in files] == [(second / name).read_bytes() for name in files]
    assert all(str(tmp_path).encode() not in path.read_bytes() for path in first.iterdir())
    config = json.loads((first / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    (tmp_path / "first").rename(tmp_path / "moved")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "moved" / "base", use_safetensors=True)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "moved" / "adapter")
    assert all(float(p.abs().sum()) > 0 for name, p in model.named_parameters() if "lora_B" in name)
