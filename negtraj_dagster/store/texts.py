"""Small mutable texts of a home: pointers, registry, pins, arrivals. Machines with one `store_url` have them in common.

A shared text changes by compare-and-set: read, merge, write if it is still what was read, else once more.
"""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from negtraj_dagster.errors import StoreError
from negtraj_dagster.store.files import replace_text
from negtraj_dagster.store.remote import Remote, Version

SHARED = ("current/", "registry/", "pins/", "arrivals.jsonl", "redaction.key")
"""What machines with one `store_url` have in common; other texts, tombstones above all, are each home's own."""
N_TRIES = 200
PAUSE_S = 0.02
"""Of the first pause after a lost race; at most fifty times as long later."""


class Texts:
    """The texts of one home, and of the store it shares.

    Args:
        roots: the home, then the one that is read only.
        remote: what the machines share.
    """

    def __init__(self, roots: Sequence[Path], remote: Remote | None) -> None:
        self._roots, self._remote = tuple(roots), remote

    def read(self, name: str) -> str | None:
        """The present text, None where there is none.

        Raises:
            StoreError: it is not UTF-8.
        """
        is_planned = len(self._roots) > 1 and (self._roots[0] / name).is_file()
        if self._remote is not None and name.startswith(SHARED) and not is_planned:
            text = self._remote.read(name).text
            return self.read_local(name) if text is None else text
        return self.read_local(name)

    def read_local(self, name: str) -> str | None:
        """This home's text, whatever the shared one is."""
        path = self.place(name)
        try:
            return path.read_text(encoding="utf-8") if path.is_file() else None
        except UnicodeDecodeError as error:
            raise StoreError(f"{path}: not UTF-8 at byte {error.start}; mend or delete it") from error

    def place(self, name: str) -> Path:
        """Where a text is, or would be: what messages name."""
        return next((root / name for root in self._roots if (root / name).is_file()), self._roots[-1] / name)

    def update(self, name: str, merge: Callable[[str | None], str]) -> str:
        """Replace a text by what `merge` makes of the present one, and return it; nothing that others wrote is lost.

        Args:
            name: of the text.
            merge: called again where another machine was faster, with what that machine wrote.

        Raises:
            StoreError: others were faster every time.
        """
        remote = self._remote
        if remote is None or remote.is_read_only or not name.startswith(SHARED):
            return self._write_local(name, merge(self.read(name)))
        for attempt in range(N_TRIES):
            present = remote.read(name)
            text = merge(self.read_local(name) if present.text is None else present.text)
            if _is_written(remote, name, text, present):
                return self._write_local(name, text)
            time.sleep(random.SystemRandom().uniform(0, PAUSE_S * min(2**attempt, 50)))
        raise StoreError(f"{remote.url}/{name}: other machines changed it {N_TRIES} times meanwhile; run again")

    def _write_local(self, name: str, text: str) -> str:
        if self.read_local(name) != text:
            replace_text(self._roots[0] / name, text)
        return text


def _is_written(remote: Remote, name: str, text: str, present: Version) -> bool:
    return text == present.text or remote.replace(name, text, present)
