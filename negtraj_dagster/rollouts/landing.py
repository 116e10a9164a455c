"""Finds landed files by content, in order of arrival. Which file is new is told by its bytes, never by its name or date.

Hashing every file every night would read everything, so a file whose size, inode and change time are those of an earlier
run keeps the hash it had then. `negtraj verify` hashes all of them again.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.rollouts.formats import FORMAT_VERSIONS, FORMATS
from negtraj_dagster.schema import canonical_json, digest
from negtraj_dagster.settings import Settings, did_you_mean
from negtraj_dagster.store import Store, file_sha256
from negtraj_dagster.tasks import TASKS

LOG = logging.getLogger(__name__)

READER_VERSION = 1
SUFFIXES = (".json", ".jsonl")
ARRIVALS = "arrivals.jsonl"
FILE_HASHES = "cache/file_hashes.json"
SETTLED_NS = 2_000_000_000
"""A file changed more recently than this when it was hashed may change again within one tick of its clock."""
NAT_PATTERNS = ("*_positive.json", "*_negative.json")


@dataclass(frozen=True)
class LandedFile:
    """A file to read, by content. `name` is its path inside its source folder."""

    task: str
    format: str
    path: Path
    name: str
    sha256: str
    size_bytes: int

    @property
    def table(self) -> str:
        """Where records of this kind are kept once read."""
        return f"rollouts/{self.task}-{self.format}-{READER_VERSION}.{FORMAT_VERSIONS[self.format]}"

    @property
    def piece_key(self) -> str:
        """Identity of what reading this file gives: its bytes, its task, and the reader's and format's versions."""
        return digest("rollouts", self.table, self.sha256)

    @property
    def place(self) -> str:
        """Where it stands, the same on every machine: task, format and name."""
        return f"{self.task}/{self.format}/{self.name}"


def find_landed_files(store: Store, settings: Settings) -> tuple[list[LandedFile], list[dict[str, str]]]:
    """All files to read, in a fixed order, and those passed over with the reason.

    Raises:
        SettingsError: a landing folder whose task or format is unknown, or a source without a file.
    """
    files: list[LandedFile] = []
    ignored: list[dict[str, str]] = []
    hashes = FileHashes(store)
    for task, format_name, root, pattern in _folders(settings):
        for path in sorted(path for path in root.glob(pattern) if path.is_file()):
            name = path.relative_to(root).as_posix()
            if reason := _why_ignored(path.relative_to(root)):
                ignored.append({"path": ascii(f"{task}/{format_name}/{name}")[1:-1], "reason": reason})
                continue
            files.append(LandedFile(task, format_name, path, name, hashes.sha256(path), path.stat().st_size))
    hashes.save()
    return sorted(files, key=lambda file: file.place), ignored


def _why_ignored(path: Path) -> str:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    is_visible = path.suffix in SUFFIXES and not any(part.startswith(".") for part in path.parts)
    return "" if is_visible else f"not a visible {' or '.join(SUFFIXES)} file"


def _folders(settings: Settings) -> Iterator[tuple[str, str, Path, str]]:
    for landing in settings.landings:
        for folder in sorted(landing.glob("*/*")):
            if folder.is_dir() and not folder.name.startswith("."):
                yield (*_known(folder.parent.name, folder.name, str(folder)), folder, "**/*")
        loose = (*landing.glob("[!.]*"), *landing.glob("*/[!.]*"))
        if stray := sorted(path for path in loose if path.is_file()):
            raise SettingsError(f"{stray[0]}: files belong in {landing}/<task>/<format>/; move it there")
    if settings.nat_dir is not None:
        folder = settings.nat_dir / "strategyqa"
        if not any(any(folder.glob(pattern)) for pattern in NAT_PATTERNS):
            raise SettingsError(
                f"NEGTRAJ_NAT_DIR = {settings.nat_dir}: no file {' or '.join(NAT_PATTERNS)} in {folder}; point it at NAT's "
                f"data folder with its trajectories, or unset it"
            )
        for pattern in NAT_PATTERNS:
            yield "strategyqa", "nat", folder, pattern
    for name, source in sorted(settings.sources.items()):
        if not source.path.is_dir():
            raise SettingsError(f"[sources.{name}] path = {source.path}: no such folder")
        yield (*_known(source.task, source.format, f"[sources.{name}]"), source.path, source.pattern)


def _known(task: str, format_name: str, place: str) -> tuple[str, str]:
    if task not in TASKS:
        raise SettingsError(f"{place}: unknown task {task!r}{did_you_mean(task, TASKS)}")
    if format_name not in FORMATS:
        raise SettingsError(f"{place}: unknown rollout format {format_name!r}{did_you_mean(format_name, FORMATS)}")
    return task, format_name


class FileHashes:
    """sha256 of files, remembered while size, inode and change time stay what they were."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = store.home / FILE_HASHES
        self._known: dict[str, Any] = _read_object(store.read_text(FILE_HASHES))
        self._seen: dict[str, Any] = {}

    def sha256(self, path: Path) -> str:
        """The file's hash, read from the file only where it may have changed."""
        status = path.stat()
        stamp = _stamp(path)
        entry = self._known.get(str(path))
        if not (isinstance(entry, dict) and entry.get("stamp") == stamp):
            now_ns = time.time_ns()  # noqa: TID251 - only decides whether a hash may be remembered, never what it is
            is_settled = now_ns - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS
            entry = {"stamp": stamp if is_settled else None, "sha256": file_sha256(path)}
        self._seen[str(path)] = entry
        return str(entry["sha256"])

    def stale(self) -> list[str]:
        """Paths whose remembered hash is not that of their bytes, though nothing about them says that they changed."""
        return [
            path
            for path, entry in sorted(self._known.items())
            if Path(path).is_file() and entry["stamp"] == _stamp(Path(path)) and entry["sha256"] != file_sha256(Path(path))
        ]

    def save(self) -> None:
        """Keep what was seen for the next run; a cache that cannot be kept costs time only."""
        if self._seen != self._known:
            self._store.write_text(FILE_HASHES, canonical_json(self._seen))


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _read_arrivals(store: Store) -> list[dict[str, str]]:
    lines = [line for line in (store.read_text(ARRIVALS) or "").split("\n") if line]
    try:
        return [{name: str(json.loads(line)[name]) for name in ("file", "piece")} for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{store.place(ARRIVALS)}: a line is not an arrival ({error}); put the file back from a copy, or delete it: files "
            f"are then ordered by name, which may choose other rows where a recipe limits them"
        ) from error


def _read_object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    entries = value.items() if isinstance(value, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict) and entry.keys() == {"stamp", "sha256"}}


def in_order_of_arrival(store: Store, files: Sequence[LandedFile]) -> list[LandedFile]:
    """Files in the order they were first seen, which is kept in `arrivals.jsonl`; new ones follow by name.

    Limits and duplicates go by this order, so what lands later never pushes out what was chosen before. An edited or
    renamed file keeps its place, and a file that went away and comes back has it again. The list is an input like the
    files themselves: with it, a build from nothing gives what the nightly builds gave.
    """
    with store.lock("arrivals"):
        return _in_order(store, files)


def _in_order(store: Store, files: Sequence[LandedFile]) -> list[LandedFile]:
    arrivals = _read_arrivals(store)
    place_of: dict[LandedFile, int] = {}
    # an unchanged file claims its place first, then a renamed one, then an edited one: no two files share a place
    claims: tuple[Callable[[LandedFile], tuple[str, ...]], ...] = (
        lambda file: (file.place, file.piece_key),
        lambda file: (file.piece_key,),
        lambda file: (file.place,),
    )
    entries = (("file", "piece"), ("piece",), ("file",))
    for claim, names in zip(claims, entries, strict=True):
        taken = set(place_of.values())
        free = {
            tuple(entry[name] for name in names): place
            for place, entry in reversed(list(enumerate(arrivals)))
            if place not in taken
        }
        for file in files:
            if file not in place_of and (place := free.pop(claim(file), None)) is not None:
                place_of[file] = place
    for file in files:
        entry = {"file": file.place, "piece": file.piece_key}
        if file in place_of:
            arrivals[place_of[file]] = entry
        else:
            place_of[file] = len(arrivals)
            arrivals.append(entry)
    store.write_text(ARRIVALS, "".join(f"{canonical_json(entry)}\n" for entry in arrivals))
    return sorted(files, key=place_of.__getitem__)
