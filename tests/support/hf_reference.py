"""Hugging Face `tokenizers` with nothing in it that looks for added tokens: what ordinary text must be encoded as."""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

IM_TOKENS = ("<|im_start|>", "<|im_end|>")


@lru_cache
def reference(path: Path) -> Tokenizer:
    """The file's normalizer, pre-tokenizer and model; no added tokens, post-processor, truncation or padding."""
    without = {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    tokenizer = Tokenizer.from_str(json.dumps({**json.loads(path.read_text("utf-8")), **without}))
    assert not tokenizer.get_added_tokens_decoder()
    return tokenizer


def reference_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[list[int]]:
    """The ids of each text, as it stands at the start of a conversation."""
    for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        yield encoding.ids


@lru_cache
def added_tokens(path: Path) -> dict[str, int]:
    """Text and id of every added token, special or not, as the file has them."""
    return {token["content"]: token["id"] for token in json.loads(path.read_text("utf-8"))["added_tokens"]}


def with_chatml(path: Path, folder: Path) -> Path:
    """The tokenizer.json, or where it lacks ChatML's two tokens a copy in `folder` that has them, special and last."""
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    missing = [token for token in IM_TOKENS if token not in {each["content"] for each in content["added_tokens"]}]
    if not missing:
        return path
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    known = {*content["model"]["vocab"].values(), *(each["id"] for each in content["added_tokens"])}
    content["added_tokens"] += [
        {"id": token_id, "content": token, **flags} for token_id, token in enumerate(missing, start=max(known) + 1)
    ]
    copy = folder / "tokenizer.json"
    copy.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return copy
