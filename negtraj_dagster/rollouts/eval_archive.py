"""Inspect's `.eval` archives: a zip of a header and a file for each sample; every sample becomes a log of its own.

So a log is read sample by sample, whatever its size. Members are packed by deflate, or by zstd, which zipfile does not unpack.
"""

import errno
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from negtraj_dagster.rollouts.arrays import Slice
from negtraj_dagster.rollouts.packed import MAX_LINE_BYTES, MAX_RATIO, UNBOUNDED_BYTES
from negtraj_dagster.rollouts.records import parse_record
from negtraj_dagster.schema import canonical_json

HEADERS = ("header.json", "_journal/start.json")
"""Hold `eval`; a run that did not end has only the second."""
SAMPLES = "samples/"
ZSTD = 93
LOCAL_HEADER = struct.Struct("<26xHH")
"""What stands before a member's bytes: the lengths of the name and of the extra field that follow it."""
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    pa.ArrowException,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OSError,
)
"""What zipfile and zstd say of an archive that is cut, damaged, encrypted or packed in another way."""


class _MemberError(Exception):
    """A member cannot be unpacked; says why and what to do."""


def archive_slices(path: Path) -> Iterator[Slice]:
    """The archive's samples, each as JSON text of a log with this one.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            yield from _Archive(archive, file, path.stat().st_size).slices()
    except DAMAGE as error:
        _raise_of_the_machine(error)
        fault = f"no .eval archive that can be read ({type(error).__name__}); land it again, or convert it to JSON"
        yield Slice("file", None, fault, path.stat().st_size)


def _raise_of_the_machine(error: Exception) -> None:
    """What the machine says, and not the archive's bytes: of these bzip2's word has no number, a place before the file one."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise error


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, file: BinaryIO, size_bytes: int) -> None:
        self._archive, self._file = archive, file
        self._n_left = max(UNBOUNDED_BYTES, MAX_RATIO * size_bytes)
        self._members = {member.filename: member for member in archive.infolist()}  # of two of a name the last counts

    def slices(self) -> Iterator[Slice]:
        """The samples, or why there are none."""
        try:
            evaluation = self._evaluation()
        except _MemberError as error:
            yield Slice("file", None, str(error))
            return
        names = [name for name in self._members if name.startswith(SAMPLES) and name.endswith(".json")]
        if not names:
            yield Slice("file", None, f"no {SAMPLES}*.json in the archive, expected one for each sample; leave it out")
        for number, name in enumerate(names, 1):
            try:
                sample = self._unpack(self._members[name])
            except _MemberError as error:
                yield Slice(f"sample {number}", None, str(error), self._members[name].compress_size)
                continue
            yield Slice(f"sample {number}", b'{"eval":' + evaluation + b',"samples":[' + sample + b"]}")

    def _evaluation(self) -> bytes:
        name = next((name for name in HEADERS if name in self._members), None)
        if name is None:
            raise _MemberError(f"neither {' nor '.join(HEADERS)} in the archive, expected Inspect's log; leave it out")
        record = parse_record(self._unpack(self._members[name]), name)
        if record.value is None or not isinstance(record.value.get("eval"), dict):
            raise _MemberError(f"{name}: {record.fault or 'no object eval'}, expected a log's header; leave it out")
        return canonical_json(record.value["eval"]).encode()

    def _unpack(self, member: zipfile.ZipInfo) -> bytes:
        limit = min(MAX_LINE_BYTES, self._n_left)
        try:
            raw = self._unpack_zstd(member, limit) if member.compress_type == ZSTD else self._unpack_other(member, limit)
        except DAMAGE as error:
            _raise_of_the_machine(error)
            raise _MemberError(f"its packing is damaged or cut ({type(error).__name__}); land it again") from error
        self._n_left -= len(raw)
        if len(raw) > MAX_LINE_BYTES:
            raise _MemberError(f"more than {MAX_LINE_BYTES:,} bytes in a sample; leave it out")
        if self._n_left < 0:
            raise _MemberError(f"unpacks to more than {MAX_RATIO} times the archive's size; land it as JSON if that is right")
        return raw

    def _unpack_other(self, member: zipfile.ZipInfo, limit: int) -> bytes:
        with self._archive.open(member) as stream:
            return stream.read(limit + 1)

    def _unpack_zstd(self, member: zipfile.ZipInfo, limit: int) -> bytes:
        """A member's bytes from its place in the file, of one frame or more."""
        self._file.seek(member.header_offset)
        n_name, n_extra = LOCAL_HEADER.unpack(self._file.read(LOCAL_HEADER.size))
        self._file.seek(n_name + n_extra, 1)
        packed = self._file.read(min(member.compress_size, MAX_LINE_BYTES))
        try:
            with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
                raw = bytes(stream.read(limit + 1))
        except OSError as error:  # pyarrow's word for damage: the bytes are in memory
            raise zipfile.BadZipFile("zstd") from error
        if len(raw) <= limit and zlib.crc32(raw) != member.CRC:
            raise zipfile.BadZipFile("CRC")
        return raw
