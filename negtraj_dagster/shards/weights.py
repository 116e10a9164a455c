"""Which loss weight each character of a trained turn should have, and whether spans of tokens give it."""

from collections.abc import Sequence
from dataclasses import dataclass

from negtraj_dagster.schema import ConditionedTurn
from negtraj_dagster.shards.reading import TokenReader


@dataclass(frozen=True)
class Span:
    """Trained tokens, half open, and their weight."""

    start: int
    end: int
    weight: float


def expected_weights(turn: ConditionedTurn, target: str) -> list[float]:
    """The weight of every character of the turn's target: the turn's, but where a range says otherwise."""
    weights = [turn["weight"]] * len(target)
    for stretch in turn.get("ranges", ()):
        text = turn["content"] if stretch["field"] == "content" else turn["reasoning"]
        inner = text.strip()
        found = target.rfind(inner) if stretch["field"] == "content" else target.find(inner)
        first = found - (len(text) - len(text.lstrip()))
        for at in range(max(first + stretch["start"], found), min(first + stretch["end"], found + len(inner))):
            weights[at] = stretch["weight"]
    return weights


def find_weight_fault(
    reader: TokenReader, ids: Sequence[int], spans: Sequence[Span], weights: Sequence[float], start: int, end: int
) -> str | None:
    """What is wrong with the spans of a turn whose tokens are `ids[start:end]`, if anything.

    A token that lies on both sides of a border is trained with the weight of the first stretch that it touches, so the
    characters of a span's first and last token may have another weight.
    """
    is_covered = [False] * len(weights)
    for span in spans:
        if span.end > end:
            return f"tokens {span.start} to {span.end} are trained, but the turn ends at {end}"
        places = [len(reader.read(ids[start:at])) for at in (span.start, span.start + 1, span.end - 1, span.end)]
        if places[-1] > len(weights):
            return None  # a normalizer changed the text's length: characters cannot be told
        inside = range(places[1], places[2]) if span.end - span.start > 2 else range(0)
        if wrong := next((at for at in inside if abs(weights[at] - span.weight) > 1e-6), None):
            return f"character {wrong} of the turn has weight {span.weight}, expected {weights[wrong]}"
        if not any(abs(weights[at] - span.weight) <= 1e-6 for at in range(places[0], max(places[-1], places[0] + 1))):
            return f"tokens {span.start} to {span.end} have weight {span.weight}, which none of their characters should have"
        for at in range(places[0], places[-1]):
            is_covered[at] = True
    lost = next((at for at, weight in enumerate(weights) if weight > 0 and not is_covered[at]), None)
    return None if lost is None else f"character {lost} of the turn is not trained, expected weight {weights[lost]}"
