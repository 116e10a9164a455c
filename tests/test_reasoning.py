"""Think tags inside of a content, told from those that only stand in the text."""

import pytest

from negtraj_dagster.reasoning import split_reasoning


@pytest.mark.parametrize(
    ("content", "reasoning", "said"),
    [
        ("<think>\nTwo and two.\n</think>\n\n4", "Two and two.", "4"),
        (" \n<think>a</think>b", "a", "b"),
        ("<think>a\n\nb</think>\n c\n", "a\n\nb", " c\n"),
        ("Two and two.\n</think>\n\n4", "Two and two.", "4"),
        ("<think>\n\n</think>\n\n4", "", "4"),
        ("<think>a</think>", "a", ""),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        ("<think>a<think>b</think>c", "a<think>b", "c"),
        ("a</think>b</think>c", "a", "b</think>c"),
    ],
    ids=["usual", "space before", "lines", "no opening", "empty", "nothing said", "closed twice", "opened twice", "lone twice"],
)
def test_reasoning_is_taken_out_of_the_content(content: str, reasoning: str, said: str) -> None:
    assert split_reasoning(content) == (reasoning, said)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "Thought: a\nAction: finish[4]",
        "<think>never closed",
        "As in <think>a</think>, b",
        "a</think> and <think>",
        "\n\na\n",
        "<THINK>a</THINK>b",
    ],
    ids=["nothing", "no tags", "unclosed", "text before", "opened after", "newlines", "other tags"],
)
def test_a_content_without_reasoning_of_its_own_stays_as_it_is(content: str) -> None:
    assert split_reasoning(content) == ("", content)
