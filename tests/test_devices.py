"""One child at a time on each device, whatever the home; devices apart do not wait for each other."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from negtraj_dagster import devices
from negtraj_dagster.devices import child_devices, hold_devices
from negtraj_dagster.errors import StoreError

HOLD = """
import sys, time
from negtraj_dagster.devices import hold_devices
with hold_devices(("test-device",), "train"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_lock_folder", lambda: tmp_path)
    monkeypatch.setattr(devices, "DRIVER_GPUS", tmp_path / "no driver")
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("visible", "ranks", "expected"),
    [
        (None, 1, ("gpu-0",)),
        (None, 2, ("gpu-0", "gpu-1")),
        ("3", 1, ("gpu-3",)),
        ("5,2,7", 2, ("gpu-2", "gpu-5")),
        ("00", 1, ("gpu-0",)),
        (" 1 ,0", 2, ("gpu-0", "gpu-1")),
        ("2,-1,3", 3, ("gpu-2",)),
        ("GPU-1a/2b", 1, ("gpus",)),
        ("1,GPU-1a", 1, ("gpu-1",)),
        ("1,GPU-1a", 2, ("gpus",)),
        ("MIG-1a", 1, ("gpus",)),
        ("", 2, ("processor",)),
    ],
    ids=[
        "first",
        "two ranks",
        "one chosen",
        "the first two chosen",
        "with a zero",
        "with blanks",
        "up to a negative one",
        "by a name that nobody resolves",
        "a name that is not used",
        "one of two by name",
        "an instance",
        "hidden",
    ],
)
def test_a_child_uses_one_visible_device_a_rank(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, ranks: int, expected: tuple[str, ...]
) -> None:
    monkeypatch.setattr(devices, "has_gpu", lambda: visible != "")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert child_devices(ranks) == expected


def list_cards(monkeypatch: pytest.MonkeyPatch, folder: Path, cards: list[tuple[str, str, str]]) -> None:
    """The driver's list: bus, UUID and model of each GPU, and their device files."""
    for number, (bus, uuid, model) in enumerate(cards):
        (folder / "gpus" / bus).mkdir(parents=True)
        (folder / "gpus" / bus / "information").write_text(
            f"Model: \t\t {model}\nGPU UUID: \t {uuid}\nBus Location: \t {bus}\n"
        )
        (folder / f"nvidia{number}").touch()
    (folder / "nvidiactl").touch()
    monkeypatch.setattr(devices, "DRIVER_GPUS", folder / "gpus")
    monkeypatch.setattr(devices, "DEVICE_FILES", folder)
    monkeypatch.setattr(devices, "has_gpu", lambda: True)


TWO_ALIKE = [("0000:07:00.0", "GPU-1a-2", "A100"), ("0000:0a:00.0", "GPU-1b-3", "A100")]
FIRST, SECOND = "gpu-0000_07_00_0", "gpu-0000_0a_00_0"


@pytest.mark.parametrize(
    ("cards", "environment", "expected"),
    [
        (TWO_ALIKE, {}, (FIRST,)),
        (TWO_ALIKE, {"CUDA_VISIBLE_DEVICES": "01"}, (SECOND,)),
        (TWO_ALIKE, {"CUDA_VISIBLE_DEVICES": "GPU-1b"}, (SECOND,)),
        (TWO_ALIKE, {"CUDA_VISIBLE_DEVICES": "gpu-1B-3"}, (SECOND,)),
        (TWO_ALIKE, {"CUDA_VISIBLE_DEVICES": "GPU-1"}, ("gpus",)),
        (TWO_ALIKE, {"CUDA_VISIBLE_DEVICES": "2"}, ("gpus",)),
        (TWO_ALIKE, {"CUDA_VISIBLE_DEVICES": "MIG-1a"}, ("gpus",)),
        (TWO_ALIKE, {"HIP_VISIBLE_DEVICES": "1"}, (FIRST,)),
        ([TWO_ALIKE[0], ("0000:0a:00.0", "GPU-????????", "A100")], {"CUDA_VISIBLE_DEVICES": "GPU-1a"}, ("gpus",)),
        ([TWO_ALIKE[0], ("0000:0a:00.0", "GPU-1b-3", "T4")], {"CUDA_VISIBLE_DEVICES": "1"}, ("gpus",)),
        (
            [TWO_ALIKE[0], ("0000:0a:00.0", "GPU-1b-3", "T4")],
            {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            (SECOND,),
        ),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_one_device_has_one_name_however_it_is_spelt(
    cards: list[tuple[str, str, str]],
    environment: dict[str, str],
    expected: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    list_cards(monkeypatch, tmp_path / "driver", cards)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert child_devices(1) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HIP_VISIBLE_DEVICES": "1"}, ("gpu-1",)),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ("gpu-1",)),
        ({"ROCR_VISIBLE_DEVICES": "2,3"}, ("gpu-2",)),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "1"}, ("gpu-3",)),
        ({"ROCR_VISIBLE_DEVICES": "2", "HIP_VISIBLE_DEVICES": "1"}, ("gpus",)),
        ({"ROCR_VISIBLE_DEVICES": "GPU-1a"}, ("gpus",)),
    ],
    ids=str,
)
def test_amds_variables_count_from_each_other(
    environment: dict[str, str], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_gpu", lambda: True)
    monkeypatch.setattr(devices, "_is_amd", lambda: True)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert child_devices(1) == expected


@pytest.mark.parametrize(("held", "other"), [("gpus", "gpu-3"), ("gpu-3", "gpus")])
def test_all_devices_exclude_every_one(held: str, other: str) -> None:
    entered = threading.Event()

    def second() -> None:
        with hold_devices((other,), "train"):
            entered.set()

    with hold_devices((held,), "train"):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(3 * devices.POLL_S)
    assert entered.wait(5)
    thread.join()


def lock_file(folder: Path) -> Path:
    return folder / f"negtraj-{os.getuid()}-a.lock"


@pytest.mark.parametrize(
    ("put", "what"),
    [
        (lambda victim, lock: lock.symlink_to(victim), "it is a symbolic link"),
        (lambda victim, lock: lock.hardlink_to(victim), "2 names"),
        (lambda victim, lock: os.mkfifo(lock), "no plain file"),
        (lambda victim, lock: lock.mkdir(), "cannot be opened"),
    ],
    ids=["symbolic link", "hard link", "fifo", "folder"],
)
def test_what_is_no_lock_of_ours_is_refused_and_left_as_it_is(
    put: Callable[[Path, Path], object], what: str, tmp_path: Path
) -> None:
    victim = tmp_path / "precious.txt"
    victim.write_text("precious")
    put(victim, lock_file(tmp_path))
    with pytest.raises(StoreError, match=rf"negtraj-\d+-a\.lock: .*{what}.*delete it"), hold_devices(("a",), "train"):
        pass
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_lock_of_another_user_is_refused(tmp_path: Path) -> None:
    lock_file(tmp_path).touch()
    os.chown(lock_file(tmp_path), 65534, 65534)
    with pytest.raises(StoreError, match="delete it"), hold_devices(("a",), "train"):
        pass


def test_a_lock_is_its_users_alone_and_the_one_that_others_find(tmp_path: Path) -> None:
    entered = threading.Event()

    def second() -> None:
        with hold_devices(("a",), "train"):
            assert lock_file(tmp_path).stat().st_mode & 0o777 == 0o600
            entered.set()

    with hold_devices(("a",), "train"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(2 * devices.POLL_S)
        lock_file(tmp_path).unlink()
    thread.join(10)
    assert entered.is_set()
    assert lock_file(tmp_path).exists()


def test_a_taken_device_is_waited_for_and_its_holder_named(caplog: pytest.LogCaptureFixture) -> None:
    order = []

    def second() -> None:
        with hold_devices(("a", "b"), "evaluate"):
            order.append("second")

    with hold_devices(("b",), "train"), caplog.at_level(logging.WARNING):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(3 * devices.POLL_S)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert "waiting for b of this machine" in caplog.text
    assert "(train, home " in caplog.text


def test_devices_apart_do_not_wait_for_each_other(caplog: pytest.LogCaptureFixture) -> None:
    entered = threading.Event()

    def other() -> None:
        with hold_devices(("gpu-1",), "train"):
            entered.set()

    with hold_devices(("gpu-0",), "train"):
        threading.Thread(target=other, daemon=True).start()
        assert entered.wait(5)
    assert "waiting" not in caplog.text


def test_a_killed_holder_frees_its_device_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the child takes its lock where every child does
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    began = time.monotonic()
    with hold_devices(("test-device",), "train"):
        assert time.monotonic() - began < 2
