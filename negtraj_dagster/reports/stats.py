"""Computes the intervals and paired tests of evaluation reports: Wilson, exact McNemar, paired bootstrap. Pure functions."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

Z_95 = 1.959963984540054
"""97.5 % quantile of the standard normal."""

BOOTSTRAP_CHUNK = 1000
"""Resamples drawn at a time: bounds memory to this many times n integers."""


def wilson(n_success: int, n: int, *, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, 95 % by default (Wilson 1927; no continuity correction).

    Raises:
        ValueError: n is 0 or less, or n_success is not within 0..n.
    """
    if n <= 0 or not 0 <= n_success <= n:
        raise ValueError(f"wilson({n_success}, {n}): expected 0 <= n_success <= n and n > 0")
    share = n_success / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    # exact where rounding would leave a bound beside the end it stands on
    return (centre - half if n_success else 0.0), (centre + half if n_success < n else 1.0)


def mcnemar_exact(n_only_a: int, n_only_b: int) -> float:
    """Two-sided exact McNemar p: a sign test on the questions that exactly one of two arms answered rightly.

    Args:
        n_only_a: questions only arm a got right.
        n_only_b: questions only arm b got right.

    Raises:
        ValueError: a negative count.
    """
    if n_only_a < 0 or n_only_b < 0:
        raise ValueError(f"mcnemar_exact({n_only_a}, {n_only_b}): expected counts of 0 or more")
    n = n_only_a + n_only_b
    tail = sum(math.comb(n, k) for k in range(min(n_only_a, n_only_b) + 1))
    return min(1.0, float(Fraction(2 * tail, 2**n)))


def paired_bootstrap(a: Sequence[float], b: Sequence[float], *, seed: int, n_resamples: int = 10_000) -> tuple[float, float]:
    """95 % percentile interval of accuracy(a) - accuracy(b), resampling questions (both arms' answers together).

    Args:
        a: whether arm a was right, by question; of several trials the share that was.
        b: the same for arm b, in the same order.
        seed: of numpy's PCG64.
        n_resamples: bootstrap samples.

    Raises:
        ValueError: no questions, or not as many in a as in b.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"paired_bootstrap: {len(a)} and {len(b)} answers; expected equally many, at least one")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    rng = np.random.Generator(np.random.PCG64(seed))
    means = []
    for start in range(0, n_resamples, BOOTSTRAP_CHUNK):
        size = (min(BOOTSTRAP_CHUNK, n_resamples - start), len(difference))
        means.append(difference[rng.integers(0, len(difference), size=size)].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)
