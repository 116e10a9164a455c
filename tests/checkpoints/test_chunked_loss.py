"""The loss in chunks is the loss of all logits at once, and so are its gradients."""

import pytest
import torch

from negtraj_dagster.checkpoints import chunked_loss as module
from negtraj_dagster.checkpoints.chunked_loss import chunked_loss as loss_and_losses


def made(n: int, *, d: int = 16, v: int = 101, has_bias: bool = False, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(n)
    hidden = torch.randn(n, d, generator=generator).to(dtype).requires_grad_()
    head = (torch.randn(v, d, generator=generator) / d**0.5).to(dtype).requires_grad_()
    bias = torch.randn(v, generator=generator).to(dtype).requires_grad_() if has_bias else None
    targets = torch.randint(0, v, (n,), generator=generator)
    return hidden, head, bias, targets, torch.rand(n, generator=generator) * 3


def chunked_loss(*tensors):
    return loss_and_losses(*tensors)[0]


def at_once(hidden, head, bias, targets, weights):
    logits = torch.nn.functional.linear(hidden, head, bias).float()
    return (torch.nn.functional.cross_entropy(logits, targets, reduction="none") * weights).sum()


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
@pytest.mark.parametrize("n", [0, 1, 40, 41])
@pytest.mark.parametrize("has_bias", [False, True])
def test_loss_and_gradients_are_those_of_all_logits(
    monkeypatch: pytest.MonkeyPatch, chunk: int, n: int, has_bias: bool
) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", chunk * 101)
    ours, theirs = made(n, has_bias=has_bias), made(n, has_bias=has_bias)
    loss, expected = chunked_loss(*ours), at_once(*theirs)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6, rel=1e-6)
    each = loss_and_losses(*made(n, has_bias=has_bias))[1]
    assert not each.requires_grad
    assert (each * ours[4]).sum().item() == pytest.approx(expected.item(), abs=1e-5, rel=1e-5)
    (loss * 0.37).backward()
    (expected * 0.37).backward()
    for our, their in zip(ours[:3], theirs[:3], strict=True):
        if our is not None:
            assert (our.grad - their.grad).norm() <= 1e-5 * max(float(their.grad.norm()), 1e-9)


def test_in_bf16_it_is_as_near_to_fp32_as_all_logits_are() -> None:
    exact = made(300)
    at_once(*exact).backward()
    errors = {}
    for name, compute in (("ours", chunked_loss), ("theirs", at_once)):
        tensors = made(300, dtype=torch.bfloat16)
        compute(*tensors).backward()
        errors[name] = float((tensors[1].grad.float() - exact[1].grad).norm() / exact[1].grad.norm())
    assert errors["ours"] <= 1.1 * errors["theirs"] < 0.05


def test_what_is_frozen_has_no_gradient_made() -> None:
    hidden, head, bias, targets, weights = made(40)
    head.requires_grad_(requires_grad=False)
    loss = chunked_loss(hidden, head, bias, targets, weights)
    assert [tensor is None for tensor in loss.grad_fn.saved_tensors] == [False, True, True]
    loss.backward()
    assert head.grad is None
    assert hidden.grad is not None
    with torch.no_grad():
        assert float(chunked_loss(hidden, head, bias, targets, weights)) > 0


def test_a_tied_matrix_gets_the_gradients_of_both_its_uses() -> None:
    def run(loss_of) -> torch.Tensor:
        _, head, bias, targets, weights = made(40)
        hidden = torch.nn.functional.embedding(targets.flip(0), head)
        loss_of(hidden, head, bias, targets, weights).backward()
        return head.grad

    ours, theirs = run(chunked_loss), run(at_once)
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
