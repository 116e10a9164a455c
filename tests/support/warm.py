"""Children that are forked from a process which has imported torch, transformers and DeepSpeed: they start in no time.

`launch.run_child` starts a child as `python -m negtraj_dagster.launch MODULE CONFIG`, and most of its time are imports, on
which nothing depends that a training makes. So `warm_children` stands in for the start alone: the child runs `launch.main`
with the arguments, environment, files and process group that it would have. Children of other processes than the tests' own,
those of commands under test, start as they always do; so do those that are given another PATH, which imports may see.
"""

import array
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from negtraj_dagster import launch

WARM = ("negtraj_dagster.checkpoints.train", "negtraj_dagster.checkpoints.compare_export", "negtraj_dagster.reports.evaluate")
START = ["-m", "negtraj_dagster.launch"]
MAX_REQUEST = 1 << 20
COLD = launch._start


class WarmProcess:
    """As much of `subprocess.Popen` as `launch` asks of a child."""

    def __init__(self, pid: int, ended: socket.socket, stderr: Any) -> None:
        self.pid, self.stderr = pid, stderr
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._take(0.0)

    def wait(self) -> int | None:
        """The same, when it has ended."""
        return self._take(None)

    def _take(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._ended.settimeout(timeout)
            try:
                status = json.loads(self._ended.recv(64) or str(int(signal.SIGKILL)))  # the process between was killed
            except (BlockingIOError, TimeoutError):
                return None
            self.returncode = os.waitstatus_to_exitcode(status)
            self._ended.close()
        return self.returncode


class Zygote:
    """The process that children are forked from; it ends with this one."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests = ours
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm", str(theirs.fileno())],
            env={**launch.child_env(), "PYTHONPATH": os.pathsep.join(map(str, sys.path[:1] + sys.path))},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()

    def start(self, command: list[str], env: dict[str, str], *, rank: int, group: int) -> launch._Rank:
        """In place of `launch._start`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        readable, writable = os.pipe()
        request = {"arguments": command[len(START) + 1 :], "env": env, "group": group, "cwd": os.getcwd()}
        with open(os.devnull, "r+b") as nothing:
            stdout = 1 if rank == 0 else nothing.fileno()
            files = array.array("i", [nothing.fileno(), stdout, writable, theirs.fileno()])
            self._requests.sendmsg([json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        theirs.close()
        os.close(writable)
        answer = ours.recv(64)
        assert answer, "the process that trainings are forked from is gone: look for what ended it above"
        pid = json.loads(answer)
        process = WarmProcess(pid, ours, os.fdopen(readable, "rb", buffering=0))
        started = launch._Rank(rank, process)  # type: ignore[arg-type]
        started.reader = threading.Thread(target=launch._forward_stderr, args=(started,), daemon=True)
        started.reader.start()
        return started

    def end(self) -> None:
        """End it."""
        self._requests.close()
        self._process.wait()


@contextmanager
def warm_children() -> Iterator[None]:
    """Children of `run_child` that run a module of `WARM` are forked."""
    zygote: Zygote | None = None

    def start(command: list[str], env: dict[str, str], *, rank: int, group: int) -> launch._Rank:
        nonlocal zygote
        if command[1:3] != START or command[3] not in WARM or env["PATH"] != launch.child_env()["PATH"]:
            return COLD(command, env, rank=rank, group=group)
        zygote = zygote or Zygote()
        return zygote.start(command, env, rank=rank, group=group)

    launch._start = start
    try:
        yield
    finally:
        launch._start = COLD
        if zygote is not None:
            zygote.end()


@contextmanager
def cold_children() -> Iterator[None]:
    """Children start as they always do: of a test that looks for them by their command."""
    started, launch._start = launch._start, COLD
    try:
        yield
    finally:
        launch._start = started


def serve(requests: socket.socket) -> list[str]:
    """Fork a child a request; returns, in a child, its arguments."""
    while True:
        data, files, _, _ = socket.recv_fds(requests, MAX_REQUEST, 4)
        if not data:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            if (arguments := _fork_and_wait(json.loads(data), files)) is not None:
                return arguments
        for file in files:
            os.close(file)


def _fork_and_wait(request: dict[str, Any], files: list[int]) -> list[str] | None:
    """In a process between: fork the child, tell its pid, and how it ended; its arguments in the child itself."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ[launch.PARENT_VARIABLE] = str(os.getppid())
    launch.die_with_parent()
    between = os.getpid()
    ended = socket.socket(fileno=files.pop())
    pid = os.fork()
    if pid:
        ended.send(json.dumps(pid).encode())
        for file in files:
            os.close(file)
        _, status = os.waitpid(pid, 0)
        ended.send(json.dumps(status).encode())
        os._exit(0)
    ended.close()
    os.setpgid(0, request["group"])
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update({**request["env"], launch.PARENT_VARIABLE: str(between)})
    arguments: list[str] = request["arguments"]
    return arguments


def main() -> None:
    """`python -m tests.support.warm DESCRIPTOR`."""
    launch.die_with_parent()
    gc.set_threshold(launch.OBJECTS_PER_COLLECTION)
    requests = socket.socket(fileno=int(sys.argv[1]))
    import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    sys.argv = [launch.__file__, *serve(requests)]
    launch.main()


def import_all() -> None:
    """What trainings and evaluations of small models import; none of it is run."""
    for name in ("deepspeed.runtime.engine", "transformers.models.llama.modeling_llama", "peft", *WARM):
        importlib.import_module(name)
    for name in WARM:  # they are run as __main__
        del sys.modules[name]


if __name__ == "__main__":
    main()
