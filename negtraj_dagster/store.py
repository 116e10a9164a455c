"""Content-addressed store: objects that are complete or absent, and per asset a pointer to its current object.

Layout under NEGTRAJ_HOME:

    objects/<asset>/<key>/…            files, and MANIFEST.json written last inside a folder renamed into place
    segments/<table>/<key>/…           append-only pieces of row caches, published the same way
    current/<asset>.json               which object is the asset's present state

An object's `key` is computed from what it is made of, so work is skipped by asking whether the key exists. Its
`version` is computed from what it holds (`content`): two objects made differently with equal content have one version.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.schema import canonical_json, digest_json

MANIFEST = "MANIFEST.json"
STORE_VERSION = 1


@dataclass(frozen=True)
class Built:
    """What a stage made: `content` defines the version; `details` describes; `work` counts what was computed."""

    content: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """An asset's present object. `work` counts what this call computed: all zeros when the object was reused."""

    asset: str
    key: str
    version: str
    folder: Path
    content: dict[str, Any]
    details: dict[str, Any]
    reused: bool
    work: dict[str, int] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True where the stage had nothing to work on; `content["reason"]` says why."""
        return self.content.get("status") == "no_data"


class Store:
    """The store of one NEGTRAJ_HOME (a local folder)."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._verified: set[Path] = set()

    def build(self, asset: str, key: str, write: Callable[[Path], Built]) -> Published:
        """Make the asset's object unless it exists, and make it current.

        Args:
            asset: the asset's key as a path, `wordtraps_nat/checkpoint`.
            key: digest of everything the object is made of.
            write: fills an empty folder; called only when no complete object has this key.

        Raises:
            StoreError: the existing object is damaged.
        """
        target = self.home / "objects" / asset / key
        reused, work = (target / MANIFEST).is_file(), {}
        if not reused:
            with self.lock(f"build/{asset}"):  # a second run of the same key waits, and then finds it made
                reused = (target / MANIFEST).is_file()
                work = {} if reused else self._publish(target, {"asset": asset, "key": key}, write)
        published = self._read(asset, key, reused=reused, work=work)
        self._point(asset, published)
        return published

    def discard(self, asset: str, key: str) -> None:
        """Forget an object that can no longer be used, so that the next `build` makes it again."""
        shutil.rmtree(self.home / "objects" / asset / key, ignore_errors=True)

    def publish_segment(self, table: str, key: str, write: Callable[[Path], Built]) -> Path:
        """Publish one append-only piece of a row cache; a complete one of this key is left as it is."""
        target = self.home / "segments" / table / key
        if not (target / MANIFEST).is_file():
            self._publish(target, {"asset": f"segments/{table}", "key": key}, write)
        return target

    def has_segment(self, name: str) -> bool:
        """Whether a segment, named `table/key`, is there and complete."""
        return (self.home / "segments" / name / MANIFEST).is_file()

    def segments(self, table: str) -> list[Path]:
        """Folders of a table's complete segments, in a fixed order, verified."""
        root = self.home / "segments" / table
        folders = sorted(path for path in root.glob("*") if (path / MANIFEST).is_file()) if root.is_dir() else []
        for folder in folders:
            self.verify(folder)
        return folders

    def current(self, asset: str) -> Published | None:
        """The asset's present object, or None before its first materialization."""
        pointer = self.home / "current" / f"{asset}.json"
        if not pointer.is_file():
            return None
        key = json.loads(pointer.read_text())["key"]
        return self._read(asset, key, reused=True, work={})

    def require(self, asset: str) -> Published:
        """The asset's present object.

        Raises:
            StoreError: it was never materialized; says what to run.
        """
        published = self.current(asset)
        if published is None:
            raise StoreError(
                f"{asset} has not been materialized in {self.home}; run "
                f"`dagster asset materialize -m negtraj_dagster.definitions --select {asset}` first"
            )
        return published

    def verify(self, folder: Path) -> None:
        """Check every file of an object against its manifest, once per process.

        Raises:
            StoreError: a file is missing, has another size or other bytes, or is not in the manifest.
        """
        if folder in self._verified:
            return
        manifest = _load_manifest(folder)
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
        faults = [f"{name}: not in the manifest" for name in sorted(found - manifest["files"].keys())]
        for name, expected in sorted(manifest["files"].items()):
            path = folder / name
            if name not in found:
                faults.append(f"{name}: missing")
            elif path.stat().st_size != expected["size_bytes"]:
                faults.append(f"{name}: {path.stat().st_size} bytes, manifest says {expected['size_bytes']}")
            elif file_sha256(path) != expected["sha256"]:
                faults.append(f"{name}: bytes differ from the manifest's sha256")
        if faults:
            raise StoreError(f"{folder} is damaged: {'; '.join(faults)}. Delete the folder and materialize again")
        self._verified.add(folder)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """An OS file lock of this home: one holder per name, freed when the process ends however it ends."""
        with _locked(self.home / "locks" / f"{name}.lock"):
            yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of our own on the store's file system, gone afterwards.

        A lock is held on it for as long as it lives, so that what a kill -9 left behind can be told from a live one.
        """
        folder = self.home / "tmp" / uuid.uuid4().hex
        _clean_stale(folder.parent)
        lock = folder.with_suffix(".lock")
        with _locked(lock):
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)

    def _publish(self, target: Path, names: dict[str, str], write: Callable[[Path], Built]) -> dict[str, int]:
        with self.scratch() as folder:
            built = write(folder)
            manifest = {
                **names,
                "store_version": STORE_VERSION,
                "version": digest_json(built.content),
                "content": built.content,
                "details": built.details,
                "work": sorted(built.work),
                "files": _describe_files(folder),
            }
            write_text_durably(folder / MANIFEST, canonical_json(manifest))
            _sync_folder(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.rename(target)
            except OSError:
                if not (target / MANIFEST).is_file():  # not a concurrent publisher: a broken leftover
                    shutil.rmtree(target)
                    folder.rename(target)
            _sync_folder(target.parent)
        return built.work

    def _read(self, asset: str, key: str, *, reused: bool, work: dict[str, int]) -> Published:
        folder = self.home / "objects" / asset / key
        manifest = _load_manifest(folder)
        if (manifest["asset"], manifest["key"]) != (asset, key):
            raise StoreError(
                f"{folder}: holds {manifest['asset']} {manifest['key']}, expected {asset} {key}; "
                f"delete it and materialize again"
            )
        content, details = manifest["content"], manifest["details"]
        counts = dict.fromkeys(manifest["work"], 0) | work
        return Published(asset, key, manifest["version"], folder, content, details, reused, counts)

    def _point(self, asset: str, published: Published) -> None:
        pointer = self.home / "current" / f"{asset}.json"
        text = canonical_json({"asset": asset, "key": published.key, "version": published.version})
        if not pointer.is_file() or pointer.read_text() != text:
            replace_text(pointer, text)


def write_text_durably(path: Path, text: str) -> None:
    """Write a file and flush it to the disk."""
    with path.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def replace_text(path: Path, text: str) -> None:
    """Replace a file's text in one step: readers see the old text or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    write_text_durably(temporary, text)
    temporary.replace(path)
    _sync_folder(path.parent)


def read_json_lines(path: Path) -> list[Any]:
    """The values of a JSON-lines file we wrote. Lines end at newlines alone: texts may hold other line separators."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _load_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise StoreError(f"{folder}: no {MANIFEST}; materialize the asset again") from error
    except ValueError as error:
        raise StoreError(f"{folder / MANIFEST}: not JSON ({error}); delete the folder and materialize again") from error
    if manifest.get("store_version") != STORE_VERSION:
        raise StoreError(
            f"{folder / MANIFEST}: store version {manifest.get('store_version')!r}, this program reads {STORE_VERSION}"
        )
    if digest_json(manifest["content"]) != manifest["version"]:
        raise StoreError(f"{folder / MANIFEST}: version does not match its content; delete the folder and materialize again")
    return dict(manifest)


def _describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        files[path.relative_to(folder).as_posix()] = {"size_bytes": path.stat().st_size, "sha256": file_sha256(path)}
    return files


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def machine_lock(name: str) -> Iterator[None]:
    """An OS file lock of this user on this machine, whatever the home: one trainer at a time on its cores and GPUs."""
    with _locked(Path(tempfile.gettempdir()) / f"negtraj-{os.getuid()}-{name}.lock"):
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _clean_stale(root: Path) -> None:
    """Remove scratch folders that nobody holds any more (a kill -9 leaves them)."""
    for lock in root.glob("*.lock") if root.is_dir() else ():
        with suppress(OSError), lock.open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
