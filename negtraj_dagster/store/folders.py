"""Folders that are complete or absent, with a manifest: made aside, moved in by one rename, verified, fetched and shared."""

import errno
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.store.files import file_sha256, make_folder, scratch_folder, sync_folder
from negtraj_dagster.store.manifest import MANIFEST, REMEDY, Built, file_fault, find_faults, load_manifest, write_manifest
from negtraj_dagster.store.remote import Remote

LOG = logging.getLogger(__name__)


class Folders:
    """A home's folders by their names in it (`objects/<asset>/<key>`, `segments/<table>/<key>`).

    Args:
        home: is written to.
        roots: where folders are looked for, the home first.
        remote: the shared copy, which holds what others made.
    """

    def __init__(self, home: Path, roots: Sequence[Path], remote: Remote | None) -> None:
        self.home, self.roots, self.remote = home, roots, remote
        self._shared: set[str] = set()
        self._verified: set[tuple[Path, int, int]] = set()
        self._manifests: dict[tuple[Path, int, int], dict[str, Any]] = {}

    def keys(self, place: str) -> list[str]:
        """Keys of the folders in a place (`segments/<table>`), here and in the shared copy, sorted; damaged ones, too."""
        keys = {path.name for root in self.roots for path in (root / place).glob("[!.]*") if path.is_dir()}
        if self.remote:
            keys |= set(self.remote.folders(place))
        return sorted(keys)

    def find(self, name: str) -> Path:
        """Where a folder is, or would be in this home."""
        return next((root / name for root in self.roots if (root / name).is_dir()), self.home / name)

    def name(self, folder: Path) -> str:
        """A folder's name within its home, `segments/<table>/<key>`: the same on every machine."""
        root = next(root for root in self.roots if folder.is_relative_to(root))
        return folder.relative_to(root).as_posix()

    def manifest(self, folder: Path) -> dict[str, Any]:
        """A folder's manifest, read once per process and state."""
        path = folder / MANIFEST
        stamp = _stamp(path) if path.is_file() else (path, 0, 0)
        if stamp not in self._manifests:
            self._manifests[stamp] = load_manifest(folder, *_asset_and_key(self.name(folder)))
        return self._manifests[stamp]

    def is_usable(self, name: str, check: tuple[str, ...] = ()) -> bool:
        """Whether a folder is there and whole; a damaged one of this home is set aside, so that it can be made again."""
        folder = self.find(name)
        if not folder.is_dir() and not self.fetch(name):
            return False
        try:
            faults = find_faults(folder, self.manifest(folder), deep=False)
            for file_name in check:
                self.file(folder, file_name)
        except StoreError as error:
            faults = [str(error)]
        if not faults:
            return True
        if folder.is_relative_to(self.home):
            LOG.warning("%s is damaged (%s): set aside under damaged/, it is made again", folder, "; ".join(faults))
            set_aside(self.home, name)
        else:
            LOG.warning("%s is damaged (%s): a run sets it aside and makes it again", folder, "; ".join(faults))
        return False

    def is_reusable(self, name: str, *, drop: bool = False) -> bool:
        """Whether an object is whole and so is all it refers to; one that is not can be dropped, to be made again."""
        if not self.is_usable(name):
            return False
        if self.has(self.manifest(self.find(name))["refers"]):
            return True
        if drop:
            LOG.warning("%s refers to segments that are missing or damaged: it is made again", self.find(name))
            shutil.rmtree(self.home / name, ignore_errors=True)
        return False

    def folder(self, name: str) -> Path:
        """The folder of a `refers` name (`segments/tokens/…`).

        Raises:
            StoreError: it is not there or damaged.
        """
        if not self.is_usable(name):
            raise StoreError(f"{self.home / name}: missing or damaged; {REMEDY}")
        return self.find(name)

    def has(self, refers: Mapping[str, str]) -> bool:
        """Whether everything an object refers to is there, unaltered as far as names and sizes tell."""
        return all(
            self.is_usable(name) and file_sha256(self.find(name) / MANIFEST) == sha256 for name, sha256 in refers.items()
        )

    def refer(self, folders: Iterable[Path]) -> dict[str, str]:
        """Objects and segments by name with their manifests' hashes, for `Built.refers`: gc keeps what is referred to."""
        return {self.name(folder): file_sha256(folder / MANIFEST) for folder in folders}

    def file(self, folder: Path, name: str) -> Path:
        """A file of an object, its bytes verified (once per process).

        Raises:
            StoreError: it is missing, has another size or other bytes; says how to repair.
        """
        path, expected = folder / name, self.manifest(folder)["files"].get(name)
        if expected is None:
            raise StoreError(f"{path}: the manifest does not name it; {REMEDY}")
        if not self._is_verified(path):
            if fault := file_fault(path, expected, deep=True):
                raise StoreError(f"{folder} is damaged: {name}: {fault}; {REMEDY}")
            self._verified.add(_stamp(path))
        return path

    def verify(self, folder: Path) -> None:
        """Check every file of an object against its manifest.

        Raises:
            StoreError: a file is missing, has another size or other bytes, or is not in the manifest.
        """
        if faults := find_faults(folder, self.manifest(folder), deep=False):
            raise StoreError(f"{folder} is damaged: {'; '.join(faults)}; {REMEDY}")
        for name in self.manifest(folder)["files"]:
            self.file(folder, name)

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder of our own on the store's file system, gone afterwards."""
        return scratch_folder(self.home / "tmp")

    def publish(
        self, name: str, asset: str, key: str, made_of: Mapping[str, Any], write: Callable[[Path], Built]
    ) -> dict[str, int]:
        """Fill a folder of our own and move it in whole; what `write` counted."""
        with self.scratch() as folder:
            built = write(folder)
            write_manifest(folder, asset, key, made_of, built)
            self._move_in(folder, name)
        return built.work

    def share(self, name: str) -> None:
        """Put a folder to the remote with all that it refers to, whoever made it and whenever, before anything points to it."""
        if self.remote and name not in self._shared:
            for other in self.manifest(self.find(name))["refers"]:
                self.share(other)
            self.remote.put(self.find(name), name)
            self._shared.add(name)

    def _move_in(self, folder: Path, name: str) -> None:
        target = self.home / name
        make_folder(target.parent)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            if not self.is_usable(name):  # not a concurrent publisher's: a broken leftover, now set aside
                folder.rename(target)
        sync_folder(target.parent)

    def fetch(self, name: str) -> bool:
        """Bring a folder from the remote, if it is there and whole."""
        if not self.remote or not self.remote.has(name):
            return False
        asset, key = _asset_and_key(name)
        with self.scratch() as folder:
            self.remote.get(name, folder)
            if faults := find_faults(folder, load_manifest(folder, asset, key), deep=True):
                raise StoreError(f"{self.remote.url}/{name} is damaged: {'; '.join(faults)}; delete it there")
            self._move_in(folder, name)
        return True

    def _is_verified(self, path: Path) -> bool:
        return path.is_file() and _stamp(path) in self._verified


def set_aside(home: Path, name: str) -> Path:
    """Move a damaged folder out of the way, under damaged/, for people to look at."""
    target = home / "damaged" / f"{name}-{uuid.uuid4().hex[:8]}"
    make_folder(target.parent)
    with suppress(FileNotFoundError):  # another process was faster
        os.rename(home / name, target)
    return target


def _asset_and_key(name: str) -> tuple[str, str]:
    path, key = name.rsplit("/", 1)
    return path.removeprefix("objects/"), key


def _stamp(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns
