"""What is remembered of landed files, so that a night does not read all of them again: hashes, and formats that were found."""

import json
import time
from pathlib import Path
from typing import Any

from negtraj_dagster.rollouts.detect import Detected, detect_format, detection_key
from negtraj_dagster.rollouts.mapping import ColumnMap
from negtraj_dagster.rollouts.remote_files import RemoteFile
from negtraj_dagster.schema import canonical_json
from negtraj_dagster.store import Store, file_sha256

FILE_HASHES, FORMATS_FOUND = "cache/file_hashes.json", "cache/formats_found.json"
SETTLED_NS = 2_000_000_000
"""A file changed more recently than this when it was hashed may change again within one tick of its clock."""


class FileHashes:
    """sha256 of files, remembered while size, inode and change time stay what they were."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = store.home / FILE_HASHES
        self._known: dict[str, Any] = _read_object(store.read_text(FILE_HASHES), {"stamp", "sha256"})
        self._seen: dict[str, Any] = {}
        self._formats_known: dict[str, Any] = _read_object(store.read_text(FORMATS_FOUND), {"format", "confidence", "reason"})
        self._formats_seen: dict[str, Any] = {}

    def of(self, path: Path, remote: RemoteFile | None = None) -> tuple[str, int]:
        """The file's hash, read from the file only where it may have changed, and its bytes.

        Args:
            path: of the file.
            remote: where it lies elsewhere: it is fetched for it.
        """
        if remote is not None:
            return self._remote_sha256(remote), remote.size_bytes
        name = str(path)
        stamp = _stamp(path)
        entry = self._known.get(name)
        if not (isinstance(entry, dict) and entry.get("stamp") == stamp):
            now_ns = time.time_ns()  # noqa: TID251 - only decides whether a hash may be remembered, never what it is
            is_settled = now_ns - max(stamp[-2:]) > SETTLED_NS
            entry = {"stamp": stamp if is_settled else None, "sha256": file_sha256(path)}
        self._seen[name] = entry
        return str(entry["sha256"]), stamp[0]

    def _remote_sha256(self, remote: RemoteFile) -> str:
        entry = self._known.get(remote.place)
        if not (isinstance(entry, dict) and entry.get("stamp") == remote.stamp):
            entry = {"stamp": remote.stamp, "sha256": file_sha256(remote.fetch())}
        self._seen[remote.place] = entry
        return str(entry["sha256"])

    def format_of(self, sha256: str, path: Path, mapping: ColumnMap | None, remote: RemoteFile | None) -> Detected:
        """The file's format, found once for its bytes."""
        key = detection_key(sha256, mapping)
        entry = self._formats_seen.get(key) or self._formats_known.get(key)
        if entry is None:
            if remote is not None and not path.is_file():
                remote.fetch()
            entry = vars(detect_format(path, mapping))
        self._formats_seen[key] = entry
        return Detected(**entry)

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
        if self._formats_seen != self._formats_known:
            self._store.write_text(FORMATS_FOUND, canonical_json(self._formats_seen))


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _read_object(text: str | None, keys: set[str]) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    entries = value.items() if isinstance(value, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict) and entry.keys() == keys}
