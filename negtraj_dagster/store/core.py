"""The store: what an asset publishes, what it reuses, and the row caches its stages share."""

import contextlib
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.store.faults import writing
from negtraj_dagster.store.files import file_lock
from negtraj_dagster.store.folders import Folders
from negtraj_dagster.store.manifest import (
    Built,
    load_manifest,
    object_key,
)
from negtraj_dagster.store.pointers import Pointers
from negtraj_dagster.store.remote import Remote
from negtraj_dagster.store.texts import Texts


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
        self._roots = [home, *([base] if base else [])]
        shared = Remote(remote, is_read_only=base is not None) if remote else None
        self._texts = Texts(self._roots, shared)
        self._folders = Folders(home, self._roots, shared)
        self._pointers = Pointers(self._texts)
        self.last_why: dict[str, tuple[str, ...]] = {}

    def build(self, asset: str, made_of: Mapping[str, Any], write: Callable[[Path], Built]) -> Published:
        """Make the asset's object unless it exists, and make it current.

        An object whose files are gone or cut is set aside with a warning and made again.

        Args:
            asset: which asset, `wordtraps_nat/checkpoint`; an object's key is a hash, below.
            made_of: everything the object depends on, by name; its digest is the object's key.
            write: fills an empty folder; called only when no complete object has this key.
        """
        key = object_key(made_of)
        name, work = f"objects/{asset}/{key}", {}
        why = self._why(asset, key, made_of)
        self.last_why[asset] = why
        with writing(self.home / name), self.in_use():
            reused = self._folders.is_reusable(name)
            if not reused:
                with self.lock(f"build/{asset}"):  # a second run of the same key waits, and then finds it made
                    reused = self._folders.is_reusable(name, drop=True)
                    work = {} if reused else self._folders.publish(name, asset, key, made_of, write)
            published = self._load(asset, key, reused=reused, work=work, why=() if reused else why)
            self._folders.share(name)
            with self.lock(f"current/{asset}"):
                self._pointers.point(asset, key, published.version)
        return published

    def publish_segment(self, table: str, key: str, write: Callable[[Path], Built]) -> Path:
        """Publish one append-only piece of a row cache; a complete one of this key is left as it is."""
        name = f"segments/{table}/{key}"
        with writing(self.home / name):
            if not self._folders.is_usable(name):
                self._folders.publish(name, f"segments/{table}", key, {}, write)
            self._folders.share(name)
        return self._folders.find(name)

    def segments(self, table: str, *, check: Iterable[str] = (), but: Container[str] = ()) -> list[Path]:
        """Folders of a table's complete segments, in a fixed order.

        A damaged one is set aside with a warning: its rows count as absent and are made again.

        Args:
            table: its name.
            check: files whose bytes are verified now; others are verified when `file` hands them out.
            but: keys of segments that are not asked for.
        """
        usable = (f"segments/{table}/{key}" for key in self._folders.keys(f"segments/{table}") if key not in but)
        return [self._folders.find(name) for name in usable if self._folders.is_usable(name, check=tuple(check))]

    def current(self, asset: str) -> Published | None:
        """The asset's present object, or None before its first materialization."""
        key = self._pointers.present(asset)
        if key is None:
            return None
        name = f"objects/{asset}/{key}"
        if not self._folders.find(name).is_dir() and not self._folders.fetch(name):
            raise StoreError(f"{asset}: its present object {key} is gone from {self.home}; materialize {asset} again")
        return self._load(asset, key, reused=True, work={}, why=())

    def assets(self) -> list[str]:
        """Assets that have a present object in this home, by their keys as paths, sorted."""
        folders = [root / "current" for root in self._roots]
        return sorted(
            {path.relative_to(folder).with_suffix("").as_posix() for folder in folders for path in folder.rglob("*.json")}
        )

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
        place = f"objects/{asset}"
        objects = (self.load(asset, key) for key in self._folders.keys(place) if self._folders.is_usable(f"{place}/{key}"))
        return next((published for published in objects if published.version == version), None)

    def require(self, asset: str) -> Published:
        """The asset's present object.

        Raises:
            StoreError: it was never materialized; says what to run.
        """
        published = self.current(asset)
        if published is None:
            raise StoreError(
                f"{asset} has not been materialized in {self._roots[-1]}; `negtraj run LINE|RECIPE` makes all that is "
                f"missing, `dagster asset materialize -m negtraj_dagster.definitions --select {asset}` this alone"
            )
        return published

    def history(self, asset: str) -> list[str]:
        """Keys of the asset's present and earlier objects, newest first; some of the earlier may be gone."""
        return self._pointers.history(asset)

    def has(self, refers: Mapping[str, str]) -> bool:
        """Whether everything an object refers to is there, unaltered as far as names and sizes tell."""
        return self._folders.has(refers)

    def refer(self, folders: Iterable[Path]) -> dict[str, str]:
        """Objects and segments by name with their manifests' hashes, for `Built.refers`: gc keeps what is referred to."""
        return self._folders.refer(folders)

    def folder(self, name: str) -> Path:
        """The folder of a `refers` name (`segments/tokens/…`).

        Raises:
            StoreError: it is not there or damaged.
        """
        return self._folders.folder(name)

    def name(self, folder: Path) -> str:
        """A folder's name within its home, `segments/<table>/<key>`: the same on every machine."""
        return self._folders.name(folder)

    def file(self, folder: Path, name: str) -> Path:
        """A file of an object, its bytes verified (once per process).

        Raises:
            StoreError: it is missing, has another size or other bytes; says how to repair.
        """
        return self._folders.file(folder, name)

    def verify(self, folder: Path) -> None:
        """Check every file of an object against its manifest.

        Raises:
            StoreError: a file is missing, has another size or other bytes, or is not in the manifest.
        """
        self._folders.verify(folder)

    def details(self, folder: Path) -> dict[str, Any]:
        """What the manifest of an object or segment says besides its content."""
        return dict(self._folders.manifest(folder)["details"])

    def content(self, folder: Path) -> dict[str, Any]:
        """What defines the version of an object or segment."""
        return dict(self._folders.manifest(folder)["content"])

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder of our own on the store's file system, gone afterwards."""
        return self._folders.scratch()

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

    def _load(self, asset: str, key: str, *, reused: bool, work: dict[str, int], why: tuple[str, ...]) -> Published:
        folder = self._folders.find(f"objects/{asset}/{key}")
        manifest = load_manifest(folder, asset, key)
        counts = dict.fromkeys(manifest["work"], 0) | work
        parts = (manifest["content"], manifest["details"], reused, counts, manifest["made_of"], manifest["refers"], why)
        return Published(asset, key, manifest["version"], folder, *parts)

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
