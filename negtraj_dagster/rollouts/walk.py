"""Walks landing folders so that nothing is passed over in silence: every entry is a file to read or is listed with a reason.

`glob` will not do: it hides folders that cannot be listed, links to folders, and what is no regular file.
"""

import fnmatch
import os
import re
import stat
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from negtraj_dagster.printable import visible_name
from negtraj_dagster.rollouts.packed import PACKINGS

SUFFIXES = (
    *(f"{kind}{packing}" for kind in (".json", ".jsonl") for packing in ("", *PACKINGS)),
    ".parquet",
    ".csv",
    ".traj",
    ".eval",
)
EVERY_FILE = "**/*"
HIDDEN = "hidden: its name begins with a dot"
ROLLOUTS_OTHERWISE = re.compile(r"\.(jsonl?|ndjson|jsonlines|parquet|arrow)(\.(gz|bz2|xz|zst|zip))?$", re.IGNORECASE)
"""Names of files that may well hold rollouts, in a spelling or packing that is not read."""
PERMISSION = "give the user that runs this permission to read it"


@dataclass(frozen=True)
class Passed:
    """An entry that is not read, and why. `is_fault`: it may well hold rollouts, so somebody has to look."""

    name: str
    reason: str
    is_fault: bool

    def under(self, place: str) -> "Passed":
        """The same, named from further above."""
        return Passed(f"{place}/{self.name}" if self.name else place, self.reason, self.is_fault)

    @property
    def entry(self) -> dict[str, str]:
        """As it is written and printed, without anything that a terminal would obey."""
        return {"path": visible_name(self.name), "reason": self.reason}


@dataclass
class Walk:
    """A folder's files by their names inside of it, and what is passed over."""

    files: list[tuple[str, Path]] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)


def walk_folder(root: Path, pattern: str = EVERY_FILE) -> Walk:
    """All `SUFFIXES` files under a folder. Links to folders are followed, after what is no link, and each folder once.

    Args:
        root: the folder.
        pattern: which of its files are asked for, in the spelling of `Path.glob`. Files are listed whatever their names;
            folders that hold none of these are not entered, and what is passed over is told of these alone.
    """
    walk, names_of = Walk(), dict[tuple[int, int], str]()
    folders, links = deque([(root, "")]), deque[tuple[Path, str]]()
    while folders or links:
        # links last: a folder that is reached both ways is read by its own name, whatever the order of names
        folder, name = (folders or links).popleft()
        try:
            status = folder.stat()
            if (first := names_of.setdefault((status.st_dev, status.st_ino), name)) != name:
                walk.passed.append(
                    Passed(name, f"leads to {visible_name(first) or 'the folder above'}, which is read there", False)
                )
                continue
            entries = list_folder(folder)
        except OSError as error:
            # a landing folder that nobody made yet is no fault; a dangling link is, and a folder that vanished meanwhile
            if name or root.is_symlink() or not isinstance(error, FileNotFoundError):
                walk.passed.append(Passed(name, why_unlisted(error), True))
            continue
        for entry in entries:
            inner = f"{name}/{entry.name}" if name else entry.name
            if refusal := _why_passed(entry, inner):
                if matches(inner, pattern) or (_may_be_folder(entry) and may_lie_under(inner, pattern)):
                    walk.passed.append(refusal)
            elif not entry.is_dir():
                walk.files.append((inner, folder / entry.name))
            elif may_lie_under(inner, pattern):
                (links if entry.is_symlink() else folders).append((folder / entry.name, inner))
    return walk


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """A folder's entries by name.

    Raises:
        OSError: it cannot be listed.
    """
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def why_unlisted(error: OSError) -> str:
    """What to say of a folder or file that the system refuses to open."""
    return f"cannot be read: {error.strerror}; {PERMISSION}" if isinstance(error, PermissionError) else f"{error.strerror}"


def _why_passed(entry: os.DirEntry[str], name: str) -> Passed | None:
    if entry.name.startswith("."):
        return Passed(name, HIDDEN, False)
    reason = why_unread(entry.name)
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        return Passed(name, f"a link that leads nowhere: {error.strerror}" if entry.is_symlink() else why_unlisted(error), True)
    if not _is_utf8(entry.name):
        is_fault = reason is None or reason[1] or stat.S_ISDIR(mode)
        return Passed(name, "its name is not UTF-8; rename it", is_fault)
    if stat.S_ISDIR(mode):
        return None
    if not stat.S_ISREG(mode):
        return Passed(name, "a pipe, socket or device; only files are read", True)
    return Passed(name, *reason) if reason else None


def why_unread(name: str) -> tuple[str, bool] | None:
    """Why a file is not read, by its name, and whether it may well hold rollouts; None for one that is read."""
    if name.endswith(SUFFIXES):
        return None
    if ROLLOUTS_OTHERWISE.search(name):
        return f"only {', '.join(SUFFIXES)} files are read; unpack, convert or rename it", True
    return "not a visible .json or .jsonl file, nor one packed by gzip or zstd", False


def _may_be_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is one, or a link that leads nowhere now."""
    try:
        return stat.S_ISDIR(entry.stat().st_mode)
    except OSError:
        return True


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def matches(name: str, pattern: str) -> bool:
    """Whether a file's name inside its folder fits a pattern in the spelling of `Path.glob`."""
    return pattern == EVERY_FILE or _fits(name.split("/"), _parts(pattern))


def may_lie_under(folder: str, pattern: str) -> bool:
    """Whether a file in this folder, or in one below it, can fit the pattern."""
    parts = _parts(pattern)
    for name in folder.split("/"):
        if parts[:1] == ["**"]:
            return True
        if not parts or not fnmatch.fnmatchcase(name, parts.pop(0)):
            return False
    return bool(parts)


def _parts(pattern: str) -> list[str]:
    return [part for part in pattern.split("/") if part not in ("", ".")]


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts or not names:
        return not names and not [part for part in parts if part != "**"]
    if parts[0] == "**":
        return any(_fits(names[n:], parts[1:]) for n in range(len(names) + 1))
    return fnmatch.fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])
