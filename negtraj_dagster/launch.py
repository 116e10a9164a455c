"""Runs this package's modules as child processes: environment, ranks in one process group, their common end.

Trainer, evaluator and model maker need torch; the Dagster code location does not import it. `run_child` is how an asset
calls them. Nothing here imports torch either.
"""

import atexit
import contextlib
import ctypes
import gc
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from negtraj_dagster.errors import ChildRunError, NegtrajError

LOG = logging.getLogger(__name__)

PAUSED = 75
"""How a child ends that a signal reached: what it did is saved, and it goes on when it is started again (EX_TEMPFAIL)."""
MAX_STARTS = 100
"""Of a child that signals end again and again: something is wrong with it, or with the machine."""
STDERR_TAIL_BYTES = 8192
POLL_S = 0.05
GRACE_S = 60.0
"""A training saves its state after the step that is under way, which of a real model on a processor takes half a minute."""
PR_SET_PDEATHSIG = 1
OBJECTS_PER_COLLECTION = 20_000
"""Of a child's garbage collector, 700 by default: to import torch and transformers makes a million that stay, and to look at
them a thousand times takes a sixth of a child's start."""
GPU_DEVICES = ("nvidia[0-9]*", "dxg", "kfd")
PARENT_VARIABLE = "NEGTRAJ_PARENT_PID"
REASON = "negtraj: "
"""What a child writes, at a line's beginning, before the message of an error that its user can mend."""


class RunChild(Protocol):
    """Runs `python -m module config` on some ranks until it has published its result; raises when it does not."""

    def __call__(self, module: str, config: Path, ranks: int, threads: int) -> None:
        """Run the child."""


@dataclass
class _Rank:
    """A running child and the last bytes it wrote to stderr."""

    rank: int
    process: subprocess.Popen[bytes]
    tail: bytearray = field(default_factory=bytearray)
    reader: threading.Thread | None = None


def run_child(
    module: str,
    config_path: Path,
    *,
    ranks: int = 1,
    threads: int = 1,
    extra_env: Mapping[str, str] | None = None,
    result_path: Path | None = None,
    grace_s: float = GRACE_S,
) -> None:
    """Run `python -m module config_path` in `ranks` processes and wait for all of them.

    Rank 0 inherits stdout and stderr. Whatever ends the wait early (an interrupt, one rank's death, an error here) ends
    every rank: SIGTERM to their process group, SIGKILL after `grace_s`. A rank whose parent is killed dies as well. Ranks that
    a signal of somebody else's made save their state and end (`PAUSED`) are started again, and go on.

    Args:
        module: `negtraj_dagster.checkpoints.train`.
        config_path: the child's only argument.
        ranks: processes that train together.
        threads: OpenMP threads of each.
        extra_env: merged over the environment, such as a Dagster Pipes session's variables.
        result_path: a file the child writes last. Without it a run counts as failed whatever its exit code. With it an
            abort while the interpreter shuts down is forgiven (seen once in 8 runs after all work was done).
        grace_s: seconds between SIGTERM and SIGKILL.

    Raises:
        ChildRunError: a rank failed, or none failed and the result is missing.
    """
    if result_path is not None and result_path.exists():
        raise ChildRunError(f"{result_path} exists before {module} ran; expected an empty output folder: delete it")
    for _ in range(MAX_STARTS):
        failed, running = _run_ranks(module, config_path, ranks, threads, extra_env, grace_s)
        if failed is None or failed.process.returncode != PAUSED:
            break
        LOG.warning("%s: a signal ended rank %d, after it had saved its state; it goes on from there", module, failed.rank)
    _judge(module, failed, running, result_path)


def _run_ranks(
    module: str, config_path: Path, ranks: int, threads: int, extra_env: Mapping[str, str] | None, grace_s: float
) -> tuple[_Rank | None, list[_Rank]]:
    """All ranks, once, to their end; with the one that did not end well."""
    port = free_port()
    running: list[_Rank] = []
    try:
        for rank in range(ranks):
            env = child_env(threads=threads, rank=rank, ranks=ranks, port=port, extra_env=extra_env)
            group = running[0].process.pid if running else 0
            running.append(_start(child_command(module, config_path), env, rank=rank, group=group))
        return _wait(running), running
    finally:
        _end(running, grace_s=grace_s)


def child_command(module: str, config_path: Path) -> list[str]:
    """The command of one rank: through this module, which binds it to its parent before the slow imports begin."""
    return [sys.executable, "-m", "negtraj_dagster.launch", module, str(config_path)]


def child_env(
    *,
    threads: int = 1,
    rank: int = 0,
    ranks: int = 1,
    port: int | None = None,
    extra_env: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of one rank: ours, what DeepSpeed and torch read, then `extra_env` over both."""
    bin_dir = str(Path(sys.executable).parent)
    env = {
        **os.environ,
        "PATH": os.pathsep.join([bin_dir, os.environ.get("PATH", os.defpath)]),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port or free_port()),
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        # nothing here is compiled, and importing DeepSpeed's Muon would load the whole compiler: 3 s a start
        "TORCHDYNAMO_DISABLE": "1",
        PARENT_VARIABLE: str(os.getpid()),
    }
    if not has_gpu():
        env["DS_ACCELERATOR"] = "cpu"
    return {**env, **(extra_env or {})}


def has_gpu() -> bool:
    """Whether a GPU's device file is there and not hidden: asked without loading torch."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    return any(True for device in GPU_DEVICES for _ in Path("/dev").glob(device))


def die_with_parent() -> None:
    """Called by a child: ask the kernel to kill it when the process that started it ends (Linux), else watch for it."""
    parent_pid = int(os.environ.get(PARENT_VARIABLE, os.getppid()))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid and PARENT_VARIABLE in os.environ:
            os._exit(1)  # the parent ended before the call
        return
    threading.Thread(target=_exit_without, args=(parent_pid,), daemon=True).start()


def seconds_since_start() -> float:
    """Age of this process, imports included; where /proc is missing, its CPU time."""
    try:
        started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.process_time()


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _exit_without(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(1.0)
    os._exit(1)


def _start(command: list[str], env: dict[str, str], *, rank: int, group: int) -> _Rank:
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=None if rank == 0 else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=group,
    )
    started = _Rank(rank, process)
    started.reader = threading.Thread(target=_forward_stderr, args=(started,), daemon=True)
    started.reader.start()
    return started


def _forward_stderr(running: _Rank) -> None:
    """Keep the tail of a rank's stderr; pass rank 0's on."""
    assert running.process.stderr is not None
    descriptor = running.process.stderr.fileno()
    while chunk := os.read(descriptor, 65536):
        running.tail += chunk
        del running.tail[:-STDERR_TAIL_BYTES]
        if running.rank == 0:
            with contextlib.suppress(BrokenPipeError):  # `2>&1 | head`: a child that nobody empties would wait for ever
                sys.stderr.write(chunk.decode(errors="replace"))
                sys.stderr.flush()


def _wait(running: list[_Rank]) -> _Rank | None:
    """Wait until all have ended well, or one has not: return that one."""
    live = list(running)
    while live:
        for rank in list(live):
            code = rank.process.poll()
            if code is None:
                continue
            live.remove(rank)
            if code != 0:
                return rank
        time.sleep(POLL_S)
    return None


def _end(running: list[_Rank], *, grace_s: float) -> None:
    """End what still runs in the group, and wait for it."""
    deadline = time.monotonic() + grace_s
    for number in (signal.SIGTERM, signal.SIGKILL):
        if any(rank.process.poll() is None for rank in running):
            _signal_group(running[0].process.pid, number)
        while number == signal.SIGTERM and time.monotonic() < deadline:
            if all(rank.process.poll() is not None for rank in running):
                break
            time.sleep(POLL_S)
    for rank in running:
        rank.process.wait()
    if running:
        _signal_group(running[0].process.pid, signal.SIGKILL)  # whatever a rank has left behind in its group
    for rank in running:
        if rank.reader:
            rank.reader.join(timeout=1.0)


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _judge(module: str, failed: _Rank | None, running: list[_Rank], result_path: Path | None) -> None:
    has_result = result_path is not None and result_path.is_file()
    if failed and failed.process.returncode == -signal.SIGABRT and has_result:
        LOG.warning("%s: rank %d aborted after it had published %s", module, failed.rank, result_path)
        return
    if failed is None and (result_path is None or has_result):
        return
    culprit = failed or running[0]
    tail = culprit.tail.decode(errors="replace").strip()
    outcome = f"rank {culprit.rank} ended with exit code {culprit.process.returncode}"
    if failed is None:
        outcome = f"every rank ended with exit code 0, yet {result_path} is missing"
    if (at := f"\n{tail}".rfind(f"\n{REASON}")) >= 0:  # at a line's beginning only: other lines may quote anybody's words
        raise ChildRunError(f"{tail[at + len(REASON) :]}\n({module}: {outcome})")
    reason = tail.rpartition("\n")[2] or "nothing on stderr"
    raise ChildRunError(
        f"{reason}\n{module}: {outcome}; expected exit code 0 and a published result. Mend what its last lines say and "
        f"materialize again:\n{tail}"
    )


def main() -> None:
    """`python -m negtraj_dagster.launch MODULE CONFIG`: run a module as the child of whoever started it.

    At its end threads and executors are waited for and what registered for it is called, as ever; but torch and all that came
    with it are not taken apart: that takes a second of every child, and has aborted. Files left open are not flushed.
    """
    die_with_parent()
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    code = _run_module(sys.argv[1:])
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
                stream.flush()
    finally:
        os._exit(code & 0xFF)


def _run_module(arguments: list[str]) -> int:
    """Run a module with its arguments; returns the exit code."""
    sys.argv = arguments
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
    except NegtrajError as error:  # the message is the remedy; torch would put a traceback above it, each line with its rank
        print(f"{REASON}{error}", file=sys.stderr)
    except Exception as error:
        from negtraj_dagster.store import machine_fault  # late: a child is bound to its parent before anything slow

        if (fault := machine_fault(error, Path(arguments[1]).parent)) is not None:
            print(f"{REASON}{fault}", file=sys.stderr)
        else:
            traceback.print_exc()
    else:
        return 0
    return 1


if __name__ == "__main__":
    main()
