"""One child at a time on each device, whatever the home; devices apart do not wait for each other."""

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from negtraj_dagster import devices
from negtraj_dagster.devices import child_devices, hold_devices

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


@pytest.mark.parametrize(
    ("visible", "ranks", "expected"),
    [
        (None, 1, ("gpu-0",)),
        (None, 2, ("gpu-0", "gpu-1")),
        ("3", 1, ("gpu-3",)),
        ("5,2,7", 2, ("gpu-2", "gpu-5")),
        ("GPU-1a/2b", 1, ("gpu-GPU-1a_2b",)),
        ("", 2, ("processor",)),
    ],
    ids=["first", "two ranks", "one chosen", "the first two chosen", "by name", "hidden"],
)
def test_a_child_uses_one_visible_device_a_rank(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, ranks: int, expected: tuple[str, ...]
) -> None:
    monkeypatch.setattr(devices, "has_gpu", lambda: visible != "")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert child_devices(ranks) == expected


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
