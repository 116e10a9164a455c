"""The tiny line, run once for the files that begin from it."""

import pytest

from tests.support import tiny_line


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tiny_line.Deployment:
    """What a run that nobody disturbs makes; to be copied."""
    return tiny_line.run_first(tmp_path_factory.mktemp("clean") / "home")
