"""A copy of the store at any fsspec URL, shared by machines: immutable folders by content name, manifest put last.

The local home stays the working copy. What it lacks is fetched and verified; what it publishes is put. Two writers of one
key put the same content; a pointer goes to the one that put last.
"""

import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fsspec

from negtraj_dagster.errors import StoreError
from negtraj_dagster.store.manifest import MANIFEST


class Remote:
    """One fsspec URL (`s3://bucket/negtraj`, `file:///mnt/share`, `memory://x`); `is_read_only` writes nothing to it."""

    def __init__(self, url: str, *, is_read_only: bool = False) -> None:
        self.url, self._is_read_only = url, is_read_only
        self._fs, self._root = fsspec.core.url_to_fs(url)

    def has(self, name: str) -> bool:
        """Whether a complete folder of this name is there."""
        return bool(self._fs.isfile(self._path(f"{name}/{MANIFEST}")))

    def folders(self, name: str) -> list[str]:
        """Names of the complete folders right under a folder."""
        root = self._path(name)
        if not self._fs.isdir(root):
            return []
        found = sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in self._fs.ls(root, detail=False, refresh=True))
        return [each for each in found if self.has(f"{name}/{each}")]

    def get(self, name: str, target: Path) -> None:
        """Copy a folder's files into an existing local folder; the caller verifies them."""
        root = self._path(name)
        for path in self._fs.find(root):
            if path.endswith(".part"):
                continue
            inner = path[len(root) :].lstrip("/")
            if ".." in inner.split("/"):
                raise StoreError(f"{self.url}/{name}: {inner!r} leads out of the folder; look at who writes there")
            local = target / inner
            local.parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(path, str(local))

    def put(self, folder: Path, name: str) -> None:
        """Copy a local folder, its manifest last; a complete one is left as it is."""
        if self._is_read_only or self.has(name):
            return
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
        for path in (*files, folder / MANIFEST):
            inner = path.relative_to(folder).as_posix()
            self._whole(f"{name}/{inner}", partial(self._fs.put_file, str(path)))

    def read_text(self, name: str) -> str | None:
        """A small mutable file's text, None where there is none."""
        path = self._path(name)
        return str(self._fs.cat_file(path).decode()) if self._fs.isfile(path) else None

    def write_text(self, name: str, text: str) -> None:
        """Replace a small mutable file."""
        if not self._is_read_only:
            self._whole(name, lambda remote: self._fs.pipe_file(remote, text.encode()))

    def _whole(self, name: str, write: Callable[[str], object]) -> None:
        """Write beside, then move: on a file system a reader finds the whole file or none."""
        path = self._path(name)
        self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex}.part"
        write(temporary)
        self._fs.mv(temporary, path)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"
