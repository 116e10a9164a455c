"""Finds landed files by content, in order of arrival. Which file is new is told by its bytes, never by its name or date.

Hashing every file every night would read everything, so a file whose size, inode and change time are those of an earlier
run keeps the hash it had then. `negtraj verify` hashes all of them again.
"""

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.rollouts.detect import AUTO, Detected
from negtraj_dagster.rollouts.file_hashes import FileHashes
from negtraj_dagster.rollouts.formats import FORMAT_VERSIONS, FORMATS
from negtraj_dagster.rollouts.mapping import ColumnMap, parse_outcome
from negtraj_dagster.rollouts.redact import REDACTION_VERSION
from negtraj_dagster.rollouts.remote_files import RemoteFile, walk_url
from negtraj_dagster.rollouts.walk import EVERY_FILE, HIDDEN, Passed, list_folder, matches, walk_folder, why_unlisted
from negtraj_dagster.schema import canonical_json, digest
from negtraj_dagster.settings import RolloutSource, Settings, did_you_mean
from negtraj_dagster.store import Store
from negtraj_dagster.tasks import Task, load_tasks

READER_VERSION = 2
RECORDED_VERSION = 1
"""Rises when a recorded prompt gets another id."""
ARRIVALS = "arrivals.jsonl"
NAT_PATTERNS = ("*_positive.json", "*_negative.json")


@dataclass(frozen=True)
class LandedFile:
    """A file to read, by content. `name` is its path inside its source folder; `remotes` are to be fetched to be read.
    `confidence` is that of the format where it was not named. Only name and content are hashed: they tell files apart."""

    task: str = field(hash=False)
    format: str = field(hash=False)
    path: Path = field(hash=False)
    name: str
    sha256: str
    size_bytes: int = field(hash=False)
    has_recorded_questions: bool = field(default=False, hash=False)
    mapping: ColumnMap | None = field(default=None, hash=False)
    sidecar: Path | None = field(default=None, hash=False)
    sidecar_sha256: str = field(default="", hash=False)
    is_redacted: bool = field(default=True, hash=False)
    remotes: tuple[RemoteFile, ...] = field(default=(), hash=False)
    confidence: float | None = field(default=None, hash=False)

    @cached_property
    def table(self) -> str:
        """Where records of this kind are kept once read."""
        kind = f"-recorded-{RECORDED_VERSION}" if self.has_recorded_questions else ""
        kind += f"-mapped-{self.mapping.identity}" if self.mapping else ""
        kind += f"-redacted-{REDACTION_VERSION}" if self.is_redacted else "-plain"
        return f"rollouts/{self.task}-{self.format}{kind}-{READER_VERSION}.{FORMAT_VERSIONS[self.format]}"

    @cached_property
    def piece_key(self) -> str:
        """Identity of what reading this file gives: its bytes, its task, and the reader's and format's versions."""
        return digest("rollouts", self.table, self.sha256, *([self.sidecar_sha256] if self.sidecar else []))

    @property
    def place(self) -> str:
        """Where it stands, the same on every machine: task, format and name."""
        return f"{self.task}/{self.format}/{self.name}"


@dataclass
class Landed:
    """Files to read, in a fixed order, and what is passed over."""

    files: list[LandedFile] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)

    @property
    def ignored(self) -> list[dict[str, str]]:
        """What holds no rollouts by its name."""
        return [entry.entry for entry in self.passed if not entry.is_fault]

    @property
    def unread(self) -> list[dict[str, str]]:
        """What may hold rollouts and cannot be read: the check `landing_is_read` fails for it."""
        return [entry.entry for entry in self.passed if entry.is_fault]


@dataclass(frozen=True)
class _Root:
    """A folder of one task's files in one format."""

    task: str
    format: str
    folder: Path
    """Or the home, where there is a `url`."""
    pattern: str = EVERY_FILE
    has_recorded_questions: bool = False
    mapping: ColumnMap | None = None
    url: str | None = None


def find_landed_files(store: Store, settings: Settings) -> Landed:
    """All files to read, and all that is passed over. What cannot be read is listed and stops nothing.

    Raises:
        SettingsError: the settings name a folder, a task or a format that is not there.
    """
    landed, tasks = Landed(), load_tasks(settings)
    hashes = FileHashes(store)
    for landing in settings.landings:
        for root in _landing_roots(landing, tasks, landed):
            _take_files(root, landed, hashes)
    if settings.nat_dir is not None:
        _take_nat_files(settings.nat_dir, landed, hashes)
    for name, source in sorted(settings.sources.items()):
        _check_source(name, source, tasks)
        is_recorded = tasks[source.task].has_recorded_questions
        mapping = ColumnMap(tuple(sorted(source.columns.items())), source.outcome)
        used_mapping = mapping if mapping != ColumnMap() else None
        folder = source.path or store.home
        root = _Root(source.task, source.format, folder, source.pattern, is_recorded, used_mapping, source.url)
        _take_files(root, landed, hashes)
    hashes.save()
    files = landed.files if settings.redaction.enabled else [replace(file, is_redacted=False) for file in landed.files]
    return Landed(sorted(files, key=lambda file: file.place), list(dict.fromkeys(landed.passed)))


def _take_files(root: _Root, landed: Landed, hashes: FileHashes) -> int:
    """Add a folder's files; returns how many fit its pattern."""
    remote_of: dict[Path, RemoteFile] = {}
    if root.url is None:
        walk = walk_folder(root.folder, root.pattern)
    else:
        walk, remote_of = walk_url(root.url, root.folder, root.pattern)
    place, n_matching = f"{root.task}/{root.format}", 0
    landed.passed += [entry.under(place) for entry in walk.passed]
    sidecars = _sidecars(_sidecar_ending(root.format), dict(walk.files))
    for name, path in walk.files:
        if not matches(name, root.pattern) or path in sidecars.values():
            continue
        n_matching += 1
        try:
            file = _landed_file(root, name, path, sidecars.get(path), remote_of, hashes)
        except OSError as error:
            file = Passed(f"{place}/{name}", why_unlisted(error), is_fault=True)
        if isinstance(file, Passed):
            landed.passed.append(file)
        else:
            landed.files.append(file)
    return n_matching


def _landed_file(
    root: _Root, name: str, path: Path, sidecar: Path | None, remote_of: Mapping[Path, RemoteFile], hashes: FileHashes
) -> LandedFile | Passed:
    """The file by its content, or why it is passed over.

    Raises:
        OSError: it cannot be read.
    """
    remote = remote_of.get(path)
    sha256, n_bytes = hashes.of(path, remote)
    detected = hashes.format_of(sha256, path, root.mapping, remote) if root.format == AUTO else Detected(root.format, 1.0)
    if not detected.format:
        return Passed(f"{root.task}/{root.format}/{name}", detected.reason, is_fault=True)
    used_sidecar = sidecar if FORMATS[detected.format].sidecar else None
    return LandedFile(
        root.task,
        detected.format,
        path,
        name,
        sha256,
        n_bytes,
        root.has_recorded_questions,
        root.mapping,
        used_sidecar,
        hashes.of(used_sidecar, remote_of.get(used_sidecar))[0] if used_sidecar else "",
        remotes=tuple(remote_of[local] for local in (path, used_sidecar) if local is not None and local in remote_of),
        confidence=detected.confidence if root.format == AUTO else None,
    )


def _sidecar_ending(format_name: str) -> str | None:
    formats = FORMATS.values() if format_name == AUTO else [FORMATS[format_name]]
    return next((format_.sidecar for format_ in formats if format_.sidecar), None)


def _sidecars(ending: str | None, files: Mapping[str, Path]) -> dict[Path, Path]:
    """By file: the one beside it that begins like it and ends so, `a.report.json` of `a.traj`."""
    if ending is None:
        return {}
    stems = {name.removesuffix(ending): path for name, path in files.items() if name.endswith(ending)}
    return {
        path: stems[stem]
        for name, path in files.items()
        if not name.endswith(ending) and (stem := str(Path(name).with_suffix(""))) in stems
    }


def _landing_roots(landing: Path, tasks: Mapping[str, Task], landed: Landed) -> Iterator[_Root]:
    """The folders <task>/<format> of a landing folder; what else lies there is listed with the remedy."""
    for task, folder in _folders_in(landing, "", tasks, "task", landed):
        for format_name, inner in _folders_in(folder, f"{task}/", (*FORMATS, AUTO), "rollout format", landed):
            yield _Root(task, format_name, inner, has_recorded_questions=tasks[task].has_recorded_questions)


def _folders_in(folder: Path, place: str, words: Collection[str], kind: str, landed: Landed) -> Iterator[tuple[str, Path]]:
    try:
        entries = list_folder(folder)
    except OSError as error:
        if not isinstance(error, FileNotFoundError) or folder.is_symlink():
            landed.passed.append(Passed(place.rstrip("/") or ".", why_unlisted(error), is_fault=True))
        return
    for entry in entries:
        if entry.name.startswith("."):
            landed.passed.append(Passed(f"{place}{entry.name}", HIDDEN, is_fault=False))
            continue
        if not _is_folder(entry):
            reason = "files belong in landing/<task>/<format>/; move it there"
        elif entry.name in words:
            yield entry.name, folder / entry.name
            continue
        else:
            reason = f"unknown {kind}{did_you_mean(entry.name, words)}; rename the folder, nothing in it is read"
        landed.passed.append(Passed(f"{place}{entry.name}", reason, is_fault=True))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _take_nat_files(nat_dir: Path, landed: Landed, hashes: FileHashes) -> None:
    folder, n_faults = nat_dir / "strategyqa", len(landed.unread)
    n_matching = sum(_take_files(_Root("strategyqa", "nat", folder, pattern), landed, hashes) for pattern in NAT_PATTERNS)
    if not n_matching and len(landed.unread) == n_faults and not folder.is_dir():
        raise SettingsError(
            f"NEGTRAJ_NAT_DIR = {nat_dir}: no folder strategyqa in it; point it at NAT's data folder, with its question files "
            f"and, where there are any, its trajectories ({' and '.join(NAT_PATTERNS)}), or unset it"
        )


def _check_source(name: str, source: RolloutSource, tasks: Collection[str]) -> None:
    place = f"[sources.{name}]"
    if source.task not in tasks:
        raise SettingsError(f"{place}: unknown task {source.task!r}{did_you_mean(source.task, tasks)}")
    if source.format not in (*FORMATS, AUTO):
        raise SettingsError(f"{place}: unknown rollout format {source.format!r}{did_you_mean(source.format, (*FORMATS, AUTO))}")
    if source.columns and source.format != AUTO and FORMATS[source.format].unit == "file":
        raise SettingsError(f"{place} columns are for formats of records; {source.format} reads whole files")
    if source.outcome:
        parse_outcome(source.outcome)
    if source.path is None:
        return
    try:
        is_missing = not source.path.is_dir()
    except PermissionError:
        return  # it is listed when it is walked
    if is_missing:
        raise SettingsError(f"{place} path = {source.path}: no such folder")


def _read_arrivals(store: Store, text: str | None) -> list[dict[str, str]]:
    lines = [line for line in (text or "").split("\n") if line]
    try:
        return [{name: str(entry[name]) for name in ("file", "piece")} for entry in map(json.loads, lines)]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{store.place(ARRIVALS)}: a line is not an arrival ({error}); put the file back from a copy, or delete it: files "
            f"are then ordered by name, which may choose other rows where a recipe limits them"
        ) from error


def in_order_of_arrival(store: Store, files: Sequence[LandedFile]) -> list[LandedFile]:
    """Files in the order they were first seen, which is kept in `arrivals.jsonl`; new ones follow by name.

    Limits and duplicates go by this order, so what lands later never pushes out what was chosen before. An edited or
    renamed file keeps its place, and a file that went away and comes back has it again. The list is an input like the
    files themselves: with it, a build from nothing gives what the nightly builds gave. Machines that share a store share the
    list: each adds what it has, in turn.
    """
    place_of: dict[LandedFile, int] = {}

    def add_files(text: str | None) -> str:
        nonlocal place_of
        arrivals = _read_arrivals(store, text)
        if (own := store.read_local_text(ARRIVALS)) != text:
            arrivals += _own_arrivals(arrivals, _read_arrivals(store, own))
        place_of = _take_places(arrivals, files)
        return "".join(f"{canonical_json(entry)}\n" for entry in arrivals)

    with store.lock("arrivals"):
        store.update_text(ARRIVALS, add_files)
    return sorted(files, key=place_of.__getitem__)


def _own_arrivals(arrivals: list[dict[str, str]], own: list[dict[str, str]]) -> list[dict[str, str]]:
    """What this home saw before it shared a store: neither a file nor bytes of the shared list."""
    present = {(name, entry[name]) for entry in arrivals for name in ("file", "piece")}
    return [entry for entry in own if not present & set(entry.items())]


def _take_places(arrivals: list[dict[str, str]], files: Sequence[LandedFile]) -> dict[LandedFile, int]:
    """Each file's place in the list, which takes up those that are new to it."""
    place_of: dict[LandedFile, int] = {}
    # an unchanged file claims its place first, then a renamed one, then an edited one: no two files share a place
    claims: tuple[Callable[[LandedFile], tuple[str, ...]], ...] = (
        lambda file: (file.place, file.piece_key),
        lambda file: (file.piece_key,),
        lambda file: (file.place,),
    )
    entries = (("file", "piece"), ("piece",), ("file",))
    for claim, names in zip(claims, entries, strict=True):
        taken_places = set(place_of.values())
        free = {
            tuple(entry[name] for name in names): place
            for place, entry in reversed(list(enumerate(arrivals)))
            if place not in taken_places
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
    return place_of
