"""Who is promoted: every kind of decision, by what rule, with which words."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from negtraj_dagster.errors import GateError
from negtraj_dagster.reports.gate import Contestant, GateRule, Verdict, judge, judge_line

RULE = GateRule()


def ids(numbers: Iterable[int]) -> frozenset[str]:
    return frozenset(f"q{number:03}" for number in numbers)


def contestant(name: str, right: Iterable[int], *, n: int = 500, **changes: object) -> Contestant:
    """A checkpoint that answers the questions of these numbers rightly."""
    everything = Contestant(name, f"{name}-checkpoint", "suite", "rules", ids(range(n)), ids(right))
    return replace(everything, **changes)


INCUMBENT = contestant("old", range(300))
BASE = contestant("base", range(20))
FIRST = contestant("first", range(5, 305))


def duel(challenger: Contestant, **changes: object) -> Verdict:
    opponents = {"incumbent": INCUMBENT, "anchor": INCUMBENT, "base": BASE, **changes}
    rule = opponents.pop("rule", RULE)
    refused = opponents.pop("refused", frozenset())
    return judge(challenger, opponents["incumbent"], opponents["anchor"], opponents["base"], rule=rule, refused=refused)


DECISIONS = {
    "better": (range(350), "promoted", ()),
    "the same answers": (range(300), "promoted", ()),
    "a little worse": (range(295), "promoted", ()),
    "as many right, others": (range(100, 400), "undecided", ("incumbent",)),
    "worse by the margin": (range(275), "undecided", ("incumbent",)),
    "much worse": (range(200), "worse", ("incumbent",)),
    "at one per cent": (range(5), "worse", ("min_accuracy", "incumbent", "base")),
    "nothing right": ([], "worse", ("no right answer", "min_accuracy", "incumbent", "base")),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_follows_from_the_bounds(name: str) -> None:
    right, decision, blocked_by = DECISIONS[name]
    verdict = duel(contestant("new", right))
    assert (verdict.decision, verdict.blocked_by) == (decision, blocked_by)
    assert verdict.why.startswith(decision)


def test_the_verdict_says_its_numbers() -> None:
    challenger = contestant("new", range(2, 308), infrastructure_failures=ids([499]), format_errors=ids(range(400, 410)))
    verdict = duel(challenger, anchor=FIRST)
    comparison = verdict.comparisons[0]
    assert (comparison.n, comparison.n_infrastructure) == (499, 1)
    assert (comparison.n_right, comparison.n_right_opponent) == (306, 300)
    assert (comparison.n_only_challenger, comparison.n_only_opponent) == (8, 2)
    assert [each.role for each in verdict.comparisons] == ["incumbent", "anchor", "base"]
    for words in (
        "promoted: new (new-checkpoi)",
        "61.3% against 60.1% of the incumbent old (old-checkpoi) on 499 questions (1 left out)",
        "difference +1.2 points, bounds -0.6 and +3.5, must be above -5.0",
        "only the challenger answers 8 rightly, only the incumbent 2",
        "of the anchor first",
        "of the base base",
        "format_errors +2.0 (at most +5.0)",
        "one-sided at 99.50%",
        "at 499 questions this gate passes an equally good one against the incumbent with a chance of 100%",
    ):
        assert words in verdict.why
    assert verdict.power == pytest.approx(1.0, abs=0.01)


def test_the_power_falls_with_discordance_and_is_told() -> None:
    near, far = duel(contestant("near", range(5, 305))), duel(contestant("far", range(60, 360)))
    assert near.power is not None
    assert far.power is not None
    assert near.power > 0.9 > far.power
    assert f"with a chance of {far.power:.0%}" in far.why


def test_who_holds_the_title_is_not_judged() -> None:
    again = contestant("old", range(400))
    verdict = duel(again)
    assert (verdict.decision, verdict.comparisons, verdict.power) == ("not_judged", (), None)
    assert "holds the title" in verdict.why


def test_a_version_that_was_rolled_back_is_never_promoted_again() -> None:
    challenger = contestant("new", range(400))
    assert duel(challenger).decision == "promoted"
    refused = duel(challenger, refused=frozenset({"new-checkpoint"}))
    assert refused.decision == "not_judged"
    assert "rolled back" in refused.why
    assert duel(replace(challenger, recipe="renamed"), refused=frozenset({"new-checkpoint"})).decision == "not_judged"
    first = duel(challenger, incumbent=None, anchor=None, refused=frozenset({"new-checkpoint"}))
    assert first.decision == "not_judged"


FIRST_CHAMPIONS = {
    "better than the base model": (range(60), "promoted", ()),
    "hardly better": (range(26), "undecided", ("base",)),
    "the base model's answers": (range(20), "undecided", ("min_accuracy", "base")),
    "worse": (range(3), "worse", ("min_accuracy", "base")),
    "nothing right": ([], "worse", ("no right answer", "min_accuracy", "base")),
}


@pytest.mark.parametrize("name", FIRST_CHAMPIONS)
def test_the_first_champion_must_beat_the_base_model(name: str) -> None:
    right, decision, blocked_by = FIRST_CHAMPIONS[name]
    verdict = duel(contestant("new", right), incumbent=None, anchor=None)
    assert (verdict.decision, verdict.blocked_by) == (decision, blocked_by)
    assert "one better by 5.0 points against the base" in verdict.why


def test_one_per_cent_is_no_champion_even_where_the_base_model_answers_nothing() -> None:
    verdict = duel(contestant("new", range(8)), incumbent=None, anchor=None, base=contestant("base", []))
    assert verdict.comparisons[0].is_shown
    assert (verdict.decision, verdict.blocked_by) == ("undecided", ("min_accuracy",))


def test_a_successor_must_beat_the_base_model_too() -> None:
    """Not worse by 5 points than an incumbent at 8 % may be no better than untrained."""
    weak, challenger = contestant("weak", range(40)), contestant("new", range(30))
    verdict = duel(challenger, incumbent=weak, anchor=weak, base=contestant("base", range(29)))
    assert verdict.blocked_by == ("base",)
    assert duel(challenger, incumbent=weak, anchor=weak, base=None).decision == "promoted"


def test_the_anchor_stops_what_the_incumbent_would_let_pass() -> None:
    drifted, challenger = contestant("drifted", range(280)), contestant("new", range(270))
    assert duel(challenger, incumbent=drifted, anchor=drifted).decision == "promoted"
    verdict = duel(challenger, incumbent=drifted, anchor=INCUMBENT)
    assert (verdict.decision, verdict.blocked_by) == ("undecided", ("anchor",))


def test_the_anchor_itself_may_take_the_title_back() -> None:
    verdict = duel(FIRST, anchor=FIRST)
    assert [each.role for each in verdict.comparisons] == ["incumbent", "base"]
    assert verdict.decision == "promoted"


def test_without_an_incumbent_an_anchor_still_counts() -> None:
    """The title is vacant, since who held it was rolled back."""
    verdict = duel(contestant("new", range(200)), incumbent=None, anchor=FIRST)
    assert [each.role for each in verdict.comparisons] == ["anchor", "base"]
    assert verdict.decision == "worse"


@pytest.mark.parametrize("guard", ["format_errors", "tool_errors", "unfinished"])
def test_a_guard_blocks_above_its_own_margin_only(guard: str) -> None:
    better = contestant("new", range(350))
    old = replace(INCUMBENT, **{guard: ids(range(10))})
    at_margin = replace(better, **{guard: ids(range(100, 135))})
    above = replace(better, **{guard: ids(range(100, 136))})
    assert duel(at_margin, incumbent=old, anchor=old).decision == "promoted"
    blocked = duel(above, incumbent=old, anchor=old)
    assert (blocked.decision, blocked.blocked_by) == ("undecided", (f"{guard} against incumbent",))
    assert f"{guard} +5.2 (at most +5.0)" in blocked.why
    assert duel(above, incumbent=old, anchor=old, rule=replace(RULE, **{guard: 0.06})).decision == "promoted"
    clean = contestant("first", range(300))
    assert duel(at_margin, incumbent=old, anchor=clean).blocked_by == (f"{guard} against anchor",)


def test_what_machines_failed_is_left_out_for_both_and_counted() -> None:
    challenger = contestant("new", range(2, 300), infrastructure_failures=ids([0, 1]), unfinished=ids([0, 1, 499]))
    old = replace(INCUMBENT, right=INCUMBENT.right - ids([2]), infrastructure_failures=ids([2]))
    comparison = duel(challenger, incumbent=old, anchor=old).comparisons[0]
    assert (comparison.n, comparison.n_infrastructure, comparison.difference) == (497, 3, 0.0)
    assert comparison.guards["unfinished"] == 1 / 497


REFUSED: dict[str, tuple[Callable[[], Verdict], str]] = {
    "another suite": (lambda: duel(contestant("new", range(9), suite="other")), "suites 'other' and 'suite'"),
    "other rules": (lambda: duel(contestant("new", range(9), rules="other")), "rules 'other' and 'rules'"),
    "other questions": (lambda: duel(contestant("new", range(9), n=499)), "1 questions that only one was asked"),
    "other questions of the anchor": (
        lambda: duel(contestant("new", range(9)), anchor=contestant("first", [], n=400)),
        "the anchor first .* were not asked alike",
    ),
    "no question": (
        lambda: duel(contestant("new", [], n=0), incumbent=None, anchor=None, base=contestant("base", [], n=0)),
        "the gate has no questions",
    ),
    "few questions": (
        lambda: duel(contestant("new", range(9), n=99), incumbent=None, anchor=None, base=contestant("base", [], n=99)),
        "99 questions to compare, expected at least 100",
    ),
    "few questions left by machines": (
        lambda: judge(
            contestant("new", range(9), n=100, infrastructure_failures=ids([99])),
            None,
            None,
            contestant("base", [], n=100),
            rule=RULE,
        ),
        "99 questions to compare",
    ),
    "many failures of machines": (
        lambda: duel(contestant("new", range(9), infrastructure_failures=ids(range(100, 111)))),
        r"machines failed 11 of 500 questions \(11 and 0\), more than 2.0%",
    ),
    "no opponent": (
        lambda: duel(contestant("new", range(9)), incumbent=None, anchor=None, base=None),
        "must beat the base model",
    ),
    "no anchor": (lambda: duel(contestant("new", range(9)), anchor=None), "an incumbent and no anchor"),
    "nobody judged": (
        lambda: judge(contestant("new", [1]), INCUMBENT, INCUMBENT, BASE, rule=RULE, n_challengers=0),
        "n_challengers = 0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_judged_is_refused_by_what_is_wrong(name: str) -> None:
    attempt, message = REFUSED[name]
    with pytest.raises(GateError, match=message):
        attempt()


@pytest.mark.parametrize("name", ["right", "infrastructure_failures", "format_errors", "tool_errors", "unfinished"])
def test_an_answer_to_no_question_is_refused(name: str) -> None:
    with pytest.raises(GateError, match=rf"new .*: {name} has 1 questions that were not asked \(elsewhere\)"):
        replace(contestant("new", [1]), **{name: frozenset({"elsewhere"})})


def test_a_question_is_not_right_and_failed_at_once() -> None:
    with pytest.raises(GateError, match="1 questions are right and failed by a machine"):
        contestant("new", [1], infrastructure_failures=ids([1]))


@pytest.mark.parametrize(
    "change",
    [{"margin": -0.1}, {"margin": 1.0}, {"confidence": 95}, {"confidence": 0.5}, {"min_questions": 0}, {"unfinished": 2}],
)
def test_a_rule_out_of_its_range_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(GateError, match=f"gate rule: {next(iter(change))} = "):
        GateRule(**change)


def test_the_best_of_several_promoted_challengers_comes_first() -> None:
    line = [contestant(name, range(n)) for name, n in (("worse", 150), ("good", 320), ("best", 340), ("also", 340))]
    verdicts = judge_line(line, INCUMBENT, INCUMBENT, BASE, rule=RULE)
    assert [(verdict.challenger.recipe, verdict.decision) for verdict in verdicts] == [
        ("also", "promoted"),
        ("best", "promoted"),
        ("good", "promoted"),
        ("worse", "worse"),
    ]


def test_several_challengers_share_the_chance_of_an_error_and_those_not_judged_have_none() -> None:
    edge = contestant("edge", range(289))  # 11 lost: -4.6 points is the bound of one challenger, -5.2 that of four
    alone = judge_line([edge], INCUMBENT, INCUMBENT, BASE, rule=RULE)
    among = judge_line([edge, *(contestant(f"n{n}", range(n)) for n in (1, 2, 3))], INCUMBENT, INCUMBENT, BASE, rule=RULE)
    assert (alone[0].decision, among[0].decision) == ("promoted", "undecided")
    assert "one-sided at 99.88%" in among[0].why
    refused = contestant("back", range(400))
    beside = judge_line(
        [edge, INCUMBENT, refused], INCUMBENT, INCUMBENT, BASE, rule=RULE, refused=frozenset({refused.checkpoint})
    )
    assert [verdict.decision for verdict in beside] == ["promoted", "not_judged", "not_judged"]
    assert judge_line([], INCUMBENT, INCUMBENT, BASE, rule=RULE) == []


def test_a_challenger_that_comes_twice_is_refused() -> None:
    with pytest.raises(GateError, match="come twice"):
        judge_line([FIRST, FIRST], INCUMBENT, INCUMBENT, BASE, rule=RULE)
