"""One trainer or evaluator at a time on each device of this machine: a GPU, or the processor where there is none."""

import fcntl
import json
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from negtraj_dagster.errors import StoreError
from negtraj_dagster.launch import has_gpu

LOG = logging.getLogger(__name__)

POLL_S = 0.2
"""A signal is heard between two looks, whatever its handler does."""
REMIND_S = 300.0
ALL_GPUS = "gpus"
DEVICE_FILES = Path("/dev")
DRIVER_GPUS = Path("/proc/driver/nvidia/gpus")
_CUDA, _HIP = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"


def child_devices(ranks: int) -> tuple[str, ...]:
    """Names of the devices that a child of `ranks` ranks uses: the first visible GPUs, one a rank, or the processor.

    One device has one name however the environment spells it: its bus address where the NVIDIA driver lists its GPUs, else its
    number. Where that cannot be told (a GPU's UUID that the driver does not list, a MIG instance, GPUs of several models that
    CUDA numbers by speed), the name is ALL_GPUS, which excludes every other.
    """
    if not has_gpu():
        return ("processor",)
    visible = _visible_devices()
    devices = list(range(ranks)) if visible is None else visible[:ranks]
    names = [_device_name(device) for device in devices]
    return tuple(sorted({name for name in names if name})) if names and all(names) else (ALL_GPUS,)


def _visible_devices() -> list[int | str] | None:
    """What the environment lets a child see, numbers as the machine's; None without a limit, a text where it cannot be told."""
    lists = [_read_list(os.environ[name]) for name in _visibility_variables() if name in os.environ]
    visible = lists[0] if lists else None
    for inner in lists[1:]:  # counts what the one before it has left
        is_known = all(isinstance(device, int) and device < len(visible or ()) for device in inner)
        visible = [visible[device] for device in inner if isinstance(device, int)] if visible and is_known else ["unknown"]
    return visible


def _visibility_variables() -> tuple[str, ...]:
    """The variables that this machine's driver reads, the outer one first."""
    return ("ROCR_VISIBLE_DEVICES", _HIP if _HIP in os.environ else _CUDA) if _is_amd() else (_CUDA,)


def _is_amd() -> bool:
    return Path("/dev/kfd").exists() and not _cards()


def _read_list(value: str) -> list[int | str]:
    """`00, GPU-1a2b` as 0 and a name; the list ends at the first negative number, as CUDA reads it."""
    devices: list[int | str] = []
    for part in (part.strip() for part in value.split(",")):
        if re.fullmatch(r"-[0-9]+", part):
            break
        devices.append(int(part) if re.fullmatch(r"[0-9]+", part) else part)
    return devices


def _device_name(device: int | str) -> str | None:
    """A device's one name, by its number or the beginning of its UUID; None where it cannot be told."""
    cards = _cards()
    is_ordered = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if isinstance(device, int):
        if not cards:
            return None if is_ordered else f"gpu-{device}"
        is_known = device < len(cards) and (is_ordered or len({card.model for card in cards}) == 1)
        return cards[device].name if is_known else None
    matching_cards = [card for card in cards if device and card.uuid.lower().startswith(device.lower())]
    return matching_cards[0].name if len(matching_cards) == 1 and "?" not in "".join(card.uuid for card in cards) else None


@dataclass(frozen=True)
class _Card:
    """A GPU as the NVIDIA driver lists it; it writes `?` for the digits of a UUID that it has not read yet."""

    bus: str
    uuid: str
    model: str

    @property
    def name(self) -> str:
        return f"gpu-{re.sub('[^A-Za-z0-9]', '_', self.bus)}"


def _cards() -> list[_Card]:
    """GPUs in the order of their buses; none where the driver lists others than a process may open, as in some containers."""
    cards = []
    for path in sorted(DRIVER_GPUS.glob("*/information")):
        try:
            lines = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
        except OSError:
            return []
        fields = {name.strip(): value.strip() for name, _, value in lines}
        cards.append(_Card(path.parent.name, fields.get("GPU UUID", "?"), fields.get("Model", "?")))
    n_files = len([path for path in DEVICE_FILES.glob("nvidia*") if re.fullmatch(r"nvidia[0-9]+", path.name)])
    return cards if len(cards) == n_files else []


@contextmanager
def hold_devices(devices: Sequence[str], purpose: str) -> Iterator[None]:
    """Hold every one of these devices against other children of this user, in any home; wait where one is taken.

    A lock is the operating system's: it is free as soon as its holder's process has ended, however that ended. Locks are taken
    in the order of their names, so that two children never wait for each other. Who holds a GPU shares ALL_GPUS with the
    holders of others.

    Args:
        devices: as `child_devices` names them.
        purpose: what the holder does; those that wait say it, with the holder's process and home.

    Raises:
        StoreError: the lock's file cannot be opened, or is no plain file of this user's; names it with the remedy.
    """
    with ExitStack() as held:
        if any(device.startswith("gpu-") for device in devices):
            held.enter_context(_hold_device(ALL_GPUS, purpose, is_shared=True))
        for device in sorted(set(devices)):
            held.enter_context(_hold_device(device, purpose))
        yield


@contextmanager
def _hold_device(device: str, purpose: str, *, is_shared: bool = False) -> Iterator[None]:
    path = _lock_folder() / f"negtraj-{os.getuid()}-{device}.lock"
    with _lock(path, device, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) as handle:
        if not is_shared:
            _write_holder(handle, purpose)
        try:
            yield
        finally:
            if not is_shared:
                handle.truncate(0)


def _lock(path: Path, device: str, kind: int) -> TextIO:
    while True:
        handle = _open_lock(path, device)
        try:
            _wait_for(handle, device, kind)
            if _is_present(handle, path):  # else it was deleted while we waited, and others lock the next one
                return handle
        except BaseException:
            handle.close()
            raise
        handle.close()


def _open_lock(path: Path, device: str) -> TextIO:
    """Open a lock's file in a folder that is everybody's: never through a link, never what another user has put there."""
    remedy = "delete it, or have its owner delete it"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        cause = "it is a symbolic link" if path.is_symlink() else error.strerror
        raise StoreError(f"{path}: the lock of {device} cannot be opened ({cause}); {remedy}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
        os.close(descriptor)
        raise StoreError(
            f"{path}: the lock of {device} is no plain file of user {os.geteuid()} alone ({stat.filemode(status.st_mode)}, "
            f"user {status.st_uid}, {status.st_nlink} names); {remedy}"
        )
    return os.fdopen(descriptor, "r+", encoding="utf-8")


def _is_present(handle: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _wait_for(handle: TextIO, device: str, kind: int) -> None:
    began, reminded = time.monotonic(), -REMIND_S
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
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
    handle.seek(0)
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
