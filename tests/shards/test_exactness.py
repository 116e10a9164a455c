"""trajtok's ids beside Hugging Face's, on published tokenizers: not one text may differ.

The reference is `tokenizers` 0.23 without added tokens (tests/support/hf_reference.py), so a text that spells one is ordinary
text on both sides. Two ways in: `encode_texts`, a text alone, as at the start of a conversation; and `encode`, whole
conversations, whose texts stand between control tokens. A table of what ran ends the output.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path

import pyarrow as pa
import pytest

from negtraj_dagster import _trajtok
from tests.shards.conftest import RealTokenizer
from tests.support.corpora import (
    Conversation,
    adversarial_texts,
    code_point_texts,
    conversation_json,
    conversation_text,
    fuzzed_texts,
    hostile_conversations,
    real_conversations,
)
from tests.support.hf_reference import added_tokens
from tests.support.real_tokenizers import real_tokenizer, tokenizer_names
from tests.support.recorded_ids import expected_ids

BATCH = 2000
N_FUZZED_FAST, N_FUZZED_SLOW = 5_000, 200_000
HOSTILE_COPIES_SLOW = 5

needs_encode_texts = pytest.mark.skipif(
    not hasattr(_trajtok.Tokenizer, "encode_texts"), reason="this build of trajtok has no Tokenizer.encode_texts"
)


class Report:
    """Takes a tokenizer, a corpus, its size and the texts that differ, for a table in the end.

    Attributes:
        afresh: whether the reference encodes what it has encoded before, as in `make test-all`.
    """

    def __init__(self, *, afresh: bool) -> None:
        self.afresh = afresh
        self.rows = [("tokenizer", "encoder", "corpus", "texts", "differing")]

    def __call__(self, real: RealTokenizer, corpus: str, n_texts: int, differing: list[str]) -> None:
        self.rows.append((real.name, real.ours.encoder, corpus, f"{n_texts:,}", f"{len(differing):,}"))


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """Prints the table."""
    made = Report(afresh="not slow" not in request.config.option.markexpr)
    yield made
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        for tokenizer, encoder, corpus, n_texts, n_differing in made.rows:
            print(f"\n{tokenizer:12}{encoder:23}{corpus:32}{n_texts:>10}{n_differing:>11}", end="")
        print()


@pytest.fixture(scope="module")
def adversarial() -> list[str]:
    """The adversarial strings, with every tokenizer's added tokens among them."""
    return adversarial_texts(token for name in tokenizer_names() for token in added_tokens(real_tokenizer(name)))


@pytest.fixture(scope="module")
def conversations(nat_dir: Path) -> list[Conversation]:
    return real_conversations(nat_dir)


@pytest.fixture(scope="module")
def hostile(conversations: list[Conversation]) -> list[Conversation]:
    """What no cache from word to ids knows."""
    return list(hostile_conversations(conversations))


@pytest.fixture(scope="module")
def fuzzed(adversarial: list[str]) -> list[str]:
    return list(fuzzed_texts(adversarial, N_FUZZED_FAST))


def _batches(items: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _hold(real: RealTokenizer, corpus: str, texts: Iterable[str], report: Report) -> None:
    """Every text alone, through `encode_texts`."""
    n_texts, differing = 0, []
    for batch in _batches(texts):
        ours = real.ours.encode_texts(batch)
        pairs = zip(batch, ours, expected_ids(real.path, batch, ours, afresh=report.afresh), strict=True)
        differing += [text for text, ids, expected in pairs if ids != expected]
        n_texts += len(batch)
    report(real, corpus, n_texts, differing)
    assert n_texts > 0
    assert not differing, f"{len(differing)} of {n_texts} differ, the first: {_shortest(differing)!r}"


def _shortest(differing: Sequence[str]) -> list[str]:
    return sorted(differing, key=len)[:3]


@needs_encode_texts
def test_real_conversations(real: RealTokenizer, conversations: list[Conversation], report: Report) -> None:
    _hold(real, "real", map(conversation_text, conversations), report)


@needs_encode_texts
def test_conversations_that_no_cache_knows(real: RealTokenizer, hostile: list[Conversation], report: Report) -> None:
    _hold(real, "hostile", map(conversation_text, hostile), report)


@needs_encode_texts
def test_adversarial_texts(any_real: RealTokenizer, adversarial: list[str], report: Report) -> None:
    _hold(any_real, "adversarial", adversarial, report)


@needs_encode_texts
def test_code_points(any_real: RealTokenizer, report: Report) -> None:
    _hold(any_real, "code points, some", code_point_texts(step=29), report)


@needs_encode_texts
def test_fuzzed_texts(any_real: RealTokenizer, fuzzed: list[str], report: Report) -> None:
    _hold(any_real, "fuzzed", fuzzed, report)


@needs_encode_texts
def test_one_text_is_encoded_like_a_list_of_one(real: RealTokenizer, adversarial: list[str]) -> None:
    texts = adversarial[:: len(adversarial) // 200]
    assert [real.ours.encode_text(text) for text in texts] == real.ours.encode_texts(texts)
    assert real.ours.encode_text("") == []


@pytest.mark.slow
@needs_encode_texts
def test_many_conversations_that_no_cache_knows(real: RealTokenizer, conversations: list[Conversation], report: Report) -> None:
    copies = hostile_conversations(conversations, copies=HOSTILE_COPIES_SLOW, seed=1)
    _hold(real, "hostile, many", map(conversation_text, copies), report)


@pytest.mark.slow
@needs_encode_texts
def test_every_code_point(real: RealTokenizer, report: Report) -> None:
    _hold(real, "code points, all", code_point_texts(), report)


@pytest.mark.slow
@needs_encode_texts
def test_many_fuzzed_texts(real: RealTokenizer, adversarial: list[str], report: Report) -> None:
    _hold(real, "fuzzed, many", fuzzed_texts(adversarial, N_FUZZED_SLOW, seed=1), report)


# --- Inside of conversations -----------------------------------------------------------------------------------------------


def _hold_conversations(real: RealTokenizer, corpus: str, conversations: Iterable[Conversation], report: Report) -> None:
    """Whole rows: what stands between two control tokens is the reference's, the control tokens are the template's."""
    n_rows, differing = 0, []
    for batch in _batches(map(conversation_json, conversations)):
        keys = [str(number) for number in range(len(batch))]
        encoded = real.ours.encode(keys, batch)
        assert {reason for _, reason, _ in encoded.rejected} <= {"nothing_trained", "no_token"}
        refused = {key for key, _, _ in encoded.rejected}
        kept = [text for key, text in zip(keys, batch, strict=True) if key not in refused]
        rows = pa.record_batch(encoded).column("input_ids").to_pylist()
        pairs = zip(kept, rows, _expected_rows(real, kept, report), strict=True)
        differing += [text for text, ids, expected in pairs if ids != expected]
        n_rows += len(kept)
    report(real, corpus, n_rows, differing)
    assert n_rows > 0
    assert not differing, f"{len(differing)} of {n_rows} differ, the first: {_shortest(differing)!r}"


def _expected_rows(real: RealTokenizer, conversations: Sequence[str], report: Report) -> Iterator[list[int]]:
    stretches = [list(_stretches(real, conversation)) for conversation in conversations]
    texts = list(dict.fromkeys(text for row in stretches for text, is_control in row if not is_control))
    expected = expected_ids(real.path, texts, real.ours.encode_texts(texts), afresh=report.afresh)
    ids = dict(zip(texts, expected, strict=True))  # the same prompt stands in every other row
    for row in stretches:
        yield [token for text, is_control in row for token in ([real.added[text]] if is_control else ids[text])]


def _stretches(real: RealTokenizer, conversation: str) -> Iterator[tuple[str, bool]]:
    for is_control, pieces in groupby(real.ours.render(conversation), key=lambda piece: piece[1]):
        texts = [text for text, _, _ in pieces]
        yield from ((text, True) for text in texts) if is_control else [("".join(texts), False)]


def test_rows_of_real_conversations(real: RealTokenizer, conversations: list[Conversation], report: Report) -> None:
    _hold_conversations(real, "rows, real", conversations, report)


def test_rows_of_conversations_that_no_cache_knows(real: RealTokenizer, hostile: list[Conversation], report: Report) -> None:
    _hold_conversations(real, "rows, hostile", hostile, report)


def test_rows_of_adversarial_contents(real: RealTokenizer, adversarial: list[str], report: Report) -> None:
    conversations: Iterator[Conversation] = (
        [{"role": "user", "content": text, "weight": 0.0}, {"role": "assistant", "content": text[::-1], "weight": 1.0}]
        for text in adversarial
    )
    _hold_conversations(real, "rows, adversarial", conversations, report)
