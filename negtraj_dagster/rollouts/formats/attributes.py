"""A span's attributes: values by flat keys, and what lists of objects keys with numbers in them say."""

import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

NUMBERED = re.compile(r"(.+?)\.(\d+)(?:\.(.+))?\Z", re.DOTALL)
Flat = dict[tuple[str, ...], Any]
"""An object by the paths of its values: `{("message", "role"): "user"}`."""

MAX_KEPT_KEYS = 256
"""Of a span whose layout is kept for the next one; those of long conversations differ, and are large."""
Lists = dict[str, list[list[tuple[tuple[str, ...], str]]]]
"""Of each prefix that numbers follow the objects there, in order: each value's path in its object, and its key."""


class Attributes(dict[str, Any]):
    """Attributes by their keys."""

    @cached_property
    def _lists(self) -> Lists:
        return _lists(tuple(self)) if len(self) <= MAX_KEPT_KEYS else _lists.__wrapped__(tuple(self))

    def flat_list(self, prefix: str) -> list[Flat]:
        """The objects that flat keys (`prefix.0.message.role`) describe, in their order."""
        return [{path: self[key] for path, key in fields} for fields in self._lists.get(prefix, ())]

    def has_list(self, prefix: str) -> bool:
        """Whether anything stands in the list under a prefix."""
        nested = self.get(prefix)
        return bool(nested) if isinstance(nested, list) else prefix in self._lists

    def list_of(self, prefix: str) -> list[Any]:
        """What a nested value says, or flat keys."""
        nested = self.get(prefix)
        return nested if isinstance(nested, list) else [unflattened(flat) for flat in self.flat_list(prefix)]

    def first(self, *names: str) -> str | None:
        """The first of some attributes that says anything."""
        for name in names:
            if value := self.get(name):
                return str(value)
        return None


def attributes_of(span: Mapping[str, Any]) -> Attributes:
    """A span's attributes, flat or as OTLP's list of keys and values; those of a span without any are its own keys."""
    attributes = span.get("attributes", span)
    if isinstance(attributes, list):  # OTLP: [{"key": …, "value": {"stringValue": …}}]
        return Attributes((str(item.get("key")), _value(item.get("value"))) for item in attributes if isinstance(item, dict))
    return Attributes(attributes) if isinstance(attributes, dict) else Attributes()


def unflattened(flat: Flat) -> Any:
    """The object that flat keys describe; keys that are all numbers make a list, at every depth.

    A value whose key goes on in other keys stands among theirs, under "": who reads it finds no text there, and says so.
    """
    if dict in map(type, flat.values()):  # what stands in it may be put together with other keys
        return _nested(flat)
    return _filled(_shape(tuple(flat)), list(flat.values()))


@lru_cache(maxsize=256)
def _shape(paths: tuple[tuple[str, ...], ...]) -> Any:
    """The object of some paths with the values' numbers in their places; messages have few shapes."""
    return _nested({path: number for number, path in enumerate(paths)})


def _filled(shape: Any, values: list[Any]) -> Any:
    if type(shape) is dict:
        return {key: values[part] if type(part) is int else _filled(part, values) for key, part in shape.items()}
    return [_filled(part, values) for part in shape] if type(shape) is list else values[shape]


def _nested(flat: Flat) -> Any:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        if not path and len(flat) == 1:
            return value
        *above, last = path or ("",)
        at = tree
        for part in above:
            inner = at.setdefault(part, {})
            if type(inner) is not dict:
                inner = at[part] = {"": inner}
            at = inner
        if type(at.get(last)) is dict:
            at[last][""] = value
        else:
            at[last] = value
    return _listed(tree)


def _listed(tree: dict[str, Any]) -> Any:
    for key, item in tree.items():
        if type(item) is dict:
            tree[key] = _listed(item)
    if tree and all(map(str.isdigit, tree)):
        return [tree[key] for key in sorted(tree, key=int)]
    return tree


def _value(value: Any) -> Any:
    if not isinstance(value, dict) or len(value) != 1:
        return value
    kind, inner = next(iter(value.items()))
    if kind == "intValue":
        return int(inner)
    if kind == "arrayValue":
        return [_value(item) for item in inner.get("values", [])]
    if kind == "kvlistValue":
        return {str(item["key"]): _value(item.get("value")) for item in inner.get("values", [])}
    return inner


@lru_cache(maxsize=64)
def _lists(keys: tuple[str, ...]) -> Lists:
    """What keys say; the spans of small calls have the same ones."""
    lists: dict[str, dict[str, list[tuple[tuple[str, ...], str]]]] = {}
    for key in keys:
        if (place := _place(key)) is not None:
            prefix, number, path = place
            lists.setdefault(prefix, {}).setdefault(number, []).append((path, key))
    return {prefix: [objects[number] for number in sorted(objects, key=int)] for prefix, objects in lists.items()}


@lru_cache(maxsize=65_536)
def _place(key: str) -> tuple[str, str, tuple[str, ...]] | None:
    """A flat key's list, number in it and path from there; the same in every span, or nearly."""
    if (match := NUMBERED.match(key)) is None:
        return None
    return match[1], match[2], tuple(match[3].split(".")) if match[3] else ()
