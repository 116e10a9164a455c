"""What people and judges say of rollouts: overrides.csv wins over every scorer and filter, judgements.csv adds scores."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.settings import did_you_mean, listed
from negtraj_dagster.store import Store

OVERRIDES = "overrides.csv"
JUDGEMENTS = "judgements.csv"
OVERRIDE_COLUMNS = ("key", "field", "value", "by", "why")
JUDGEMENT_COLUMNS = ("key", "judge", "score", "note")
FIELDS: Mapping[str, tuple[str, ...] | None] = {"label": ("positive", "negative", "unknown"), "drop": ("yes",), "keep": None}
KEY = re.compile(r"[0-9a-f]{12,64}\Z")
DECISION_SCHEMA = pl.Schema(dict.fromkeys(("rollout_key", "field", "value", "by", "why"), pl.String))
JUDGEMENT_SCHEMA = pl.Schema({"rollout_key": pl.String, "judge": pl.String, "score": pl.Float64, "note": pl.String})


@dataclass(frozen=True)
class Override:
    """One decision: the label of a rollout, that it is dropped, or that it is kept against a filter (`value`).

    Attributes:
        place: file and line, for messages.
    """

    key: str
    field: str
    value: str
    by: str
    why: str
    place: str


@dataclass(frozen=True)
class Decisions:
    """Overrides with whole keys, what fits no rollout, and the table `judgements`."""

    overrides: Sequence[Override]
    unmatched: Sequence[str]
    judgements: pl.DataFrame

    def labels(self) -> dict[str, Override]:
        """Label decisions by rollout."""
        return {override.key: override for override in self.overrides if override.field == "label"}

    def drops_and_keeps(self) -> pl.DataFrame:
        """Decisions to drop a rollout or to keep it against a filter (`DECISION_SCHEMA`)."""
        rows = [
            (override.key, override.field, override.value, override.by, override.why)
            for override in self.overrides
            if override.field != "label"
        ]
        return pl.DataFrame(rows, schema=DECISION_SCHEMA, orient="row")


def read_decisions(store: Store, rollout_keys: pl.Series, filters: Iterable[str] | None = None) -> Decisions:
    """Both files, their keys made whole.

    Args:
        store: its home holds the files; either may be absent.
        rollout_keys: of all rollouts there are.
        filters: names of those there are, which `keep` may set aside; None: not checked.

    Raises:
        SettingsError: a line is not what it must be, two lines contradict each other, or a key fits several rollouts;
            names file and line.
    """
    sorted_keys = rollout_keys.sort()
    unmatched: list[str] = []
    overrides: dict[tuple[str, str, str], Override] = {}
    known_filters = None if filters is None else sorted(filters)
    for line in _overrides(store):
        if known_filters is not None and line.field == "keep" and line.value not in known_filters:
            raise SettingsError(f"{line.place}: keep = {line.value!r}: unknown filter{did_you_mean(line.value, known_filters)}")
        if not (whole := _whole(line.key, sorted_keys, line.place)):
            unmatched.append(f"{line.place}: no rollout {line.key}")
            continue
        override = Override(whole, line.field, line.value, line.by, line.why, line.place)
        first = overrides.setdefault((whole, override.field, override.value if override.field == "keep" else ""), override)
        if first.value != override.value:
            raise SettingsError(
                f"{override.place}: sets {override.field} to {override.value!r}, {first.place} to {first.value!r}; keep one"
            )
    rows = []
    for place, row in _rows(store, JUDGEMENTS, JUDGEMENT_COLUMNS):
        try:
            score = float(row["score"])
        except ValueError:
            score = -1.0
        if not 0 <= score <= 1:
            raise SettingsError(f"{place}: score = {row['score']!r}, expected a number from 0 to 1")
        if whole := _whole(row["key"], sorted_keys, place):
            rows.append((whole, row["judge"], score, row["note"]))
        else:
            unmatched.append(f"{place}: no rollout {row['key']}")
    table = pl.DataFrame(rows, schema=JUDGEMENT_SCHEMA, orient="row").sort("rollout_key", "judge", "score", "note")
    if (twice := table.filter(pl.struct("rollout_key", "judge").is_duplicated())).height:
        key, judge = twice.select("rollout_key", "judge").row(0)
        raise SettingsError(f"{store.place(JUDGEMENTS)}: judge {judge!r} scores rollout {key[:12]} twice; keep one line")
    return Decisions(sorted(overrides.values(), key=lambda line: (line.key, line.field, line.value)), unmatched, table)


def _overrides(store: Store) -> Iterator[Override]:
    for place, row in _rows(store, OVERRIDES, OVERRIDE_COLUMNS):
        if row["field"] not in FIELDS:
            raise SettingsError(f"{place}: field = {row['field']!r}{did_you_mean(row['field'], FIELDS)}")
        allowed_values = FIELDS[row["field"]]
        if allowed_values and row["value"] not in allowed_values:
            raise SettingsError(f"{place}: {row['field']} = {row['value']!r}, expected {listed(allowed_values)}")
        for name in ("value", "by", "why"):
            if not row[name]:
                raise SettingsError(f"{place}: {name} is empty; every decision says what, by whom and why")
        yield Override(row["key"], row["field"], row["value"], row["by"], row["why"], place)


def _rows(store: Store, name: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, cells by column) of a CSV file of the home; nothing where it is absent."""
    text = store.read_text(name)
    if text is None:
        return
    file: Path = store.place(name)
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        head = next(reader, [])
        if head != list(columns):
            raise SettingsError(f"{file}, line 1: found the columns {', '.join(head) or 'none'}; expected {','.join(columns)}")
        for cells in reader:
            place = f"{file}, line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(columns):
                raise SettingsError(f"{place}: {len(cells)} cells, expected {len(columns)} ({','.join(columns)}); quote commas")
            row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
            if not KEY.match(row["key"]):
                raise SettingsError(f"{place}: key = {row['key']!r}, expected at least the first 12 digits of a rollout_key")
            yield place, row
    except csv.Error as error:
        raise SettingsError(f"{file}, line {reader.line_num}: not CSV: {error}") from error


def _whole(key: str, sorted_keys: pl.Series, place: str) -> str:
    """The rollout whose key begins so; empty where there is none."""
    at = int(sorted_keys.search_sorted(key)) if len(sorted_keys) else 0
    matches = [full_key for full_key in sorted_keys[at : at + 2].to_list() if full_key.startswith(key)]
    if len(matches) > 1:
        raise SettingsError(f"{place}: key {key} fits {matches[0][:20]}… and {matches[1][:20]}…; give more digits")
    return matches[0] if matches else ""
