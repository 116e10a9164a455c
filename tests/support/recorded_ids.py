"""Hugging Face's ids of a batch of texts, by their digest: what was computed once is compared, and not computed again.

`tests/golden/reference_ids.json` has, by version of `tokenizers`, tokenizer and texts, the sha256 of the ids that the reference
gave. Ids with that digest are the reference's; where they have another one, or none is recorded, the reference encodes, as it
always does in `make test-all`. A change of texts, tokenizers or version is another key: `UPDATE_GOLDEN=1` records it.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import tokenizers

from tests.support.hf_reference import reference, reference_ids

PATH = Path(__file__).resolve().parents[1] / "golden" / "reference_ids.json"
REFRESH = "UPDATE_GOLDEN=1 python -m pytest -n 0 -m 'not slow' tests/shards/test_exactness.py"
DIGITS = 20


def expected_ids(path: Path, texts: Sequence[str], ours: Sequence[list[int]], *, afresh: bool) -> list[list[int]]:
    """The reference's ids of each text.

    Args:
        path: the tokenizer.json.
        texts: encoded.
        ours: ids that may be the reference's; they are given back where they are.
        afresh: whether the reference encodes whatever is recorded.
    """
    key = _digest(tokenizers.__version__.encode(), _file_digest(path), *(text.encode() for text in texts))
    recorded = _recorded()
    if not afresh and recorded.get(key) == _digest(*map(_bytes, ours)):
        return list(ours)
    ids = list(reference_ids(reference(path), texts))
    if os.environ.get("UPDATE_GOLDEN"):
        recorded[key] = _digest(*map(_bytes, ids))
        PATH.write_text(json.dumps(recorded, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    return ids


@cache
def _recorded() -> dict[str, str]:
    recorded: dict[str, str] = json.loads(PATH.read_text(encoding="utf-8")) if PATH.is_file() else {}
    return recorded


@cache
def _file_digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _digest(*parts: bytes) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.hexdigest()[:DIGITS]


def _bytes(ids: list[int]) -> bytes:
    return array("i", ids).tobytes()
