"""Which loss weight each character of a trained turn should have, and whether spans of tokens give it."""

import itertools
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from negtraj_dagster.schema import ConditionedTurn
from negtraj_dagster.shards.reading import TokenReader


@dataclass(frozen=True)
class Span:
    """Trained tokens, half open, and their weight."""

    start: int
    end: int
    weight: float


def as_float32(weight: float) -> float:
    """The weight as a batch's column holds it."""
    return float(struct.unpack("f", struct.pack("f", weight))[0])


def expected_weights(turn: ConditionedTurn, target: str, n_context: int) -> Iterator[list[float]]:
    """The weight of every character of the turn's target: the turn's, but where a range says otherwise.

    Where a text stands in the target more than once, there is an answer for each place; the likeliest comes first.

    Args:
        turn: with `ranges`.
        target: the turn as it is written: reasoning, content, calls, end.
        n_context: how many of its first characters are context.
    """
    reasoning, content = turn.get("reasoning", "").strip(), turn["content"].strip()
    opened = target.find("<think>") + len("<think>") if "<think>" in target else 0
    for thought in _places(target, reasoning, opened):
        for content_start in _places(target, content, max(thought + len(reasoning), n_context) if reasoning else n_context):
            weights = [0.0] * n_context + [as_float32(turn["weight"])] * (len(target) - n_context)
            for stretch in turn.get("ranges", ()):
                text, text_start = (
                    (turn["content"], content_start) if stretch["field"] == "content" else (turn["reasoning"], thought)
                )
                first, last = text_start - (len(text) - len(text.lstrip())), text_start + len(text.strip())
                for at in range(max(first + stretch["start"], text_start), min(first + stretch["end"], last)):
                    weights[at] = as_float32(stretch["weight"])
            yield weights


def _places(target: str, text: str, first: int) -> list[int]:
    """Where a text stands: the first place from `first` on, then some others."""
    if not text:
        return [first]
    starts = [match.start() for match in re.finditer(re.escape(text), target)]
    return sorted(starts, key=lambda at: (at < first, at))[:MAX_PLACES]


MAX_PLACES = 8


def find_weight_fault(
    reader: TokenReader, ids: Sequence[int], spans: Sequence[Span], weights: Sequence[float], start: int, end: int
) -> str | None:
    """What is wrong with the spans of a turn whose tokens are `ids[start:end]`, if anything.

    A token that lies on both sides of a border is trained with the weight of the first stretch that it touches, so the
    characters of a span's first and last token may have another weight.
    """
    borders = sorted({start, end, *(at for span in spans for at in (span.start, span.start + 1, span.end - 1, span.end))})
    texts = [reader.read(ids[a:b]) for a, b in itertools.pairwise(borders)]
    if "".join(texts) != reader.read(ids[start:end]) or borders[-1] > end:
        return "its borders lie inside of characters, so that weights cannot be told"
    # token borders as places in the turn's text: a span's first and last token may begin or end inside of a stretch
    places, at = {borders[0]: 0}, 0
    for border, text in zip(borders[1:], texts, strict=True):
        at += len(text)
        places[border] = at
    is_covered = [False] * len(weights)
    for span in spans:
        first, inner_first, inner_last, last = (places[n] for n in (span.start, span.start + 1, span.end - 1, span.end))
        if last > len(weights):
            return "its text has another length than its tokens', so that weights cannot be told"
        wrong = next((at for at in range(inner_first, inner_last) if weights[at] != span.weight), None)
        if wrong is not None:
            return f"character {wrong} of the turn has weight {span.weight}, expected {weights[wrong]}"
        # its outer tokens may straddle a border, yet some character of the span must be what it is trained for
        if not any(weights[at] == span.weight for at in range(first, max(last, first + 1))):
            return f"tokens {span.start} to {span.end} have weight {span.weight}, which none of their characters should have"
        is_covered[first:last] = [True] * (last - first)
    uncovered = next((at for at, weight in enumerate(weights) if weight > 0 and not is_covered[at]), None)
    return (
        None if uncovered is None else f"character {uncovered} of the turn is not trained, expected weight {weights[uncovered]}"
    )
