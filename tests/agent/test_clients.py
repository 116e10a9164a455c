"""The in-process policy on a tiny untrained model."""

import json
import shutil

import pytest

from negtraj_dagster.agent.clients import ChatEncoder, TransformersPolicy, chat_encoder
from negtraj_dagster.agent.episodes import Failure, Written
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.errors import ModelError
from negtraj_dagster.modeling import TURN_END

CONVERSATIONS = [
    [{"role": "user", "content": text}] for text in ("How many?", "A much longer question than the other one, is it?", "x")
]


def encode(conversation):
    """ChatML over the byte tokenizer, by hand: `bytes` has its control tokens at 0..2."""
    from tokenizers import pre_tokenizers

    alphabet = {char: i + 3 for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def ids(text):
        return [alphabet[char] for piece, _ in level.pre_tokenize_str(text) for char in piece]

    turns = [[1, *ids(f"{turn['role']}\n{turn['content']}"), 2, *ids("\n")] for turn in conversation]
    return [*[i for turn in turns for i in turn], 1, *ids("assistant\n")]


def policy(base_model, *, batch_size=8, max_new=6):
    return TransformersPolicy(
        base_model, chat=ChatEncoder(encode, (TURN_END,)), max_new_tokens_per_turn=max_new, batch_size=batch_size
    )


def test_a_turn_does_not_depend_on_its_neighbours(base_model):
    together = policy(base_model).act(CONVERSATIONS)
    assert policy(base_model, batch_size=1).act(CONVERSATIONS) == together
    assert policy(base_model).act(CONVERSATIONS[::-1]) == together[::-1]


def test_a_turn_that_does_not_end_is_used_and_counted(base_model):
    writer = policy(base_model)
    turns = writer.act(CONVERSATIONS)
    assert all(turn.text for turn in turns)
    assert [(turn.stop, turn.n_tokens) for turn in turns] == [("length", 6)] * 3
    assert (writer.n_unstopped, writer.n_generated_tokens) == (3, 18)


def test_what_follows_the_end_of_turn_is_dropped(base_model):
    writer = policy(base_model)
    ids = writer.tokenizer.encode("ab").ids
    assert writer._read([*ids, 2, 0, 0]) == Written("ab", stop="end_token", n_tokens=3)
    assert (writer.n_unstopped, writer.n_generated_tokens) == (0, 3)


def test_a_special_token_within_a_turn_stays_in_its_text(base_model):
    writer = policy(base_model)
    ids = writer.tokenizer.encode("ab").ids
    assert writer._read([ids[0], 1, ids[1], 2]).text == "a<|im_start|>b"


def test_a_conversation_that_fills_the_positions_gets_no_turn(base_model):
    writer = policy(base_model)
    overlong = [{"role": "user", "content": "y" * 9000}]
    failure, turn = writer.act([overlong, CONVERSATIONS[0]])
    assert isinstance(failure, Failure)
    assert (failure.status, failure.message[:18]) == ("overlong", "a prompt of 9019 t")
    assert turn.text
    assert writer.n_overlong == 1


def test_a_turn_ends_at_the_last_position(base_model):
    writer = policy(base_model)
    n_around = len(encode([{"role": "user", "content": ""}]))
    almost = [{"role": "user", "content": "y" * (8192 - n_around - 2)}]
    writer.act([almost])
    assert writer.n_generated_tokens == 2


def test_a_missing_model_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"missing config\.json"):
        policy(tmp_path)


def test_a_served_prompt_has_all_a_turn_says_and_trains_nothing(monkeypatch, base_model):
    from negtraj_dagster import _trajtok  # noqa: TID251 - stands in for the encoder

    class Encoder:
        end_of_turn = (TURN_END,)

        def __init__(self, *_, **__):
            pass

        def prompt_ids(self, text):
            seen.append(json.loads(text))
            return [1]

    seen = []
    monkeypatch.setattr(_trajtok, "Tokenizer", Encoder)
    said = {"reasoning": "a", "tool_calls": [{"name": "f", "arguments": "{}"}]}
    turns = [{"role": "assistant", "content": "", "loss": 0.5, **said}, {"role": "tool", "content": "x", "name": "f"}]
    assert chat_encoder(base_model / "tokenizer.json", template=ChatTemplate("chatml"), max_tokens=9).encode(turns) == [1]
    first, second = seen[0]["messages"]
    assert first == {"role": "assistant", "content": "", "weight": 0.0, **said}
    assert second == {"role": "tool", "content": "x", "weight": 0.0, "name": "f"}


FOREIGN_DECODING = {
    "repetition penalty": {"repetition_penalty": 1.3},
    "repetition penalty of Qwen2.5": {
        "repetition_penalty": 1.05,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
        "do_sample": True,
    },
    "no repeated n-gram": {"no_repeat_ngram_size": 2},
    "encoder penalty": {"encoder_repetition_penalty": 1.5},
    "sampling": {"do_sample": True, "temperature": 5.0},
    "nucleus": {"do_sample": True, "top_p": 0.5},
    "min p": {"do_sample": True, "min_p": 0.2},
    "typical": {"do_sample": True, "typical_p": 0.3},
    "beams": {"num_beams": 4},
    "beams with length penalty": {"num_beams": 3, "length_penalty": 3.0, "early_stopping": True},
    "several sequences": {"num_beams": 2, "num_return_sequences": 2},
    "bad words": {"bad_words_ids": [[5], [9], [40]]},
    "suppressed tokens": {"suppress_tokens": list(range(3, 200))},
    "suppressed first tokens": {"begin_suppress_tokens": list(range(3, 200))},
    "forced end": {"forced_eos_token_id": 2},
    "forced beginning": {"forced_bos_token_id": 7},
    "least length": {"min_length": 100, "min_new_tokens": 6},
    "greatest length": {"max_length": 20},
    "sequence bias": {"sequence_bias": [[[7], 50.0]]},
    "other end tokens": {"eos_token_id": list(range(3, 120))},
    "decay to the end": {"exponential_decay_length_penalty": [0, 9.0]},
}


@pytest.mark.parametrize("name", FOREIGN_DECODING)
def test_nothing_of_a_base_models_generation_settings_decides_a_turn(base_model, tmp_path, name):
    expected = policy(base_model).act(CONVERSATIONS)
    folder = tmp_path / "model"
    shutil.copytree(base_model, folder)
    (folder / "generation_config.json").write_text(json.dumps(FOREIGN_DECODING[name]))
    config = json.loads((folder / "config.json").read_text())
    assert policy(folder).act(CONVERSATIONS) == expected
    (folder / "generation_config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, **FOREIGN_DECODING[name]}))  # older models keep them here
    assert policy(folder).act(CONVERSATIONS) == expected
