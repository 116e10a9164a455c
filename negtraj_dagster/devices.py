"""One trainer or evaluator at a time on each device of this machine: a GPU, or the processor where there is none."""

import fcntl
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from negtraj_dagster.errors import StoreError
from negtraj_dagster.launch import has_gpu

LOG = logging.getLogger(__name__)

POLL_S = 0.2
"""A signal is heard between two looks, whatever its handler does."""
REMIND_S = 300.0


def child_devices(ranks: int) -> tuple[str, ...]:
    """Names of the devices that a child of `ranks` ranks uses: the first visible GPUs, one a rank, or the processor."""
    if not has_gpu():
        return ("processor",)
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    names = visible[:ranks] or [str(index) for index in range(ranks)]
    return tuple(f"gpu-{re.sub(r'[^A-Za-z0-9-]', '_', name)}" for name in sorted(set(names)))


@contextmanager
def hold_devices(devices: Sequence[str], purpose: str) -> Iterator[None]:
    """Hold every one of these devices against other children of this user, in any home; wait where one is taken.

    A lock is the operating system's: it is free as soon as its holder's process has ended, however that ended. Locks are taken
    in the order of their names, so that two children never wait for each other.

    Args:
        devices: as `child_devices` names them.
        purpose: what the holder does; those that wait say it, with the holder's process and home.

    Raises:
        StoreError: the lock's file cannot be opened; names it with the remedy.
    """
    with ExitStack() as held:
        for device in sorted(devices):
            held.enter_context(_hold_device(device, purpose))
        yield


@contextmanager
def _hold_device(device: str, purpose: str) -> Iterator[None]:
    path = _lock_folder() / f"negtraj-{os.getuid()}-{device}.lock"
    try:
        handle = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"{path}: the lock of {device} cannot be opened ({error.strerror}); delete it, or make it yours"
        ) from error
    with handle:
        _wait_for(handle, device)
        _write_holder(handle, purpose)
        try:
            yield
        finally:
            handle.truncate(0)


def _wait_for(handle: TextIO, device: str) -> None:
    began, reminded = time.monotonic(), -REMIND_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            waited = time.monotonic() - began
            if waited - reminded >= REMIND_S:
                reminded = waited
                LOG.warning("waiting for %s of this machine since %.0f s: held by %s", device, waited, _read_holder(handle))
        time.sleep(POLL_S)


def _lock_folder() -> Path:
    root = Path("/tmp")  # not TMPDIR: two runs with different ones share the machine all the same
    return root if os.access(root, os.W_OK) else Path(tempfile.gettempdir())


def _write_holder(handle: TextIO, purpose: str) -> None:
    handle.truncate(0)
    json.dump({"pid": os.getpid(), "purpose": purpose, "home": os.environ.get("NEGTRAJ_HOME", "")}, handle)
    handle.flush()


def _read_holder(handle: TextIO) -> str:
    handle.seek(0)
    try:
        holder = json.loads(handle.read())
        return f"process {holder['pid']} ({holder['purpose']}, home {holder['home'] or 'unknown'})"
    except (ValueError, KeyError, TypeError):  # it has just taken the device, or leaves it
        return "another process"
