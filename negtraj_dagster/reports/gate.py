"""Judges whether a challenger takes the title: not worse than the incumbent and the anchor, better than the base model.

Pure functions of who answered which questions rightly; what is promoted, and where it is recorded, is `champion.py`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from negtraj_dagster.errors import GateError
from negtraj_dagster.reports.paired import noninferiority_power, paired_bounds

Decision = Literal["promoted", "undecided", "worse", "not_judged"]
Role = Literal["incumbent", "anchor", "base"]
Guard = Literal["format_errors", "tool_errors", "unfinished"]
GUARDS: tuple[Guard, ...] = ("format_errors", "tool_errors", "unfinished")
ID_CHARS = 12


@dataclass(frozen=True)
class GateRule:
    """When a challenger is promoted.

    Attributes:
        margin: how much worse than the incumbent or the anchor it must be shown not to be, in share of the questions.
        confidence: of each one-sided bound. At a true difference of -margin a challenger passes in 1 - confidence of the
            nights. 0.995 and not the usual 0.95: a night is one of many, and where the anchor is the incumbent no second
            comparison lowers that rate. More than 2 % of 200 such nights would pass with a chance of 0.37 at 0.98, of 0.05 at
            0.99 and of 0.004 at 0.995. The price is power (`paired.noninferiority_power`).
        min_questions: compared questions below which nothing is judged.
        min_accuracy: the share it must be right on at least. Not worse by 5 points says nothing of who is right on fewer: a
            checkpoint at 1 % is not worse than an incumbent at 4 %, and better than a base model at 0.
        max_infrastructure_share: share of the questions that failures of machines may take from a comparison.
        format_errors, tool_errors, unfinished: how much larger the share of such episodes may be. The difference itself is held
            against it, no bound: a guard is a tripwire for what broke, not one more claim that an equal challenger would
            have to prove on the same questions, and would often fail to. At n = 500 and 20 % discordance one that is 10 points
            worse trips it in 99 % of the nights.
    """

    margin: float = 0.05
    confidence: float = 0.995
    min_questions: int = 100
    min_accuracy: float = 0.05
    max_infrastructure_share: float = 0.02
    format_errors: float = 0.05
    tool_errors: float = 0.05
    unfinished: float = 0.05

    def __post_init__(self) -> None:
        shares = ("margin", "min_accuracy", "max_infrastructure_share", *GUARDS)
        faults = [f"{name} = {getattr(self, name)}" for name in shares if not 0 <= getattr(self, name) < 1]
        if not 0.5 < self.confidence < 1:
            faults.append(f"confidence = {self.confidence} (more than 0.5)")
        if faults:
            raise GateError(f"gate rule: {', '.join(faults)}; expected shares of 0 or more and less than 1")
        if self.min_questions < 1:
            raise GateError(f"gate rule: min_questions = {self.min_questions}, expected at least 1")


@dataclass(frozen=True)
class Contestant:
    """What a checkpoint did on the gate's questions.

    Attributes:
        suite: names the questions, and `rules` how they were asked and scored: others cannot be compared.
        asked: ids of all questions of the suite.
        right: ids answered rightly.
        infrastructure_failures: ids whose episode a machine ended, not the agent; no comparison counts them.
        format_errors, tool_errors, unfinished: ids of episodes with at least one such fault of the agent.
    """

    recipe: str
    checkpoint: str
    suite: str
    rules: str
    asked: frozenset[str]
    right: frozenset[str]
    infrastructure_failures: frozenset[str] = frozenset()
    format_errors: frozenset[str] = frozenset()
    tool_errors: frozenset[str] = frozenset()
    unfinished: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in ("right", "infrastructure_failures", *GUARDS):
            if unasked := sorted(getattr(self, name) - self.asked):
                raise GateError(f"{self}: {name} has {len(unasked)} questions that were not asked ({', '.join(unasked[:5])})")
        if failed := sorted(self.right & self.infrastructure_failures):
            raise GateError(f"{self}: {len(failed)} questions are right and failed by a machine, too ({', '.join(failed[:5])})")

    def __str__(self) -> str:
        return f"{self.recipe} ({self.checkpoint[:ID_CHARS]})"

    @property
    def identity(self) -> tuple[str, str]:
        """What makes it this one."""
        return self.recipe, self.checkpoint

    @property
    def accuracy(self) -> float:
        """Share of right answers among the questions that no machine failed; 0 where none is left."""
        return len(self.right) / max(1, len(self.asked - self.infrastructure_failures))


@dataclass(frozen=True)
class Comparison:
    """A challenger beside one opponent, on the questions that no machine failed for either.

    Attributes:
        n: questions compared; n_infrastructure were left out.
        difference: accuracy of the challenger minus the opponent's; low and high are its one-sided bounds.
        threshold: what `low` must be above: -margin, and 0 against the base model.
        guards: difference of the shares of episodes with such a fault; positive where the challenger has more.
    """

    role: Role
    opponent: str
    n: int
    n_infrastructure: int
    n_right: int
    n_right_opponent: int
    n_only_challenger: int
    n_only_opponent: int
    difference: float
    low: float
    high: float
    threshold: float
    guards: dict[Guard, float]

    @property
    def is_shown(self) -> bool:
        """Whether the challenger is shown to be above the threshold."""
        return self.low > self.threshold

    @property
    def is_worse(self) -> bool:
        """Whether it is shown to be below."""
        return self.high < self.threshold

    def __str__(self) -> str:
        return (
            f"{self.n_right / self.n:.1%} against {self.n_right_opponent / self.n:.1%} of the {self.role} {self.opponent} on "
            f"{self.n} questions ({self.n_infrastructure} left out), difference {_points(self.difference)} points, bounds "
            f"{_points(self.low)} and {_points(self.high)}, must be above {_points(self.threshold)}; only the challenger "
            f"answers {self.n_only_challenger} rightly, only the {self.role} {self.n_only_opponent}"
        )


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a challenger.

    Attributes:
        decision: `promoted`; `worse`, shown to be below a threshold; `undecided`, neither; `not_judged`, since it holds the
            title or was refused before. The incumbent stays but for the first.
        why: with the numbers.
        blocked_by: what stands against it: a role that it is not shown to be good enough against, `guard against role`,
            `no right answer` or `min_accuracy`.
        power: chance that the gate's first comparison passes an equally good challenger, or, against the base model, one
            that is better by the margin; None where nothing was compared.
    """

    decision: Decision
    challenger: Contestant
    why: str
    comparisons: tuple[Comparison, ...] = ()
    blocked_by: tuple[str, ...] = ()
    power: float | None = None


def judge(
    challenger: Contestant,
    incumbent: Contestant | None,
    anchor: Contestant | None,
    base: Contestant | None,
    *,
    rule: GateRule,
    refused: frozenset[str] = frozenset(),
    n_challengers: int = 1,
) -> Verdict:
    """Whether a challenger takes the title.

    Promoted is who is shown, by one-sided bounds, to be not worse by the margin than the incumbent and than the anchor, and
    better than the base model, without tripping a guard against incumbent or anchor. Equal answers are thus promoted: of two
    equally good checkpoints the newer one learned from more. Without an incumbent the base model has to be beaten, and the
    anchor met where there is one.

    Args:
        challenger: who wants the title.
        incumbent: who holds it; None for the first champion.
        anchor: a fixed earlier checkpoint, the first champion: it stops a chain of losses that are small one by one, on the
            gate's questions. Where every challenger is trained on from the champion and judged on the same questions, luck is
            selected night after night, and the true loss grows beyond what the questions show (simulated in
            `tests/reports/test_gate_simulations.py`): take fresh questions, and a new anchor with them, every few weeks.
        base: the untrained model; may be None where there is an incumbent.
        rule: margins and confidence.
        refused: checkpoints that were rolled back; they are never promoted again.
        n_challengers: how many are judged at once; they share the chance of an error (Bonferroni).

    Raises:
        GateError: other questions or rules, too few questions, too many failures of machines, or an opponent missing.
    """
    if incumbent is not None and challenger.identity == incumbent.identity:
        return Verdict("not_judged", challenger, f"not judged: {challenger} holds the title")
    if challenger.checkpoint in refused:
        return Verdict("not_judged", challenger, f"not judged: {challenger} was rolled back and is never promoted again")
    if n_challengers < 1:
        raise GateError(f"n_challengers = {n_challengers}, expected at least 1")
    confidence = 1 - (1 - rule.confidence) / n_challengers
    comparisons = tuple(
        _compare(challenger, opponent, role, rule=rule, confidence=confidence)
        for role, opponent in _opponents(challenger, incumbent, anchor, base)
    )
    blocked_by = _blocks(challenger, comparisons, rule)
    decision: Decision = "promoted" if not blocked_by else "undecided"
    if any(comparison.is_worse for comparison in comparisons):
        decision = "worse"
    power = _power(comparisons[0], rule, confidence)
    why = _explain(decision, challenger, comparisons, blocked_by, rule=rule, confidence=confidence, power=power)
    return Verdict(decision, challenger, why, comparisons, blocked_by, power)


def judge_line(
    challengers: Sequence[Contestant],
    incumbent: Contestant | None,
    anchor: Contestant | None,
    base: Contestant | None,
    *,
    rule: GateRule,
    refused: frozenset[str] = frozenset(),
) -> list[Verdict]:
    """Every challenger's verdict, the promoted ones first, best first: the first one takes the title if it is promoted.

    Each is judged, with the chance of an error divided by their number: judging the best alone would pick whom chance favoured
    on these very questions and then test on them. Holm's steps would change nothing for the first to pass. Of
    equally accurate ones the first by recipe and checkpoint is taken.

    Raises:
        GateError: as `judge`, or a challenger comes twice.
    """
    repeated = [identity for identity, n in Counter(challenger.identity for challenger in challengers).items() if n > 1]
    if repeated:
        raise GateError(f"challengers {repeated} come twice; judge every checkpoint once")
    held = incumbent.identity if incumbent else None
    n_judged = sum(challenger.identity != held and challenger.checkpoint not in refused for challenger in challengers)
    verdicts = [
        judge(challenger, incumbent, anchor, base, rule=rule, refused=refused, n_challengers=max(1, n_judged))
        for challenger in challengers
    ]
    return sorted(
        verdicts,
        key=lambda verdict: (verdict.decision != "promoted", -verdict.challenger.accuracy, verdict.challenger.identity),
    )


def _opponents(
    challenger: Contestant, incumbent: Contestant | None, anchor: Contestant | None, base: Contestant | None
) -> list[tuple[Role, Contestant]]:
    """Who the challenger is compared with, each once."""
    if incumbent is None and base is None:
        raise GateError(f"{challenger}: the first champion must beat the base model; evaluate it on the gate's questions")
    if incumbent is not None and anchor is None:
        raise GateError(f"{challenger}: there is an incumbent and no anchor; name the line's first champion, or the incumbent")
    opponents: list[tuple[Role, Contestant]] = []
    if incumbent is not None:
        opponents.append(("incumbent", incumbent))
    if anchor is not None and anchor.identity not in (challenger.identity, incumbent.identity if incumbent else None):
        opponents.append(("anchor", anchor))
    if base is not None:
        opponents.append(("base", base))
    return opponents


def _compare(challenger: Contestant, opponent: Contestant, role: Role, *, rule: GateRule, confidence: float) -> Comparison:
    ids = _compared_ids(challenger, opponent, role, rule)
    n = len(ids)
    right, right_opponent = challenger.right & ids, opponent.right & ids
    n_only_challenger, n_only_opponent = len(right - right_opponent), len(right_opponent - right)
    low, high = paired_bounds(n_only_challenger, n_only_opponent, n, confidence=confidence)
    return Comparison(
        role=role,
        opponent=str(opponent),
        n=n,
        n_infrastructure=len(challenger.asked) - n,
        n_right=len(right),
        n_right_opponent=len(right_opponent),
        n_only_challenger=n_only_challenger,
        n_only_opponent=n_only_opponent,
        difference=(n_only_challenger - n_only_opponent) / n,
        low=low,
        high=high,
        threshold=0.0 if role == "base" else -rule.margin,
        guards={name: (len(getattr(challenger, name) & ids) - len(getattr(opponent, name) & ids)) / n for name in GUARDS},
    )


def _compared_ids(challenger: Contestant, opponent: Contestant, role: Role, rule: GateRule) -> frozenset[str]:
    """The questions of both that no machine failed for either."""
    pair = f"{challenger} and the {role} {opponent}"
    if (challenger.suite, challenger.rules) != (opponent.suite, opponent.rules) or challenger.asked != opponent.asked:
        n_different = len(challenger.asked ^ opponent.asked)
        raise GateError(
            f"{pair} were not asked alike: suites {challenger.suite!r} and {opponent.suite!r}, rules {challenger.rules!r} and "
            f"{opponent.rules!r}, {n_different} questions that only one was asked; evaluate both on one suite by the same rules"
        )
    if not challenger.asked:
        raise GateError(f"{pair}: the gate has no questions; give the task questions of the split `gate`")
    ids = challenger.asked - challenger.infrastructure_failures - opponent.infrastructure_failures
    n_failed = len(challenger.asked) - len(ids)
    if n_failed > rule.max_infrastructure_share * len(challenger.asked):
        raise GateError(
            f"{pair}: machines failed {n_failed} of {len(challenger.asked)} questions "
            f"({len(challenger.infrastructure_failures)} and {len(opponent.infrastructure_failures)}), more than "
            f"{rule.max_infrastructure_share:.1%}; evaluate again"
        )
    if len(ids) < rule.min_questions:
        raise GateError(
            f"{pair}: {len(ids)} questions to compare, expected at least {rule.min_questions}; enlarge the gate split, "
            "or lower min_questions and promote by chance"
        )
    return ids


def _blocks(challenger: Contestant, comparisons: Sequence[Comparison], rule: GateRule) -> tuple[str, ...]:
    """What keeps the challenger from the title."""
    blocks = [] if challenger.right else ["no right answer"]
    if any(comparison.n_right < rule.min_accuracy * comparison.n for comparison in comparisons):
        blocks.append("min_accuracy")
    for comparison in comparisons:
        if not comparison.is_shown:
            blocks.append(comparison.role)
        if comparison.role != "base":  # an untrained model's faults are no measure
            blocks += [
                f"{name} against {comparison.role}"
                for name, difference in comparison.guards.items()
                if difference > getattr(rule, name)
            ]
    return tuple(blocks)


def _power(comparison: Comparison, rule: GateRule, confidence: float) -> float:
    """By the discordance that was observed, since no better is known."""
    discordance = (comparison.n_only_challenger + comparison.n_only_opponent) / comparison.n
    difference = rule.margin if comparison.role == "base" else 0.0
    return noninferiority_power(
        comparison.n,
        margin=-comparison.threshold,
        discordance=max(discordance, difference),
        difference=difference,
        confidence=confidence,
    )


def _explain(
    decision: Decision,
    challenger: Contestant,
    comparisons: Sequence[Comparison],
    blocked_by: Sequence[str],
    *,
    rule: GateRule,
    confidence: float,
    power: float,
) -> str:
    outcome = {
        "promoted": "promoted",
        "worse": "worse, the title stays where it is",
        "undecided": "undecided, the title stays where it is",
    }[decision]
    blocks = f", because of {', '.join(blocked_by)}" if blocked_by else ""
    guards = "; ".join(
        f"against the {comparison.role} "
        + ", ".join(
            f"{name} {_points(share)} (at most {_points(getattr(rule, name))})" for name, share in comparison.guards.items()
        )
        for comparison in comparisons
        if comparison.role != "base"
    )
    first = comparisons[0]
    equal = f"one better by {100 * rule.margin:.1f} points" if first.role == "base" else "an equally good one"
    guarded = f" Guards in points: {guards}." if guards else ""
    return (
        f"{outcome}: {challenger}{blocks}. {'. '.join(map(str, comparisons))}.{guarded} Bounds are one-sided at "
        f"{confidence:.2%}; at {first.n} questions this gate passes {equal} against the {first.role} with a chance "
        f"of {power:.0%}."
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
