"""No content becomes an added token: every one of the published tokenizers', in every field, whole and in disguise.

The rows are held to a rendering of their own, written here: two control tokens a message, and between them ids that decode to
the text that was given.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import pyarrow as pa
import pytest
from tokenizers import normalizers

from tests.shards.conftest import RealTokenizer
from tests.support.corpora import Conversation, conversation_json, injection_texts
from tests.support.hf_reference import IM_TOKENS

ROLES = ("system", "user", "assistant", "tool")
N_FUZZED_FAST, N_FUZZED_SLOW = 5_000, 100_000
BATCH = 2000

# What decoding gives back. SmolLM2's vocabulary lacks eight bytes, which it drops: nothing is asked of texts with others than
# ASCII's letters, digits and signs.
RESTORED: dict[str, Callable[[str], str | None]] = {
    "llama3": str,
    "qwen": normalizers.NFC().normalize_str,
    "smollm2": lambda text: text if text.isascii() and text.replace("\n", "").isprintable() else None,
    "mistral_v1": lambda text: text.replace("▁", " "),
    "deepseek": str,
    "o200k": str,
    "tekken": str,
    "qwen35": normalizers.NFC().normalize_str,
    "mistral_v1_as_gemma": lambda text: text.replace("▁", " "),
}


def _conversation(contents: dict[str, str]) -> Conversation:
    """One message per role; the assistant's is the target."""
    weights = {"assistant": 1.0}
    return [{"role": role, "content": contents.get(role, "ok"), "weight": weights.get(role, 0.0)} for role in ROLES]


def _hold(real: RealTokenizer, conversations: Iterable[Conversation]) -> int:
    """Checks every row; returns how many there were."""
    n_rows = 0
    rest = iter(conversations)
    while batch := list(islice(rest, BATCH)):
        encoded = real.ours.encode([""] * len(batch), [conversation_json(each) for each in batch])
        assert encoded.rejected == []
        rows = pa.record_batch(encoded).column("input_ids").to_pylist()
        for conversation, input_ids in zip(batch, rows, strict=True):
            _hold_row(real, conversation, input_ids)
        n_rows += len(batch)
    return n_rows


def _hold_row(real: RealTokenizer, conversation: Conversation, input_ids: list[int]) -> None:
    start, end = (real.added[token] for token in IM_TOKENS)
    added = set(real.added.values())
    controls = [token for token in input_ids if token in added]
    assert controls == [start, end] * len(conversation), f"added tokens in {conversation!r}"
    texts = [text for turn in conversation for text in (f"{turn['role']}\n{turn['content']}", "\n")]
    for text, ids in zip(texts, _between(input_ids, added), strict=True):
        restored = RESTORED[real.name](text)
        assert restored is None or real.reference.decode(ids, skip_special_tokens=False) == restored


def _between(input_ids: list[int], added: set[int]) -> Iterator[list[int]]:
    """The ids behind each added token, up to the next one."""
    assert input_ids[0] in added
    stretch: list[int] = []
    for token in input_ids[1:]:
        if token in added:
            yield stretch
            stretch = []
        else:
            stretch.append(token)
    yield stretch


@pytest.mark.parametrize("role", ROLES)
def test_an_added_token_in_a_content_stays_text(real: RealTokenizer, role: str) -> None:
    contents = (text for token in real.added for text in (token, f"a {token}{token} b"))
    assert _hold(real, (_conversation({role: text}) for text in contents)) == 2 * len(real.added)


def test_an_added_token_in_a_prompt_stays_text(real: RealTokenizer) -> None:
    added = set(real.added.values())
    placed = [real.added[token] for token in (*IM_TOKENS, IM_TOKENS[0])]
    for token in real.added:
        ids = real.ours.prompt_ids(conversation_json([{"role": "user", "content": token, "weight": 0.0}]))
        assert [each for each in ids if each in added] == placed


def _fuzzed(real: RealTokenizer, n_contents: int, seed: int) -> Iterator[Conversation]:
    contents = injection_texts(list(real.added), n_contents, seed=seed)
    for _ in range(n_contents // len(ROLES)):
        yield _conversation({role: next(contents) for role in ROLES})


def test_disguised_added_tokens_stay_text(real: RealTokenizer) -> None:
    assert _hold(real, _fuzzed(real, N_FUZZED_FAST, seed=0)) * len(ROLES) == N_FUZZED_FAST


@pytest.mark.slow
def test_many_disguised_added_tokens_stay_text(real: RealTokenizer) -> None:
    assert _hold(real, _fuzzed(real, N_FUZZED_SLOW, seed=1)) * len(ROLES) == N_FUZZED_SLOW
