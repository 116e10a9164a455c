"""What each task takes for a right answer: as strictly as the paper does, and leniently."""

import json
from pathlib import Path

import pytest

from negtraj_dagster.agent.tools.search import SearchTool
from negtraj_dagster.launch import run_child
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.store import Store
from negtraj_dagster.tasks import EMBEDDED

WORDTRAPS = EMBEDDED["wordtraps"]
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
    "a plus": "+18",
    "spaces around": " 18 ",
    "a line break": "18\n",
    "an equation": "x = 18",
    "an ordinal": "18th",
    "a number in words beside it": "eighteen (18)",
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
    "a fraction of itself": "18/18",
    "a fraction of another sign": "18 ⁄ 18",
    "a division": "18 ÷ 18",
    "a date": "18/18/18",
    "a half more": "18½",
    "a square": "18²",
    "a sign in words": "minus 18",
    "another sign in words": "Negative 18",
    "a denial": "not 18",
    "a short denial": "it isn't 18",
    "a bound": "less than 18",
    "a bound as a sign": "> 18",
    "a guess": "about 18",
    "millions": "18 million",
    "thousands": "18k",
    "dozens": "18 dozen",
    "a footnote before it": "²18",
    "a range": "17-18",
    "an exponent": "18e2",
    "no number": "eighteen",
    "inside of a word": "A18",
    "nothing": "",
    "not a number": "nan",
    "too large": "1e999",
    "far too long": "18" + "0" * 5000,
    "spaced digits": "1 8",
    "a sum": "12 + 6 = 18",
    "two amounts": "18 plums and 2 pears",
    "a hexadecimal": "0x12",
    "Roman": "XVIII",
    "null": "null",
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


def nat_folder(root: Path) -> Path:
    """A question of each split; the test file has an explanation and no facts, as NAT's."""
    (root / "strategyqa").mkdir(parents=True)
    train = {"id": "a", "question": "Is a whale a fish?", "answer": False, "facts": ["Whales are mammals."]}
    said = "No. J.D. Salinger wrote 11 stories. He met St. Clair!  Each has  9 parts, No. 3 is lost."
    test = {"id": 7, "question": "Is a stone alive?", "answer": False, "explanation": said}
    for name, row in (("train", train), ("test_random_500", test)):
        (root / "strategyqa" / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    return root


def test_an_explanations_sentences_are_facts_and_its_verdict_is_none(tmp_path: Path) -> None:
    _, test = EMBEDDED["strategyqa"].questions(Settings(home=tmp_path, nat_dir=nat_folder(tmp_path / "nat")))
    assert test.facts == (
        "J.D. Salinger wrote 11 stories.",
        "He met St. Clair!",
        "Each has  9 parts, No. 3 is lost.",
    )


def test_an_agent_finds_evidence_for_the_questions_of_every_split(tmp_path: Path, store: Store) -> None:
    settings = Settings(home=store.home, nat_dir=nat_folder(tmp_path / "nat"), wordtraps=WordtrapsSettings(enabled=False))
    lineage = Lineage(store, settings, run_child)
    lineage.question_sets()
    search = SearchTool(lineage.respondents.passages(lineage.recipes["strategyqa_nat"]))
    assert "Whales are mammals." in search("whales")
    assert "J.D. Salinger" in search("stories of Salinger")


def test_every_published_test_question_has_facts_and_none_says_the_verdict(nat_dir: Path, tmp_path: Path) -> None:
    questions = EMBEDDED["strategyqa"].questions(Settings(home=tmp_path, nat_dir=nat_dir))
    held_out = [question for question in questions if question.split == "test"]
    assert len(held_out) == 500
    assert all(question.facts for question in held_out)
    assert not [fact for question in held_out for fact in question.facts if fact.lower().startswith(("yes.", "no."))]


def test_most_published_test_questions_find_their_own_evidence(nat_dir: Path, tmp_path: Path) -> None:
    questions = EMBEDDED["strategyqa"].questions(Settings(home=tmp_path, nat_dir=nat_dir))
    search = SearchTool([fact for question in questions for fact in question.facts])
    suite = [question for question in questions if question.split == "test"][::10]
    n_answered = sum(any(fact in search(question.question) for fact in question.facts) for question in suite)
    assert n_answered >= 0.8 * len(suite)  # 231 of the 500 with the facts of training questions alone, 432 with all


NATIVE_ANSWERS = {
    "a boolean": ("strategyqa", "true", "yes"),
    "the other": ("strategyqa", "false", "no"),
    "a boolean's name": ("strategyqa", "True", "yes"),
    "a text": ("strategyqa", "Yes", "Yes"),
    "a list of one": ("strategyqa", "[true]", "yes"),
    "a number": ("wordtraps", "12", "12"),
    "a whole number with a point": ("wordtraps", "12.0", "12"),
    "a fraction": ("wordtraps", "12.5", "12.5"),
    "a quoted number": ("wordtraps", '"12"', "12"),
    "a list of one text": ("wordtraps", '["12"]', "12"),
    "an object of one value": ("wordtraps", '{"value": 12}', "12"),
    "two values": ("wordtraps", "[1, 2]", "[1, 2]"),
    "null": ("wordtraps", "null", "null"),
    "an empty list": ("wordtraps", "[]", "[]"),
    "no number": ("wordtraps", "NaN", "NaN"),
    "too large": ("wordtraps", "1e999", "1e999"),
    "a sentence": ("wordtraps", "It is 12", "It is 12"),
    "too deep": ("wordtraps", "[" * 100_000, "[" * 100_000),
    "too many digits": ("wordtraps", "1" * 5000, "1" * 5000),
}


@pytest.mark.parametrize(("task", "value", "plain"), NATIVE_ANSWERS.values(), ids=NATIVE_ANSWERS)
def test_a_json_value_is_the_answer_that_it_means(task: str, value: str, plain: str) -> None:
    assert EMBEDDED[task].plain_answer(value) == plain


STRATEGYQA = EMBEDDED["strategyqa"]
STRICT_YES = {"plain": "yes", "capital": "Yes", "upper case": "YES", "spaces around": " yes ", "a line break": "yes\n"}
LENIENT_YES = {
    "a denial of something else": "It is not always blue, so the answer is Yes.",
    "a full stop": "yes.",
    "an exclamation": "Yes!",
    "bold": "**yes**",
    "code": "`yes`",
    "quoted": '"yes"',
    "brackets": "(yes)",
    "square brackets": "[yes]",
    "a TeX box": r"\boxed{yes}",
    "a reason behind": "yes, since whales are mammals",
    "a colon": "Yes: they are",
    "a hedge": "Most likely yes",
    "a sentence": "The answer is yes.",
    "a sentence with bold": "The answer is **yes**",
    "a label": "Answer: yes",
    "an action's text": "finish[yes]",
    "said twice": "Yes. Yes, really",
}
NO_YES = {
    "no": "no",
    "both": "yes or no",
    "both, the wrong first": "No, yes",
    "both, the right first": "yes, no",
    "both with a slash": "yes/no",
    "a verdict in a phrase": "no doubt, yes",
    "in the middle": "there is yes in it",
    "in the middle of a sentence": "I cannot say yes to this",
    "a denial": "not yes",
    "a denial of the answer": "so the answer is not yes",
    "a denial in a sentence": "It is not the case that yes",
    "a longer word": "yesterday",
    "inside of a word": "eyes",
    "doubled": "yesyes",
    "a letter too many": "yess",
    "spaced letters": "y e s",
    "a letter": "y",
    "a truth value": "true",
    "a number": "1",
    "another language": "oui",
    "uncertain": "Uncertain",
    "nothing": "",
    "spaces": "   ",
    "null": "null",
    "None": "None",
}


def test_every_task_is_asked_forty_texts_and_more() -> None:
    assert len({*RIGHT.values(), *WRONG.values()}) >= 40
    assert len({*STRICT_YES.values(), *LENIENT_YES.values(), *NO_YES.values()}) >= 40


@pytest.mark.parametrize(
    ("prediction", "strict", "lenient"),
    [
        *(pytest.param(text, True, True, id=name) for name, text in STRICT_YES.items()),
        *(pytest.param(text, False, True, id=name) for name, text in LENIENT_YES.items()),
        *(pytest.param(text, False, False, id=name) for name, text in NO_YES.items()),
    ],
)
def test_yes_is_the_word_alone_strictly_and_the_one_verdict_leniently(prediction: str, strict: bool, lenient: bool) -> None:
    score = STRATEGYQA.score(prediction, "true")
    assert (score.strict, score.lenient) == (strict, lenient)
    opposite = STRATEGYQA.score(prediction, "false")
    assert (opposite.strict, opposite.lenient) == ((True, True) if prediction == "no" else (False, False))


@pytest.mark.parametrize(("prediction", "lenient"), [("No. 10 Downing Street", False), ("No, it is not.", True), ("No.", True)])
def test_a_no_that_numbers_something_is_no_verdict(prediction: str, lenient: bool) -> None:
    assert STRATEGYQA.score(prediction, "false").lenient is lenient


@pytest.mark.parametrize("task", sorted(EMBEDDED))
def test_no_answer_at_all_is_never_right(task: str) -> None:
    for answer in ("18",) if task == "wordtraps" else ("true", "false"):
        score = EMBEDDED[task].score(None, answer)
        assert not score.strict
        assert not score.lenient
