"""What the machine refuses, a full disk or a missing permission, as an error that says what, where and how to mend it.

The operating system's errors reach us in many forms: `OSError` from Python, texts of polars, DuckDB, SQLite, safetensors and
of our own crate. `machine_fault` knows all of them; `writing` stands around everything that writes.
"""

import errno
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from negtraj_dagster.errors import NegtrajError, StoreError

AGAIN = "then run the same command again: what was finished is kept"
TEXTS = {
    errno.ENOSPC: r"No space left on device|database or disk is full|\bos error 28\b",
    errno.EDQUOT: r"Disk quota exceeded|\bos error 122\b",
    errno.EROFS: r"Read-only file system|\bos error 30\b",
    errno.EFBIG: r"File too large|\bos error 27\b",
    errno.EMFILE: r"Too many open files|\bos error 24\b",
    errno.EACCES: r"Permission denied|readonly database|unable to open database file|\bos error 13\b",
    errno.EIO: r"Input/output error|disk I/O error|\bos error 5\b",
    errno.ENOMEM: r"failed to map segment|Cannot allocate memory|std::bad_alloc|can't start new thread|\bos error 12\b",
}
"""How libraries that raise errors of their own say the same; SQLite cannot tell a missing permission from a missing file."""
NO_TEMPORARY = "No usable temporary directory"
OF_THE_MACHINE = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EIO", "EREMOTEIO", "EUCLEAN", "ESTALE", "ENODEV", "ENXIO", "EBUSY", "ENOLCK"),
        *("EACCES", "EPERM", "ENOTDIR", "EISDIR", "EEXIST", "ENOTEMPTY", "ELOOP", "ENAMETOOLONG", "EOPNOTSUPP"),
        *("EMFILE", "ENFILE", "ENOMEM"),
    )
    if hasattr(errno, name)  # not every system has all of them
)
"""What a disk refuses, a right that is missing, a name that something else has, a limit; any other errno, a missing file or a
connection above all, is an answer to a question, or no matter of the machine."""
NATIVE_TYPES = (Exception, RuntimeError, ImportError)
"""What native code without a class of its own raises: `tokenizers`, torch, the loader of libraries. Subclasses do not count."""
NATIVE_MODULES = ("polars", "duckdb", "_duckdb", "sqlite3", "sqlalchemy", "pyarrow", "safetensors", "pyo3_runtime")
NATIVE_NAME = f"{__name__.partition('.')[0]}._trajtok"
"""Libraries, and our own crate, whose errors' texts are read; those of others may quote anybody's words."""


def address_space_mb() -> int | None:
    """The shell's limit of a process' address space, `ulimit -v`, in MB; None without one."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit >> 20


def machine_fault(error: BaseException, place: Path) -> StoreError | None:
    """An error of the machine in our words; None where the error is of another kind.

    Args:
        error: what was raised; what it was raised from is looked at, too, not what else was being handled at the time.
        place: what was being written, for errors that do not name a file.
    """
    cause: BaseException | None = error
    for _ in range(10):
        if cause is None or isinstance(cause, NegtrajError):
            return None
        if (number := _number(cause)) is not None:
            return StoreError(_message(number, _place(cause, place), cause))
        cause = cause.__cause__
    return None


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns what the machine refuses meanwhile into a StoreError that names the file, or `place`, and the remedy."""
    try:
        yield
    except NegtrajError:
        raise
    except Exception as error:
        if (fault := machine_fault(error, place)) is not None:
            raise fault from error
        raise


def _place(error: BaseException, place: Path) -> Path:
    name = getattr(error, "filename", None)
    if isinstance(name, (str, bytes)):
        return Path(os.fsdecode(name))
    if "sqlite" in str(error) or type(error).__module__ == "sqlite3":  # Dagster's books; nothing else here is SQLite
        return Path(os.environ.get("DAGSTER_HOME") or tempfile.gettempdir())
    return place


def _number(error: BaseException) -> int | None:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError):
        if NO_TEMPORARY in str(error):
            return errno.ENOTDIR
        if error.errno is not None:
            return error.errno if error.errno in OF_THE_MACHINE else None
    elif not _is_native(error):
        return None
    return next((number for number, text in TEXTS.items() if re.search(text, str(error))), None)


def _is_native(error: BaseException) -> bool:
    kinds = [kind.__module__ for kind in type(error).__mro__]
    is_of_a_library = any(name.partition(".")[0] in NATIVE_MODULES or name == NATIVE_NAME for name in kinds)
    return type(error) in NATIVE_TYPES or is_of_a_library


def _message(number: int, place: Path, error: BaseException) -> str:
    first_line = str(error).partition("\n")[0] or type(error).__name__
    if number == errno.EIO and resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        number = errno.EFBIG  # all that SQLite says of it is "disk I/O error"
    if number in (errno.ENOSPC, errno.EDQUOT):
        folder = _existing(place)
        return (
            f"{place}: cannot be written, the disk{_free(folder)} or your quota is full; free space there (`negtraj gc` says "
            f"what no kept state needs, --delete drops it) or point NEGTRAJ_HOME at a larger disk, {AGAIN}"
        )
    if number == errno.EROFS:
        return f"{place}: cannot be written, its file system is mounted read-only; mount it for writing, {_elsewhere()}"
    if number in (errno.EACCES, errno.EPERM):
        return (
            f"{place}: permission denied to user {os.geteuid()}{_owner(_existing(place))} ({first_line}); give that user the "
            f"right "
            f"(`chown -R` or `chmod -R u+rwX`), {_elsewhere()}"
        )
    if number == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        cause = "its file system's" if limit == resource.RLIM_INFINITY else f"this shell's of {limit:,} bytes (`ulimit -f`)"
        return f"{place}: cannot be written, a file would pass a limit of size, {cause}; raise it, {AGAIN}"
    if number in (errno.EMFILE, errno.ENFILE):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"{place}: cannot be opened, {limit:,} files are open (`ulimit -n`); raise that limit, {AGAIN}"
    if number in (errno.ENOTDIR, errno.EEXIST) and NO_TEMPORARY not in first_line:
        return f"{place}: cannot be made, a file stands where a folder is needed ({first_line}); move that file, {_elsewhere()}"
    if number == errno.ENOTDIR and NO_TEMPORARY in first_line:
        return f"{first_line}: they are full, or cannot be written; set TMPDIR to a folder with room, {AGAIN}"
    if number == errno.ENOMEM:
        return f"out of memory ({first_line}){memory_cause()}, {AGAIN}"
    return f"{place}: cannot be written ({first_line}); look at the disk, {_elsewhere()}"


def memory_cause() -> str:
    """Which limit memory ran out at, with the remedy: the shell's where it has set one, else the machine's."""
    limit_mb = address_space_mb()
    if limit_mb is None:
        return ": the machine, or the container's limit, has no more; end what else runs there, or give it more"
    return f": this shell allows a process {limit_mb:,} MB of address space (`ulimit -v`); lift it with `ulimit -v unlimited`"


def _elsewhere() -> str:
    return f"or point NEGTRAJ_HOME (and DAGSTER_HOME, where it is set) at a folder that can be written, {AGAIN}"


def _existing(place: Path) -> Path:
    """The nearest folder above that can be looked at."""
    for path in (place, *place.parents):
        try:
            path.stat()
        except OSError:
            continue
        return path
    return Path("/")


def _free(folder: Path) -> str:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return ""
    return f" (now {usage.free / 1e6:,.1f} of {usage.total / 1e6:,.1f} MB free)"


def _owner(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f", {path} is of user {status.st_uid} with mode {status.st_mode & 0o7777:o}"
