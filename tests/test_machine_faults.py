"""What the machine refuses ends with a message that says what, where and how to mend it; never with a traceback first."""

import errno
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import polars as pl
import pytest
from safetensors import SafetensorError

from negtraj_dagster import _trajtok  # noqa: TID251 - the error of its own that it raises
from negtraj_dagster.commands.dagster_home import prepare_dagster_home
from negtraj_dagster.errors import NegtrajError, StoreError
from negtraj_dagster.rollouts.collect import land_teacher_rollouts
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Built, Store, machine_fault, replace_text, writing
from negtraj_dagster.views.catalog.catalog import write_catalog

NOBODY = 65534
SCRIPTS = Path(sys.executable).parent
RUN = [sys.executable, "-m", "negtraj_dagster.cli", "run", "wordtraps_nat"]
OF_OURS = ["-m", "negtraj_dagster.definitions"]
MATERIALIZE = [str(SCRIPTS / "dagster"), "asset", "materialize", *OF_OURS, "--select", "raw_rollouts"]
SQL_IN_A_NARROW_SHELL = """
import resource
from negtraj_dagster.errors import NegtrajError
from negtraj_dagster.sql import Limits, Session
resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, 2_000_000_000))
try:
    with Session(Limits(60.0, 2048)) as session:
        session.execute("create table numbers as select repeat('x', 1000) || i as text from range(100_000_000) as t(i)")
except NegtrajError as error:
    print(error)
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, or becomes another user")


def write_hello(folder: Path) -> Built:
    (folder / "hello.txt").write_text("hello")
    return Built(content={"text": "hello"})


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ["/somewhere", "full", "free space"]),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/home/a"), ["/home/a", "quota", "free space"]),
        (OSError(errno.EROFS, "Read-only file system", "/home/a"), ["/home/a", "read-only", "mount it"]),
        (PermissionError(errno.EACCES, "Permission denied", "/etc/x"), ["/etc/x", "permission", "of user 0", "chown"]),
        (OSError(errno.EFBIG, "File too large"), ["/somewhere", "limit of size"]),
        (OSError(errno.EMFILE, "Too many open files", "/a"), ["/a", "ulimit -n"]),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/a/b"), ["/a/b", "a file stands"]),
        (FileNotFoundError("[Errno 2] No usable temporary directory found in ['/tmp']"), ["/tmp", "TMPDIR"]),
        (MemoryError(), ["out of memory", "MemoryError"]),
        (sqlite3.OperationalError("database or disk is full"), ["/dagster", "full"]),
        (sqlite3.OperationalError("attempt to write a readonly database"), ["/dagster", "permission"]),
        (RuntimeError("I/O error: No space left on device (os error 28)"), ["/somewhere", "full"]),
    ],
    ids=lambda value: f"{type(value).__name__} {value}" if isinstance(value, Exception) else "",
)
def test_a_fault_says_where_and_the_remedy(error: Exception, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/dagster")
    text = str(machine_fault(error, Path("/somewhere")))
    assert all(part in text for part in expected), text
    assert "run the same command again" in text


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        ValueError("the record says: Permission denied"),
        KeyError("No space left on device"),
        json.JSONDecodeError("Input/output error", "", 0),
        FileNotFoundError(2, "No such file"),
        BlockingIOError(11, "busy"),
        OSError(errno.EINVAL, "Invalid argument"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        OSError(errno.EADDRINUSE, "Address already in use"),
    ],
    ids=repr,
)
def test_what_is_no_fault_of_the_machine_passes_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, writing(Path("/somewhere")):
        raise error
    assert caught.value is error


def test_the_cause_below_a_library_s_own_error_is_named() -> None:
    error = RuntimeError("cannot serialize")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert "is full" in str(machine_fault(error, Path("/somewhere")))


def test_what_was_only_being_handled_at_the_time_is_no_cause() -> None:
    def fail() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise ValueError("a fault of ours")  # noqa: B904 - on purpose

    with pytest.raises(ValueError, match="a fault of ours") as caught, writing(Path("/somewhere")):
        fail()
    assert isinstance(caught.value.__context__, OSError)


@pytest.mark.parametrize(
    "kind",
    [pl.exceptions.ComputeError, duckdb.IOException, SafetensorError, _trajtok.TrajtokError, Exception, ImportError],
    ids=lambda kind: kind.__name__,
)
def test_native_libraries_are_known_by_their_texts(kind: type[Exception]) -> None:
    assert "is full" in str(machine_fault(kind("No space left on device (os error 28)"), Path("/somewhere")))


WRITES: dict[str, Callable[[Store, Settings], object]] = {
    "object": lambda store, settings: store.build("greeting", {"n": 1}, write_hello),
    "segment": lambda store, settings: store.publish_segment("words", "0" * 64, write_hello),
    "pointer": lambda store, settings: store.write_text("current/greeting.json", "{}"),
    "arrivals": lambda store, settings: store.write_text("arrivals.jsonl", ""),
    "registry": lambda store, settings: store.write_text("registry/line/champion.json", "{}"),
    "page": lambda store, settings: store.write_text("quality/task.html", "<p>"),
    "landing": lambda store, settings: land_teacher_rollouts(settings),
    "catalogue": lambda store, settings: write_catalog(store),
    "DAGSTER_HOME": lambda store, settings: prepare_dagster_home(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_full_disk_stops_every_write_by_name_and_leaves_nothing(
    write: Callable[[Store, Settings], object], store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    settings.home.mkdir()
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match="is full") as caught:
        write(store, settings)
    assert str(settings.home) in str(caught.value)
    assert not [path for path in settings.home.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder of root's that others may enter; pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def message_as_nobody(act: Callable[[], object]) -> str:
    """What an unprivileged child is told by the error that `act` raises."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            act()
        except NegtrajError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as handle:
        text = handle.read()
    os.waitpid(child, 0)
    return text


@needs_root
@pytest.mark.parametrize("name", [name for name in WRITES if name != "catalogue"])  # whose SQL nobody may not read, either
def test_a_home_of_another_user_is_refused_by_name(
    name: str, settings: Settings, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEGTRAJ_HOME", str(open_folder))
    foreign = settings.model_copy(update={"home": open_folder})
    text = message_as_nobody(lambda: WRITES[name](Store(open_folder), foreign))
    assert text.startswith(f"{open_folder}/"), text
    assert f"permission denied to user {NOBODY}, {open_folder} is of user 0 with mode 755" in text


def test_a_limit_of_file_sizes_is_told_from_a_full_disk(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"this shell's of 4,096 bytes \(`ulimit -f`\)"):
            replace_text(tmp_path / "large.txt", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_shell_s_limit_of_address_space_is_told_from_the_session_s_own() -> None:
    done = subprocess.run([sys.executable, "-c", SQL_IN_A_NARROW_SHELL], capture_output=True, text=True, check=False)
    assert "this shell allows a process 1,907 MB of address space (`ulimit -v`)" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system with the options."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount_with(options: str) -> Path:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=False).returncode:
            pytest.skip("this root may not mount")
        return folder

    yield mount_with
    subprocess.run(["umount", str(folder)], check=False)


@needs_root
@pytest.mark.parametrize(
    ("command", "options", "expected"),
    [
        pytest.param(RUN, "size=64k", "is full", id="run, full before the first asset"),
        pytest.param(MATERIALIZE, "size=40k", "is full", id="dagster, full"),
        pytest.param(RUN, "size=1500k", "is full", id="run, full in an asset", marks=pytest.mark.slow),
        pytest.param(RUN, "size=3m", "is full", id="run, full in a child", marks=pytest.mark.slow),
        pytest.param(RUN, "ro", "read-only", id="run, read-only", marks=pytest.mark.slow),
        pytest.param(MATERIALIZE, "ro", "read-only", id="dagster, read-only", marks=pytest.mark.slow),
    ],
)
def test_commands_end_with_the_message_alone(
    command: list[str], options: str, expected: str, mount: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = mount(options)
    monkeypatch.setenv("NEGTRAJ_HOME", str(home))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert f"{home}/" in done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
