"""Records in which nothing has to be judged are read by trajtok, most of some formats; the readers here take all others.

What it reads is what they would read: `tests/rollouts/test_plain.py` holds both to each other.
"""

from collections.abc import Sequence
from typing import Any

from negtraj_dagster import _trajtok  # noqa: TID251 - its reader of plain records
from negtraj_dagster.rollouts.arrays import Slice
from negtraj_dagster.rollouts.landing import LandedFile
from negtraj_dagster.rollouts.redact import Redactor, find_secrets

Plain = tuple[dict[str, Any], dict[str, str | None]]
"""A rollout's columns of `RECORD_SCHEMA`, and those of `CONVERSATION_SCHEMA`."""


def read_plainly(records: Sequence[tuple[LandedFile, Slice]], redactor: Redactor | None) -> list[Plain | None]:
    """The rollouts of records of one table; None for one that the format's own reader has to look at.

    Args:
        records: each with its file.
        redactor: whether secrets are taken out; a record in which there are any is not plain.
    """
    if not records:
        return []
    file = records[0][0]
    if file.mapping is not None:
        return [None] * len(records)
    read = _trajtok.read_plain(
        [part.raw or b"" for _, part in records],
        layout=file.format,
        task=file.task,
        has_recorded_questions=file.has_recorded_questions,
        is_redacted=redactor is not None,
    )
    return [None if plain is None or (plain[2] and find_secrets(plain[2])) else plain[:2] for plain in read]
