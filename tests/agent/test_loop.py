from collections.abc import Sequence

import pytest

from negtraj_dagster.agent.loop import Action, Episode, Failure, Written, parse_action, run_episodes, turn_seed
from negtraj_dagster.agent.tools import TOOLS
from negtraj_dagster.schema import Question, Turn


class Script:
    """Says the given lines in order, whatever it sees."""

    def __init__(self, *lines: str | Written | Failure) -> None:
        self.lines = list(lines)

    def act(self, conversations: Sequence[Sequence[Turn]]) -> list[str | Written | Failure]:
        line = self.lines.pop(0)
        return [line for _ in conversations]


def play(*lines: str | Written | Failure, max_turns: int = 4) -> Episode:
    question = Question("wordtraps", "q", "test", "What is 2+3?", "5")
    (episode,) = run_episodes(
        Script(*lines),
        [question],
        first_turns=lambda q: [{"role": "user", "content": q.question}],
        tools=TOOLS,
        max_turns=max_turns,
    )
    return episode


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("Thought: x.\nAction: calculator[2+3]", Action("calculator", "2+3")),
        ("Action: finish[5]", Action("finish", "5")),
        ("Thought: x.\n\nAction: search[a [b] c]\n", Action("search", "a [b] c")),
        ("Thought: x.", None),
        ("Action: It seems\nAction: search[a]", None),
        ("Action: finish[No]\n\nBased on this", None),
        ("Action: finish[No", None),
        ("", None),
    ],
)
def test_a_turn_parses_to_its_single_action_or_to_nothing(text: str, action: Action | None) -> None:
    assert parse_action(text) == action


def test_the_calculator_really_runs_and_its_result_is_observed() -> None:
    episode = play("Thought: a.\nAction: calculator[2+3]", "Thought: done.\nAction: finish[5]")
    assert [turn["content"] for turn in episode.turns] == [
        "What is 2+3?",
        "Thought: a.\nAction: calculator[2+3]",
        "Observation: 5",
        "Thought: done.\nAction: finish[5]",
    ]
    assert (episode.prediction, episode.status, episode.n_tool_calls) == ("5", "finished", 1)


def test_the_recorded_turns_leave_the_prompt_out() -> None:
    assert play("Action: finish[5]").recorded == [{"role": "assistant", "content": "Action: finish[5]"}]


def test_an_episode_without_a_finish_ends_at_the_turn_limit_without_a_prediction() -> None:
    episode = play(*["Action: think[x]"] * 3, max_turns=3)
    assert (episode.status, episode.prediction, episode.n_assistant_turns) == ("turn_limit", None, 3)


def test_format_errors_unknown_tools_and_tool_errors_are_told_and_counted_apart() -> None:
    episode = play("hm", "Action: shell[ls]", "Action: calculator[x]", "Action: finish[1]")
    assert (episode.n_format_errors, episode.n_unknown_tools, episode.n_tool_errors) == (1, 1, 1)
    assert "Unknown tool shell" in episode.turns[4]["content"]


def test_what_is_thought_before_an_action_is_kept_apart_from_it() -> None:
    episode = play("<think>\nAction: no\n</think>\n\nAction: finish[5]")
    assert (episode.prediction, episode.n_format_errors) == ("5", 0)
    assert episode.recorded == [{"role": "assistant", "content": "Action: finish[5]", "reasoning": "Action: no"}]


def test_reasoning_that_a_server_took_out_is_the_turns_own() -> None:
    episode = play(Written("Action: finish[5]", reasoning="I add.", n_tokens=4))
    assert episode.recorded == [{"role": "assistant", "content": "Action: finish[5]", "reasoning": "I add."}]
    assert (episode.prediction, episode.n_generated_tokens, episode.stops) == ("5", 4, ["end_token"])


def test_a_failed_turn_ends_its_episode_and_leaves_the_conversation_as_it_was() -> None:
    episode = play("Action: think[x]", Failure("overlong", "9000 tokens"), "Action: finish[5]")
    assert (episode.status, episode.error, episode.prediction) == ("overlong", "9000 tokens", None)
    assert [turn["role"] for turn in episode.turns] == ["user", "assistant", "user"]


def test_a_question_that_is_played_several_times_has_an_episode_for_each_trial() -> None:
    class Seeded:
        def act(self, conversations: Sequence[Sequence[Turn]], *, seeds: Sequence[int]) -> list[str]:
            return [f"Action: finish[{seed}]" for seed in seeds]

    question = Question("wordtraps", "q", "test", "What is 2+3?", "5")
    episodes = run_episodes(
        Seeded(),
        [question, question],
        first_turns=lambda q: [{"role": "user", "content": q.question}],
        tools=TOOLS,
        max_turns=1,
        trials=[0, 1],
    )
    assert [episode.trial for episode in episodes] == [0, 1]
    assert [episode.prediction for episode in episodes] == [str(turn_seed("q", trial, 0)) for trial in (0, 1)]
