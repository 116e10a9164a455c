"""Typed access to a record's fields, with messages that say what was expected.

They name keys, types, lengths and positions, never a value: a secret in a bad record must not reach quarantine and logs.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.records import key_name
from negtraj_dagster.schema import canonical_json

T = TypeVar("T")
NOTHING: tuple[object, ...] = (None, "", [], {})
"""Values that say nothing; 0 and false are none of them."""
REWARD_REMEDY = "write true for success and false for failure; where it is a score, decide which by a threshold of yours"
MAYBE_TEXT = (str, type(None))
"""Types of a text that may be absent."""
MAX_KEYS = 20


def require(record: dict[str, Any], key: str, kind: type[T], *, at: str = "", remedy: str = "") -> T:
    """The value of a required key.

    Args:
        record: where the key is looked for.
        key: the key.
        kind: the type of its value.
        at: where the record stands, if it is part of one.
        remedy: what to do, at the end of a refusal.

    Raises:
        RolloutFormatError: absent or of another type.
    """
    value = record.get(key)
    if type(value) is kind:  # as nearly all are: no place has to be named
        return value
    if key not in record:
        place = f"{at}: " if at else ""
        raise RolloutFormatError(f"{place}key {key!r} is missing; found {key_names(record)}" + (remedy and f"; {remedy}"))
    return check(value, f"{at}.{key}" if at else key, kind, remedy)


def optional(record: dict[str, Any], key: str, kind: type[T], *, at: str = "", remedy: str = "") -> T | None:
    """The value of a key that may be absent or null. For `at` and `remedy` see `require`.

    Raises:
        RolloutFormatError: present and of another type.
    """
    value = record.get(key)
    if type(value) is kind:
        return value
    return None if value is None else check(value, f"{at}.{key}" if at else key, kind, remedy)


def check(value: object, place: str, kind: type[T], remedy: str = "") -> T:
    """The value, if it is of the type (true and false are not numbers).

    Raises:
        RolloutFormatError: it is not.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise refusal(place, value, kind.__name__, remedy)
    return value


def refuse_unknown_keys(record: dict[str, Any], known: Iterable[str], place: str = "") -> None:
    """Nothing is read past: a misspelled key is an error. One that says nothing (null, "", [], {}) may have any name.

    Raises:
        RolloutFormatError: a key is not among the known ones.
    """
    if unknown := [key for key in record if key not in known and record[key] not in NOTHING]:
        at = f"{place}: " if place else ""
        raise RolloutFormatError(
            f"{at}unknown keys {key_names(unknown)}; known: {', '.join(sorted(known))}; mend or remove them"
        )


def optional_text(record: dict[str, Any], key: str, *, at: str = "", remedy: str = "") -> str | None:
    """The text of a key that may be absent or null; an integer is read as its digits, as many exports write ids.

    Raises:
        RolloutFormatError: neither.
    """
    value = record.get(key)
    if value is None or type(value) is str:
        return value
    place = f"{at}.{key}" if at else key
    return str(value) if type(value) is int else check(value, place, str, remedy)


def require_text(record: dict[str, Any], key: str) -> str:
    """As `optional_text`, of a key that must be there.

    Raises:
        RolloutFormatError: absent, null or of another type.
    """
    if record.get(key) is None:
        return require(record, key, str)
    return optional_text(record, key) or ""


def optional_answer(record: dict[str, Any], key: str) -> str | None:
    """An answer that may be absent or null: text as it stands, any other value as its JSON text, `12`, `true`, `["a"]`."""
    value = record.get(key)
    return value if value is None or isinstance(value, str) else canonical_json(value)


def optional_reward(record: dict[str, Any], key: str) -> bool | None:
    """Success, failure or not known. 1 and 0 are read as true and false, 1.0 and 0.0, too.

    Raises:
        RolloutFormatError: another number, or no number at all.
    """
    value = record.get(key)
    if type(value) in (int, float) and value in (0, 1):
        return bool(value)
    return optional(record, key, bool, remedy=REWARD_REMEDY)


def read_score(value: object, place: str) -> float | None:
    """A numeric score; true and false are 1 and 0.

    Raises:
        RolloutFormatError: no number.
    """
    if value is None:
        return None
    if isinstance(value, (bool, int, float)):
        return float(value)
    raise refusal(place, value, "a number", "write a number, or leave the key out")


def key_names(keys: Iterable[str]) -> str:
    """Some keys of a record, sorted, as messages name them."""
    names = sorted(keys)
    rest = f", and {len(names) - MAX_KEYS} more" if len(names) > MAX_KEYS else ""
    return f"[{', '.join(map(key_name, names[:MAX_KEYS]))}{rest}]"


def described(value: object) -> str:
    """A value's type and size."""
    if isinstance(value, str | list | dict):
        unit = {str: "characters", list: "values", dict: "keys"}[type(value)]
        return f"{type(value).__name__} ({len(value)} {unit})"
    return type(value).__name__


def refusal(place: str, value: object, expected: str, remedy: str = "") -> RolloutFormatError:
    """The error for a value that is not what it should be."""
    message = f"{place}: found {described(value)}, expected {expected}"
    return RolloutFormatError(f"{message}; {remedy}" if remedy else message)
