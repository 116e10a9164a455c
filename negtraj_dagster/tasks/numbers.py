"""Reads the numbers of an answer, as people and models write them."""

import math
import re
import unicodedata

NUMBER = re.compile(r"[-−+]?(?:\d{1,3}(?:,\d{3})+(?![\d,]*\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
GLUED = re.compile(r"[^\W\d]|[\d_.]")
"""Before a number these make it a part of something else: `A18`, the 8 of `1_8`."""
FRACTION_AFTER = re.compile(r"\s*[/⁄∕÷]\s*\d")
FRACTION_BEFORE = re.compile(r"\d\s*[/⁄∕÷]\s*$")
"""`8/8` is not 8."""
MAX_CHARS = 40
"""A longer one is no answer; `int` and `float` refuse or round it."""
OTHER_NUMBERS = ("Nl", "No")
"""Categories of `½`, `²` and the like: `3½` is not 3, and `2²` not 2."""
SIGN_IN_WORDS = re.compile(r"\b(?:minus|negative)\s+$", re.IGNORECASE)
NOT_EQUAL = re.compile(
    r"(?:\bnot|n['’]t|\bnever|\bno|\b(?:less|more|fewer|greater|larger|smaller|higher|lower|other|rather) than|[<>≤≥≠~≈]"
    r"|\b(?:at least|at most|about|around|almost|nearly|roughly|approximately|under|over|above|below|between))\s*$",
    re.IGNORECASE,
)
"""What a number stands behind that is not the one meant: `not 8`, `less than 8`."""
MULTIPLIER = re.compile(
    r"\s*-?(?:[kKmM]\b|(?:dozen|score|hundred|thousand|million|billion|trillion|lakh|crore)s?\b)", re.IGNORECASE
)
"""`8 million` is not 8."""
BEFORE_CHARS = 24
DECORATION = " \t\r\n*_`$€£#([{\"'"


def read_numbers(text: str) -> list[float | None]:
    """Every number of a text in order; None for what has digits and is not clearly one.

    Thousands may be grouped by commas. `1,8` is 1 and 8, since nobody can say which of 1.8 and 18 is meant.
    """
    return [_value(text, match) for match in NUMBER.finditer(text)]


def read_only_number(text: str) -> float | None:
    """The value of the number that a text says, once or several times; None where it says none, or different ones."""
    values = set(read_numbers(text))
    return values.pop() if len(values) == 1 else None


def begins_with_number(text: str) -> bool:
    """Whether nothing but marks and a currency sign stands before the first number."""
    return NUMBER.match(text.lstrip(DECORATION)) is not None


def _value(text: str, match: re.Match[str]) -> float | None:
    number = match[0]
    before = text[match.start() - 1] if match.start() else " "
    if number[0] in "-−+" and (before.isalnum() or before in ")]"):  # 17-18 is a range, 10-2 a difference: no sign
        number, before = number[1:], " "
    after = text[match.end() : match.end() + MAX_CHARS]
    if GLUED.match(before) or after[:1] == "_" or len(number) > MAX_CHARS:
        return None
    if unicodedata.category(after[:1] or " ") in OTHER_NUMBERS or FRACTION_AFTER.match(after):
        return None
    before = text[max(0, match.start() - MAX_CHARS) : match.start()]
    if FRACTION_BEFORE.search(before) or MULTIPLIER.match(after):
        return None
    if NOT_EQUAL.search(before[-BEFORE_CHARS:]):
        return None
    if SIGN_IN_WORDS.search(before[-BEFORE_CHARS:]):
        number = f"-{number}" if number[0] not in "-−+" else ""
    if not number:
        return None
    value = float(number.replace(",", "").replace("−", "-"))
    return value if math.isfinite(value) else None
