"""Policies that write the agent's turns: here, a checkpoint run in process with transformers' `generate`.

Imports torch: only child processes import this file.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, GenerationConfig

from negtraj_dagster.agent.decoding import DECODING
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.errors import ModelError
from negtraj_dagster.modeling import PAD, check_base_model
from negtraj_dagster.schema import Turn, conditioned_json
from negtraj_dagster.strategies.base import conditioned

PromptEncoder = Callable[[Sequence[Turn]], list[int]]
"""A conversation -> token ids up to and including the header of the next assistant turn."""


@dataclass(frozen=True)
class ChatEncoder:
    """How a conversation is handed to a model, and how the model's turns end: as in the shards it was trained on. Control
    tokens come from the template only, never from a turn's text."""

    encode: PromptEncoder
    end_tokens: tuple[str, ...]


class TransformersPolicy:
    """Greedy turns of a model folder, many conversations at once. The same folder and prompts give the same turns.

    Attributes:
        n_generated_tokens: tokens written, ends of turn included.
        n_unstopped: turns that were cut at the limit and used as they are.
        n_overlong: turns left empty because the conversation fills the model's positions.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        chat: ChatEncoder,
        max_new_tokens_per_turn: int,
        batch_size: int,
        device: torch.device | None = None,
    ) -> None:
        """Load a model folder.

        Args:
            model_dir: Hugging Face layout.
            chat: see `chat_encoder`.
            max_new_tokens_per_turn: limit of a turn that does not end by itself.
            batch_size: conversations per `generate` call.
            device: default is the first GPU, else the CPU.

        Raises:
            ModelError: a file is missing, or the tokenizer lacks a token by which a turn ends.
        """
        check_base_model(model_dir)
        transformers.logging.disable_progress_bar()
        self.encode_prompt = chat.encode
        self.max_new_tokens = max_new_tokens_per_turn
        self.batch_size = batch_size
        self.device = device or torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        self.tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        self.end_ids = [_token_id(self.tokenizer, token, model_dir) for token in chat.end_tokens]
        pad_id = self.tokenizer.token_to_id(PAD)
        self.pad_id = self.end_ids[0] if pad_id is None else int(pad_id)  # masked out: any token will do
        model = AutoModelForCausalLM.from_pretrained(model_dir, use_safetensors=True)
        # `generate` fills what it is not told from the model's own settings, and those from the folder
        model.generation_config = GenerationConfig()
        self.decoding = GenerationConfig(**DECODING, eos_token_id=self.end_ids, pad_token_id=self.pad_id)
        self.model = model.to(self.device).eval()
        _check_end_ids(self.end_ids, model, model_dir)
        self.max_positions: int = getattr(self.model.config, "max_position_embeddings", None) or 2**31
        self.n_generated_tokens = self.n_unstopped = self.n_overlong = 0

    def act(self, conversations: Sequence[Sequence[Turn]]) -> list[str]:
        """Write the next assistant turn of every conversation, in order."""
        prompts = [self.encode_prompt(conversation) for conversation in conversations]
        room = [min(self.max_new_tokens, self.max_positions - len(prompt)) for prompt in prompts]
        texts = [""] * len(prompts)
        self.n_overlong += sum(n < 1 for n in room)
        # one limit per batch, so that no turn's length depends on its neighbours
        order = sorted((i for i, n in enumerate(room) if n >= 1), key=lambda i: (-room[i], len(prompts[i]), i))
        for max_new, group in itertools.groupby(order, key=lambda i: room[i]):
            members = list(group)
            for start in range(0, len(members), self.batch_size):
                batch = members[start : start + self.batch_size]
                written = self._generate([prompts[i] for i in batch], max_new=max_new)
                for i, text in zip(batch, written, strict=True):
                    texts[i] = text
        return texts

    def _generate(self, prompts: Sequence[list[int]], *, max_new: int) -> list[str]:
        width = max(len(prompt) for prompt in prompts)
        input_ids = torch.full((len(prompts), width), self.pad_id, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for i, prompt in enumerate(prompts):
            input_ids[i, width - len(prompt) :] = torch.tensor(prompt)
            attention_mask[i, width - len(prompt) :] = 1
        with torch.inference_mode():
            output_ids = self.model.generate(
                input_ids=input_ids.to(self.device),
                attention_mask=attention_mask.to(self.device),
                generation_config=self.decoding,
                max_new_tokens=max_new,
            )
        return [self._read(ids) for ids in output_ids[:, width:].tolist()]

    def _read(self, ids: list[int]) -> str:
        end = next((n + 1 for n, token_id in enumerate(ids) if token_id in self.end_ids), None)
        written = ids[:end]
        self.n_unstopped += end is None
        self.n_generated_tokens += len(written)
        return str(self.tokenizer.decode(written, skip_special_tokens=True))


def chat_encoder(tokenizer_json: Path, *, template: ChatTemplate, max_tokens: int) -> ChatEncoder:
    """The encoder the shards were made with."""
    tokenizer = template.open_tokenizer(tokenizer_json, max_tokens=max_tokens)

    def encode(conversation: Sequence[Turn]) -> list[int]:
        return list(tokenizer.prompt_ids(conditioned_json([conditioned(turn, 0.0) for turn in conversation])))

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
