"""Typed access to a record's fields, with messages that say what was expected."""

from typing import Any, TypeVar

from negtraj_dagster.errors import RolloutFormatError

T = TypeVar("T")


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
    if key not in record:
        place = f"{at}: " if at else ""
        raise RolloutFormatError(f"{place}key {key!r} is missing; found {sorted(record)}" + (remedy and f"; {remedy}"))
    return check(record[key], f"{at}.{key}" if at else key, kind, remedy)


def optional(record: dict[str, Any], key: str, kind: type[T], *, at: str = "", remedy: str = "") -> T | None:
    """The value of a key that may be absent or null. For `at` and `remedy` see `require`.

    Raises:
        RolloutFormatError: present and of another type.
    """
    value = record.get(key)
    return None if value is None else check(value, f"{at}.{key}" if at else key, kind, remedy)


def check(value: object, place: str, kind: type[T], remedy: str = "") -> T:
    """The value, if it is of the type (true and false are not numbers).

    Raises:
        RolloutFormatError: it is not.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise refusal(place, value, kind.__name__, remedy)
    return value


def refuse_unknown_keys(record: dict[str, Any], known: frozenset[str], place: str) -> None:
    """Nothing is read past: a misspelled key is an error.

    Raises:
        RolloutFormatError: a key is not among the known ones.
    """
    if unknown := sorted(record.keys() - known):
        raise RolloutFormatError(f"{place}: unknown keys {unknown}; known: {', '.join(sorted(known))}; mend or remove them")


def refusal(place: str, value: object, expected: str, remedy: str = "") -> RolloutFormatError:
    """The error for a value that is not what it should be."""
    found = f"{place} = {str(value)[:80]!r}: found {type(value).__name__}, expected {expected}"
    return RolloutFormatError(f"{found}; {remedy}" if remedy else found)
