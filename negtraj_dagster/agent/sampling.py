"""Draws tokens by seeds of their own: what a conversation is answered does not depend on the others in its batch.

Imports torch: only child processes import this file.
"""

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


class GumbelNoise(LogitsProcessor):  # type: ignore[misc]
    """Adds Gumbel noise to logits / temperature; the largest sum is then a draw from the softmax (Maddison et al., 2014).

    A row's noise comes from its own generator, on the CPU whatever the device: token n of a row takes the n-th stretch.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [B, vocabulary] with noise; called once per new token."""
        del input_ids
        exponential = torch.empty(scores.shape, dtype=torch.float32)
        for row, generator in zip(exponential, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self._temperature - exponential.log().to(scores.device)
