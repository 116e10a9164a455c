"""Weighted cross-entropy of an output layer in chunks: the gradients of a chunk are formed while its logits are there.

All logits of a step at once would be the trainer's largest tensor by far: 2,000 targets of a vocabulary of 151,936 are 1.2 GB
in fp32, and as much again for their gradient. Here a chunk's are made, used for loss and gradients, and dropped, each once.

Shape legend: N targets, D hidden, V vocabulary, C targets of a chunk.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

CHUNK_LOGITS = 16_000_000
"""Logits of a chunk, 64 MB in fp32: of larger and smaller ones none was faster."""


class ChunkedLoss(torch.autograd.Function):
    """sum of weight x cross-entropy over all targets, as a float32 scalar, and each target's cross-entropy."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        head_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_N: torch.Tensor,
        weights_N: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum, and float32 [N]; gradients, for a gradient of the sum of 1, are kept where they will be asked for.

        Args:
            ctx: autograd's.
            hidden_ND: hidden states before the targets.
            head_VD: the output layer's weights, of the same number format.
            bias_V: its bias, if it has one.
            targets_N: int64.
            weights_N: float32.
        """
        wants_hidden, wants_head, wants_bias = ctx.needs_input_grad[:3]
        loss = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        hidden_gradient_ND = torch.empty_like(hidden_ND) if wants_hidden else None
        head_gradient_VD = torch.zeros_like(head_VD, dtype=torch.float32) if wants_head else None
        bias_gradient_V = torch.zeros_like(bias_V, dtype=torch.float32) if wants_bias and bias_V is not None else None
        losses_N = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_ND.device)
        step = max(1, CHUNK_LOGITS // head_VD.shape[0])
        for start in range(0, len(targets_N), step):
            part = slice(start, start + step)
            hidden_CD, targets_C1, weights_C = hidden_ND[part], targets_N[part, None], weights_N[part]
            logits_CV = torch.nn.functional.linear(hidden_CD, head_VD, bias_V).float()
            target_logits_C, highest_C = logits_CV.gather(1, targets_C1).squeeze(1), logits_CV.amax(dim=-1)
            torch.softmax(logits_CV, dim=-1, out=logits_CV)
            # log-sum-exp by the highest logit's probability, which is at least 1/V, where a target's may be 0
            losses_N[part] = highest_C - logits_CV.amax(dim=-1).log() - target_logits_C
            loss += (losses_N[part] * weights_C).sum()
            if not (wants_hidden or wants_head or bias_gradient_V is not None):
                continue
            gradient_CV = logits_CV.scatter_add_(1, targets_C1, -torch.ones_like(targets_C1, dtype=torch.float32))
            gradient_CV.mul_(weights_C[:, None])
            if bias_gradient_V is not None:
                bias_gradient_V += gradient_CV.sum(0)
            gradient_CV = gradient_CV.to(head_VD.dtype)
            if hidden_gradient_ND is not None:
                torch.mm(gradient_CV, head_VD, out=hidden_gradient_ND[part])
            if head_gradient_VD is not None:
                if head_VD.dtype == torch.float32:
                    head_gradient_VD.addmm_(gradient_CV.t(), hidden_CD)
                else:
                    head_gradient_VD += gradient_CV.t() @ hidden_CD
        ctx.save_for_backward(hidden_gradient_ND, head_gradient_VD, bias_gradient_V)
        ctx.dtype = head_VD.dtype
        ctx.mark_non_differentiable(losses_N)
        return loss, losses_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The kept gradients, by the loss's own."""
        gradient, _ = gradients
        kept = (None if tensor is None else tensor.mul_(gradient).to(ctx.dtype) for tensor in ctx.saved_tensors)
        return (*kept, None, None)


def chunked_loss(
    hidden_ND: torch.Tensor,
    head_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    targets_N: torch.Tensor,
    weights_N: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of weight x cross-entropy, and float32 [N] of cross-entropies without a gradient; see `ChunkedLoss`.

    The sum's gradient can be asked for once.
    """
    loss: torch.Tensor
    losses_N: torch.Tensor
    loss, losses_N = ChunkedLoss.apply(hidden_ND, head_VD, bias_V, targets_N, weights_N)
    return loss, losses_N
