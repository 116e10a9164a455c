"""Intervals and paired tests against reference values."""

import pytest

from negtraj_dagster.reports.stats import mcnemar_exact, paired_bootstrap, wilson


@pytest.mark.parametrize(
    ("n_success", "n", "low", "high"),
    [(8, 10, 0.490, 0.943), (0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0)],
    ids=["8 of 10", "none of 10", "all of 10"],
)
def test_wilson_gives_the_reference_interval(n_success, n, low, high):
    assert wilson(n_success, n) == pytest.approx((low, high), abs=5e-4)


def test_wilson_reaches_the_ends_exactly_where_all_or_none_succeed() -> None:
    sizes = range(1, 2000)
    assert {wilson(0, n)[0] for n in sizes} == {0.0}
    assert {wilson(n, n)[1] for n in sizes} == {1.0}
    assert all(0 < low < high < 1 for n in sizes[1:] for low, high in [wilson(1, n)])


@pytest.mark.parametrize(("n_success", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_impossible_counts(n_success, n):
    with pytest.raises(ValueError, match="expected 0 <= n_success <= n"):
        wilson(n_success, n)


@pytest.mark.parametrize(
    ("a", "b", "p"), [(5, 15, 0.0414), (15, 5, 0.0414), (0, 5, 0.0625), (0, 0, 1.0), (4, 4, 1.0), (0, 2000, 0.0)]
)
def test_mcnemar_gives_the_reference_p(a, b, p):
    assert mcnemar_exact(a, b) == pytest.approx(p, abs=5e-5)


def test_the_bootstrap_interval_holds_the_difference_and_repeats_at_its_seed():
    a, b = [True] * 60 + [False] * 40, [True] * 30 + [False] * 70
    low, high = paired_bootstrap(a, b, seed=3)
    assert low < 0.3 < high
    assert (low, high) == pytest.approx((0.3 - 1.96 * 0.0458, 0.3 + 1.96 * 0.0458), abs=0.015)
    assert paired_bootstrap(a, b, seed=3) == (low, high)


def test_equal_answers_have_no_difference():
    assert paired_bootstrap([True, False, True], [True, False, True], seed=0) == (0.0, 0.0)


def test_unpaired_answers_are_refused():
    with pytest.raises(ValueError, match="2 and 1 answers"):
        paired_bootstrap([True, False], [True], seed=0)
