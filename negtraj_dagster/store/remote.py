"""A copy of the store at any fsspec URL, shared by machines: immutable folders by content name, manifest put last.

The local home stays the working copy. What it lacks is fetched and verified; what it publishes is put, one PUT an object. Two
writers of one key put the same content.

Small texts that change are kept as numbered versions, `versions/<name>/<number>`, each created once and never overwritten: the
highest number is the present text. Creating a file that must not exist is the one conditional write that S3, Google, Azure and
file systems have in common, so whoever comes second learns it, merges and tries the next number.
"""

import errno
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from negtraj_dagster.errors import NegtrajError, StoreError
from negtraj_dagster.store.faults import machine_fault
from negtraj_dagster.store.manifest import MANIFEST

LOG = logging.getLogger(__name__)
N_KEPT = 50
"""Versions of a text that stay; fewer, and a machine that slept between reading and writing would find more often that it has
to read again."""
WITHOUT_FOLDERS = ("s3", "s3a", "gs", "gcs", "memory")
"""Protocols where a folder is nothing that has to be made; asking would cost a request each."""
N_READS = 5
PART = ".part"
WITHOUT_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
"""What file systems answer that have no hard links (FAT, some FUSE and network mounts), or no more of them for a file."""
CREATING_S, CREATING_POLL_S = 30.0, 0.05
"""Between making a file's name and its content, two calls of the system; whoever needs longer was killed."""
EMPTY = b"\n"
"""An empty text in a file: a file without content is a name that somebody is about to fill."""


@dataclass(frozen=True)
class Version:
    """A small text at one time: None where there is none; number 0 where no version was written yet."""

    number: int
    text: str | None


class Remote:
    """One fsspec URL (`s3://bucket/negtraj`, `file:///mnt/share`, `memory://x`); `is_read_only` writes nothing to it."""

    def __init__(self, url: str, *, is_read_only: bool = False) -> None:
        self.url, self.is_read_only = url, is_read_only
        self._is_probed = False
        with self._reaching(""):
            self._fs, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)  # others write there, too

    def has(self, name: str) -> bool:
        """Whether a complete folder of this name is there."""
        with self._reaching(name):
            return bool(self._fs.isfile(self._path(f"{name}/{MANIFEST}")))

    def folders(self, name: str) -> list[str]:
        """Names of the complete folders right under a folder."""
        return [inner for inner in self._list(name) if self.has(f"{name}/{inner}")]

    def get(self, name: str, target: Path) -> None:
        """Copy a folder's files into an existing local folder; the caller verifies them."""
        root = self._path(name)
        with self._reaching(name):
            for path in self._fs.find(root):
                if path.endswith(PART):
                    continue
                inner = path[len(root) :].lstrip("/")
                if ".." in inner.split("/"):
                    raise StoreError(f"{self.url}/{name}: {inner!r} leads out of the folder; look at who writes there")
                local = target / inner
                local.parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(path, str(local))

    def put(self, folder: Path, name: str) -> None:
        """Copy a local folder, its manifest last; a complete one is left as it is."""
        if self.is_read_only or self.has(name):
            return
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
        with self._reaching(name):
            for path in (*files, folder / MANIFEST):
                self._put_file(path, self._path(f"{name}/{path.relative_to(folder).as_posix()}"))

    def read(self, name: str) -> Version:
        """A small text as it is now."""
        for _ in range(N_READS):
            numbers = self._numbers(name)
            if not numbers:  # as stores were before texts had versions
                return Version(0, self._read_file(name))
            text = self._read_file(_version_name(name, numbers[-1]))
            if text == "" and self._is_unfilled(_version_name(name, numbers[-1])):
                return Version(numbers[-1], self._await_text(name, numbers))
            if text is not None:
                return Version(numbers[-1], text)
        raise StoreError(f"{self.url}/{name}: its versions vanish while they are read; look at who deletes there")

    def replace(self, name: str, text: str, present: Version) -> bool:
        """Make a text the next version, unless somebody was faster, however long ago: then False, and nothing has changed.

        Args:
            name: of the text.
            text: the new one.
            present: what the new one was made from.
        """
        self._probe()
        number = present.number + 1
        if not self._create(_version_name(name, number), text.encode()):
            return False
        numbers = self._numbers(name)
        has_slept = bool(numbers) and numbers[-1] >= number + N_KEPT  # whoever wrote that has dropped what had our number
        dropped = [number] if has_slept else [old for old in numbers if old <= number - N_KEPT]
        with self._reaching(name):
            for old in dropped:
                with suppress(FileNotFoundError):  # another machine has dropped it
                    self._fs.rm_file(self._path(_version_name(name, old)))
        return not has_slept

    def _is_unfilled(self, name: str) -> bool:
        """Whether a file of a file system has no content; there an empty text has some."""
        path = Path(self._path(name))
        return isinstance(self._fs, LocalFileSystem) and path.is_file() and path.stat().st_size == 0

    def _await_text(self, name: str, numbers: list[int]) -> str | None:
        """The text of a version that has only its name yet; the one before it where whoever made the name was killed."""
        deadline = time.monotonic() + CREATING_S
        while time.monotonic() < deadline:
            if not self._is_unfilled(_version_name(name, numbers[-1])):
                return self._read_file(_version_name(name, numbers[-1]))
            time.sleep(CREATING_POLL_S)
        before = (self._read_file(_version_name(name, number)) for number in reversed(numbers[:-1]))
        return next((text for text in before if text), None) or self._read_file(name)

    def _probe(self) -> None:
        """Look once whether this server refuses to create what is there; one that does not would lose texts silently."""
        if not self._is_probed:
            name = f"versions/.probe-{uuid.uuid4().hex}"
            self._create(name, b"1")
            if self._create(name, b"2"):
                LOG.warning(
                    "%s overwrites what it was told to create only (it ignores If-None-Match): let one machine at a time write",
                    self.url,
                )
            with self._reaching(name):
                self._fs.rm_file(self._path(name))
            self._is_probed = True

    def _create(self, name: str, content: bytes) -> bool:
        """Create a file that is not there; False where it is, with other content."""
        path = self._path(name)
        with self._reaching(name):
            try:
                if isinstance(self._fs, LocalFileSystem):
                    content = content or EMPTY
                    _create_local(Path(path), content)
                else:
                    self._make_parent(path)
                    self._fs.pipe_file(path, content, mode="create")
            except OSError as error:
                if error.errno == errno.EBUSY:  # two were being created at once
                    return False
                if self._fs.isfile(path):  # a request that was sent again finds what its first attempt has created
                    return bool(self._fs.cat_file(path) == content)
                raise
        return True

    def _put_file(self, source: Path, path: str) -> None:
        self._make_parent(path)
        if not isinstance(self._fs, LocalFileSystem):
            self._fs.put_file(str(source), path)
            return
        temporary = f"{path}.{uuid.uuid4().hex}{PART}"  # a reader finds the whole file or none
        self._fs.put_file(str(source), temporary)
        os.replace(temporary, path)

    def _make_parent(self, path: str) -> None:
        protocols = (self._fs.protocol,) if isinstance(self._fs.protocol, str) else self._fs.protocol
        if not set(protocols) & set(WITHOUT_FOLDERS):
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)

    def _numbers(self, name: str) -> list[int]:
        return sorted(int(inner) for inner in self._list(f"versions/{name}") if inner.isdigit())

    def _list(self, name: str) -> list[str]:
        with self._reaching(name):
            try:
                paths = self._fs.ls(self._path(name), detail=False, refresh=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in paths)

    def _read_file(self, name: str) -> str | None:
        with self._reaching(name):
            try:
                content = self._fs.cat_file(self._path(name))
                return "" if content == EMPTY else str(content.decode())
            except (FileNotFoundError, IsADirectoryError):
                return None
            except UnicodeDecodeError as error:
                raise StoreError(f"{self.url}/{name}: not UTF-8 at byte {error.start}; mend or delete it") from error

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _reaching(self, name: str) -> Iterator[None]:
        place = f"{self.url.rstrip('/')}/{name}".rstrip("/")
        try:
            yield
        except NegtrajError:
            raise
        except Exception as error:
            is_local = isinstance(getattr(self, "_fs", None), LocalFileSystem)
            fault = machine_fault(error, Path(place)) if is_local else None
            raise fault or StoreError(
                f"{place}: the shared store cannot be reached ({type(error).__name__}: {error}); look at store_url in "
                f"negtraj.toml, at the network and at the credentials of its protocol, then run again"
            ) from error


def _create_local(path: Path, content: bytes) -> None:
    """Create a whole file or fail because it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PART}")
    try:
        with temporary.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in WITHOUT_LINKS:
                raise
            _fill_new_name(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _fill_new_name(temporary: Path, path: Path) -> None:
    """Create without hard links: the name first, which only one machine can make, then the whole content at once."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
    os.replace(temporary, path)
    if path.name.isdigit() and any(int(other.name) > int(path.name) for other in path.parent.iterdir() if other.name.isdigit()):
        raise OSError(errno.EBUSY, "taken for one that was killed: others may have gone on without this", str(path))


def _version_name(name: str, number: int) -> str:
    return f"versions/{name}/{number:012d}"
