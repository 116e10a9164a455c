"""Kept keys and values: a turn comes out as if its prompt had been computed anew, and most of the prompt is not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from negtraj_dagster.agent.clients import TransformersPolicy, chat_encoder
from negtraj_dagster.agent.loop import Episode, run_episodes
from negtraj_dagster.agent.tools import TOOLS
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.schema import Question
from tests.support.lively_model import make_lively_model

QUESTIONS = [Question("wordtraps", f"q{n}", "test", f"How many are {n} and {'seven ' * (n % 4)}more?", "0") for n in range(9)]


class Counting(TransformersPolicy):
    """Counts the tokens of prompts, and those of them that were kept."""

    n_prompt = n_kept = 0

    def _generate(self, prompts: Any, seeds: Any, *, max_new: int) -> Any:
        self.n_prompt += sum(map(len, prompts))
        self.n_kept += sum(len(self._caches.find(prompt).ids) for prompt in prompts)
        return super()._generate(prompts, seeds, max_new=max_new)


def play(folder: Path, **more: Any) -> tuple[list[Episode], Counting]:
    chat = chat_encoder(folder / "tokenizer.json", template=ChatTemplate("chatml"), max_tokens=1)
    policy = Counting(folder, chat=chat, max_new_tokens_per_turn=12, **more)
    episodes = run_episodes(
        policy,
        QUESTIONS,
        first_turns=lambda question: [{"role": "user", "content": question.question}],
        tools=TOOLS,
        max_turns=4,
        trials=[0] * len(QUESTIONS),
    )
    return episodes, policy


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lively_model(tmp_path_factory.mktemp("lively"))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_turns_are_those_of_whole_prompts(lively: Path, batch_size: int, temperature: float) -> None:
    whole, _ = play(lively, batch_size=batch_size, temperature=temperature)
    kept, policy = play(lively, batch_size=batch_size, temperature=temperature, keeps_caches=True)
    assert kept == whole
    assert policy.n_kept > 0.5 * policy.n_prompt


def test_nothing_is_kept_unasked(lively: Path) -> None:
    _, policy = play(lively, batch_size=4)
    assert policy.n_kept == 0


def test_a_model_that_forgets_computes_all(lively: Path, tmp_path: Path) -> None:
    llama = LlamaForCausalLM.from_pretrained(lively)
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    sizes = {name: getattr(AutoConfig.from_pretrained(lively), name) for name in names}
    config = MistralConfig(**sizes, num_key_value_heads=4, sliding_window=16, tie_word_embeddings=False, eos_token_id=2)
    torch.manual_seed(0)
    model = MistralForCausalLM(config)
    model.load_state_dict(llama.state_dict(), strict=False)
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((lively / "tokenizer.json").read_bytes())
    whole, _ = play(tmp_path, batch_size=4)
    kept, policy = play(tmp_path, batch_size=4, keeps_caches=True)
    assert kept == whole
    assert policy.n_kept == 0
