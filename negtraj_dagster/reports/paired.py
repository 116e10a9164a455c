"""Bounds of the difference of two arms on the same questions, and the power to show that one is not worse. Pure functions."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

N_HALVINGS = 60
"""Of an interval of length 2: below a float's precision at 1."""
WINDOW = 12
"""Standard deviations of a count beyond which its probability (below 1e-30) is left out."""


def paired_bounds(n_only_a: int, n_only_b: int, n: int, *, confidence: float) -> tuple[float, float]:
    """One-sided lower and one-sided upper bound of accuracy(a) - accuracy(b) on the same n questions.

    Each bound holds with `confidence`; together they are the two-sided interval of 2 * confidence - 1. Tango's score interval
    (Tango 1998, Stat. Med. 17:891-908, equations 24 to 26): the differences that the score test does not reject, with the
    variance estimated under the difference that is tested. Unlike Wald's it keeps its level where few questions or none are
    discordant and where all of these favour one arm; at a difference of 0 it is McNemar's test. Newcombe's method 10 inverts no
    test: no exact power would follow from it.

    Args:
        n_only_a: questions that only arm a got right.
        n_only_b: questions that only arm b got right.
        n: all questions.
        confidence: of each bound, above 0.5 and below 1.

    Raises:
        ValueError: impossible counts, or a confidence out of its range.
    """
    z = _quantile(confidence)
    if n <= 0 or min(n_only_a, n_only_b) < 0 or n_only_a + n_only_b > n:
        raise ValueError(f"paired_bounds({n_only_a}, {n_only_b}, {n}): expected counts of 0 or more that add up to n at most")
    return _lower(n_only_a, n_only_b, n, z), -_lower(n_only_b, n_only_a, n, z)


def noninferiority_power(n: int, *, margin: float, discordance: float, difference: float, confidence: float) -> float:
    """Chance that the lower bound of a - b is above -margin: the sum over all outcomes, no approximation.

    Args:
        n: questions that both arms are asked.
        margin: how much worse a may be, 0 <= margin < 1; 0 asks for a proof that it is better.
        discordance: share of questions that exactly one arm gets right, at least the size of the difference.
        difference: true accuracy(a) - accuracy(b).
        confidence: of `paired_bounds`.

    Raises:
        ValueError: no questions, or a share out of its range.
    """
    z = _quantile(confidence)
    if n <= 0 or not 0 <= margin < 1 or not abs(difference) <= discordance <= 1:
        raise ValueError(
            f"noninferiority_power: n = {n}, margin = {margin}, discordance = {discordance}, difference = {difference}; "
            "expected n > 0, 0 <= margin < 1 and |difference| <= discordance <= 1"
        )
    share_a, share_b = (discordance + difference) / 2, (discordance - difference) / 2
    counts_a, counts_b = np.meshgrid(_window(n, share_a), _window(n, share_b), indexing="ij")
    is_possible = counts_a + counts_b <= n
    counts_a, counts_b = counts_a[is_possible], counts_b[is_possible]
    is_shown = _score(counts_a, counts_b, n, -margin) > z
    chances = _multinomial(n, counts_a[is_shown], counts_b[is_shown], share_a, share_b)
    return min(1.0, math.fsum(chances))


def _quantile(confidence: float) -> float:
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence = {confidence}, expected more than 0.5 and less than 1")
    return NormalDist().inv_cdf(confidence)


def _lower(n_only_a: int, n_only_b: int, n: int, z: float) -> float:
    """The least difference that the score test does not reject, by halving: the statistic falls as the difference rises."""
    rejected, kept_difference = -1.0, (n_only_a - n_only_b) / n
    if n_only_b == n:
        return -1.0
    for _ in range(N_HALVINGS):
        middle = (rejected + kept_difference) / 2
        if _score(n_only_a, n_only_b, n, middle) > z:
            rejected = middle
        else:
            kept_difference = middle
    return kept_difference


def _score(
    n_only_a: NDArray[np.int64] | int, n_only_b: NDArray[np.int64] | int, n: int, difference: float
) -> NDArray[np.float64]:
    """Tango's statistic of the hypothesis that the true difference is `difference`; 0 where no question is discordant at 0.

    The share of questions that only b gets right is its maximum-likelihood estimate under the hypothesis: the root of
    2n q^2 + linear q + constant.
    """
    linear = (2 * n - n_only_a + n_only_b) * difference - n_only_a - n_only_b
    constant = -np.asarray(n_only_b) * difference * (1 - difference)
    root = np.sqrt(np.maximum(linear * linear - 8 * n * constant, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        # of two equal formulas the one that subtracts nothing nearly equal
        share_b = np.where(linear > 0, -2 * constant / (linear + root), (root - linear) / (4 * n))
        variance = n * (2 * share_b + difference * (1 - difference))
        excess = np.asarray(n_only_a) - n_only_b - n * difference
        return np.where(variance > 0, excess / np.sqrt(variance), np.sign(excess) * np.where(excess == 0, 0.0, np.inf))


def _window(n: int, share: float) -> NDArray[np.int64]:
    """The counts of n that can happen, but for a negligible chance."""
    half = WINDOW * math.sqrt(n * share * (1 - share)) + WINDOW
    return np.arange(max(0, math.floor(n * share - half)), min(n, math.ceil(n * share + half)) + 1)


def _multinomial(
    n: int, counts_a: NDArray[np.int64], counts_b: NDArray[np.int64], share_a: float, share_b: float
) -> NDArray[np.float64]:
    """Chances of the counts of only a, only b and neither of these."""
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    counts = (counts_a, counts_b, n - counts_a - counts_b)
    logs = np.full(counts_a.shape, log_factorials[n])
    for count, share in zip(counts, (share_a, share_b, max(0.0, 1 - share_a - share_b)), strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            logs += np.where(count == 0, 0.0, count * np.log(share)) - log_factorials[count]
    chances: NDArray[np.float64] = np.exp(logs)
    return chances
