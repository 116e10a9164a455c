"""A DuckDB in a process of its own, for `negtraj_dagster.sql.session`: what runs there may be anybody's SQL.

DuckDB's own limits do not hold everywhere: a `levenshtein` of two long texts hears no interrupt, a `range` of 10^9 numbers
passes its memory limit. Here the operating system limits the memory, and the parent kills the process at the deadline.

Reads requests from stdin and answers on stdout: a line of JSON, `n_bytes` in it, then so many bytes of an Arrow IPC stream.
"""

import contextlib
import json
import os
import re
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa

ALLOWANCE_MB = 1024
"""Address space beyond DuckDB's own limit: libraries, Arrow tables on their way in and out."""
MAX_ROWS = 5_000_000
PARAMETER = re.compile(r"\$[A-Za-z_]\w*")
WATCH_S = 0.5
READ_ONLY = "begin transaction read only"
QUERY_KEYS = frozenset({"cte_map", "query_location"})
"""One of them stands in every query and table reference of a parsed text; expressions have a `class` besides."""
SESSION_NAMES = frozenset(
    (
        "current_catalog",
        "current_database",
        "current_date",
        "current_role",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "localtime",
        "localtimestamp",
        "session_user",
        "user",
    )
)


class _Worker:
    def __init__(self, memory_mb: int) -> None:
        self.memory_mb = memory_mb
        self.connection = duckdb.connect(":memory:")
        self.is_locked = False
        self.is_fresh = False

    def answer(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        if request["do"] == "reset" and self.is_fresh:
            return {}, b""  # a session begins where another ended, and to open a database takes 25 ms
        self.is_fresh = request["do"] == "reset"
        return getattr(self, f"do_{request['do']}")(request, payload)  # type: ignore[no-any-return]

    def do_reset(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """An empty database, single-threaded so that results do not depend on the machine."""
        self.connection.close()
        self.connection, self.is_locked = duckdb.connect(":memory:"), False
        self.connection.execute("set threads = 1")
        self.connection.execute(f"set memory_limit = '{self.memory_mb}MB'")
        self.connection.execute("set temp_directory = ''")
        self.connection.execute("set TimeZone = 'UTC'")
        return {}, b""

    def do_load(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        with pa.ipc.open_stream(payload) as reader:
            incoming = reader.read_all()
        self.connection.register("incoming_table", incoming)
        self.connection.execute(request["sql"])
        self.connection.unregister("incoming_table")
        return {}, b""

    def do_execute(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        self.connection.execute(request["sql"])
        return {}, b""

    def do_lock(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """No files, no network, no settings from here on; locking twice is locking once."""
        if self.is_locked:
            return {}, b""
        self.is_locked = True
        for name in ("autoinstall_known_extensions", "autoload_known_extensions", "enable_external_access"):
            self.connection.execute(f"set {name} = false")
        self.connection.execute("set lock_configuration = true")
        return {}, b""

    def do_check(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """What a text holds: its statements, and of the first its parameters, tables, columns and types."""
        statements = self.connection.extract_statements(request["sql"])
        answer: dict[str, Any] = {"statements": [str(statement.type).rsplit(".", 1)[-1] for statement in statements]}
        answer["parameters"] = sorted(statements[0].named_parameters) if statements else []
        if answer["statements"] == ["SELECT"]:
            answer |= self._parts(statements[0].query)
            params = {name: request["params"].get(name) for name in answer["parameters"]}
            with self._reading():
                self._explain(request["sql"])
                with self.connection.cursor() as cursor:  # of its own: an unfinished result would block the connection
                    cursor.execute(READ_ONLY)
                    described = cursor.execute(request["sql"], params or None).description or []
            answer["columns"] = [[str(column[0]), str(column[1])] for column in described]
        return answer, b""

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Nothing that runs inside changes a table, whatever it is called."""
        self.connection.execute(READ_ONLY)
        try:
            yield
        finally:
            self.connection.execute("rollback")

    def _parts(self, statement: str) -> dict[str, list[str]]:
        """What a SELECT is made of: tables that it reads, its own CTEs left out, kinds of queries, functions."""
        row = self.connection.execute("select json_serialize_sql($text)", {"text": statement}).fetchall()[0]
        tree = json.loads(row[0])
        if tree.get("error"):
            raise duckdb.ParserException(str(tree.get("error_message")))
        tables: set[str] = set()
        own_names: set[str] = set()
        nodes: set[str] = set()
        functions: set[str] = set()
        waiting: list[Any] = [tree]
        while waiting:
            node = waiting.pop()
            if isinstance(node, list):
                waiting += node
            elif isinstance(node, dict):
                if node.get("type") == "BASE_TABLE":
                    tables.add(node["table_name"])
                own_names |= {entry["key"] for entry in node.get("cte_map", {}).get("map", ())}
                nodes |= {node["type"]} if "class" not in node and QUERY_KEYS.intersection(node) else set()
                nodes |= {"TABLESAMPLE"} if node.get("sample") else set()
                functions |= _session_names(node)
                functions |= {node["function_name"]} if "function_name" in node else set()
                waiting += node.values()
        return {"tables": sorted(tables - own_names), "nodes": sorted(nodes), "functions": sorted(functions)}

    def _explain(self, statement: str) -> None:
        """Raise what is wrong with a statement's names, with its line: an execution's error counts lines otherwise, or not."""
        try:
            self.connection.execute("explain " + PARAMETER.sub("null", statement)).fetchall()
        except (duckdb.BinderException, duckdb.CatalogException) as error:
            is_of_names = "not found" in str(error) or "does not exist" in str(error)  # a null may have another type
            if "LINE" in str(error) and (is_of_names or not PARAMETER.search(statement)):
                raise

    def do_select(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        with self._reading():
            return self._select(request)

    def _select(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        # not as a relation: that plans the query once to describe it and again to run it, which is most of a short one's time,
        # while what is copied more often here are answers, few beside the rows asked about
        answered = self.connection.execute(request["sql"], request["params"] or None)
        if answered.description is None:
            raise duckdb.InvalidInputException("returns no rows of any kind, expected a SELECT")
        reader: Any = answered.to_arrow_reader(100_000)
        sink = pa.BufferOutputStream()
        n_rows = 0
        try:
            with pa.ipc.new_stream(sink, reader.schema) as writer:
                for batch in reader:
                    n_rows += batch.num_rows
                    if n_rows > MAX_ROWS:
                        raise MemoryError(f"returns more than {MAX_ROWS:,} rows")
                    writer.write_batch(batch)
        finally:
            reader.close()  # an open result would keep the transaction open
        return {"n_rows": n_rows}, sink.getvalue().to_pybytes()


def _session_names(node: dict[str, Any]) -> set[str]:
    """Functions without brackets, which are parsed as columns: `current_user`."""
    names: list[str] = node.get("column_names", []) if node.get("class") == "COLUMN_REF" else []
    return {names[0]} if len(names) == 1 and names[0].lower() in SESSION_NAMES else set()


def _leave_with(parent: int) -> None:
    """End when the parent has: a query may run on, and nobody would hear its answer."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    _remove_folder()
    os._exit(1)


def _remove_folder() -> None:
    """A parent that was killed removes nothing; one that was not finds that it has nothing to remove."""
    with contextlib.suppress(OSError):
        os.rmdir(os.getcwd())


def _describe(error: BaseException) -> dict[str, Any]:
    is_memory = isinstance(error, (MemoryError, duckdb.OutOfMemoryException))
    is_memory = is_memory or "bad allocation" in str(error) or "Out of Memory" in str(error)
    return {"error": str(error) or type(error).__name__, "is_memory": is_memory}


def _limit_memory(memory_mb: int) -> None:
    """Let the operating system limit the address space, unless the shell that started us allows less already."""
    used_kb = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize:")).split()[1])  # noqa: SIM115
    limit = used_kb * 1024 + (memory_mb + ALLOWANCE_MB) * 1024 * 1024
    present = [bound for bound in resource.getrlimit(resource.RLIMIT_AS) if bound != resource.RLIM_INFINITY]
    limit = min([limit, *present])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answer requests until stdin ends."""
    warnings.filterwarnings("ignore", "Arrow output on a DB-API result")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends this process
    memory_mb, parent = int(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    _limit_memory(memory_mb)
    worker = _Worker(memory_mb)
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not stand between two answers
    while line := stdin.readline():
        request = json.loads(line)
        payload = stdin.read(request.get("n_bytes", 0))
        try:
            head, body = worker.answer(request, payload)
        except Exception as error:  # whatever a query did is the query's, and is told
            head, body = _describe(error), b""
        del payload
        stdout.write(json.dumps({**head, "n_bytes": len(body)}).encode() + b"\n")
        stdout.write(body)
        stdout.flush()
    _remove_folder()


if __name__ == "__main__":
    main()
