"""Attention of packed rows one by one, on a processor: no token is compared with another row's, and no mask is made for most.

A block-diagonal mask lets rows not see one another, yet all of it is computed: of a bin of T tokens T x T scores. Rows by
themselves need the sum of their squares, causal halves of it, and no padding is computed either.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "negtraj_row_attention"
_longest: ContextVar[int | None] = ContextVar("longest", default=None)
"""Tokens of the longest row of what is packed; None where rows are not."""


def use_row_attention(model: Any) -> None:
    """Have a model that attends by `sdpa` attend row by row where rows are packed; as before where they are not."""
    if model.config._attn_implementation != "sdpa":  # eager has what sdpa lacks, capped scores for one
        return
    AttentionInterface.register(NAME, attend_row_by_row)
    AttentionMaskInterface.register(NAME, mask_of_rows)
    model.set_attn_implementation(NAME)


def leave_row_attention(model: Any) -> bool:
    """Have the model attend by a mask again; False where it does."""
    if model.config._attn_implementation != NAME:
        return False
    model.set_attn_implementation("sdpa")
    return True


@contextmanager
def packed(positions_BT: torch.Tensor | None) -> Iterator[None]:
    """Say that a forward pass is of packed rows, whose positions begin anew; None of rows that are not packed."""
    longest = None
    if positions_BT is not None and len(positions_BT) == 1 and positions_BT.device.type == "cpu":
        longest = int(positions_BT.max()) + 1
    token = _longest.set(longest)
    try:
        yield
    finally:
        _longest.reset(token)


def mask_of_rows(*, local_size: int | None = None, **arguments: Any) -> torch.Tensor | None:
    """transformers' own mask; none where packed rows are plainly causal, or no longer than the window they see.

    What a model adds to its masks is left out then, and one that does not hand positions on to its attention lets rows see one
    another: `packing.keeps_rows_apart` finds out both, for rows alone have neither fault.
    """
    longest = _longest.get()
    if longest is not None and (local_size is None or longest <= local_size):
        return None
    mask: torch.Tensor | None = sdpa_mask(local_size=local_size, **arguments)
    return mask


def attend_row_by_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """`sdpa_attention_forward`, called for each packed row.

    Args:
        module: the attention layer.
        query: [B, heads, T, D].
        key: [B, key heads, T, D].
        value: as `key`.
        attention_mask: [B, 1, T, T], or None for causal.
        position_ids: [B, T], 0 where a row begins.
        options: passed on.

    Returns:
        [B, T, heads, D], and no scores.
    """
    n_tokens = query.shape[2]
    starts = (position_ids[0] == 0).nonzero().flatten().tolist() if position_ids is not None and len(query) == 1 else []
    if len(starts) < 2:
        whole: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, position_ids=position_ids, **options
        )
        return whole
    ends = [*starts[1:], n_tokens]
    lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    rows = zip(*(torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)), starts, ends, strict=True)
    attended = [
        sdpa_attention_forward(
            module, *row, None if attention_mask is None else attention_mask[..., start:end, start:end], **options
        )[0]
        for *row, start, end in rows
    ]
    return torch.cat(attended, dim=1), None
