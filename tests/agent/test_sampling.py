"""Drawn turns depend on their seed alone, and greedy ones not on how the weights are stored or who else is in the batch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from negtraj_dagster.agent.clients import TransformersPolicy, chat_encoder
from negtraj_dagster.agent.loop import Episode, run_episodes, turn_seed
from negtraj_dagster.agent.sampling import GumbelNoise
from negtraj_dagster.agent.tools import TOOLS
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.errors import ModelError
from negtraj_dagster.schema import Question
from tests.support.lively_model import make_lively_model

N_QUESTIONS = 12


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lively_model(tmp_path_factory.mktemp("lively"))


def policy(model_dir: Path, **more: Any) -> TransformersPolicy:
    chat = chat_encoder(model_dir / "tokenizer.json", template=ChatTemplate("chatml"), max_tokens=1)
    return TransformersPolicy(model_dir, chat=chat, **{"max_new_tokens_per_turn": 16, "batch_size": 8, **more})


def play(writer: TransformersPolicy, n: int = N_QUESTIONS, trials: list[int] | None = None) -> list[Episode]:
    questions = [Question("wordtraps", f"q{k}", "test", f"How many are {k} and {7 * k}?", "0") for k in range(n)]
    n_trials = len(trials or [0]) // n or 1
    return run_episodes(
        writer,
        questions * n_trials,
        first_turns=lambda q: [{"role": "user", "content": q.question}],
        tools=TOOLS,
        max_turns=2,
        trials=trials,
    )


def contents(episodes: list[Episode]) -> list[tuple[str, ...]]:
    return [tuple(turn["content"] for turn in episode.recorded if turn["role"] == "assistant") for episode in episodes]


def test_a_trial_is_the_same_in_any_batch(model_dir: Path) -> None:
    trials = [0] * N_QUESTIONS + [1] * N_QUESTIONS
    by_size = [play(policy(model_dir, temperature=0.8, batch_size=size), trials=trials) for size in (1, 3, 64)]
    assert by_size[0] == by_size[1] == by_size[2]
    alone = play(policy(model_dir, temperature=0.8), trials=[1] * N_QUESTIONS)
    assert alone == by_size[0][N_QUESTIONS:]
    assert {episode.trial for episode in alone} == {1}


def test_trials_of_a_question_differ(model_dir: Path) -> None:
    trials = [trial for trial in range(5) for _ in range(N_QUESTIONS)]
    spoken = contents(play(policy(model_dir, temperature=0.8), trials=trials))
    assert len(set(spoken)) == len(spoken)


def test_temperature_0_is_greedy_whatever_the_seed(model_dir: Path) -> None:
    greedy = contents(play(policy(model_dir)))
    assert contents(play(policy(model_dir, temperature=0.0), trials=[3] * N_QUESTIONS)) == greedy
    assert len(set(greedy)) > N_QUESTIONS // 2
    almost = contents(play(policy(model_dir, temperature=1e-4), trials=[3] * N_QUESTIONS))
    assert almost == greedy


def test_tokens_are_drawn_from_the_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]])
    noise = GumbelNoise([turn_seed("q", 0, n) for n in range(4000)], temperature=0.5)
    drawn = noise(torch.empty(0), logits.expand(4000, -1)).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert torch.allclose(shares, torch.softmax(logits[0] / 0.5, -1), atol=0.02)
    assert shares[3] == 0


def test_seeds_differ_by_question_trial_and_turn() -> None:
    seeds = {turn_seed(f"q{q}", trial, n) for q in range(12) for trial in range(12) for n in range(12)}
    assert len(seeds) == 12**3
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_policy_that_draws_needs_seeds_and_a_temperature_that_is_one(model_dir: Path) -> None:
    with pytest.raises(ValueError, match="needs a seed"):
        play(policy(model_dir, temperature=1.0))
    for temperature in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ModelError, match="temperature = "):
            policy(model_dir, temperature=temperature)


def test_weights_stored_in_bf16_are_played_in_fp32_and_alike_in_any_batch(tmp_path: Path) -> None:
    folder = make_lively_model(tmp_path / "bf16", dtype="bfloat16")
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    writers = [policy(folder, batch_size=size) for size in (1, 7, 200)]
    assert {parameter.dtype for parameter in writers[0].model.parameters()} == {torch.float32}
    stored, loaded = load_file(folder / "model.safetensors"), writers[0].model.state_dict()
    assert all(torch.equal(weight.float(), loaded[name]) for name, weight in stored.items())
    episodes = [play(writer, 60) for writer in writers]
    assert episodes[0] == episodes[1] == episodes[2]
    assert len(set(contents(episodes[0]))) > 30


def test_bf16_is_a_choice(model_dir: Path) -> None:
    assert {parameter.dtype for parameter in policy(model_dir, dtype="bf16").model.parameters()} == {torch.bfloat16}
