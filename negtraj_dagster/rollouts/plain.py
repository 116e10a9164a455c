"""Documents in which nothing has to be judged: trajtok reads them, most of some formats; the readers here take all others.

What it reads is what they would read: `tests/rollouts/test_plain.py` holds both to each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from negtraj_dagster import _trajtok  # noqa: TID251 - its reader of plain records
from negtraj_dagster.rollouts.arrays import Slice
from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.rollouts.formats.openai import nearly_known
from negtraj_dagster.rollouts.landing import LandedFile
from negtraj_dagster.rollouts.redact import Redactor
from negtraj_dagster.rollouts.secret_scan import find_secrets

Plain = tuple[dict[str, Any], dict[str, str | None]]
"""A rollout's columns of `RECORD_SCHEMA`, and those of `CONVERSATION_SCHEMA`."""
Read = tuple[dict[str, Any], dict[str, str | None], list[str]]
"""The same, and keys that may be known ones misspelled."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What trajtok saw of a document.

    Attributes:
        plain: its rollout; None where the format's own reader has to look at it.
        is_clean: whether it is JSON beyond doubt (no key twice, no number beyond a float) without a secret; False where secrets
            were not looked for.
    """

    plain: Plain | None
    is_clean: bool


def look_through(documents: Sequence[tuple[LandedFile, Slice]], redactor: Redactor | None) -> list[Seen]:
    """What there is to see in documents of one table.

    Args:
        documents: each with its file.
        redactor: whether secrets are taken out; a record in which there are any is not plain.
    """
    if not documents:
        return []
    file = documents[0][0]
    seen = _trajtok.read_plain(
        [part.raw or b"" for _, part in documents],
        layout="" if file.mapping else file.format,
        task=file.task,
        has_recorded_questions=file.has_recorded_questions,
        is_redacted=redactor is not None,
        is_file=FORMATS[file.format].unit == "file",
    )
    return [_judged(read, texts, is_redacted=redactor is not None) for read, texts in seen]


def _judged(read: Read | None, texts: str | None, *, is_redacted: bool) -> Seen:
    plain = None if read is None or any(map(nearly_known, read[2])) else read[:2]
    if not is_redacted:
        return Seen(plain, is_clean=False)
    is_clean = texts is not None and not find_secrets(texts)  # by itself: what is found must not depend on its neighbours
    return Seen(plain if is_clean else None, is_clean)
