"""Policies that write the agent's turns: here, a checkpoint run in process with transformers' `generate`.

Imports torch: only child processes import this file.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessorList

from negtraj_dagster.agent.decoding import DECODING
from negtraj_dagster.agent.episodes import Failure, Written
from negtraj_dagster.agent.kept_caches import Batch, KeptCaches, Prefix, take_prefixes
from negtraj_dagster.agent.sampling import GumbelNoise
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.errors import ModelError
from negtraj_dagster.modeling import PAD, check_base_model
from negtraj_dagster.schema import Turn, conditioned_json
from negtraj_dagster.strategies.base import conditioned

Dtype = Literal["fp32", "bf16"]
TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PromptEncoder = Callable[[Sequence[Turn]], list[int]]
"""A conversation -> token ids up to and including the header of the next assistant turn."""


class PromptTokenizer(Protocol):
    """What is needed of trajtok's tokenizer."""

    @property
    def end_of_turn(self) -> list[str]:
        """The tokens by which an assistant's turn ends."""
        ...

    def prompt_ids(self, conversation: str) -> list[int]:
        """The ids that a served model is given."""
        ...


@dataclass(frozen=True)
class ChatEncoder:
    """How a conversation is handed to a model, and how the model's turns end: as in the shards it was trained on. Control
    tokens come from the template only, never from a turn's text."""

    encode: PromptEncoder
    end_tokens: tuple[str, ...]


class TransformersPolicy:
    """Turns of a model folder, many conversations at once. The same folder, prompts and seeds give the same turns.

    Attributes:
        n_generated_tokens: tokens written, ends of turn included.
        n_unstopped: turns that were cut at the limit and used as they are.
        n_overlong: conversations that fill the model's positions.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        chat: ChatEncoder,
        max_new_tokens_per_turn: int,
        batch_size: int,
        device: torch.device | None = None,
        dtype: Dtype = "fp32",
        temperature: float = 0.0,
        keeps_caches: bool = False,
    ) -> None:
        """Load a model folder.

        Args:
            model_dir: Hugging Face layout.
            chat: see `chat_encoder`.
            max_new_tokens_per_turn: limit of a turn that does not end by itself.
            batch_size: conversations per `generate` call.
            device: default is the first GPU, else the CPU.
            dtype: of weights and sums, whatever the folder's weights are stored in. Sums in fp32 have a turn come out the same
                in any batch; those of shorter numbers may depend on what else is in it.
            temperature: 0 takes the likeliest token; above it tokens are drawn, by the seeds that `act` is given.
            keeps_caches: keep the keys and values of the conversations of one `act` for the next, which is then given what was
                added to them. Sums are added in another order, so that in theory a token may differ.

        Raises:
            ModelError: a file is missing, the tokenizer lacks a token by which a turn ends, or the temperature is below 0.
        """
        if not 0 <= temperature < math.inf:
            raise ModelError(f"temperature = {temperature!r}: expected 0 (greedy) or a number above it; mend the setting")
        check_base_model(model_dir)
        transformers.logging.disable_progress_bar()
        self.encode_prompt = chat.encode
        self.max_new_tokens = max_new_tokens_per_turn
        self.batch_size = batch_size
        self.temperature = temperature
        self.device = device or torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        self.tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        self.end_ids = [_token_id(self.tokenizer, token, model_dir) for token in chat.end_tokens]
        pad_id = self.tokenizer.token_to_id(PAD)
        self.pad_id = self.end_ids[0] if pad_id is None else int(pad_id)  # masked out: any token will do
        model = AutoModelForCausalLM.from_pretrained(model_dir, use_safetensors=True, dtype=TORCH_DTYPES[dtype])
        # `generate` fills what it is not told from the model's own settings, and those from the folder
        model.generation_config = GenerationConfig()
        self.decoding = {**DECODING, "eos_token_id": self.end_ids, "pad_token_id": self.pad_id}
        self.model = model.to(self.device).eval()
        _check_end_ids(self.end_ids, model, model_dir)
        self.max_positions: int = getattr(self.model.config, "max_position_embeddings", None) or 2**31
        self.n_generated_tokens = self.n_unstopped = self.n_overlong = 0
        self.keeps_caches, self._caches = keeps_caches, KeptCaches()

    def act(self, conversations: Sequence[Sequence[Turn]], *, seeds: Sequence[int] | None = None) -> list[Written | Failure]:
        """Write the next assistant turn of every conversation, in order.

        Args:
            conversations: each a prompt and what followed.
            seeds: parallel to them; what is drawn for a turn depends on its seed, not on its neighbours.

        Raises:
            ValueError: the policy draws tokens and was given no seeds.
        """
        if self.temperature > 0 and seeds is None:
            raise ValueError("a policy with a temperature needs a seed for every conversation")
        prompts = [self.encode_prompt(conversation) for conversation in conversations]
        prefixes: list[Prefix] = []
        room = [min(self.max_new_tokens, self.max_positions - len(prompt)) for prompt in prompts]
        turns: list[Written | Failure] = [self._overlong(len(prompt)) for prompt in prompts]
        self.n_overlong += sum(n < 1 for n in room)
        # one limit per batch, so that no turn's length depends on its neighbours
        order = sorted((i for i, n in enumerate(room) if n >= 1), key=lambda i: (-room[i], len(prompts[i]), i))
        for max_new, group in itertools.groupby(order, key=lambda i: room[i]):
            members = list(group)
            for start in range(0, len(members), self.batch_size):
                batch = members[start : start + self.batch_size]
                batch_seeds = None if seeds is None else [seeds[i] for i in batch]
                written, known = self._generate([prompts[i] for i in batch], batch_seeds, max_new=max_new)
                prefixes += known
                for i, turn in zip(batch, written, strict=True):
                    turns[i] = turn
        self._caches.replace(prefixes)
        return turns

    def _overlong(self, n_tokens: int) -> Failure:
        return Failure("overlong", f"a prompt of {n_tokens} tokens, where the model has {self.max_positions} positions")

    def _generate(
        self, prompts: Sequence[list[int]], seeds: Sequence[int] | None, *, max_new: int
    ) -> tuple[list[Written], list[Prefix]]:
        """The turns, and the prefixes that are kept of their conversations."""
        batch = Batch.of(prompts, [self._caches.find(prompt) for prompt in prompts], self.pad_id, self.model)
        is_drawn = self.temperature > 0 and seeds is not None
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                past_key_values=batch.cache,
                generation_config=GenerationConfig(**self.decoding, max_new_tokens=max_new, return_dict_in_generate=True),
                logits_processor=LogitsProcessorList([GumbelNoise(seeds or (), self.temperature)] if is_drawn else []),
            )
        turns = [self._read(ids) for ids in output.sequences[:, batch.input_ids.shape[1] :].tolist()]
        prefixes = take_prefixes(output, batch, [turn.n_tokens for turn in turns]) if self.keeps_caches else []
        return turns, prefixes

    def _read(self, ids: list[int]) -> Written:
        """The turn up to its end token. Other special tokens are text: of some models the tags of a tool call are such."""
        end = next((n for n, token_id in enumerate(ids) if token_id in self.end_ids), None)
        n_tokens = len(ids) if end is None else end + 1
        self.n_unstopped += end is None
        self.n_generated_tokens += n_tokens
        text = str(self.tokenizer.decode(ids[:end], skip_special_tokens=False))
        return Written(text, stop="length" if end is None else "end_token", n_tokens=n_tokens)


def chat_encoder(tokenizer_json: Path, *, template: ChatTemplate, max_tokens: int, tools: str | None = None) -> ChatEncoder:
    """The encoder the shards were made with.

    Args:
        tokenizer_json: the model's.
        template: the rows'.
        max_tokens: not applied to prompts.
        tools: JSON text of the tool schemas that the agent is offered (`tools.schemas.tool_schemas`).

    Raises:
        TrajtokError: the tokenizer or the template is refused.
    """
    return bind_encoder(template.open_tokenizer(tokenizer_json, max_tokens=max_tokens), tools)


def bind_encoder(tokenizer: PromptTokenizer, tools: str | None) -> ChatEncoder:
    """The encoder of a tokenizer that is open, for an agent with these tools."""

    def encode(conversation: Sequence[Turn]) -> list[int]:
        return list(tokenizer.prompt_ids(conditioned_json([conditioned(turn, 0.0) for turn in conversation], tools)))

    return ChatEncoder(encode, tuple(tokenizer.end_of_turn))


def _check_end_ids(end_ids: Sequence[int], model: Any, model_dir: Path) -> None:
    n_embeddings = model.get_input_embeddings().num_embeddings
    if (largest := max(end_ids)) >= n_embeddings:
        raise ModelError(
            f"{model_dir}: a turn ends with token id {largest}, the model has {n_embeddings} embeddings (ids from 0); its "
            "tokenizer.json is another model's: evaluate the model with its own"
        )


def _token_id(tokenizer: Tokenizer, token: str, model_dir: Path) -> int:
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise ModelError(
            f"{model_dir / 'tokenizer.json'}: no token {token!r}, by which a turn ends in the chat template; evaluate the "
            "model with the template it was trained with"
        )
    return int(token_id)
