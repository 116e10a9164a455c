"""Looks after a home: `verify` hashes everything again, `gc` drops what no kept object needs, `show` looks into shards."""

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negtraj_dagster.checkpoints.states import STATES
from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.recipes import load_recipes
from negtraj_dagster.rollouts.file_hashes import FILE_HASHES, FileHashes
from negtraj_dagster.settings import Settings, did_you_mean
from negtraj_dagster.shards.show import Shards
from negtraj_dagster.store import MANIFEST, Store, file_lock, file_sha256, find_faults, load_manifest, set_aside

LOG = logging.getLogger(__name__)

KEEP_LAST = 3
KEY = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Fault:
    """Something in a home that is not as it should be; `name` is its path there, `remedy` what puts it right."""

    name: str
    what: str
    remedy: str


@dataclass
class Verified:
    """What was looked at, and what was found."""

    n_folders: int = 0
    n_bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)


def verify_home(home: Path, *, repair: bool = False) -> Verified:
    """Hash every file of every object and segment again, and follow every pointer and reference.

    Args:
        home: NEGTRAJ_HOME.
        repair: set damaged folders aside under damaged/, and drop pointers that lead nowhere; the next materialization
            makes again what is missing.
    """
    if not repair:
        return _verify(home, repair=False)
    with _alone(home, "repair it"):
        return _verify(home, repair=True)


@contextmanager
def _alone(home: Path, purpose: str) -> Iterator[None]:
    """No run is at work in the home while this is held."""
    try:
        with file_lock(home / "locks" / "gc.lock", wait=False):
            yield
    except BlockingIOError as error:
        raise StoreError(f"{home}: a run is at work; {purpose} when it has ended") from error


def _verify(home: Path, *, repair: bool) -> Verified:
    verified = Verified()
    damaged: set[str] = set()
    for name in _folders(home):
        verified.n_folders += 1
        if fault := _folder_fault(home, name, verified):
            damaged.add(name)
            verified.faults.append(Fault(name, fault, "set aside, and made again by the next materialization"))
    # what refers to something damaged is as good as damaged, and so on upwards
    while broken := list(_broken_references(home, damaged)):
        damaged |= {name for name, _ in broken}
        verified.faults += [Fault(name, fault, "dropped, and made again by the next materialization") for name, fault in broken]
    pointers = list(_broken_pointers(home, damaged))
    verified.faults += [Fault(name, fault, "dropped; materialize the asset again") for name, fault in pointers]
    stale = FileHashes(Store(home)).stale()
    verified.faults += [
        Fault(FILE_HASHES, f"remembers another hash of {path}", "dropped, the file is read again") for path in stale
    ]
    if repair:
        if stale:
            (home / FILE_HASHES).unlink()
        for name in sorted(damaged):
            set_aside(home, name)
        for name, _ in pointers:
            (home / name).unlink(missing_ok=True)
        verified.repaired = [*sorted(damaged), *(name for name, _ in pointers), *([FILE_HASHES] if stale else [])]
    return verified


def _folders(home: Path) -> Iterator[str]:
    """Names of all objects and segments: folders named by a key, whatever they hold."""
    for root in ("objects", "segments"):
        for path in sorted((home / root).rglob("*")) if (home / root).is_dir() else ():
            if path.is_dir() and KEY.fullmatch(path.name):
                yield path.relative_to(home).as_posix()


def _folder_fault(home: Path, name: str, found: Verified) -> str:
    path, key = name.rsplit("/", 1)
    try:
        manifest = load_manifest(home / name, path.removeprefix("objects/"), key)
    except StoreError as error:
        return str(error)
    found.n_bytes += sum(entry["size_bytes"] for entry in manifest["files"].values())
    return "; ".join(find_faults(home / name, manifest, deep=True))


def _broken_references(home: Path, damaged: set[str]) -> Iterator[tuple[str, str]]:
    for name in _folders(home):
        if name in damaged or not name.startswith("objects/"):
            continue
        for other, sha256 in _manifest(home, name)["refers"].items():
            if other in damaged or not (home / other / MANIFEST).is_file():
                yield name, f"refers to {other}, which is missing or damaged"
                break
            if file_sha256(home / other / MANIFEST) != sha256:
                yield name, f"refers to {other}, whose manifest is not the one it was made with"
                break


def _broken_pointers(home: Path, damaged: set[str]) -> Iterator[tuple[str, str]]:
    for path in sorted((home / "current").rglob("*.json")):
        name, asset = path.relative_to(home).as_posix(), path.relative_to(home / "current").with_suffix("").as_posix()
        try:
            pointer = json.loads(path.read_text(encoding="utf-8"))
            target, version = f"objects/{pointer['asset']}/{pointer['key']}", pointer["version"]
        except (ValueError, KeyError, TypeError) as error:
            yield name, f"not a pointer ({error})"
            continue
        if pointer["asset"] != asset:
            yield name, f"points to an object of {pointer['asset']}, expected {asset}"
        elif target in damaged or not (home / target / MANIFEST).is_file():
            yield name, f"points to {target}, which is missing or damaged"
        elif _manifest(home, target)["version"] != version:
            yield name, f"says version {version[:12]}, the object has {_manifest(home, target)['version'][:12]}"


def _manifest(home: Path, name: str) -> dict[str, Any]:
    return _read_json(home / name / MANIFEST)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path}: cannot be read as a JSON object ({error}); run `negtraj verify --repair`") from error


@dataclass(frozen=True)
class Garbage:
    """What `gc` drops, by name with its size, and how much it keeps."""

    dropped: dict[str, int]
    n_kept: int

    @property
    def n_bytes(self) -> int:
        """Size of all that is dropped."""
        return sum(self.dropped.values())


def collect_garbage(home: Path, *, keep_last: int = KEEP_LAST, delete: bool = False) -> Garbage:
    """Drop objects that are neither present nor remembered, and segments that no kept object needs.

    Dropped, too: states of trainings that were given up for another one of the same asset.

    Kept: per asset the present object and the `keep_last - 1` before it; whatever a line's champion, its previous champion
    and its `anchor.json` name; and all that these refer to. A warm start's parent is not needed once the child is trained.

    Args:
        home: NEGTRAJ_HOME.
        keep_last: states of each asset that can be gone back to, the present one included.
        delete: without it nothing is changed.

    Raises:
        StoreError: a run is at work in this home, or a manifest cannot be read.
    """
    with _alone(home, "collect garbage"):
        names = list(_folders(home))
        reachable = _reachable(home, _roots(home, names, keep_last))
        dropped = {name: _size(home / name) for name in (*names, *_given_up(home)) if name not in reachable}
        if delete:
            for name in dropped:
                _drop(home / name)
            for leftover in (path for root in ("objects", "segments", STATES) for path in (home / root).rglob(".*.dropped")):
                shutil.rmtree(leftover, ignore_errors=True)  # by one that was killed
        return Garbage(dropped, len(reachable.intersection(names)))


def _roots(home: Path, names: Iterable[str], keep_last: int) -> set[str]:
    root_names = set()
    for path in sorted((home / "current").rglob("*.json")):
        pointer = _read_json(path)
        root_names |= {f"objects/{pointer['asset']}/{key}" for key in pointer["history"][: max(keep_last, 1)]}
    registered = _registered_checkpoints(home)
    for name in names:
        asset = name.removeprefix("objects/").rsplit("/", 1)[0]
        if asset.endswith("/checkpoint") and _manifest(home, name)["version"] in registered:
            root_names.add(name)
    return root_names


def _registered_checkpoints(home: Path) -> set[str]:
    """Versions of the checkpoints that the registry names: champions, their predecessors, anchors."""
    versions: set[str | None] = set()
    for path in sorted((home / "registry").glob("*/*.json")):
        versions.add(_read_json(path).get("checkpoint"))
    for path in sorted((home / "registry").glob("*/promotions.jsonl")):
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
        last = json.loads(lines[-1]) if lines else {}
        versions |= {(last.get(name) or {}).get("checkpoint") for name in ("champion", "previous")}
    return {version for version in versions if version}


def _given_up(home: Path) -> Iterator[str]:
    """States of trainings that an asset has begun another one after: with other rows or settings, which nobody goes on with."""
    folders: dict[Path, list[Path]] = {}
    for path in (home / STATES).rglob("*"):
        if path.is_dir() and KEY.fullmatch(path.name):
            folders.setdefault(path.parent, []).append(path)
    for keys in folders.values():
        newest_first = sorted(keys, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        yield from (path.relative_to(home).as_posix() for path in newest_first[1:])


def _reachable(home: Path, roots: set[str]) -> set[str]:
    reached: set[str] = set()
    waiting = sorted(roots)
    while waiting:
        name = waiting.pop()
        if name in reached or not (home / name / MANIFEST).is_file():
            continue
        reached.add(name)
        manifest = _manifest(home, name)
        waiting += [*manifest["refers"], *manifest["caches"]]
    return reached


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _drop(folder: Path) -> None:
    """Rename first: a reader finds the whole folder or none, whenever this is killed."""
    doomed = folder.with_name(f".{folder.name}.dropped")
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def existing_home(home: Path) -> Path:
    """A home that is there.

    Raises:
        StoreError: it is not.
    """
    if not home.is_dir():
        raise StoreError(f"{home}: no such home; set NEGTRAJ_HOME to one, or run `negtraj run LINE` to make one")
    return home


@contextmanager
def reading_store(settings: Settings) -> Iterator[Store]:
    """A store over the home that writes nothing into it.

    Raises:
        StoreError: there is no home.
    """
    home = existing_home(settings.home)
    with tempfile.TemporaryDirectory(prefix="negtraj-read-") as folder:
        yield Store(Path(folder), base=home, remote=settings.store_url)


@contextmanager
def present_lineage(settings: Settings) -> Iterator[Lineage]:
    """Everything as it is now, over a store that writes nothing into the home.

    Raises:
        StoreError: there is no such home.
    """
    with reading_store(settings) as store:
        yield Lineage(store, settings, _run_nothing)


@contextmanager
def present_shards(settings: Settings, recipe: str | None = None) -> Iterator[list[Shards]]:
    """The present shards of all recipes, or of one, over a store that writes nothing into the home.

    Raises:
        SettingsError: there is no such recipe.
        StoreError: nothing of the kind was materialized, or it cannot be read back; says what to run.
    """
    home = existing_home(settings.home)
    recipes = load_recipes(settings)
    if recipe is not None and recipe not in recipes:
        raise SettingsError(f"no recipe {recipe!r}{did_you_mean(recipe, recipes)}")
    names = list(recipes) if recipe is None else [recipe]
    with present_lineage(settings) as lineage:
        opened = [_open_shards(lineage, name, is_named=recipe is not None) for name in names]
        if not any(opened):
            raise StoreError(
                f"{home}: {recipe or 'no recipe'} has {'no ' if recipe else ''}tokenized shards with rows; run `dagster asset "
                f"materialize -m negtraj_dagster.definitions --select '*{names[0]}/tokenized_shards'` first"
            )
        yield [shards for shards in opened if shards]


def _open_shards(lineage: Lineage, recipe: str, *, is_named: bool) -> Shards | None:
    """Shards that cannot be read are an error where they were asked for, else a warning."""
    try:
        return lineage.shards_to_show(lineage.recipes[recipe])
    except StoreError as error:
        if is_named:
            raise
        LOG.warning("%s", error)
        return None


def _run_nothing(module: str, config: Path, ranks: int, threads: int) -> None:
    raise AssertionError(f"{module} was to be run while only reading")
