"""Packed rows are trained as rows one by one; a model that lets them see one another is trained unpacked."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from negtraj_dagster.checkpoints.dataset import Row, collate
from negtraj_dagster.checkpoints.packing import collate_packed, keeps_rows_apart, pack_share, use_fast_attention
from negtraj_dagster.checkpoints.row_attention import NAME
from negtraj_dagster.checkpoints.train import _keeps_rows_apart
from negtraj_dagster.checkpoints.world import World
from negtraj_dagster.checkpoints.zero import TargetLoss
from tests.checkpoints.conftest import Material
from tests.checkpoints.test_train import read_curve

WORLD = World(0, 1, torch.device("cpu"))
SHAPE = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
LAYERS = ["sliding_attention", "full_attention"] * 2
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
    "gemma3": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2},
    ),
}


def row(i: int, n: int) -> Row:
    ids = np.random.default_rng(i).integers(3, 100, n).astype(np.int32)
    places = np.arange(n // 3, n, 2, dtype=np.int32)
    return Row(f"key-{i}", f"question-{i}", "positive", ids, places, np.full(len(places), 0.5 + i, dtype=np.float32))


ROWS = [row(i, n) for i, n in enumerate((7, 31, 12, 20))]


def module_of(family: str, *, by_row: bool = False) -> TargetLoss:
    config, model, more = FAMILIES[family]
    torch.manual_seed(0)
    module = TargetLoss(model(config(**SHAPE, **more)).float())
    if by_row:
        use_fast_attention(module.causal, dtype="fp32", world=WORLD)
        assert module.causal.config._attn_implementation == NAME
    for parameter in module.parameters():  # at their initial size all rows would look alike
        parameter.data += 0.2 * torch.randn_like(parameter)
    return module


def gradients_of(module: TargetLoss, batches: list[Any]) -> tuple[float, dict[str, torch.Tensor]]:
    module.zero_grad()
    total = 0.0
    for batch in batches:
        loss, _ = batch.run(module)
        loss.backward()
        total += loss.item()
    return total, {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_have_the_loss_and_gradients_of_rows_alone(family: str, by_row: bool) -> None:
    module = module_of(family, by_row=by_row)
    packed, together = gradients_of(module, [collate_packed(ROWS)])
    separate, alone = gradients_of(module_of(family), [collate([row]) for row in ROWS])
    assert packed == pytest.approx(separate, rel=1e-5)
    for name, gradient in alone.items():
        assert float((gradient - together[name]).norm()) <= 1e-5 * max(float(gradient.norm()), 1e-3), name
    leaking, _ = gradients_of(module, [replace(collate_packed(ROWS), positions_BT=None)])
    assert abs(leaking - separate) > 1e-3 * separate, "without positions that begin anew rows see one another"


class Leaking(TargetLoss):
    """A model that knows nothing of positions that begin anew."""

    def forward(self, *tensors: Any) -> Any:
        return super().forward(*tensors[:4])


class Engine:
    """As much of one as is asked for."""

    def __init__(self, module: TargetLoss) -> None:
        self.module = module

    def __call__(self, *tensors: Any) -> Any:
        return self.module(*tensors)

    def eval(self) -> None:
        self.module.eval()

    def train(self, mode: bool = True) -> None:
        self.module.train(mode)


def test_a_model_that_lets_packed_rows_see_one_another_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    good = module_of("llama")
    assert keeps_rows_apart(Engine(good), ROWS, world=WORLD)
    assert not keeps_rows_apart(Engine(Leaking(good.model)), ROWS, world=WORLD)
    assert "it is trained unpacked" in caplog.text
    assert not keeps_rows_apart(Engine(good), [ROWS[0]] * 3, world=WORLD), "one row alone shows nothing"


def test_a_model_that_hands_no_positions_on_to_its_attention_gets_its_mask_back() -> None:
    config = GPTBigCodeConfig(vocab_size=100, n_positions=64, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0.0, resid_pdrop=0.0)
    torch.manual_seed(0)
    module = TargetLoss(GPTBigCodeForCausalLM(config).float())
    use_fast_attention(module.causal, dtype="fp32", world=WORLD)
    assert keeps_rows_apart(Engine(module), ROWS, world=WORLD)
    assert module.causal.config._attn_implementation == "sdpa"


def test_a_resumed_training_is_measured_anew_and_one_that_was_unpacked_stays_so() -> None:
    good = module_of("llama")
    keeper: Any = SimpleNamespace(is_packed=True)
    assert _keeps_rows_apart(Engine(good), ROWS, WORLD, keeper)
    assert not _keeps_rows_apart(Engine(Leaking(good.model)), ROWS, WORLD, keeper), "on another machine, say"
    assert not _keeps_rows_apart(Engine(good), ROWS, WORLD, keeper)


@pytest.mark.parametrize(("ranks", "n_micro"), [(1, 1), (1, 4), (2, 2), (3, 4)])
def test_every_row_is_in_one_bin_and_bins_are_about_equal(ranks: int, n_micro: int) -> None:
    rows = [row(i, 10 + 7 * (i % 9)) for i in range(24)]
    shares = [pack_share(rows, rank=rank, ranks=ranks, n_micro=n_micro) for rank in range(ranks)]
    assert all(len(share) == n_micro for share in shares)
    assert sorted(row.token_key for share in shares for micro in share for row in micro) == sorted(
        row.token_key for row in rows
    )
    sizes = [sum(len(row.input_ids) for row in micro) for share in shares for micro in share]
    assert max(sizes) <= 1.2 * sum(sizes) / len(sizes)


def test_a_step_with_fewer_rows_than_micro_batches_has_empty_ones() -> None:
    (share,) = [pack_share(ROWS[:2], rank=0, ranks=1, n_micro=4)]
    assert sorted(map(len, share)) == [0, 0, 1, 1]
    batch = collate_packed([])
    assert (batch.ids_BT.shape, batch.positions_BT.tolist(), len(batch.places_N)) == ((1, 1), [[0]], 0)


def test_a_packed_training_is_the_unpacked_one(material: Material) -> None:
    folders: list[Path] = [
        material.train(f"packing-{packing}", packing=packing, steps=5, ranks=2, micro_batch_size=2) for packing in (False, True)
    ]
    unpacked, packed = (read_curve(folder) for folder in folders)
    for a, b in zip(unpacked, packed, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
