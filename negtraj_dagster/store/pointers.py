"""Pointers: which object is an asset's present one, and which were before."""

import json
import re
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.schema import canonical_json
from negtraj_dagster.store.texts import Texts

KEY = re.compile(r"[0-9a-f]{64}")
N_HISTORY = 50
"""Keys a pointer remembers, so that the last ones can be kept and gone back to."""


class Pointers:
    """A store's pointers, `current/<asset>.json`."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts

    def history(self, asset: str) -> list[str]:
        """Keys of the asset's present and earlier objects, newest first.

        Raises:
            StoreError: the file is no pointer.
        """
        name = _name(asset)
        text = self._texts.read(name)
        return list(_parse_pointer(text, self._texts.place(name))["history"]) if text else []

    def present(self, asset: str) -> str | None:
        """Key of the asset's present object, None before its first materialization.

        Raises:
            StoreError: the file is no pointer.
        """
        name = _name(asset)
        text = self._texts.read(name)
        return None if text is None else str(_parse_pointer(text, self._texts.place(name))["key"])

    def point(self, asset: str, key: str, version: str) -> None:
        """Make an object the present one, again where another machine was faster."""
        name = _name(asset)

        def move(text: str | None) -> str:
            try:
                history = _parse_pointer(text, self._texts.place(name))["history"] if text else []
            except StoreError:
                history = []
            recent = [key, *(earlier for earlier in history if earlier != key)][:N_HISTORY]
            return canonical_json({"asset": asset, "key": key, "version": version, "history": recent})

        self._texts.update(name, move)


def _name(asset: str) -> str:
    return f"current/{asset}.json"


def _parse_pointer(text: str, place: Path) -> dict[str, Any]:
    try:
        pointer = json.loads(text)
        keys = [str(key) for key in (pointer["key"], *pointer.get("history", ()))]
        if not all(KEY.fullmatch(key) for key in keys):
            raise ValueError(f"a key is no sha256: {keys[0]!r}")
        return {"key": keys[0], "history": keys[1:]}
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{place}: not a pointer ({error}); delete it and materialize the asset again") from error
