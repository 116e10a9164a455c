"""Tombstones: what must not come back in. `tombstones.jsonl` in NEGTRAJ_HOME, one JSON object a line:

    {"field": "subject", "value": "user-17", "why": "erasure request of 2026-03-01"}

A rollout whose field has the value is left out of the index, whichever file it stands in, and counted.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.settings import did_you_mean
from negtraj_dagster.store import Store

TOMBSTONES = "tombstones.jsonl"
FIELDS = ("subject", "session", "licence", "origin_url", "question_id", "source", "base_key", "rollout_key")


@dataclass(frozen=True)
class Tombstone:
    """Rollouts whose `field` is `value` are refused."""

    field: str
    value: str
    why: str

    @property
    def identity(self) -> list[str]:
        """What decides, the reason left out."""
        return [self.field, self.value]


def read_tombstones(store: Store) -> list[Tombstone]:
    """The home's tombstones.

    Raises:
        SettingsError: a line that is no tombstone. Guessing here would let back in what was to stay out.
    """
    text = store.read_text(TOMBSTONES) or ""
    return [_parse(line, f"{store.place(TOMBSTONES)}, line {n}") for n, line in enumerate(text.split("\n"), 1) if line.strip()]


def _parse(line: str, place: str) -> Tombstone:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise SettingsError(f"{place}: not JSON ({error}); mend the line, nothing is read before") from error
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in ("field", "value", "why")):
        raise SettingsError(f"{place}: found {type(entry).__name__}, expected texts for field, value and why")
    if entry["field"] not in FIELDS:
        raise SettingsError(f"{place}: unknown field {entry['field']!r}{did_you_mean(entry['field'], FIELDS)}")
    return Tombstone(entry["field"], entry["value"], entry["why"])


def is_refused(tombstones: Sequence[Tombstone]) -> pl.Expr:
    """True for rows that a tombstone refuses."""
    values: dict[str, list[str]] = {}
    for tombstone in tombstones:
        values.setdefault(tombstone.field, []).append(tombstone.value)
    hits = [pl.col(name).is_in(refused_values).fill_null(value=False) for name, refused_values in values.items()]
    return pl.any_horizontal(*hits) if hits else pl.lit(value=False)
