"""Intervals and paired tests against reference values."""

import itertools
import math

import pytest

from negtraj_dagster.reports.stats import (
    clustered_mean,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    pass_at_k,
    pass_hat_k,
    wilson,
)


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


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [  # statsmodels 0.15.0, multipletests(method="holm")
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.02, 0.02, 0.5], [0.06, 0.06, 0.5]),
        ([0.9, 0.8], [1.0, 1.0]),
        ([1e-4, 0.0301, 0.012, 0.2, 0.049], [0.0005, 0.0903, 0.048, 0.2, 0.098]),
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm_gives_the_reference_p(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted, abs=1e-12)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_p(p: float) -> None:
    with pytest.raises(ValueError, match=r"expected all within 0\.\.1"):
        holm([0.5, p])


TRIALS = {
    "equally many": [[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [1, 0, 1, 1]],
    "unequally many": [[1.0, 0.5], [0.25], [0.0, 0.0, 1.0], [0.75, 0.75, 0.5, 1.0]],
    "one each": [[1], [0], [1], [1], [0], [1], [1]],
}
REFERENCE = {  # statsmodels 0.15.0, OLS on an intercept, cov_type="cluster", use_t=False: mean, error, interval
    "equally many": (0.55, 0.1837117307087383, 0.1899316242733517, 0.9100683757266479),
    "unequally many": (0.575, 0.128776291813879, 0.322603105982177, 0.8273968940178231),
    "one each": (0.7142857142857142, 0.18442777839082938, 0.35281391089095415, 1.0757575176804743),
}


@pytest.mark.parametrize("name", TRIALS)
def test_the_clustered_mean_has_the_reference_error_and_interval(name: str) -> None:
    score = clustered_mean(TRIALS[name])
    assert (score.mean, score.standard_error, score.low, score.high) == pytest.approx(REFERENCE[name], abs=1e-12)
    assert (score.n_questions, score.n_trials) == (len(TRIALS[name]), sum(map(len, TRIALS[name])))


@pytest.mark.parametrize("name", TRIALS)
def test_the_clustered_error_is_the_published_sum_over_pairs_of_trials(name: str) -> None:
    """Miller 2024: the variance of the mean plus the products of different trials of a question, all over n squared."""
    trials = TRIALS[name]
    n, n_questions = sum(map(len, trials)), len(trials)
    mean = sum(map(sum, trials)) / n
    deviations = [[score - mean for score in scores] for scores in trials]
    squares = sum(deviation**2 for row in deviations for deviation in row)
    products = sum(a * b for row in deviations for a, b in itertools.permutations(row, 2))
    published = (squares + products) / n**2
    corrected = published * n_questions / (n_questions - 1)
    assert clustered_mean(trials).standard_error == pytest.approx(math.sqrt(corrected), abs=1e-12)


def test_one_trial_a_question_has_the_usual_error_and_repeating_it_changes_nothing() -> None:
    once = clustered_mean([[1], [0], [1], [1]])
    assert once.standard_error == pytest.approx(0.5 / math.sqrt(4))  # s = 0.5
    repeated = clustered_mean([[score] * 9 for score in (1, 0, 1, 1)])
    assert (repeated.mean, repeated.standard_error) == pytest.approx((once.mean, once.standard_error))


@pytest.mark.parametrize("trials", [[], [[1, 0]], [[1], []], [[1], [math.nan]]], ids=["none", "one", "empty", "not finite"])
def test_a_mean_without_an_error_is_refused(trials: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"clustered_mean: "):
        clustered_mean(trials)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_and_pass_hat_k_are_the_shares_of_all_choices_of_k_trials(k: int) -> None:
    trials = [[True, False, True, False, False], [True] * 5, [False] * 5, [True, True, True, False, True, False]]
    choices = [list(itertools.combinations(row, k)) for row in trials]
    any_right = [sum(map(any, of_question)) / len(of_question) for of_question in choices]
    all_right = [sum(map(all, of_question)) / len(of_question) for of_question in choices]
    assert pass_at_k(trials, k=k) == pytest.approx(sum(any_right) / 4)
    assert pass_hat_k(trials, k=k) == pytest.approx(sum(all_right) / 4)


def test_both_are_the_accuracy_for_one_trial_and_hold_for_thousands() -> None:
    many = [[True] * 1500 + [False] * 1500]
    assert pass_at_k(many, k=1) == pass_hat_k(many, k=1) == 0.5
    assert pass_at_k(many, k=2000) == 1.0
    assert pass_hat_k(many, k=10) == pytest.approx(2**-10, rel=0.02)


@pytest.mark.parametrize(("trials", "k"), [([], 1), ([[True]], 2), ([[True], []], 1), ([[True]], 0)])
def test_more_trials_than_there_are_cannot_be_drawn(trials: list[list[bool]], k: int) -> None:
    for estimate in (pass_at_k, pass_hat_k):
        with pytest.raises(ValueError, match="expected 1 <= k <= trials of each"):
            estimate(trials, k=k)
