"""Computes the intervals and tests of evaluation reports: of shares, of paired arms, of repeated trials. Pure functions.

Bounds of a paired difference and the power to show one are in `paired.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
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


def paired_mean_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of the mean difference of two arms' scores on the same questions, by its normal approximation.

    For shares of several trials, where no question is simply right or wrong; the error is that of the questions' differences.

    Raises:
        ValueError: no questions, or not as many in a as in b.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"paired_mean_p: {len(a)} and {len(b)} scores; expected equally many, at least one")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(a)) if len(a) > 1 else 0.0
    if error == 0.0:
        return 1.0 if mean == 0.0 or len(a) == 1 else 0.0
    return math.erfc(abs(mean) / error / math.sqrt(2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p of each test of a family, in the given order: Holm's step-down method (Holm 1979, Scand. J. Stat. 6:65-70).

    Rejecting what is below alpha keeps the chance of any false rejection of the family below alpha, however tests depend on
    each other.

    Raises:
        ValueError: a p is not within 0..1.
    """
    if outside := [p for p in p_values if not 0 <= p <= 1]:
        raise ValueError(f"holm: p-values {outside}, expected all within 0..1")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


@dataclass(frozen=True)
class MeanScore:
    """A mean over trials, with its error over questions.

    Attributes:
        standard_error: as if other questions had been drawn, not only other trials of these.
        low: lower end of the normal 95 % interval, which may leave the scores' range; `high` is the upper one.
    """

    mean: float
    standard_error: float
    low: float
    high: float
    n_questions: int
    n_trials: int


def clustered_mean(trials: Sequence[Sequence[float]], *, z: float = Z_95) -> MeanScore:
    """Mean of all trials and its standard error, clustered by question: trials of a question are not independent.

    The variance is `G/(G-1) * sum over questions of (sum of its trials' deviations)^2 / n^2`, with G questions and n trials.
    Without `G/(G-1)` this is the clustered error of Miller 2024 (arXiv 2411.00640) with the variance of its
    first term over n; with it, the default of statsmodels' cluster-robust OLS on an intercept, and, for one trial each, the
    usual error `s / sqrt(n)`.

    Args:
        trials: scores by question, one or more each; not necessarily equally many.
        z: half the interval's width in standard errors.

    Raises:
        ValueError: fewer than two questions, one without a trial, or a score that is no finite number.
    """
    if len(trials) < 2 or not all(len(scores) for scores in trials):
        n_empty = sum(not len(scores) for scores in trials)
        raise ValueError(f"clustered_mean: {len(trials)} questions, {n_empty} without a trial; expected two and none")
    sums = np.array([math.fsum(scores) for scores in trials])
    sizes = np.array([len(scores) for scores in trials])
    if not np.isfinite(sums).all():
        raise ValueError("clustered_mean: a score is not finite")
    n, n_questions = int(sizes.sum()), len(trials)
    mean = math.fsum(sums) / n
    deviations = sums - sizes * mean
    error = math.sqrt(n_questions / (n_questions - 1) * math.fsum(deviations**2)) / n
    return MeanScore(mean, error, mean - z * error, mean + z * error, n_questions, n)


def pass_at_k(trials: Sequence[Sequence[bool]], *, k: int) -> float:
    """Chance that at least one of k trials is right, the mean over questions; unbiased (arXiv 2107.03374, section 2.1).

    Args:
        trials: whether right, by question; at least k each.
        k: trials drawn without replacement.

    Raises:
        ValueError: no question, k below 1, or a question with fewer than k trials.
    """
    _check_trials(trials, k)
    return math.fsum(1 - math.comb(len(t) - sum(t), k) / math.comb(len(t), k) for t in trials) / len(trials)


def pass_hat_k(trials: Sequence[Sequence[bool]], *, k: int) -> float:
    """Chance that all of k trials are right (pass^k), the mean over questions; unbiased: C(c, k) / C(n, k) for c right of n.

    Args:
        trials: whether right, by question; at least k each.
        k: trials drawn without replacement.

    Source: tau-bench, arXiv 2406.12045.

    Raises:
        ValueError: no question, k below 1, or a question with fewer than k trials.
    """
    _check_trials(trials, k)
    return math.fsum(math.comb(sum(t), k) / math.comb(len(t), k) for t in trials) / len(trials)


def _check_trials(trials: Sequence[Sequence[bool]], k: int) -> None:
    fewest = min(map(len, trials), default=0)
    if k < 1 or fewest < k:
        raise ValueError(f"k = {k} of {len(trials)} questions with {fewest} trials at least; expected 1 <= k <= trials of each")
