"""Keys and values of conversations that go on, so that a turn's prompt is not computed anew: only what was added to it.

Imports torch: only child processes import this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Per layer keys and values of one conversation, each (heads, tokens, width)."""


@dataclass(frozen=True)
class Prefix:
    """Tokens whose keys and values are known.

    Attributes:
        n_prompt: how many of the tokens were a turn's prompt; the others are what was written.
    """

    ids: tuple[int, ...]
    n_prompt: int
    layers: Layers

    def cut(self, n_tokens: int) -> "Prefix":
        """Its first tokens."""
        layers = [(keys[:, :n_tokens], values[:, :n_tokens]) for keys, values in self.layers]
        return Prefix(self.ids[:n_tokens], min(self.n_prompt, n_tokens), layers)


NOTHING = Prefix((), 0, [])


class KeptCaches:
    """What is known of the conversations that were played last, found by the prompts of their last turns.

    Of what was written then, a prompt may hold other tokens, where text is tokenized otherwise than the model wrote it, or a
    template drops reasoning: as much as agrees is used.
    """

    def __init__(self) -> None:
        self._by_prompt: dict[tuple[int, ...], list[Prefix]] = {}

    def find(self, prompt: Sequence[int]) -> Prefix:
        """The longest known beginning of a prompt that leaves a token to compute."""
        for length in sorted({len(ids) for ids in self._by_prompt}, reverse=True):
            candidates = self._by_prompt.get(tuple(prompt[:length]), []) if length < len(prompt) else []
            if candidates:
                best, n_common = max(
                    ((prefix, _n_common(prefix.ids, prompt)) for prefix in candidates), key=lambda pair: pair[1]
                )
                return best.cut(min(n_common, len(prompt) - 1))
        return NOTHING

    def replace(self, prefixes: Sequence[Prefix]) -> None:
        """Keep these, and no others: a conversation that has ended is not asked for again."""
        self._by_prompt = {}
        for prefix in prefixes:
            self._by_prompt.setdefault(prefix.ids[: prefix.n_prompt], []).append(prefix)


def _n_common(ids: Sequence[int], prompt: Sequence[int]) -> int:
    n_compared = min(len(ids), len(prompt))
    return next((n for n in range(n_compared) if ids[n] != prompt[n]), n_compared)


@dataclass(frozen=True)
class Batch:
    """Rows of one `generate` call: kept prefixes, then what is new, each aligned to the right.

    Attributes:
        input_ids, attention_mask: (rows, columns); padding stands before a prefix and between a prefix and what is new.
        cache: the prefixes' keys and values; None where there are none.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    cache: DynamicCache | None

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], prefixes: Sequence[Prefix], pad_id: int, model: Any) -> "Batch":
        """Lay prompts out.

        Args:
            prompts: token ids.
            prefixes: parallel to them, each the beginning of its prompt.
            pad_id: masked out.
            model: whose device and configuration the cache is of.
        """
        n_kept = max(len(prefix.ids) for prefix in prefixes)
        n_new = max(len(prompt) - len(prefix.ids) for prompt, prefix in zip(prompts, prefixes, strict=True))
        input_ids = torch.full((len(prompts), n_kept + n_new), pad_id, dtype=torch.long)
        mask = torch.zeros_like(input_ids)
        for row, (prompt, prefix) in enumerate(zip(prompts, prefixes, strict=True)):
            n_prefix = len(prefix.ids)
            for columns, ids in ((slice(n_kept - n_prefix, n_kept), prompt[:n_prefix]), (None, prompt[n_prefix:])):
                place = columns or slice(n_kept + n_new - len(ids), n_kept + n_new)
                input_ids[row, place] = torch.tensor(ids, dtype=torch.long)
                mask[row, place] = 1
        cache = _stack(prefixes, n_kept, model) if n_kept else None
        return cls(input_ids.to(model.device), mask.to(model.device), cache)


def _stack(prefixes: Sequence[Prefix], width: int, model: Any) -> DynamicCache:
    layers = next(prefix.layers for prefix in prefixes if prefix.layers)
    cache = DynamicCache(config=model.config)
    for number, (keys, _) in enumerate(layers):
        stacked = []
        for part in (0, 1):
            whole = keys.new_zeros((len(prefixes), keys.shape[0], width, layers[number][part].shape[-1]))
            for row, prefix in enumerate(prefixes):
                if prefix.ids:
                    whole[row, :, width - len(prefix.ids) :] = prefix.layers[number][part]
            stacked.append(whole)
        cache.update(stacked[0], stacked[1], number)
    return cache


def _is_whole(layer: Any, n_tokens: int) -> bool:
    return type(layer) is DynamicLayer and layer.keys is not None and layer.keys.shape[-2] == n_tokens


def take_prefixes(output: Any, batch: Batch, n_written: Sequence[int]) -> list[Prefix]:
    """What a `generate` call knows of each row: its prompt and what was written, but for a token that was not computed.

    Nothing of a model whose layers forget (sliding windows) or keep states instead of keys.

    Args:
        output: of `generate(…, return_dict_in_generate=True)`.
        batch: what it was given.
        n_written: tokens of each row's turn, its end token included.
    """
    n_columns = batch.input_ids.shape[1]
    cache = output.past_key_values
    n_computed = cache.get_seq_length()
    if not all(_is_whole(layer, n_computed) for layer in cache.layers):
        return []
    prefixes = []
    for row, n in enumerate(n_written):
        prompt_columns = batch.attention_mask[row].nonzero()[:, 0]
        columns = torch.cat([prompt_columns, torch.arange(n_columns, n_columns + n, device=prompt_columns.device)])
        columns = columns[columns < n_computed]
        layers = [(layer.keys[row][:, columns].clone(), layer.values[row][:, columns].clone()) for layer in cache.layers]
        prefixes.append(Prefix(tuple(output.sequences[row, columns].tolist()), len(prompt_columns), layers))
    return prefixes
