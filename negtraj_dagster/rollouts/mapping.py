"""Columns of a table, or keys of a record, under the names that a format reads; and the outcome that a rule makes of one."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from negtraj_dagster.errors import RolloutFormatError, SettingsError
from negtraj_dagster.rollouts.records import parse_text
from negtraj_dagster.schema import Rollout, canonical_json, digest

RULE = re.compile(r"\s*(?P<key>[^\s<>=!]+)\s*(?P<operator>>=|<=|==|!=|>|<)\s*(?P<value>.+?)\s*\Z")
ORDERS: Mapping[str, Callable[[float, float], bool]] = {">=": ge, "<=": le, ">": gt, "<": lt}
EQUALITIES: Mapping[str, Callable[[object, object], bool]] = {"==": eq, "!=": ne}
OUTCOMES = ("reward", "resolved", "target", "label", "kto_tag")
"""Keys by which formats know an outcome: where a rule decides, they are kept under another name."""
WORDS: Mapping[str, object] = {"true": True, "false": False}


@dataclass(frozen=True)
class ColumnMap:
    """What `[sources.NAME]` says of its records.

    Attributes:
        columns: pairs (a key of the format, where it stands in the record; dots lead into objects).
        outcome: `KEY >= 0.5`, `KEY == "submitted"`: success or failure of a record that has the key; None = by `reward`.
    """

    columns: tuple[tuple[str, str], ...] = ()
    outcome: str | None = None

    @property
    def identity(self) -> str:
        """Part of the names of what was read so."""
        return digest(canonical_json([list(map(list, self.columns)), self.outcome]))[:12]

    def apply(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record under the format's names. What was renamed is left where it stood in an object."""
        renamed = dict(record)
        values = {ours: _at(record, theirs) for ours, theirs in self.columns}
        for ours, theirs in self.columns:
            if theirs in record and theirs != ours:
                renamed.pop(theirs, None)
        renamed |= {ours: value for ours, value in values.items() if value is not None}
        if self.outcome is not None:
            renamed = {f"recorded_{key}" if key in OUTCOMES else key: value for key, value in renamed.items()}
            renamed["reward"] = self._judge(record)
        return renamed

    def absent_from(self, record: dict[str, Any]) -> list[str]:
        """What the source names and the record has not: columns, and the outcome's key."""
        names = [theirs for _, theirs in self.columns]
        if self.outcome is not None:
            names.append(parse_outcome(self.outcome)[0])
        return [name for name in names if _at(record, name) is None]

    def judge(self, rollout: Rollout) -> Rollout:
        """The rollout of a file that is read whole, with the outcome that the rule makes of its score, its answer or its other
        fields (`extra`)."""
        return rollout if self.outcome is None else replace(rollout, reward=self._judge(fields_of(rollout)))

    def _judge(self, record: dict[str, Any]) -> bool | None:
        assert self.outcome is not None
        key, operator, bound = parse_outcome(self.outcome)
        value = _at(record, key)
        if value is None:
            return None
        if isinstance(bound, bool) and isinstance(value, str):  # as tables of text have it
            value = WORDS.get(value.lower(), value)
        if operator in EQUALITIES:
            return EQUALITIES[operator](value, bound)
        if not isinstance(value, (int, float)) or not isinstance(bound, (int, float)):
            raise RolloutFormatError(
                f"{key}: found {type(value).__name__}, expected a number, for outcome = {self.outcome!r}; mend the rule"
            )
        return ORDERS[operator](value, bound)


def fields_of(rollout: Rollout) -> dict[str, Any]:
    """What an outcome's rule may ask of a rollout."""
    extra: dict[str, Any] = json.loads(rollout.extra) if rollout.extra else {}
    return {**extra, **{name: value for name in ("reward", "score", "pred") if (value := getattr(rollout, name)) is not None}}


@lru_cache(maxsize=64)
def parse_outcome(rule: str) -> tuple[str, str, object]:
    """Key, operator and value of an outcome's rule.

    Raises:
        SettingsError: it is none.
    """
    match = RULE.match(rule)
    if match is None:
        raise SettingsError(f"outcome = {rule!r}: expected a key, one of >= <= > < == != and a value, as in 'score >= 0.5'")
    text = match["value"]
    value = WORDS.get(text, text.strip("\"'"))
    if isinstance(value, str) and value == text:
        try:
            value = float(text)
        except ValueError:
            value = text
    if match["operator"] in ORDERS and not isinstance(value, float):
        raise SettingsError(f"outcome = {rule!r}: found {text!r} after {match['operator']}, expected a number")
    return match["key"], match["operator"], value


def _at(record: Mapping[str, Any], place: str) -> Any:
    """The value at a key, or inside of objects, or of JSON text of one, where dots lead; None where there is none."""
    if place in record:
        return record[place]
    value: Any = record
    for key in place.split("."):
        if isinstance(value, str) and value[:1] == "{":
            value = _object_of(value)
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


@lru_cache(maxsize=4)  # of one record: each of its columns, and each look for what is absent, leads into the same text
def _object_of(text: str) -> Any:
    try:
        return parse_text(text)
    except ValueError:
        return None
