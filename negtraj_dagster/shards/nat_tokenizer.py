"""Says whether a tokenizer.json is of the kind by which `nat_exact` makes the paper's own ids (docs/decisions/masks.md)."""

import json
from pathlib import Path
from typing import Any


def describe_other_kind(tokenizer_json: Path) -> str | None:
    """What a tokenizer.json has instead of the normalizer Prepend, which puts SentencePiece's dummy prefix before every stretch
    between special tokens; None where it has that."""
    content = json.loads(tokenizer_json.read_text(encoding="utf-8"))
    if any(step.get("type") == "Prepend" for step in _steps(content.get("normalizer"), "normalizers")):
        return None
    pre_tokenizers = _steps(content.get("pre_tokenizer"), "pretokenizers")
    metaspace = next((step for step in pre_tokenizers if step.get("type") == "Metaspace"), None)
    if metaspace is not None:
        return f"pre-tokenizer Metaspace, prepend_scheme {metaspace.get('prepend_scheme', 'always')!r}"
    return f"pre-tokenizer {' and '.join(str(step.get('type')) for step in pre_tokenizers) or 'none'}, no dummy prefix"


def _steps(step: dict[str, Any] | None, members: str) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer, or those of a sequence."""
    if step is None:
        return []
    return list(step[members]) if step.get("type") == "Sequence" else [step]
