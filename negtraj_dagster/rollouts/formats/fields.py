"""Typed access to a record's fields, with messages that say what was expected."""

from typing import Any, TypeVar

from negtraj_dagster.errors import RolloutFormatError

T = TypeVar("T")


def require(record: dict[str, Any], key: str, kind: type[T]) -> T:
    """The value of a required key.

    Raises:
        RolloutFormatError: absent or of another type.
    """
    if key not in record:
        raise RolloutFormatError(f"key {key!r} is missing; found {sorted(record)}")
    return check(record[key], key, kind)


def optional(record: dict[str, Any], key: str, kind: type[T]) -> T | None:
    """The value of a key that may be absent or null.

    Raises:
        RolloutFormatError: present and of another type.
    """
    value = record.get(key)
    return None if value is None else check(value, key, kind)


def check(value: object, place: str, kind: type[T]) -> T:
    """The value, if it is of the type (true and false are not numbers).

    Raises:
        RolloutFormatError: it is not.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RolloutFormatError(f"{place} = {str(value)[:80]!r}: found {type(value).__name__}, expected {kind.__name__}")
    return value
