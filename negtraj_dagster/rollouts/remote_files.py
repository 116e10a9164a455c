"""Landed files at an fsspec URL: listed every night, fetched only where they are new, and never left lying in the home.

A file's hash is remembered with what the server says of it (size, ETag, time, generation), so that nothing is fetched to learn
that it is the same.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from negtraj_dagster.errors import NegtrajError, SettingsError
from negtraj_dagster.printable import visible_name
from negtraj_dagster.rollouts.walk import EVERY_FILE, HIDDEN, Passed, Walk, matches, why_unread
from negtraj_dagster.schema import digest

FETCHED = "cache/fetched"
PRIVATE = 0o700
"""Of the folder: what is fetched may hold secrets."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a source's URL.

    Attributes:
        url: of the source.
        path: as the file system there names it.
        stamp: changes with the file.
        local: where a copy goes while it is read.
    """

    url: str
    path: str
    size_bytes: int
    stamp: str
    local: Path

    @property
    def place(self) -> str:
        """Where it stands, the key of its remembered hash."""
        return f"{self.url} {self.path}"

    def fetch(self) -> Path:
        """A local copy, whole or none.

        Raises:
            SettingsError: it cannot be fetched.
        """
        self.local.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        part = self.local.with_name(f"{self.local.name}.part")
        with _reaching(self.url, self.path):
            _file_system(self.url)[0].get_file(self.path, str(part))
        part.replace(self.local)
        return self.local


def walk_url(url: str, home: Path, pattern: str = EVERY_FILE) -> tuple[Walk, dict[Path, RemoteFile]]:
    """A URL's files by their names below it, by the place of their local copies, and what the pattern fits and is passed over.

    Raises:
        SettingsError: it cannot be listed.
    """
    with _reaching(url, ""):
        file_system, root = _file_system(url)
        root = root.rstrip("/")
        entries: dict[str, dict[str, Any]] = file_system.find(root, detail=True)
    walk, remote_of = Walk(), dict[Path, RemoteFile]()
    for path, entry in sorted(entries.items()):
        name = path[len(root) :].lstrip("/")
        parts = name.split("/")
        if not name or ".." in parts:
            walk.passed.append(Passed(path, "its name leads out of the source's URL; look at who writes there", True))
        elif reason := (HIDDEN, False) if any(part.startswith(".") for part in parts) else why_unread(parts[-1]):
            walk.passed += [Passed(name, *reason)] if matches(name, pattern) else []
        else:
            stamp = digest(*(f"{key}={entry[key]}" for key in sorted(entry)))
            local = home / FETCHED / f"{digest(url, path)[:16]}-{parts[-1]}"
            remote_of[local] = RemoteFile(url, path, int(entry.get("size") or 0), stamp, local)
            walk.files.append((name, local))
    return walk, remote_of


def forget_fetched(home: Path) -> None:
    """Delete the copies: what they held is read, and secrets are taken out of that."""
    shutil.rmtree(home / FETCHED, ignore_errors=True)


def _file_system(url: str) -> tuple[Any, str]:
    file_system, root = fsspec.core.url_to_fs(url, use_listings_cache=False)  # others write there
    return file_system, str(root)


@contextmanager
def _reaching(url: str, path: str) -> Iterator[None]:
    try:
        yield
    except NegtrajError:
        raise
    except Exception as error:
        place = f"{url}: {visible_name(path)}" if path else url
        raise SettingsError(
            f"{place} cannot be read ({type(error).__name__}: {error}); look at url in [sources] of negtraj.toml, at the "
            f"network and at the credentials of its protocol, then run again"
        ) from error
