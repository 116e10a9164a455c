"""Runs SQL files over tables, in a process that is killed when a query exceeds its deadline or its memory."""

import atexit
import contextlib
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import polars as pl
import pyarrow as pa

from negtraj_dagster.errors import NegtrajError, SqlContractError, StoreError
from negtraj_dagster.paths import PACKAGE_ROOT
from negtraj_dagster.settings import listed
from negtraj_dagster.sql.files import SqlFile
from negtraj_dagster.sql_worker import ALLOWANCE_MB
from negtraj_dagster.store import address_space_mb, memory_cause

DEADLINE_S = 300.0
MEMORY_MB = 2048
SETUP_DEADLINE_S = 3600.0
LOAD_ROWS = 100_000
CLOSE_DEADLINE_S = 10.0
LESS = "make it hold less, or raise sql.memory_mb in negtraj.toml"
LINE = re.compile(r"\bLINE (\d+):")


@dataclass(frozen=True)
class Limits:
    """Of one query: seconds of wall clock, and megabytes of memory."""

    deadline_s: float = DEADLINE_S
    memory_mb: int = MEMORY_MB


class _DiedError(Exception):
    """The process ended, or had to be ended."""


@dataclass
class _Worker:
    """A running process, the empty folder it runs in, and whose child it is."""

    process: subprocess.Popen[bytes]
    folder: tempfile.TemporaryDirectory[str]
    memory_mb: int
    parent: int
    is_used: bool = False

    def kill(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.process.wait()
        self.folder.cleanup()


_IDLE: list[_Worker] = []
"""At most one process that no session uses: a run has many stages, and a start costs a third of a second."""
_IDLE_LOCK = threading.Lock()


def _take_idle(memory_mb: int) -> _Worker | None:
    with _IDLE_LOCK:
        worker = _IDLE.pop() if _IDLE else None
    if worker is None or worker.parent != os.getpid():
        return None
    if worker.memory_mb == memory_mb and worker.process.poll() is None:
        worker.is_used = True
        return worker
    worker.kill()
    return None


def _give_idle(worker: _Worker) -> None:
    with _IDLE_LOCK:
        if not _IDLE:
            _IDLE.append(worker)
            return
    worker.kill()


def _forget_idle() -> None:
    """In a forked child: the process and its folder are the parent's."""
    global _IDLE_LOCK
    _IDLE_LOCK = threading.Lock()
    for worker in _IDLE:
        worker.folder._finalizer.detach()  # type: ignore[attr-defined]
    _IDLE.clear()


os.register_at_fork(after_in_child=_forget_idle)


@atexit.register
def end_idle() -> None:
    """End the process that is kept for the next session."""
    with _IDLE_LOCK:
        while _IDLE:
            worker = _IDLE.pop()
            if worker.parent == os.getpid():
                worker.kill()


@dataclass(frozen=True)
class _Request:
    """What is asked, and rows that go with it; they are written when they are sent, for most are sent once."""

    head: Mapping[str, Any]
    rows: pl.DataFrame | None = None

    def payload(self) -> bytes | pa.Buffer:
        """The rows as an Arrow IPC stream."""
        if self.rows is None:
            return b""
        try:
            arrow = self.rows.to_arrow(compat_level=pl.CompatLevel.oldest())
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, arrow.schema) as writer:
                writer.write_table(arrow, max_chunksize=50_000)
            return sink.getvalue()
        except MemoryError as error:  # ours, and not the process's that is asked
            raise StoreError(f"out of memory with {self.rows.height:,} rows for a SQL table{memory_cause()}") from error


class Session:
    """An in-memory DuckDB in a process of its own.

    Tables are loaded and made first, then `lock` forbids files, network and settings, then `select` runs files. A query that
    has to be stopped costs the process; the next one starts another with the same tables.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._worker: _Worker | None = None
        self._setup: list[_Request] = []
        self.reset()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the process back, without what it held."""
        if self._worker is not None:
            with contextlib.suppress(_DiedError, TimeoutError, SqlContractError, MemoryError):
                self._exchange(_Request({"do": "reset"}), CLOSE_DEADLINE_S)
        worker, self._worker = self._worker, None
        if worker is not None:
            _give_idle(worker)

    def renew(self) -> None:
        """Forget all tables and end the process, whose memory grows with all that it ever held; another starts when needed."""
        self._kill()
        self._setup = [_Request({"do": "reset"})]

    def reset(self) -> None:
        """Forget all tables."""
        self._setup = []
        self._do(_Request({"do": "reset"}))

    def load(self, table: str, frame: pl.DataFrame, as_: str = "*") -> None:
        """Make a table of a frame; `as_` is the select list over its columns. Rows go in parts: each side holds one."""
        statement = f"create or replace table {table} as"
        for part in frame.iter_slices(LOAD_ROWS) if frame.height else (frame,):
            self._do(_Request({"do": "load", "sql": f"{statement} select {as_} from incoming_table"}, part))
            statement = f"insert into {table}"

    def execute(self, statement: str) -> None:
        """Run one of our own statements as part of the set-up."""
        self._do(_Request({"do": "execute", "sql": statement}))

    def create(self, table: str, file: SqlFile) -> None:
        """Make a table of a model file's answer."""
        if file.parameters:
            raise SqlContractError(f"{file.path}: a model file has no parameters; write the values into the SQL")
        request = {"do": "execute", "sql": f"create or replace table {table} as {file.body}"}
        self._ask(file, request)
        self._setup.append(_Request(request))

    def lock(self) -> None:
        """No files, no network, no settings from here on: what runs next may be a user's SQL. Tables can still be made."""
        self._do(_Request({"do": "lock"}))

    def mark(self) -> int:
        """A mark of the set-up so far, for `rewind`."""
        return len(self._setup)

    def rewind(self, mark: int) -> None:
        """Leave out what was set up since the mark when a process has to be started anew."""
        del self._setup[mark:]

    def check(self, file: SqlFile) -> dict[str, Any]:
        """The statements, parameters, tables and columns of a file, by running it over the present tables.

        Raises:
            SqlContractError: it does not parse, or needs tables or columns that are not there; names file and line.
        """
        return self._ask(file, {"do": "check", "sql": file.text, "params": dict(file.parameters)})[0]

    def select(self, file: SqlFile, *, expect: Mapping[str, str]) -> pl.DataFrame:
        """Run a file's SELECT and check its columns.

        Args:
            file: what to run, with its parameters' values.
            expect: the columns it must return; others are refused.

        Raises:
            SqlContractError: it fails, runs too long, takes too much memory, or returns other columns; names file and line.
        """
        _, body = self._ask(file, {"do": "select", "sql": file.text, "params": dict(file.parameters)})
        with pa.ipc.open_stream(body) as reader:
            frame = pl.DataFrame(reader.read_all())
        if set(frame.columns) != set(expect):
            raise SqlContractError(f"{file.path}: returns {listed(frame.columns, 'and')}; expected {listed(expect, 'and')}")
        return frame

    def query(self, statement: str) -> pl.DataFrame:
        """Run one of our own SELECTs."""
        try:
            _, body = self._answered({"do": "select", "sql": statement, "params": {}}, self.limits.deadline_s)
        except (_DiedError, MemoryError) as error:
            raise self._out_of_memory(f"a query of ours, {statement[:80]!r}", error, "raise sql.memory_mb") from None
        except TimeoutError:
            raise SqlContractError(f"the SQL process stopped (deadline): {statement[:80]}") from None
        with pa.ipc.open_stream(body) as reader:
            return pl.DataFrame(reader.read_all())

    def _ask(self, file: SqlFile, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        limits = self.limits
        try:
            return self._answered(request, limits.deadline_s)
        except TimeoutError:
            raise SqlContractError(
                f"{file.path}: stopped after its deadline of {limits.deadline_s:g} s; make it look at less, or raise "
                f"sql.deadline_s in negtraj.toml"
            ) from None
        except (_DiedError, MemoryError) as error:
            raise self._out_of_memory(str(file.path), error, LESS) from None
        except SqlContractError as error:
            line = LINE.search(str(error)) if request["do"] == "check" else None  # elsewhere the engine counts other lines
            raise SqlContractError(f"{file.path}{f', line {line[1]}' if line else ''}: {error}") from None

    def _out_of_memory(self, place: str, error: BaseException, remedy: str) -> NegtrajError:
        """Why the process is gone: the shell's own limit where it is the narrower one, else ours."""
        allowed_mb, memory_mb = address_space_mb(), self.limits.memory_mb
        if allowed_mb is not None and allowed_mb < memory_mb + ALLOWANCE_MB:
            return StoreError(
                f"{place}: stopped, out of memory ({_first_line(error)}){memory_cause()}: a SQL process needs "
                f"{memory_mb + ALLOWANCE_MB:,} MB, of which sql.memory_mb in negtraj.toml is {memory_mb:,}"
            )
        return SqlContractError(
            f"{place}: stopped, it took more than its {memory_mb} MB of memory ({_first_line(error)}); {remedy}"
        )

    def _answered(self, request: Mapping[str, Any], deadline_s: float) -> tuple[dict[str, Any], bytes]:
        """An answer from a process that holds the tables."""
        return self._exchanged(_Request(request), deadline_s)

    def _do(self, request: _Request) -> None:
        """Do a part of the set-up, which a process that has to be started later does again."""
        try:
            self._exchanged(request, SETUP_DEADLINE_S)
        except (_DiedError, MemoryError) as error:
            raise self._out_of_memory("the SQL tables", error, "raise sql.memory_mb in negtraj.toml") from None
        self._setup.append(request)

    def _exchanged(self, request: _Request, deadline_s: float) -> tuple[dict[str, Any], bytes]:
        """An answer within the deadline, from a fresh process where one that was used before gives none."""
        until = time.monotonic() + deadline_s
        if self._worker is None:
            self._restart()
        assert self._worker is not None
        is_used = self._worker.is_used
        try:
            return self._exchange(request, deadline_s)
        except (MemoryError, _DiedError):
            self._kill()  # what is out of memory may have been so before it held our tables
            if not is_used:
                raise
        self._restart()
        return self._exchange(request, until - time.monotonic())

    def _restart(self) -> None:
        self._worker = _take_idle(self.limits.memory_mb) or _start(self.limits.memory_mb)
        for request in self._setup:
            self._exchange(request, SETUP_DEADLINE_S)

    def _exchange(self, request: _Request, deadline_s: float) -> tuple[dict[str, Any], bytes]:
        """Send a request and read its answer; the process is gone afterwards unless it answered."""
        assert self._worker is not None
        is_answered = False
        try:
            self._send(request)
            until = time.monotonic() + deadline_s
            received = self._read(until, bytearray(), lambda got: b"\n" in got)
            line, _, beginning = received.partition(b"\n")
            head = json.loads(line)
            body = bytes(self._read(until, beginning, lambda got: len(got) >= head["n_bytes"]))
            is_answered = True
        finally:
            if not is_answered:
                self._kill()
        if "error" in head:
            raise MemoryError(head["error"]) if head["is_memory"] else SqlContractError(head["error"])
        return head, body

    def _send(self, request: _Request) -> None:
        assert self._worker is not None
        assert self._worker.process.stdin is not None
        try:
            payload = request.payload()
            head = {**request.head, "n_bytes": len(payload)}
            self._worker.process.stdin.write(json.dumps(head).encode() + b"\n")
            self._worker.process.stdin.write(payload)
            self._worker.process.stdin.flush()
        except OSError:
            raise _DiedError("its process ended") from None

    def _read(self, until: float, received: bytearray, is_done: Callable[[bytearray], bool]) -> bytearray:
        """Read on until it is done; nothing follows an answer, so nothing is read that is another's."""
        assert self._worker is not None
        assert self._worker.process.stdout is not None
        place = self._worker.process.stdout.fileno()
        while not is_done(received):
            seconds_left = until - time.monotonic()
            if seconds_left <= 0 or not select.select([place], [], [], seconds_left)[0]:
                raise TimeoutError
            chunk = os.read(place, 1 << 20)
            if not chunk:
                raise _DiedError("its process ended")
            received += chunk
        return received

    def _kill(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()


def _start(memory_mb: int) -> _Worker:
    folder = tempfile.TemporaryDirectory(prefix="negtraj-sql-")
    command = [sys.executable, "-m", "negtraj_dagster.sql_worker", str(memory_mb), str(os.getpid())]
    path = os.pathsep.join([str(PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder.name,
        env={**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"},
    )
    return _Worker(process, folder, memory_mb, os.getpid())


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0]
