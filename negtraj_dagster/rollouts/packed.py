"""Opens landed files, packed ones too, and hashes their bytes on the way. What unpacks without end is refused by its size."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

PACKINGS = (".gz", ".zst")
MAX_RATIO = 200
"""Unpacked bytes a packed one: conversations of agents come to 5 to 40."""
UNBOUNDED_BYTES = 100_000_000
"""So much is unpacked whatever the ratio."""
MAX_LINE_BYTES = 400_000_000
"""No record is longer, in bytes (`records.MAX_RECORD_CHARS`)."""
MAX_ARRAY_BYTES = 1_000_000_000
"""An array is read whole."""


REST_BYTES = 1 << 16
"""What was not needed of a file is hashed in such parts: most often there is nothing left."""


class PackedError(Exception):
    """A packed file cannot be unpacked to its end; says why and what to do."""


class LandedBytes(io.RawIOBase):
    """The unpacked bytes of a landed file; `sha256` is of the file as it lies there."""

    def __init__(self, path: Path) -> None:
        self._file = _HashedFile(path)
        self.is_packed = path.suffix in PACKINGS
        self._limit = max(UNBOUNDED_BYTES, MAX_RATIO * path.stat().st_size)
        self._n_unpacked = 0
        self._source: Any = self._file
        if path.suffix == ".gz":
            self._source = gzip.GzipFile(fileobj=io.BufferedReader(self._file))
        elif path.suffix == ".zst":
            self._source = pa.CompressedInputStream(pa.PythonFile(io.BufferedReader(self._file), mode="r"), "zstd")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Unpack into a buffer; 0 at the end.

        Raises:
            PackedError: the packing is damaged, or there is more in it than `MAX_RATIO` allows.
            OSError: the machine refuses to read the file.
        """
        if not self.is_packed:
            return self._file.readinto(buffer)
        try:
            chunk = self._source.read(len(buffer))
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            if self._file.refusal is not None:  # the machine's, not the packing's: another run may well read it
                raise self._file.refusal from None
            raise PackedError(f"its packing is damaged or cut ({error}); land it again") from error
        self._n_unpacked += len(chunk)
        if self._n_unpacked > self._limit:
            raise PackedError(f"unpacks to more than {MAX_RATIO} times its size; land it unpacked if that is as it should be")
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def sha256(self) -> str:
        """Of the whole file; reads what was not read yet."""
        while self._file.readinto(bytearray(REST_BYTES)):
            pass
        return self._file.hasher.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def packed_lines(handle: BinaryIO) -> Iterator[bytes]:
    """Lines of a packed file: none is longer than a record may be, so that a small file does not fill the memory.

    Raises:
        PackedError: one is.
    """
    for line in iter(lambda: handle.readline(MAX_LINE_BYTES + 1), b""):
        if len(line) > MAX_LINE_BYTES:
            raise PackedError(f"has a line of more than {MAX_LINE_BYTES:,} bytes; write one record a line")
        yield line


def packed_array(handle: BinaryIO) -> bytes:
    """A packed array, whole.

    Raises:
        PackedError: it is too large for that.
    """
    raw = handle.read(MAX_ARRAY_BYTES + 1)
    if len(raw) > MAX_ARRAY_BYTES:
        raise PackedError(f"an array of more than {MAX_ARRAY_BYTES:,} bytes; write JSON lines, which are read one by one")
    return raw


class _HashedFile(io.RawIOBase):
    """A file whose bytes are hashed as they are read; `refusal` is what the machine said when it could not be read."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("rb", buffering=0)
        self.hasher = hashlib.sha256()
        self.refusal: OSError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            n_read = self._raw.readinto(buffer) or 0
        except OSError as error:
            self.refusal = error
            raise
        self.hasher.update(memoryview(buffer)[:n_read])
        return n_read

    def close(self) -> None:
        self._raw.close()
        super().close()
