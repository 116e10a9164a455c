"""The store: what an asset publishes, what it reuses, and the row caches its stages share."""

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.schema import canonical_json
from negtraj_dagster.store.faults import writing
from negtraj_dagster.store.files import file_lock, file_sha256, make_folder, scratch_folder, sync_folder
from negtraj_dagster.store.manifest import (
    MANIFEST,
    REMEDY,
    Built,
    file_fault,
    find_faults,
    load_manifest,
    object_key,
    write_manifest,
)
from negtraj_dagster.store.remote import Remote
from negtraj_dagster.store.texts import Texts

LOG = logging.getLogger(__name__)
KEY = re.compile(r"[0-9a-f]{64}")
N_HISTORY = 50
"""Keys a pointer remembers, so that the last ones can be kept and gone back to."""


@dataclass(frozen=True)
class Published:
    """An asset's present object. `work` counts what this call computed: all zeros when the object was reused.

    `why` names what made the last state stale: inputs that changed, or why there was nothing to reuse.
    """

    asset: str
    key: str
    version: str
    folder: Path
    content: dict[str, Any]
    details: dict[str, Any]
    reused: bool
    work: dict[str, int] = field(default_factory=dict)
    made_of: dict[str, Any] = field(default_factory=dict)
    refers: dict[str, str] = field(default_factory=dict)
    why: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True where the stage had nothing to work on; `content["reason"]` says why."""
        return self.content.get("status") == "no_data"


class Store:
    """The store of one NEGTRAJ_HOME.

    Args:
        home: the local folder everything is written to.
        base: another home that is read and never written: what `home` lacks is looked up there (used by `negtraj plan`).
        remote: an fsspec URL that `home` is a working copy of.
    """

    def __init__(self, home: Path, *, base: Path | None = None, remote: str | None = None) -> None:
        self.home = home
        self._base = base
        self._remote = Remote(remote, is_read_only=base is not None) if remote else None
        self._texts = Texts(self._roots(), self._remote)
        self._shared: set[str] = set()
        self._verified: set[tuple[Path, int, int]] = set()
        self.last_why: dict[str, tuple[str, ...]] = {}
        self._manifests: dict[tuple[Path, int, int], dict[str, Any]] = {}

    def build(self, asset: str, made_of: Mapping[str, Any], write: Callable[[Path], Built]) -> Published:
        """Make the asset's object unless it exists, and make it current.

        An object whose files are gone or cut is set aside with a warning and made again.

        Args:
            asset: the asset's key as a path, `wordtraps_nat/checkpoint`.
            made_of: everything the object depends on, by name; its digest is the object's key.
            write: fills an empty folder; called only when no complete object has this key.
        """
        key = object_key(made_of)
        name, work = f"objects/{asset}/{key}", {}
        why = self._why(asset, key, made_of)
        self.last_why[asset] = why
        with writing(self.home / name), self.in_use():
            reused = self._is_reusable(name)
            if not reused:
                with self.lock(f"build/{asset}"):  # a second run of the same key waits, and then finds it made
                    reused = self._is_reusable(name, drop=True)
                    work = {} if reused else self._publish(name, asset, key, made_of, write)
            published = self._load(asset, key, reused=reused, work=work, why=() if reused else why)
            self._share(name)
            with self.lock(f"current/{asset}"):
                self._point(asset, published)
        return published

    def publish_segment(self, table: str, key: str, write: Callable[[Path], Built]) -> Path:
        """Publish one append-only piece of a row cache; a complete one of this key is left as it is."""
        name = f"segments/{table}/{key}"
        with writing(self.home / name):
            if not self._is_usable(name):
                self._publish(name, f"segments/{table}", key, {}, write)
            self._share(name)
        return self._find(name)

    def segments(self, table: str, *, check: Iterable[str] = ()) -> list[Path]:
        """Folders of a table's complete segments, in a fixed order.

        A damaged one is set aside with a warning: its rows count as absent and are made again.

        Args:
            table: its name.
            check: files whose bytes are verified now; others are verified when `file` hands them out.
        """
        names = {path.name for root in self._roots() for path in (root / "segments" / table).glob("[!.]*") if path.is_dir()}
        if self._remote:
            names |= set(self._remote.folders(f"segments/{table}"))
        usable = (f"segments/{table}/{key}" for key in sorted(names))
        return [self._find(name) for name in usable if self._is_usable(name, check=tuple(check))]

    def has(self, refers: Mapping[str, str]) -> bool:
        """Whether everything an object refers to is there, unaltered as far as names and sizes tell."""
        return all(
            self._is_usable(name) and file_sha256(self._find(name) / MANIFEST) == sha256 for name, sha256 in refers.items()
        )

    def refer(self, folders: Iterable[Path]) -> dict[str, str]:
        """Objects and segments by name with their manifests' hashes, for `Built.refers`: gc keeps what is referred to."""
        return {self.name(folder): file_sha256(folder / MANIFEST) for folder in folders}

    def folder(self, name: str) -> Path:
        """The folder of a `refers` name (`segments/tokens/…`).

        Raises:
            StoreError: it is not there or damaged.
        """
        if not self._is_usable(name):
            raise StoreError(f"{self.home / name}: missing or damaged; {REMEDY}")
        return self._find(name)

    def current(self, asset: str) -> Published | None:
        """The asset's present object, or None before its first materialization."""
        text = self.read_text(f"current/{asset}.json")
        if text is None:
            return None
        pointer = _parse_pointer(text, self.home / "current" / f"{asset}.json")
        if not self._find(f"objects/{asset}/{pointer['key']}").is_dir() and not self._fetch(
            f"objects/{asset}/{pointer['key']}"
        ):
            raise StoreError(
                f"{asset}: its present object {pointer['key']} is gone from {self.home}; materialize {asset} again"
            )
        return self._load(asset, pointer["key"], reused=True, work={}, why=())

    def history(self, asset: str) -> list[str]:
        """Keys of the asset's present and earlier objects, newest first; some of the earlier may be gone."""
        name = f"current/{asset}.json"
        text = self.read_text(name)
        return list(_parse_pointer(text, self.home / name)["history"]) if text else []

    def assets(self) -> list[str]:
        """Assets that have a present object in this home, by their keys as paths, sorted."""
        folders = [root / "current" for root in self._roots()]
        return sorted({path.relative_to(each).with_suffix("").as_posix() for each in folders for path in each.rglob("*.json")})

    def before(self, asset: str) -> Published | None:
        """The newest object that was present before the present one and is still there and whole."""
        for key in self.history(asset)[1:]:
            with contextlib.suppress(StoreError):
                return self.load(asset, key)
        return None

    def load(self, asset: str, key: str) -> Published:
        """One object of an asset by its key, whether it is the present one or not.

        Raises:
            StoreError: it is gone or damaged.
        """
        self.folder(f"objects/{asset}/{key}")
        return self._load(asset, key, reused=True, work={}, why=())

    def find(self, asset: str, version: str) -> Published | None:
        """An object of an asset that has this version, None where there is none."""
        keys = {path.name for root in self._roots() for path in (root / "objects" / asset).glob("[!.]*")}
        if self._remote:
            keys |= set(self._remote.folders(f"objects/{asset}"))
        found = (self.load(asset, key) for key in sorted(keys) if self._is_usable(f"objects/{asset}/{key}"))
        return next((each for each in found if each.version == version), None)

    def require(self, asset: str) -> Published:
        """The asset's present object.

        Raises:
            StoreError: it was never materialized; says what to run.
        """
        published = self.current(asset)
        if published is None:
            raise StoreError(
                f"{asset} has not been materialized in {self._roots()[-1]}; `negtraj run LINE|RECIPE` makes all that is "
                f"missing, `dagster asset materialize -m negtraj_dagster.definitions --select {asset}` this alone"
            )
        return published

    def file(self, folder: Path, name: str) -> Path:
        """A file of an object, its bytes verified (once per process).

        Raises:
            StoreError: it is missing, has another size or other bytes; says how to repair.
        """
        path, expected = folder / name, self._manifest(folder)["files"].get(name)
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
        if faults := find_faults(folder, self._manifest(folder), deep=False):
            raise StoreError(f"{folder} is damaged: {'; '.join(faults)}; {REMEDY}")
        for name in self._manifest(folder)["files"]:
            self.file(folder, name)

    def read_text(self, name: str) -> str | None:
        """A small mutable text, None where there is none. Pointers, registry, pins and arrivals are the shared store's."""
        return self._texts.read(name)

    def read_local_text(self, name: str) -> str | None:
        """This home's own copy of a text."""
        return self._texts.read_local(name)

    def place(self, name: str) -> Path:
        """Where a small file is, or would be: what messages name."""
        return self._texts.place(name)

    def write_text(self, name: str, text: str) -> None:
        """Replace a small text in one step, whatever it is now; left alone when it is this one."""
        self._texts.update(name, lambda _: text)

    def update_text(self, name: str, merge: Callable[[str | None], str]) -> str:
        """Replace a small text by what `merge` makes of the present one, again where another machine was faster."""
        return self._texts.update(name, merge)

    def lock(self, name: str) -> AbstractContextManager[None]:
        """An OS file lock of this home: one holder per name, freed when the process ends however it ends."""
        return file_lock(self.home / "locks" / f"{name}.lock", waiting_for=f"another run that builds {name}")

    def in_use(self) -> AbstractContextManager[None]:
        """Held by everything that builds, shared; collecting garbage needs it alone."""
        return file_lock(self.home / "locks" / "gc.lock", shared=True)

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder of our own on the store's file system, gone afterwards."""
        return scratch_folder(self.home / "tmp")

    def _publish(
        self, name: str, asset: str, key: str, made_of: Mapping[str, Any], write: Callable[[Path], Built]
    ) -> dict[str, int]:
        with self.scratch() as folder:
            built = write(folder)
            write_manifest(folder, asset, key, made_of, built)
            self._move_in(folder, name)
        return built.work

    def _share(self, name: str) -> None:
        """Put a folder to the remote with all that it refers to, whoever made it and whenever, before anything points to it."""
        if self._remote and name not in self._shared:
            for other in self._manifest(self._find(name))["refers"]:
                self._share(other)
            self._remote.put(self._find(name), name)
            self._shared.add(name)

    def _move_in(self, folder: Path, name: str) -> None:
        target = self.home / name
        make_folder(target.parent)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            if not self._is_usable(name):  # not a concurrent publisher's: a broken leftover, now set aside
                folder.rename(target)
        sync_folder(target.parent)

    def _fetch(self, name: str) -> bool:
        """Bring a folder from the remote, if it is there and whole."""
        if not self._remote or not self._remote.has(name):
            return False
        asset, key = _asset_and_key(name)
        with self.scratch() as folder:
            self._remote.get(name, folder)
            if faults := find_faults(folder, load_manifest(folder, asset, key), deep=True):
                raise StoreError(f"{self._remote.url}/{name} is damaged: {'; '.join(faults)}; delete it there")
            self._move_in(folder, name)
        return True

    def _is_usable(self, name: str, check: tuple[str, ...] = ()) -> bool:
        """Whether a folder is there and whole; a damaged one of this home is set aside, so that it can be made again."""
        folder = self._find(name)
        if not folder.is_dir() and not self._fetch(name):
            return False
        try:
            faults = find_faults(folder, self._manifest(folder), deep=False)
            for each in check:
                self.file(folder, each)
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

    def _is_reusable(self, name: str, *, drop: bool = False) -> bool:
        """Whether an object is whole and so is all it refers to; one that is not can be dropped, to be made again."""
        if not self._is_usable(name):
            return False
        if self.has(self._manifest(self._find(name))["refers"]):
            return True
        if drop:
            LOG.warning("%s refers to segments that are missing or damaged: it is made again", self._find(name))
            shutil.rmtree(self.home / name, ignore_errors=True)
        return False

    def _load(self, asset: str, key: str, *, reused: bool, work: dict[str, int], why: tuple[str, ...]) -> Published:
        folder = self._find(f"objects/{asset}/{key}")
        made = load_manifest(folder, asset, key)
        counts = dict.fromkeys(made["work"], 0) | work
        parts = (made["content"], made["details"], reused, counts, made["made_of"], made["refers"], why)
        return Published(asset, key, made["version"], folder, *parts)

    def _why(self, asset: str, key: str, made_of: Mapping[str, Any]) -> tuple[str, ...]:
        try:
            previous = self.current(asset)
        except StoreError as error:
            return (f"the present object cannot be read: {error}",)
        if previous is None:
            return ("never materialized here",)
        if previous.key == key:
            return ("its object or what it refers to is missing or damaged",)
        names = sorted(previous.made_of.keys() | made_of.keys())
        return tuple(name for name in names if previous.made_of.get(name) != made_of.get(name))

    def _point(self, asset: str, published: Published) -> None:
        name = f"current/{asset}.json"

        def point(text: str | None) -> str:
            try:
                history = _parse_pointer(text, self.home / name)["history"] if text else []
            except StoreError:
                history = []
            kept = [published.key, *(key for key in history if key != published.key)][:N_HISTORY]
            return canonical_json({"asset": asset, "key": published.key, "version": published.version, "history": kept})

        self.update_text(name, point)

    def _roots(self) -> list[Path]:
        return [self.home, *([self._base] if self._base else [])]

    def _find(self, name: str) -> Path:
        return next((root / name for root in self._roots() if (root / name).is_dir()), self.home / name)

    def name(self, folder: Path) -> str:
        """A folder's name within its home, `segments/<table>/<key>`: the same on every machine."""
        root = next(root for root in self._roots() if folder.is_relative_to(root))
        return folder.relative_to(root).as_posix()

    def details(self, folder: Path) -> dict[str, Any]:
        """What the manifest of an object or segment says besides its content."""
        return dict(self._manifest(folder)["details"])

    def content(self, folder: Path) -> dict[str, Any]:
        """What defines the version of an object or segment."""
        return dict(self._manifest(folder)["content"])

    def _manifest(self, folder: Path) -> dict[str, Any]:
        path = folder / MANIFEST
        stamp = _stamp(path) if path.is_file() else (path, 0, 0)
        if stamp not in self._manifests:
            self._manifests[stamp] = load_manifest(folder, *_asset_and_key(self.name(folder)))
        return self._manifests[stamp]

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


def _parse_pointer(text: str, place: Path) -> dict[str, Any]:
    try:
        pointer = json.loads(text)
        keys = [str(key) for key in (pointer["key"], *pointer.get("history", ()))]
        if not all(KEY.fullmatch(key) for key in keys):
            raise ValueError(f"a key is no sha256: {keys[0]!r}")
        return {"key": keys[0], "history": keys[1:]}
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{place}: not a pointer ({error}); delete it and materialize the asset again") from error
