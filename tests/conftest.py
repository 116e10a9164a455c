"""Shared fixtures: a home of one's own per test, and the real sample data where it is present."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.store import Store

FOREIGN = ("NEGTRAJ_", "DAGSTER_", "CUDA_VISIBLE_DEVICES", "HF_", "TRANSFORMERS_", "NO_COLOR")
IN_MEMORY = Path("/dev/shm")
MIN_FREE_BYTES = 4 * 2**30
if os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > MIN_FREE_BYTES:
    os.environ.setdefault(
        "PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY)
    )  # no test proves what fsync does, and it takes a third of them
SAMPLE_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads or writes the developer's NEGTRAJ_HOME or DAGSTER_HOME, or follows a setting of their shell."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NEGTRAJ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    before = dict(os.environ)
    yield
    os.environ.clear()  # what a command under test sets for its children is not the next test's
    os.environ.update(before)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A small embedded task."""
    sizes = WordtrapsSettings(n_train_questions=120, n_gate_questions=10, n_test_questions=20)
    return Settings(home=tmp_path / "home", wordtraps=sizes)


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store(settings.home)


@pytest.fixture
def nat_dir() -> Path:
    """NAT's published files; the tests that need them are skipped where they are not at hand."""
    folder = SAMPLE_DATA / "nat"
    if not folder.is_dir():
        pytest.skip("the real NAT files are not at hand")
    return folder
