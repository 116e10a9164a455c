"""Looks passages up in a frozen local corpus by BM25: no network, the same answer for the same words every time."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import polars as pl

from negtraj_dagster.comparable import extract_words

K1, B = 1.2, 0.75
"""Okapi BM25's usual constants (Robertson and Zaragoza, 2009)."""
N_RESULTS = 3
NOTHING_FOUND = "No passage found."


class SearchTool:
    """A tool over a fixed list of passages; `search[words]` returns the best ones, numbered."""

    def __init__(self, passages: Sequence[str]) -> None:
        self._passages = list(dict.fromkeys(passages))
        self._counts = [Counter(words) for words in _words(self._passages)]
        self._lengths = [counts.total() for counts in self._counts]
        self._mean_length = sum(self._lengths) / len(self._lengths) if self._lengths else 1.0
        self._containing: dict[str, list[int]] = {}
        for index, counts in enumerate(self._counts):
            for word in counts:
                self._containing.setdefault(word, []).append(index)

    def __call__(self, argument: str) -> str:
        """The best passages as ` #1: … #2: …`, or a sentence that says there is none."""
        scores: defaultdict[int, float] = defaultdict(float)
        for word in sorted(set(_words([argument])[0])):
            containing = self._containing.get(word, [])
            rarity = math.log(1 + (len(self._passages) - len(containing) + 0.5) / (len(containing) + 0.5))
            for index in containing:
                count, length = self._counts[index][word], self._lengths[index]
                scores[index] += rarity * count * (K1 + 1) / (count + K1 * (1 - B + B * length / self._mean_length))
        best = sorted(scores, key=lambda index: (-scores[index], index))[:N_RESULTS]
        if not best:
            return NOTHING_FOUND
        return " ".join(f"#{rank}: {self._passages[index]}" for rank, index in enumerate(best, 1))


def _words(texts: Sequence[str]) -> list[list[str]]:
    return extract_words(pl.Series(texts, dtype=pl.String)).to_list()
