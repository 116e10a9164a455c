"""Shared fixtures: a home of one's own per test, and the real sample data where it is present."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from negtraj_dagster.modeling import make_base_model
from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.shards import vouching
from negtraj_dagster.store import Store
from tests.support import deployment as dep
from tests.support.warm import warm_children

FOREIGN = ("NEGTRAJ_", "DAGSTER_", "CUDA_VISIBLE_DEVICES", "HF_", "TRANSFORMERS_", "NO_COLOR")
IN_MEMORY = Path("/dev/shm")
MIN_FREE_BYTES = 4 * 2**30
if os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > MIN_FREE_BYTES:
    os.environ.setdefault(
        "PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY)
    )  # no test proves what fsync does, and it takes a third of them
TESTS = Path(__file__).resolve().parent
SAMPLE_DATA = TESTS.parents[1] / "shared" / "data"

TRAINERS = (
    "checkpoints/test_train.py",
    "checkpoints/test_zero_grid.py",
    "defs/test_kills.py",
    "defs/test_lineage.py",
    "test_interrupts.py",
    "test_run.py",
    "test_your_task.py",
)
"""Files whose tests wait for each other, since trainers do: one worker runs them all, and begins with them."""
GROUPS = {
    **dict.fromkeys(TRAINERS, "trainers"),
    "shards/test_exactness.py": "published tokenizers",
    "shards/test_injection.py": "published tokenizers",
}
"""Files that one worker runs, since they share what takes seconds to make."""


class ByFile(LoadScopeScheduling):
    """Gives workers whole files, whose tests share what they build, or `GROUPS` of them.

    Marks of `--dist loadgroup` are not seen with pytest 9.2: xdist 3.8 writes them to what no longer names a test.
    """

    def _split_scope(self, nodeid: str) -> str:
        name = nodeid.partition("::")[0].removeprefix("tests/")
        return GROUPS.get(name, name)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Called by `pytest -n`."""
    config.option.loadscopereorder = False  # xdist would begin with the files that have the most tests
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the trainers' files first: together they take longest."""
    items.sort(key=lambda item: item.path.relative_to(TESTS).as_posix() not in TRAINERS)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads or writes the developer's NEGTRAJ_HOME or DAGSTER_HOME, or follows a setting of their shell."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NEGTRAJ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr(vouching, "SAMPLE_OF", 1)  # the reference looks at every row that a test makes
    before = dict(os.environ)
    yield
    os.environ.clear()  # what a command under test sets for its children is not the next test's
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def _warm_children() -> Iterator[None]:
    """Trainings, evaluations and looks at exports that this process starts are forked from one that has imported torch."""
    with warm_children():
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A small embedded task."""
    sizes = WordtrapsSettings(n_train_questions=120, n_gate_questions=10, n_test_questions=20)
    return Settings(home=tmp_path / "home", wordtraps=sizes)


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store(settings.home)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained model that knows bytes; to be read alone."""
    folder = tmp_path_factory.mktemp("base_model") / "model"
    make_base_model("bytes", folder, texts=[], format_strings=[])
    return folder


@pytest.fixture
def root(base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment in which nothing has run yet, seen by this process."""
    folder = dep.make_deployment(tmp_path / "d", base_model)
    dep.see(monkeypatch, folder)
    return folder


@pytest.fixture(scope="session")
def first_run(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dep.FirstRun:
    """A deployment and its first run, with the trainer that counts."""
    return dep.run_first(tmp_path_factory.mktemp("deployment"), base_model, dep.counting_child)


@pytest.fixture
def built(first_run: dep.FirstRun, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That deployment as the first run left it, seen by this process: the test may change it."""
    first_run.put_back()
    dep.see(monkeypatch, first_run.root)
    return first_run.root


@pytest.fixture(scope="session")
def nat_dir() -> Path:
    """NAT's published files; the tests that need them are skipped where they are not at hand."""
    folder = SAMPLE_DATA / "nat"
    if not folder.is_dir():
        pytest.skip("the real NAT files are not at hand")
    return folder


BUCKET = "negtraj-test"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket's URL."""
    for name, value in {"KEY": "ACCESS_KEY_ID", "SECRET": "SECRET_ACCESS_KEY"}.items():
        monkeypatch.setenv(f"AWS_{value}", name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    files = S3FileSystem()
    if files.exists(BUCKET):
        files.rm(BUCKET, recursive=True)
    files.mkdir(BUCKET)
    return f"s3://{BUCKET}/negtraj"
