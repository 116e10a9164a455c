"""What each task takes for a right answer: as strictly as the paper does, and leniently."""

import json

import pytest

from negtraj_dagster.tasks import TASKS

WORDTRAPS = TASKS["wordtraps"]
RIGHT = {
    "digits": "18",
    "a unit behind": "18 plums",
    "a unit without a space": "18kg",
    "a currency": "$18",
    "bold": "**18**",
    "bold with a full stop": "**18**.",
    "code": "`18`",
    "a TeX box": r"\boxed{18}",
    "decimals": "18.0",
    "a full stop": "18.",
    "a sentence": "The answer is 18.",
    "said twice": "18, so 18 plums",
    "full-width digits": "１８",
}
WRONG = {
    "two numbers": "1 or 2",
    "the right one of two": "18 or 19",
    "a comma for a point": "1,8",
    "a point": "1.8",
    "a group too long": "1,8000",
    "an underscore": "1_8",
    "minus": "-18",
    "a true minus sign": "−18",
    "a fraction": "18/2",
    "a range": "17-18",
    "an exponent": "18e2",
    "no number": "eighteen",
    "inside of a word": "A18",
    "nothing": "",
    "not a number": "nan",
    "too large": "1e999",
    "far too long": "18" + "0" * 5000,
}


@pytest.mark.parametrize("prediction", RIGHT.values(), ids=RIGHT)
def test_the_lenient_rule_forgives_what_stands_around_the_number(prediction: str) -> None:
    assert WORDTRAPS.score(prediction, "18").lenient


@pytest.mark.parametrize("prediction", WRONG.values(), ids=WRONG)
def test_the_lenient_rule_takes_no_number_that_was_not_answered(prediction: str) -> None:
    assert not WORDTRAPS.score(prediction, "18").lenient


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [("1,800", 1800), ("1,234,567 dollars", 1234567), ("-5", -5), ("−5", -5), ("0", 0), ("1e3", 1000)],
)
def test_the_lenient_rule_reads_thousands_signs_and_exponents(prediction: str, answer: int) -> None:
    assert WORDTRAPS.score(prediction, json.dumps(answer)).lenient


@pytest.mark.parametrize("prediction", [*RIGHT.values(), *WRONG.values()])
def test_the_strict_rule_takes_the_digits_and_nothing_else(prediction: str) -> None:
    assert WORDTRAPS.score(prediction, "18").strict == (prediction == "18")


OF_THE_KIND = ("18", "19 plums", "**19**", "$1,900")
NOT_OF_THE_KIND = ("1 or 2", "1,8", "The answer is 18.", "Uncertain", "", "inf")


@pytest.mark.parametrize(
    ("prediction", "is_valid"), [*((each, True) for each in OF_THE_KIND), *((each, False) for each in NOT_OF_THE_KIND)]
)
def test_an_answer_of_the_kind_is_one_number_with_its_unit_at_most(prediction: str, is_valid: bool) -> None:
    assert WORDTRAPS.is_valid_answer(prediction) is is_valid
