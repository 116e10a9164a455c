"""Which of a turn's characters are trained and how much, and the ids its model emitted, checked."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, cast

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.fields import check, refusal, refuse_unknown_keys, require
from negtraj_dagster.schema import Role, WeightRange

LARGEST_WEIGHT = (2 - 2.0**-23) * 2.0**127
"""Shards keep weights as 32-bit floats."""
LARGEST_TOKEN_ID = 2**31 - 1
"""Shards keep ids as 32-bit integers."""
RANGE_KEYS = frozenset({"field", "start", "end", "weight"})


def read_loss(value: object, role: Role, place: str) -> bool | float | None:
    """A turn's loss weight where it deviates from the role's rule, else None: False for 0, a number for any other.

    Raises:
        RolloutFormatError: no weight, or one above 0 on a turn that is not the agent's.
    """
    if value is None:
        return None
    weight = float(value) if isinstance(value, bool) else _weight(value, place, "true, false or ")
    if role != "assistant":
        if weight:
            raise RolloutFormatError(
                f"{place}: a {role} turn cannot carry loss; only assistant turns are trained: leave the key out"
            )
        return None
    return None if weight == 1.0 else weight or False


def read_ranges(value: object, texts: Mapping[str, str], place: str) -> list[WeightRange]:
    """A turn's ranges, sorted by field and start.

    Args:
        value: as recorded.
        texts: the turn's `content` and `reasoning`.
        place: where it stands.

    Raises:
        RolloutFormatError: one is malformed or out of bounds, or two overlap.
    """
    if value is None:
        return []
    ranges = check(value, place, list, "write a list of ranges, or leave the key out")
    ranges_read = [_range(stretch, texts, f"{place}[{index}]") for index, stretch in enumerate(ranges)]
    ranges_read.sort(key=lambda stretch: (stretch["field"], stretch["start"]))
    for earlier, other in pairwise(ranges_read):
        if earlier["field"] == other["field"] and other["start"] < earlier["end"]:
            raise RolloutFormatError(
                f"{place}: {_stretch(earlier)} and {_stretch(other)} overlap, expected ranges apart; give each character one "
                f"weight"
            )
    return ranges_read


def read_token_ids(value: object, place: str) -> list[int]:
    """The ids the recorded model emitted in a turn.

    Raises:
        RolloutFormatError: one is no id.
    """
    remedy = "write the ids that were emitted, or leave the key out"
    ids = [] if value is None else check(value, place, list, remedy)
    for index, token_id in enumerate(ids):
        if type(token_id) is not int or not 0 <= token_id <= LARGEST_TOKEN_ID:
            raise refusal(f"{place}[{index}]", token_id, f"an integer from 0 to {LARGEST_TOKEN_ID}", remedy)
    return list(ids)


def _stretch(found: WeightRange) -> str:
    return f"{found['field']} {found['start']} to {found['end']}"


def _range(value: object, texts: Mapping[str, str], place: str) -> WeightRange:
    stretch = check(value, place, dict, "write {field, start, end, weight}")
    refuse_unknown_keys(stretch, RANGE_KEYS, place)
    field = cast("Literal['content', 'reasoning']", stretch.get("field"))
    if field not in ("content", "reasoning"):
        raise refusal(f"{place}.field", field, "'content' or 'reasoning'", "name the text the range is of")
    remedy = f"count characters (code points) of {field}, from 0, the end not included"
    start, end = (require(stretch, key, int, at=place, remedy=remedy) for key in ("start", "end"))
    if not 0 <= start < end <= len(texts[field]):
        n = len(texts[field])
        raise RolloutFormatError(
            f"{place}: found {start} to {end}, expected 0 <= start < end <= {n}, {field}'s length; {remedy}"
        )
    return {"field": field, "start": start, "end": end, "weight": _weight(stretch.get("weight"), f"{place}.weight")}


def _weight(value: object, place: str, also: str = "") -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= LARGEST_WEIGHT:  # type: ignore[operator]
        expected = f"{also}a number from 0 to {LARGEST_WEIGHT:.4g}"
        raise refusal(place, value, expected, "0 trains nothing there, 1 trains it as usual")
    return float(value) + 0.0  # type: ignore[arg-type]  # + 0.0: -0.0 is 0.0
