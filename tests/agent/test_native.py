"""Native episodes: which calls run, what comes back, how they end, and what is counted."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from negtraj_dagster.agent.call_syntax import CallSyntax
from negtraj_dagster.agent.episodes import Failure, Written
from negtraj_dagster.agent.loop import Episode, run_episodes
from negtraj_dagster.agent.tools import TOOLS
from negtraj_dagster.agent.tools.schemas import SCHEMAS, native_rules, tool_schemas
from negtraj_dagster.errors import ModelError, SettingsError
from negtraj_dagster.schema import Question, Turn
from negtraj_dagster.tasks.wordtraps import WORDTRAPS

NAMES = ("calculator", "think")
HERMES = CallSyntax("hermes", glue="\n")


class Script:
    """Says the given turns in order."""

    def __init__(self, *turns: str | Written | Failure) -> None:
        self.turns = list(turns)

    def act(self, conversations: Sequence[Sequence[Turn]]) -> list[str | Written | Failure]:
        turn = self.turns.pop(0)
        return [turn for _ in conversations]


def call(name: str = "calculator", arguments: object = None) -> str:
    body = {"name": name, "arguments": {"expression": "2+3"} if arguments is None else arguments}
    return f"<tool_call>\n{json.dumps(body)}\n</tool_call>"


def play(
    *turns: str | Written | Failure, syntax: CallSyntax | None = HERMES, terminal_action: str = "finish", **more: Any
) -> Episode:
    question = Question("wordtraps", "q", "test", "What is 2+3?", "5")
    (episode,) = run_episodes(
        Script(*turns),
        [question],
        first_turns=lambda q: [{"role": "user", "content": q.question}],
        tools={name: TOOLS[name] for name in NAMES},
        max_turns=len(turns),
        terminal_action=terminal_action,
        native=native_rules(syntax, NAMES, terminal_action=terminal_action, **more),
    )
    return episode


def test_a_call_runs_and_its_result_comes_back_as_the_tools_turn() -> None:
    episode = play("<think>\nI add.\n</think>\n\nLet me see.\n" + call(), "It is 5.")
    assert episode.recorded == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning": "I add.",
            "tool_calls": [{"name": "calculator", "arguments": '{"expression": "2+3"}', "id": "call00000"}],
        },
        {"role": "tool", "content": "5", "tool_call_id": "call00000", "name": "calculator"},
        {"role": "assistant", "content": "It is 5."},
    ]
    assert (episode.prediction, episode.status, episode.n_tool_calls, episode.n_assistant_turns) == (
        "It is 5.",
        "finished",
        1,
        2,
    )


def test_several_calls_of_one_turn_run_in_order_under_ids_of_their_own() -> None:
    episode = play(call() + "\n" + call(arguments={"expression": "7*6"}), call(arguments={"expression": "1/0"}), "5")
    results = [(turn["content"], turn["tool_call_id"]) for turn in episode.turns if turn["role"] == "tool"]
    assert results == [("5", "call00000"), ("42", "call00001"), ("Error: division by zero", "call00002")]
    assert (episode.n_tool_calls, episode.n_tool_errors) == (3, 1)


def test_ids_that_the_agent_writes_are_kept_where_they_are_proper_and_new() -> None:
    mistral = CallSyntax("mistral")
    text = '[TOOL_CALLS] [{"name": "think", "arguments": {"thought": "x"}, "id": "%s"}]'
    episode = play(text % "abcdefgh1", text % "abcdefgh1", text % "short", "5", syntax=mistral)
    ids = [turn["tool_calls"][0]["id"] for turn in episode.turns if "tool_calls" in turn]
    assert ids == ["abcdefgh1", "call00000", "call00001"]
    assert [turn["tool_call_id"] for turn in episode.turns if turn["role"] == "tool"] == ids


def test_the_terminal_action_ends_the_episode_and_calls_behind_it_do_not_run() -> None:
    calls = [call(), call("submit", {"answer": ["5.0"]}), call()]
    episode = play("\n".join(calls), terminal_action="submit", plain_answer=WORDTRAPS.plain_answer)
    assert (episode.prediction, episode.status, episode.n_tool_calls) == ("5.0", "finished", 1)
    assert [turn["role"] for turn in episode.turns] == ["user", "assistant", "tool"]


def test_finish_ends_an_episode_though_it_is_not_offered() -> None:
    episode = play(call("finish", {"answer": 5}))
    assert (episode.prediction, episode.status) == ("5", "finished")


FAULTS = {
    "call that is not closed": ("<tool_call>{", "user", (1, 0, 0)),
    "arguments that are no object": (call(arguments=[1]), "user", (1, 0, 0)),
    "argument that is missing": (call(arguments={"text": "2+3"}), "tool", (1, 0, 0)),
    "argument that is null": (call(arguments={"expression": None}), "tool", (1, 0, 0)),
    "terminal call without an answer": (call("finish", {}), "tool", (1, 0, 0)),
    "unknown tool": (call("shell", {"command": "ls"}), "tool", (0, 1, 0)),
    "error of the tool": (call(arguments={"expression": "x"}), "tool", (0, 0, 1)),
    "answer that was cut": (Written("It is", stop="length"), "user", (1, 0, 0)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_agent_is_told_what_is_wrong_and_goes_on(fault: str) -> None:
    turn, role, counts = FAULTS[fault]
    episode = play(turn, "5")
    assert (episode.n_format_errors, episode.n_unknown_tools, episode.n_tool_errors) == counts
    observation = episode.turns[2]
    assert (observation["role"], observation["content"][:7]) == (role, "Error: ")
    assert (episode.prediction, episode.status) == ("5", "finished")


def test_the_text_of_a_malformed_call_stays_in_the_conversation() -> None:
    text = "Say. <tool_call>{'name'}</tool_call>"
    assert play(text, "5").turns[1] == {"role": "assistant", "content": text}


def test_an_argument_that_is_no_text_reaches_the_tool_as_json() -> None:
    assert play(call(arguments={"expression": 7}), "7").turns[2]["content"] == "7"


def test_calls_that_a_server_took_out_run_as_those_in_the_text() -> None:
    structured = Written(
        "Say.", "I add.", ({"name": "calculator", "arguments": '{"expression":"2+3"}', "id": "chatcmpl-tool-1"},)
    )
    broken = Written("", tool_calls=({"name": "calculator", "arguments": "[2]"},))
    episode = play(structured, broken, Written("5", tool_calls=()), syntax=None)
    assert episode.turns[1]["tool_calls"] == [{"name": "calculator", "arguments": '{"expression":"2+3"}', "id": "call00000"}]
    assert (episode.turns[1]["reasoning"], episode.turns[2]["content"]) == ("I add.", "5")
    assert "in the call calculator [2], the arguments are no JSON object" in episode.turns[4]["content"]
    assert (episode.prediction, episode.n_format_errors) == ("5", 1)


def test_a_call_that_a_server_left_in_the_text_is_no_answer() -> None:
    episode = play(Written(call(), tool_calls=()), Written("5", tool_calls=()), syntax=None)
    assert (episode.prediction, episode.n_format_errors) == ("5", 1)


def test_what_ended_each_turn_and_its_tokens_are_kept() -> None:
    episode = play(Written(call(), n_tokens=7), Written("x", stop="length", n_tokens=9), Written("5", n_tokens=2))
    assert (episode.stops, episode.n_generated_tokens) == (["end_token", "length", "end_token"], 18)


def test_a_failure_ends_the_episode_with_its_reason_and_no_prediction() -> None:
    episode = play(call(), Failure("overlong", "too long"))
    assert (episode.status, episode.error, episode.prediction, episode.n_assistant_turns) == ("overlong", "too long", None, 1)


def test_where_the_machines_fail_every_episode_nothing_is_reported() -> None:
    with pytest.raises(ModelError, match=r"none of 1 turns.*connection refused; mend"):
        play(Failure("infrastructure", "connection refused"))


def test_the_last_of_several_episodes_may_fail_alone() -> None:
    class OneStaysLong:
        def act(self, conversations: Sequence[Sequence[Turn]]) -> list[str | Written | Failure]:
            if len(conversations) == 1:
                return [Failure("infrastructure", "gone")]
            return ["5" if turns[0]["content"] == "q0" else call() for turns in conversations]

    questions = [Question("wordtraps", f"q{n}", "test", f"q{n}", "5") for n in range(2)]
    episodes = run_episodes(
        OneStaysLong(),
        questions,
        first_turns=lambda q: [{"role": "user", "content": q.question}],
        tools=TOOLS,
        max_turns=3,
        native=native_rules(HERMES, NAMES),
    )
    assert [episode.status for episode in episodes] == ["finished", "infrastructure"]


def test_every_tool_has_a_schema_with_the_one_argument_that_it_is_given() -> None:
    assert set(SCHEMAS) == {*TOOLS, "search"}
    rules = native_rules(None, SCHEMAS)
    assert rules.arguments == {"calculator": "expression", "search": "query", "think": "thought", "finish": "answer"}


def test_the_terminal_action_is_offered_unless_it_is_reacts() -> None:
    offered = [
        [entry["function"]["name"] for entry in json.loads(tool_schemas(NAMES, terminal_action=end))]
        for end in ("finish", "submit")
    ]
    assert offered == [["calculator", "think"], ["calculator", "think", "submit"]]


def test_a_tool_without_a_schema_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"without a schema \['shell'\].*calculator"):
        tool_schemas(("shell",))
