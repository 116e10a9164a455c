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

from negtraj_dagster.errors import StoreError

LOG = logging.getLogger(__name__)


def write_text_durably(path: Path, text: str) -> None:
    """Write a file and flush it to the disk."""
    with path.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def replace_text(path: Path, text: str) -> None:
    """Replace a file's text in one step: readers see the old text or the new, never a part."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    write_text_durably(temporary, text)
    temporary.replace(path)
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
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            sync_folder(made.parent)
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be made ({error.strerror}); point NEGTRAJ_HOME at a folder that can be written"
        ) from error


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
    """
    make_folder(path.parent)
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("a") as handle:
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
