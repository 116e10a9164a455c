import pytest

from negtraj_dagster.agent.tools import make_tools
from negtraj_dagster.agent.tools.search import NOTHING_FOUND, SearchTool
from negtraj_dagster.errors import SettingsError

PASSAGES = ["The sky is blue.", "Grass is green and the sky is not.", "Cows eat grass.", "Cows eat grass."]


def test_the_passage_with_the_rarer_word_comes_first() -> None:
    assert SearchTool(PASSAGES)("blue sky").startswith("#1: The sky is blue. #2: Grass is green")


def test_equal_passages_are_one_and_case_and_marks_do_not_matter() -> None:
    assert SearchTool(PASSAGES)("COWS!") == "#1: Cows eat grass."


@pytest.mark.parametrize(
    ("argument", "passage"),
    [
        ("故宫", "北京的故宫博物院每天开放。"),
        ("ガラス", "東京のｶﾞﾗｽ博物館"),
        ("ＣＯＷＳ", "Cows eat grass."),
        ("STRASSE", "Die Straße ist lang."),
        ("cafe\u0301", "A café by the sea."),
        ("οδυσσεύς", "Ο ΟΔΥΣΣΕΎΣ"),
    ],
    ids=["Chinese", "half width", "full width", "sharp s", "decomposed", "Greek"],
)
def test_words_of_every_script_and_spelling_are_found(argument: str, passage: str) -> None:
    assert SearchTool(["Nothing of the kind", passage])(argument) == f"#1: {passage}"


@pytest.mark.parametrize("words", ["", "zebra", "??"])
def test_nothing_found_is_said_in_words(words: str) -> None:
    assert SearchTool(PASSAGES)(words) == NOTHING_FOUND
    assert SearchTool([])(words) == NOTHING_FOUND


def test_an_unknown_tool_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"unknown tools \['shell'\]"):
        make_tools(["calculator", "shell"])
