"""Bounds of a paired difference and the power to show one, against published values and by simulation."""

import math

import numpy as np
import pytest

from negtraj_dagster.reports.paired import noninferiority_power, paired_bounds
from negtraj_dagster.reports.stats import mcnemar_exact

PUBLISHED = {  # only a, only b, n, confidence of each bound: lower, upper (None: not printed), decimals
    # Tango 1998, section 6.1, soft contact lenses
    "contact lenses": (0, 1, 44, 0.95, -0.096, None, 3),
    # R package contingencytables 3.0.0, tests of Tango_asymptotic_score_CI_paired_2x2, the table of Cavo et al. 2012
    "consolidation therapy": (6, 16, 161, 0.975, -0.1240, -0.0054, 4),
    # R package PropCIs 0.3-0, scoreci.mp(25, 28, 618) and scoreci.mp(41, 48, 549) at 90 %, as others recorded them
    "many pairs": (28, 25, 618, 0.95, -0.0148, 0.0247, 4),
    "many discordant pairs": (48, 41, 549, 0.95, -0.0157, 0.0414, 4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_bounds_are_the_published_ones(name: str) -> None:
    n_only_a, n_only_b, n, confidence, low, high, decimals = PUBLISHED[name]
    bounds = paired_bounds(n_only_a, n_only_b, n, confidence=confidence)
    assert round(bounds[0], decimals) == low
    assert high is None or round(bounds[1], decimals) == high


@pytest.mark.parametrize(
    "counts", [(0, 0, 500), (0, 3, 500), (3, 0, 500), (0, 500, 500), (500, 0, 500), (250, 250, 500), (0, 1, 1)]
)
def test_the_bounds_hold_the_difference_and_mirror_each_other(counts: tuple[int, int, int]) -> None:
    n_only_a, n_only_b, n = counts
    low, high = paired_bounds(n_only_a, n_only_b, n, confidence=0.95)
    assert -1 <= low <= (n_only_a - n_only_b) / n <= high <= 1
    assert low < high
    assert paired_bounds(n_only_b, n_only_a, n, confidence=0.95) == (-high, -low)
    wide = paired_bounds(n_only_a, n_only_b, n, confidence=0.995)
    assert wide[0] <= low
    assert wide[1] >= high


def test_without_a_discordant_question_the_bound_is_that_of_no_success() -> None:
    """Wilson's upper bound of 0 of n: z^2 / (n + z^2)."""
    z = 1.6448536269514722
    assert paired_bounds(0, 0, 500, confidence=0.95)[1] == pytest.approx(z * z / (500 + z * z), abs=1e-12)


def test_no_difference_is_rejected_where_mcnemars_score_rejects_it() -> None:
    for n_only_a, n_only_b in [(20, 9), (20, 10), (20, 11), (9, 20), (30, 15)]:
        is_above = (n_only_a - n_only_b) / math.sqrt(n_only_a + n_only_b) > 1.6448536269514722
        assert (paired_bounds(n_only_a, n_only_b, 300, confidence=0.95)[0] > 0) is is_above
    assert mcnemar_exact(30, 15) < 0.05


COVERAGE = {  # share of questions only a gets right, only b
    "equal arms": (0.10, 0.10),
    "few discordant": (0.004, 0.004),
    "all discordant ones favour b": (0.0, 0.05),
    "a little worse": (0.075, 0.125),
    "much worse": (0.05, 0.45),
    "all discordant": (0.5, 0.5),
    "nearly all favour a": (0.97, 0.01),
}
N_SAMPLES = 2000


@pytest.mark.parametrize("confidence", [0.95, 0.995])
@pytest.mark.parametrize("name", COVERAGE)
def test_each_bound_covers_the_true_difference_as_often_as_it_says(name: str, confidence: float) -> None:
    """At n = 500, seeded; within three simulation errors and half a point of the lattice's."""
    share_a, share_b = COVERAGE[name]
    rng = np.random.default_rng(17)
    samples, n_times = np.unique(
        rng.multinomial(500, [share_a, share_b, max(0.0, 1 - share_a - share_b)], size=N_SAMPLES)[:, :2],
        axis=0,
        return_counts=True,
    )
    bounds = np.array([paired_bounds(int(a), int(b), 500, confidence=confidence) for a, b in samples])
    true = share_a - share_b
    slack = 3 * math.sqrt(confidence * (1 - confidence) / N_SAMPLES) + 0.005
    low_covers, high_covers = n_times[bounds[:, 0] <= true + 1e-9].sum(), n_times[bounds[:, 1] >= true - 1e-9].sum()
    assert low_covers / N_SAMPLES >= confidence - slack
    assert high_covers / N_SAMPLES >= confidence - slack


@pytest.mark.parametrize("counts", [(-1, 0, 5), (0, 0, 0), (3, 3, 5)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="add up to n at most"):
        paired_bounds(*counts, confidence=0.95)


@pytest.mark.parametrize("confidence", [0.5, 1.0, 95])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"expected more than 0\.5 and less than 1"):
        paired_bounds(1, 2, 10, confidence=confidence)


@pytest.mark.parametrize("difference", [-0.05, 0.0, 0.03])
def test_the_power_is_the_share_of_samples_whose_bound_is_above_the_margin(difference: float) -> None:
    discordance, n = 0.2, 120
    rng = np.random.default_rng(3)
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    samples, n_times = np.unique(rng.multinomial(n, shares, size=20_000)[:, :2], axis=0, return_counts=True)
    is_shown = [paired_bounds(int(a), int(b), n, confidence=0.9)[0] > -0.05 for a, b in samples]
    power = noninferiority_power(n, margin=0.05, discordance=discordance, difference=difference, confidence=0.9)
    assert power == pytest.approx(n_times[is_shown].sum() / 20_000, abs=0.012)


def test_the_power_is_near_its_normal_approximation_for_many_questions() -> None:
    z, true_error = 2.3263478740408408, math.sqrt((0.2 - 0.01**2) / 5000)
    approximate = 0.5 * math.erfc((z - 0.01 / true_error) / math.sqrt(2))
    power = noninferiority_power(5000, margin=0.0, discordance=0.2, difference=0.01, confidence=0.99)
    assert power == pytest.approx(approximate, abs=0.005)


@pytest.mark.parametrize("discordance", [0.05, 0.1, 0.2, 0.4, 1.0])
def test_what_is_worse_by_the_margin_passes_no_oftener_than_the_confidence_allows(discordance: float) -> None:
    for confidence in (0.95, 0.99, 0.995):
        level = noninferiority_power(500, margin=0.05, discordance=discordance, difference=-0.05, confidence=confidence)
        assert 0.4 * (1 - confidence) < level < 1.1 * (1 - confidence)


def test_power_grows_with_questions_and_shrinks_with_discordance() -> None:
    by_size = [
        noninferiority_power(n, margin=0.05, discordance=0.2, difference=0, confidence=0.95) for n in (100, 200, 500, 1000)
    ]
    by_discordance = [
        noninferiority_power(500, margin=0.05, discordance=share, difference=0, confidence=0.95)
        for share in (0, 0.05, 0.2, 0.6)
    ]
    assert by_size == sorted(by_size)
    assert by_discordance == sorted(by_discordance, reverse=True)
    assert by_discordance[0] == 1.0


@pytest.mark.parametrize(
    "change", [{"n": 0}, {"margin": -0.01}, {"margin": 1.0}, {"discordance": 0.01, "difference": 0.02}, {"discordance": 1.1}]
)
def test_a_power_of_nothing_possible_is_refused(change: dict[str, float]) -> None:
    usual = {"n": 100, "margin": 0.05, "discordance": 0.2, "difference": 0.0, "confidence": 0.95, **change}
    with pytest.raises(ValueError, match="noninferiority_power: n = "):
        noninferiority_power(int(usual.pop("n")), **usual)
