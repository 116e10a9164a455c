"""The trainer's material, for a GPU."""

from pathlib import Path

import pytest

from tests.checkpoints.conftest import Material, write_material


@pytest.fixture(scope="session")
def gpu_material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder: Path = tmp_path_factory.mktemp("gpu")
    return write_material(folder)
