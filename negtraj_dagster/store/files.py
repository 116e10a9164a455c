"""Files that are complete or absent: durable writes, replacement in one step, hashes, locks."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from negtraj_dagster.store.faults import writing

LOG = logging.getLogger(__name__)


def write_text_durably(path: Path, text: str) -> None:
    """Write a file and flush it to the disk."""
    with path.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def replace_text(path: Path, text: str) -> None:
    """Replace a file's text in one step: readers see the old text or the new, never a part.

    Raises:
        StoreError: it cannot be written; names the file, the cause and the remedy.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    with writing(path):
        try:
            write_text_durably(temporary, text)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)  # on a full disk it would take the room that was just freed
            raise
        sync_folder(path.parent)


def read_json_lines(path: Path) -> list[Any]:
    """The values of a JSON-lines file we wrote. Lines end at newlines alone: texts may hold other line separators."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def make_folder(folder: Path) -> None:
    """Make a folder with its parents so that they are on the disk when this returns.

    Raises:
        StoreError: it cannot be made; names it with the remedy.
    """
    with writing(folder):
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for parent in missing:
            sync_folder(parent.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file_lock(path: Path, *, shared: bool = False, wait: bool = True, waiting_for: str = "") -> Iterator[None]:
    """An OS file lock: freed when the process ends, however it ends.

    Args:
        path: the lock's file; made when missing.
        shared: many holders at once, none beside an exclusive one.
        wait: False raises BlockingIOError where another process holds it.
        waiting_for: logged when the lock is not free at once.

    Raises:
        StoreError: the lock's file cannot be opened; names it with the remedy.
    """
    make_folder(path.parent)
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with writing(path):
        opened = path.open("a")
    with opened as handle:
        try:
            fcntl.flock(handle, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            if waiting_for:
                LOG.warning("waiting for %s (lock %s)", waiting_for, path)
            fcntl.flock(handle, mode)
        yield


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """A folder of our own under `root`, gone afterwards.

    A lock is held on it for as long as it lives, so that what a kill -9 left behind can be told from a live one.
    """
    folder = root / uuid.uuid4().hex
    _clean_stale(root)
    lock = folder.with_suffix(".lock")
    with file_lock(lock):
        with writing(folder):
            folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _clean_stale(root: Path) -> None:
    """Remove scratch folders that nobody holds any more."""
    for lock in root.glob("*.lock") if root.is_dir() else ():
        with suppress(OSError), lock.open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
