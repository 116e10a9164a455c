"""Which format a file is of, told by what reads it: for folders and sources that say `auto`.

A format is a candidate where it reads nine of ten of the first documents. Candidates that find the same turns are one answer,
and the one that finds most beside them is taken; where they find other turns, nobody guesses.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.documents import Parsed, iter_documents, parse_document, read_parsed
from negtraj_dagster.rollouts.formats import FORMAT_VERSIONS, FORMATS, Format
from negtraj_dagster.rollouts.mapping import ColumnMap
from negtraj_dagster.schema import Rollout, digest, digest_json

AUTO = "auto"
UNITS = ("record", "object", "file")
DETECTION_VERSION = 1
"""Rises when another format is found for the same bytes."""
N_DOCUMENTS = 50
CONFIDENT = 0.9
FIELDS = ("reward", "score", "pred", "gold", "question_id", "group", "session", "teacher", "tools", "parent")
"""What one format may know of a rollout and another not, besides its turns."""
REMEDY = "put it into a folder, or a source, that names the format"


@dataclass
class _Trial:
    """What a format makes of the first documents."""

    format: Format
    n_documents: int = 0
    n_read: int = 0
    turns: list[str] = field(default_factory=list)
    n_outcomes: int = 0
    n_fields: int = 0

    @property
    def share(self) -> float:
        return self.n_read / self.n_documents if self.n_documents else 0.0

    def take(self, reading: Sequence[Rollout | RolloutFormatError]) -> None:
        rollouts = [rollout for rollout in reading if isinstance(rollout, Rollout)]
        self.n_documents += 1
        self.n_read += bool(rollouts)
        for rollout in rollouts:
            self.turns.append(digest(rollout.prompt_json or "", rollout.turns_json))
            self.n_outcomes += rollout.reward is not None or rollout.score is not None
            self.n_fields += sum(bool(getattr(rollout, name)) for name in FIELDS)


@dataclass(frozen=True)
class Detected:
    """The format of a file.

    Attributes:
        format: its name; "" where none can be told.
        confidence: share of the first documents that it reads.
        reason: why none is, and what to do.
    """

    format: str
    confidence: float
    reason: str = ""


def candidate_formats(mapping: ColumnMap | None) -> list[Format]:
    """Formats that a file may be of: columns are for those of records alone."""
    return [format_ for format_ in FORMATS.values() if format_.unit != "file" or not (mapping and mapping.columns)]


def parsed_documents(path: Path, formats: Sequence[Format], sidecar: Path | None = None) -> Iterator[tuple[str, Parsed]]:
    """A file's documents and where they stand, parsed once for all formats of one unit.

    Raises:
        OSError: it cannot be read.
    """
    for part in iter_documents(path, formats[0], sidecar) if formats else ():
        yield (
            part.place,
            RolloutFormatError(part.fault) if part.raw is None else parse_document(formats[0], part.raw, part.place),
        )


def detection_key(sha256: str, mapping: ColumnMap | None) -> str:
    """Identity of what is found for a file's bytes."""
    return digest_json([DETECTION_VERSION, sha256, FORMAT_VERSIONS, mapping.identity if mapping else None])


def detect_format(path: Path, mapping: ColumnMap | None = None) -> Detected:
    """The format that reads the file's first documents.

    Raises:
        OSError: it cannot be read.
    """
    trials = [_Trial(format_) for format_ in candidate_formats(mapping)]
    for unit in UNITS:
        of_unit = [trial for trial in trials if trial.format.unit == unit]
        documents = parsed_documents(path, [trial.format for trial in of_unit])
        for _, document in itertools.islice(documents, N_DOCUMENTS):
            for trial in of_unit:
                trial.take(read_parsed(trial.format, "task", document, mapping))
    candidates = [trial for trial in trials if trial.share >= CONFIDENT]
    if not candidates:
        best = max(trials, key=lambda trial: trial.share)
        nearest = f"; {best.format.name} reads {best.share:.0%}" if best.n_read else ""
        reason = f"no format reads {CONFIDENT:.0%} of its first {best.n_documents} documents{nearest}; `negtraj check` says why"
        return Detected("", best.share, f"{reason}; mend it, or {REMEDY}")
    chosen = max(candidates, key=lambda trial: (trial.n_outcomes, trial.n_fields))
    if others := [trial for trial in candidates if trial.turns != chosen.turns]:
        names = " and ".join(f"{trial.format.name} ({trial.share:.0%})" for trial in (chosen, *others))
        return Detected("", chosen.share, f"read by {names}, which find other turns in it; {REMEDY}")
    return Detected(chosen.format.name, chosen.share)
