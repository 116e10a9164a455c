"""Vocabularies that are published as tiktoken's ranks, as the tokenizer.json that transformers makes of them.

A token's rank is its id, and the order in which merges happen: `merges` finds, for each token, the two that it is made of.
"""

import base64
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

QWEN35_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K_PATTERN = rf"{_BEFORE}{_UPPER}*{_LOWER}+{_CONTRACTION}|{_BEFORE}{_UPPER}+{_LOWER}*{_CONTRACTION}|" + r"\p{N}{1,3}" + _REST


def read_ranks(path: Path) -> dict[bytes, int]:
    """Tokens and ranks of a .tiktoken file: a line each, the token in base64."""
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def read_tekken(path: Path) -> tuple[str, dict[bytes, int]]:
    """Pattern and ranks of one of Mistral's tekken.json, as many as its models have."""
    content = json.loads(path.read_text(encoding="utf-8"))
    config = content["config"]
    n_ranks = config["default_vocab_size"] - config["default_num_special_tokens"]
    return config["pattern"], {base64.b64decode(item["token_bytes"]): item["rank"] for item in content["vocab"][:n_ranks]}


def byte_level_steps(pattern: str) -> dict[str, Any]:
    """The steps before and behind the model: words by a pattern, written in GPT-2's alphabet."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]}, "decoder": byte_level}


def model_of(ranks: dict[bytes, int], first_id: int = 0) -> dict[str, Any]:
    """Vocabulary and merges; ids begin at `first_id`."""
    alphabet = _alphabet()
    written = {token: "".join(map(alphabet.__getitem__, token)) for token in ranks}
    merges = [f"{written[left]} {written[right]}" for left, right in _merges(ranks)]
    return {"vocab": {written[token]: first_id + rank for token, rank in ranks.items()}, "merges": merges}


def _merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1 and len(parts := _merged(ranks, token)) == 2:
            yield parts[0], parts[1]


def _merged(ranks: dict[bytes, int], token: bytes) -> list[bytes]:
    """What a token is made of: its bytes, merged as long as a pair has a lower rank than it."""
    parts, limit = [token[at : at + 1] for at in range(len(token))], ranks[token]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, limit) for left, right in pairwise(parts)]
        lowest = min(pairs)
        if lowest >= limit:
            break
        at = pairs.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _alphabet() -> list[str]:
    """GPT-2's: printable bytes are themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)]
