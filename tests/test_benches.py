"""The arithmetic of benches/trajtok.py, and that the corpora are what they claim; what it measures, tests cannot hold."""

from benches.trajtok import compare
from tests.support.corpora import (
    Conversation,
    adversarial_texts,
    code_point_texts,
    fuzzed_texts,
    hostile_conversations,
    injection_texts,
)


def _rounds(*figures: float) -> list[dict[str, float]]:
    return [{"speed": figure} for figure in figures]


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    row = compare("name", "peer", _rounds(10, 2, 6), _rounds(5, 2, 1), "speed", unit="MB/s")
    assert (row["ours"], row["peer"], row["ratio"], row["ratio_range"]) == (6, 2, 2, [1, 6])


def test_a_side_that_fails_leaves_no_ratio() -> None:
    row = compare("name", "peer", _rounds(10, 2), [{"error": "refuses"}, {"error": "refuses"}], "speed", unit="MB/s")
    assert (row["ours"], row["peer"], row["ratio"], row["error"]) == (6, None, None, {"peer": "refuses"})


def test_a_hostile_copy_changes_letters_and_nothing_else() -> None:
    text = "Would a pebble, thrown 12 metres, outweigh feathers?\n" * 50
    conversations: list[Conversation] = [[{"role": "user", "content": text, "weight": 0.0}]]
    first, second = (row[0]["content"] for row in hostile_conversations(conversations, copies=2))
    assert text != first != second != text
    assert len(first) == len(text)
    assert all(new.islower() for old, new in zip(text, first, strict=True) if old != new)
    changed = sum(old != new for old, new in zip(text.split(), first.split(), strict=True))
    assert 0.25 < changed / (50 * 6) < 0.33  # six words of four letters or more; one letter in 26 becomes itself


def test_corpora_are_the_same_every_time() -> None:
    texts = adversarial_texts(["<|end|>", "<s>"])
    assert texts == adversarial_texts(["<s>", "<|end|>"])
    assert list(fuzzed_texts(texts, 50)) == list(fuzzed_texts(texts, 50))
    assert list(injection_texts(["<s>", "</s>"], 50)) == list(injection_texts(["<s>", "</s>"], 50))


def test_every_code_point_stands_in_the_code_point_texts() -> None:
    seen = set().union(*code_point_texts())
    assert len(seen) == 0x110000 - 1 - 0x800


def test_no_corpus_holds_a_surrogate_or_an_empty_text() -> None:
    texts = [*adversarial_texts(), *fuzzed_texts(adversarial_texts(), 500)]
    assert all(text and text.encode() for text in texts)
