"""The real tokenizers, each bound to ChatML."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer as HfTokenizer

from negtraj_dagster import _trajtok
from tests.support.hf_reference import added_tokens, reference, with_chatml
from tests.support.real_tokenizers import NEWEST, real_tokenizer, tokenizer_names


@dataclass(frozen=True)
class RealTokenizer:
    """A published tokenizer, ours and Hugging Face's; the file has ChatML's two tokens, its own or added last."""

    name: str
    path: Path
    ours: _trajtok.Tokenizer
    added: dict[str, int]

    @property
    def reference(self) -> HfTokenizer:
        """Hugging Face's; loaded where it is asked for."""
        return reference(self.path)


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RealTokenizer]:
    """Loads each once: two seconds, and a fixture with parameters is made anew for every file."""
    return functools.cache(lambda name: _load(name, tmp_path_factory))


SOME = tuple(pytest.param(name, marks=pytest.mark.slow) if name in NEWEST else name for name in tokenizer_names())


@pytest.fixture(scope="session", params=tokenizer_names())
def any_real(request: pytest.FixtureRequest, load: Callable[[str], RealTokenizer]) -> RealTokenizer:
    """Each tokenizer, for what is about ids alone."""
    return load(request.param)


@pytest.fixture(scope="session", params=SOME)
def real(request: pytest.FixtureRequest, load: Callable[[str], RealTokenizer]) -> RealTokenizer:
    """The newest ones in slow tests alone: they differ in their vocabulary and in nothing else."""
    return load(request.param)


def _load(name: str, tmp_path_factory: pytest.TempPathFactory) -> RealTokenizer:
    path = with_chatml(real_tokenizer(name), tmp_path_factory.mktemp(name))
    ours = _trajtok.Tokenizer(path, template="chatml", max_tokens=2**31 - 1)
    return RealTokenizer(name, path, ours, added_tokens(path))
