"""Reads the numbers of an answer, as people and models write them: one value, or none where two readings are possible."""

import math
import re
import unicodedata
from fractions import Fraction

VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
MAX_VULGAR_DENOMINATOR = 10
NUMBER = re.compile(
    r"(?P<sign>[-−+](?:[$€£¥₹] ?)?)?"
    r"(?:(?:(?P<whole>\d+) +)?(?P<numerator>\d+) ?[/⁄∕] ?(?P<denominator>\d+)"
    rf"|(?P<units>\d+)? ?(?P<vulgar>[{VULGAR}])"
    r"|(?P<decimal>(?:(?:\d{1,3}(?P<mark>[,\u00a0\u2009\u202f])\d{3}(?:(?P=mark)\d{3})*(?![\d,]*\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?:[eE][-+]?\d+)?))"
)
"""A common fraction or mixed number (`3/4`, `1 1/2`, `1½`), or a decimal whose thousands a comma or a fixed space may group."""
TEX_FRACTION = re.compile(r"(\d?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
GLUED = re.compile(r"[^\W\d]|[\d_.]")
"""Before a number these make it a part of something else: `A18`, the 8 of `1_8`."""
OPERATOR_AFTER = re.compile(r"[ \t]*(?:[-−–+/⁄∕÷:*×^]|x)[ \t]*\d|[ \t]*\+(?!\d)|[ \t]*\.\d|[‰‱]")
OPERATOR_BEFORE = re.compile(r"\d[ \t]*[/⁄∕÷:*×^x][ \t]*$|[-−–‐‑‒+±][ \t]*$")
"""`8 ÷ 8` and `8:8` are not 8, nor is `8+`; `- 8` and `–8` may be 8 behind a dash, or -8."""
MAX_CHARS = 40
"""A longer one is no answer; `int` and `float` refuse or round it."""
OTHER_NUMBERS = ("Nl", "No")
"""Categories of `²` and the like: `2²` is not 2."""
SIGN_IN_WORDS = re.compile(r"\b(?:minus|negative)\s+$", re.IGNORECASE)
NOT_EQUAL = re.compile(
    r"(?:\bnot|n['’]t|\bnever|\bno|\b(?:less|more|fewer|greater|larger|smaller|higher|lower|other|rather) than|[<>≤≥≠~≈]"
    r"|\b(?:at least|at most|about|around|almost|nearly|roughly|approximately|under|over|above|below|between)"
    r"|\b(?:half|third|quarter|twice|double|triple)(?: of)?)\s*$",
    re.IGNORECASE,
)
"""What a number stands behind that is not the one meant: `not 8`, `less than 8`, `half of 8`."""
NOT_ALL = re.compile(
    r"\s*-?(?:[kKmM]\b|(?:dozen|score|hundred|thousand|million|billion|trillion|lakh|crore)s?\b)"
    r"|\s+and\s+(?:a|one)[ -](?:half|third|quarter)\b|\s+or\s+(?:so|more|less|fewer)\b|[ -]?ish\b",
    re.IGNORECASE,
)
"""`8 million` is not 8, nor is `8 and a half` or `8 or more`."""
BEFORE_CHARS = 24
DECORATION = " \t\r\n*_`$€£#([{\"'"


def read_numbers(text: str) -> list[float | None]:
    """Every number of a text in order; None for what has digits and is not clearly one.

    Thousands may be grouped by commas. `1,8` is 1 and 8, since nobody can say which of 1.8 and 18 is meant. Units, currencies
    and the percent sign are no part of the number: `25%` is 25 and never 0.25. Numbers in words are not read.
    """
    plain = TEX_FRACTION.sub(lambda match: f"{match[1]}{' ' if match[1] else ''}{match[2]}/{match[3]}", text)
    return [_value(plain, match) for match in NUMBER.finditer(plain)]


def read_only_number(text: str) -> float | None:
    """The value of the number that a text says, once or several times; None where it says none, or different ones."""
    values = set(read_numbers(text))
    return values.pop() if len(values) == 1 else None


def begins_with_number(text: str) -> bool:
    """Whether nothing but marks and a currency sign stands before the first number."""
    return NUMBER.match(text.lstrip(DECORATION)) is not None


def _value(text: str, match: re.Match[str]) -> float | None:
    before, after = text[max(0, match.start() - MAX_CHARS) : match.start()], text[match.end() : match.end() + MAX_CHARS]
    if len(match[0]) > MAX_CHARS or not _stands_apart(before, after, is_signed=match["sign"] is not None):
        return None
    if NOT_EQUAL.search(before[-BEFORE_CHARS:]) or NOT_ALL.match(after):
        return None
    is_negative = match["sign"] is not None and match["sign"][0] != "+"
    if SIGN_IN_WORDS.search(before[-BEFORE_CHARS:]):
        if match["sign"] is not None:
            return None
        is_negative = True
    size = _size(match)
    if size is None or not math.isfinite(size):
        return None
    return -size if is_negative and size else size


def _stands_apart(before: str, after: str, *, is_signed: bool) -> bool:
    """Whether it is no part of a word, a range, a date, a ratio or a calculation."""
    last = before[-1:] or " "
    if is_signed and (last.isalnum() or last in ")]"):  # 17-18 is a range, 10-2 a difference
        return False
    if GLUED.match(last) or after[:1] == "_" or unicodedata.category(after[:1] or " ") in OTHER_NUMBERS:
        return False
    return OPERATOR_BEFORE.search(before) is None and OPERATOR_AFTER.match(after) is None


def _size(match: re.Match[str]) -> float | None:
    """The value without its sign, rounded once; None for `1/0` and for `1 3/2`, which may be a list."""
    if match["decimal"]:
        return float(match["decimal"].replace(match["mark"] or ",", ""))
    if match["vulgar"]:
        part = Fraction(unicodedata.numeric(match["vulgar"])).limit_denominator(MAX_VULGAR_DENOMINATOR)
        return float(int(match["units"] or 0) + part)
    numerator, denominator = int(match["numerator"]), int(match["denominator"])
    if denominator == 0 or (match["whole"] and numerator >= denominator):
        return None
    return float(int(match["whole"] or 0) + Fraction(numerator, denominator))
