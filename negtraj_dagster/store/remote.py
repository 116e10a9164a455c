"""A copy of the store at any fsspec URL, shared by machines: immutable folders by content name, manifest put last.

The local home stays the working copy. What it lacks is fetched and verified; what it publishes is put. Two writers of one
key put the same content; a pointer goes to the one that put last.
"""

from pathlib import Path

import fsspec

from negtraj_dagster.store.manifest import MANIFEST


class Remote:
    """One fsspec URL (`s3://bucket/negtraj`, `file:///mnt/share`, `memory://x`)."""

    def __init__(self, url: str) -> None:
        self.url = url
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
            local = target / path[len(root) :].lstrip("/")
            local.parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(path, str(local))

    def put(self, folder: Path, name: str) -> None:
        """Copy a local folder, its manifest last; a complete one is left as it is."""
        if self.has(name):
            return
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
        for path in (*files, folder / MANIFEST):
            remote = self._path(f"{name}/{path.relative_to(folder).as_posix()}")
            self._fs.makedirs(remote.rsplit("/", 1)[0], exist_ok=True)
            self._fs.put_file(str(path), remote)

    def read_text(self, name: str) -> str | None:
        """A small mutable file's text, None where there is none."""
        path = self._path(name)
        return str(self._fs.cat_file(path).decode()) if self._fs.isfile(path) else None

    def write_text(self, name: str, text: str) -> None:
        """Replace a small mutable file."""
        path = self._path(name)
        self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        self._fs.pipe_file(path, text.encode())

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"
