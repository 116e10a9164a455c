"""Hugging Face's ids of a batch of texts, by their digest: what was computed once is compared, and not computed again.

`tests/golden/reference_ids.json` has, by version of `tokenizers`, tokenizer and texts, the sha256 of the ids that the reference
gave. Ids with that digest are the reference's; where they have another one, or none is recorded, the reference encodes, as it
always does in `make test-all`. A change of texts, tokenizers or version is another key, which is recorded by

    UPDATE_GOLDEN=1 python -m pytest -n 0 -m "not slow" tests/shards/test_exactness.py
"""

import hashlib
import json
import os
from array import array
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import tokenizers

from negtraj_dagster.schema import digest
from tests.support.hf_reference import reference, reference_ids

PATH = Path(__file__).resolve().parents[1] / "golden" / "reference_ids.json"
DIGITS = 20


def expected_ids(path: Path, texts: Sequence[str], ours: Sequence[list[int]], *, afresh: bool) -> list[list[int]]:
    """The reference's ids of each text.

    Args:
        path: the tokenizer.json.
        texts: encoded.
        ours: ids that may be the reference's; they are given back where they are.
        afresh: whether the reference encodes whatever is recorded.
    """
    key = digest(tokenizers.__version__, _file_digest(path), *texts)[:DIGITS]
    recorded = _recorded()
    if not afresh and recorded.get(key) == _digest(ours):
        return list(ours)
    ids = list(reference_ids(reference(path), texts))
    if os.environ.get("UPDATE_GOLDEN"):
        recorded[key] = _digest(ids)
        PATH.write_text(json.dumps(recorded, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    return ids


@cache
def _recorded() -> dict[str, str]:
    recorded: dict[str, str] = json.loads(PATH.read_text(encoding="utf-8")) if PATH.is_file() else {}
    return recorded


@cache
def _file_digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _digest(ids: Sequence[list[int]]) -> str:
    return digest(*(array("i", each).tobytes() for each in ids))[:DIGITS]
