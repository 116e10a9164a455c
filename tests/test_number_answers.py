"""Numbers as answers: strictly the paper's string equality, leniently the one value that an answer clearly says."""

import json
import re

import pytest

from negtraj_dagster.tasks.numbers import read_only_number
from negtraj_dagster.tasks.scorers import SCORERS
from tests.conftest import SAMPLE_DATA

NUMBER = SCORERS["number"]

LENIENT = [  # answer, right answer, whether it is right, why
    ("0.75", "0.75", True, "the decimal"),
    ("3/4", "0.75", True, "a common fraction"),
    ("3 / 4", "0.75", True, "spaces inside of a fraction"),
    ("6/8", "0.75", True, "an unreduced fraction"),
    ("¾", "0.75", True, "a fraction of one character"),
    ("3⁄4", "0.75", True, "the fraction slash"),
    (r"\frac{3}{4}", "0.75", True, "a TeX fraction"),
    (r"$\boxed{1\frac{1}{2}}$", "1.5", True, "a mixed number in TeX"),
    ("3/4 = 0.75", "0.75", True, "one value said in two ways"),
    ("-3/4", "-0.75", True, "a negative fraction"),
    ("1 1/2", "1.5", True, "a mixed number"),
    ("1½ cups", "1.5", True, "a mixed number of two characters with its unit"),
    ("1 ½", "1.5", True, "a mixed number with a space"),
    ("-1 1/2", "-1.5", True, "the sign is of the whole mixed number"),
    ("2 1/10", "2.1", True, "rounded once, as the decimal is"),
    ("1/3", "0.3333", False, "a third is not 0.3333"),
    ("1 3/2", "2.5", False, "no mixed number: a list, perhaps"),
    ("1 and 1/2", "1.5", False, "two numbers, perhaps"),
    ("1/0", "0", False, "no number"),
    ("1.5/2", "0.75", False, "a calculation that was not done"),
    ("3 ÷ 4", "0.75", False, "a calculation that was not done"),
    ("3/4/2024", "0.75", False, "a date"),
    ("3/4", "3", False, "never the first number of a fraction"),
    ("1 1/2", "1", False, "never the whole part of a mixed number"),
    ("1½", "1", False, "nor of one of two characters"),
    ("1 and a half", "1", False, "nor of one in words"),
    ("half of 8", "8", False, "nor the number that is halved"),
    ("25%", "25", True, "the percent sign is a unit"),
    ("25 percent", "25", True, "the unit in words"),
    (r"25\%", "25", True, "the unit in TeX"),
    ("25%", "0.25", False, "a share is not asked in percent: either reading would be a guess"),
    ("0.25", "25", False, "nor the other way round"),
    ("25‰", "25", False, "another unit"),
    ("$1,234.50", "1234.5", True, "a currency and thousands"),
    ("-$5", "-5", True, "the sign before the currency"),
    ("$-5", "-5", True, "the sign behind the currency"),
    ("-$5", "5", False, "a sign is never lost"),
    ("−5 °C", "-5", True, "the true minus sign and a unit"),
    ("minus 5", "-5", True, "a sign in words"),
    ("minus -5", "5", False, "two signs"),
    ("+5", "5", True, "a plus"),
    ("- 5", "5", False, "a dash or a sign"),
    ("- 5", "-5", False, "a sign or a dash"),
    ("–5", "5", False, "an en dash for a sign"),
    ("±5", "5", False, "two values"),
    ("17-18", "18", False, "a range"),
    ("18-18", "18", False, "a range or a difference"),
    ("18:18", "18", False, "a ratio or a time"),
    ("18 x 18", "18", False, "a product"),
    ("18+", "18", False, "a lower bound"),
    ("18 or more", "18", False, "a lower bound in words"),
    ("COVID-19", "19", False, "a part of a name"),
    ("1,234,567", "1234567", True, "thousands by commas"),
    ("1\u202f234\u202f567", "1234567", True, "thousands by narrow fixed spaces"),
    ("1 234", "1234", False, "a plain space may part two numbers"),
    ("1,23", "1.23", False, "a comma is no point"),
    ("1,00,000", "100000", False, "groups of two"),
    ("1.234", "1234", False, "a point is no comma"),
    ("1.800", "1.8", True, "zeros behind the point"),
    (".5", "0.5", True, "nothing before the point"),
    ("it is.5", "5", False, "a full stop or a point"),
    ("1.2.3", "1.2", False, "a version"),
    ("1e3", "1000", True, "an exponent"),
    ("5 apples", "5", True, "a unit"),
    ("5kg", "5", True, "a unit without a space"),
    ("5 apples and 3 pears", "5", False, "never the first of two"),
    ("3 pears and 5 apples", "5", False, "nor the last"),
    ("5, so 5 apples", "5", True, "one value said twice"),
    ("5, not 6", "5", False, "a number that is denied stands beside it"),
    ("2 + 3 = 5", "5", False, "the numbers of a calculation"),
    ("5 million", "5", False, "a multiplier"),
    ("-0", "0", True, "zero has no sign"),
    ("0/5", "0", True, "nor has no fifth"),
    ("", "0", False, "no answer"),
    ("zero", "0", False, "numbers in words are not read"),
]


def test_the_table_of_lenient_answers_is_long_enough() -> None:
    assert len({(answer, right) for answer, right, *_ in LENIENT}) >= 40


@pytest.mark.parametrize(("answer", "right", "is_right", "why"), LENIENT, ids=[f"{row[0]} for {row[1]}" for row in LENIENT])
def test_the_lenient_rule_takes_the_one_value_that_is_said(answer: str, right: str, is_right: bool, why: str) -> None:
    assert NUMBER.score(answer, right).lenient is is_right, why


@pytest.mark.parametrize("digits", ["0", "-3", "18", "1234", "0.75"])
def test_the_strict_rule_is_the_equality_of_strings(digits: str) -> None:
    right = NUMBER.read(digits)
    written_otherwise = [f"${digits}", f"{digits}.", f" {digits}", f"+{digits}", f"{digits}%", f"{float(digits):.2f}0", "1,234"]
    assert NUMBER.score(digits, right).strict
    assert not any(NUMBER.score(prediction, right).strict for prediction in written_otherwise)


@pytest.mark.parametrize(
    ("value", "right"),
    [("1,450,000", "1450000"), ("#### 39", "39"), (152.0, "152"), ("3/4", "0.75"), (-10, "-10"), ("25%", "25")],
)
def test_the_right_answer_is_read_as_a_number(value: object, right: str) -> None:
    assert NUMBER.read(value) == right


@pytest.mark.parametrize("value", ["", "1 or 2", "many", True, None, float("nan"), float("inf"), 10**400, [1]])
def test_what_is_no_number_is_no_right_answer(value: object) -> None:
    with pytest.raises(ValueError, match="a number"):
        NUMBER.read(value)


FILES = {
    "gsm8k/train.jsonl": 7473,
    "gsm8k/test.jsonl": 1319,
    "nat/ASDiv/test_one_answer.jsonl": 2023,
    "nat/MultiArith/test.jsonl": 596,
}
PUBLISHED_ANSWER = re.compile(r"#### (-?[0-9.,]+)")


@pytest.mark.parametrize("name", FILES)
def test_strict_compares_with_the_text_that_the_papers_code_compares_with(name: str) -> None:
    """Its rule: the digits behind `####` without commas, and without such the whole answer."""
    path = SAMPLE_DATA / name
    if not path.is_file():
        pytest.skip("the real question files are not at hand")
    answers = [json.loads(line)["answer"] for line in path.read_text().splitlines()]
    n_equal = 0
    for answer in answers:
        published = PUBLISHED_ANSWER.search(answer)
        text = published[1].replace(",", "") if published else answer
        right = NUMBER.read(answer.rpartition("####")[2].strip())
        n_equal += NUMBER.score(text, right).strict and read_only_number(text) == float(right)
    assert n_equal == len(answers) == FILES[name]
