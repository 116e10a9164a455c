"""What several trials of each question tell: accuracy with an error clustered by question, and pass^k."""

from collections.abc import Mapping, Sequence
from typing import Any


def summarize_trials(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stub."""
    return {}
