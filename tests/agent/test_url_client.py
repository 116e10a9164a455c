"""The policy behind a server: what is sent, read and tried again, what ends an episode and what ends the evaluation."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster.agent.clients import TransformersPolicy, chat_encoder
from negtraj_dagster.agent.episodes import Failure, Written
from negtraj_dagster.agent.loop import run_episodes
from negtraj_dagster.agent.server_faults import wait_s
from negtraj_dagster.agent.tools import TOOLS
from negtraj_dagster.agent.tools.schemas import native_rules, tool_schemas
from negtraj_dagster.agent.url_client import Server, UrlPolicy
from negtraj_dagster.chat_templates import ChatTemplate
from negtraj_dagster.errors import ModelError, SettingsError
from negtraj_dagster.schema import Question, Turn
from tests.support.chat_server import Answer, ChatServer, chat_server, completion
from tests.support.lively_model import make_lively_model

ASKED: list[Turn] = [{"role": "user", "content": "How many?"}]
KEY = "sk-very-secret-0123"
QUICK = {"backoff_s": 0.01, "max_wait_s": 0.3, "read_timeout_s": 5.0, "max_tries": 4}


def policy(
    server: ChatServer, *, batch_size: int = 4, tools: str | None = None, temperature: float = 0.0, **more: Any
) -> UrlPolicy:
    settings = Server(server.url, "tiny", **{**QUICK, **more})
    return UrlPolicy(
        settings,
        max_new_tokens_per_turn=64,
        batch_size=batch_size,
        tools=tools,
        temperature=temperature,
        environment={"KEY": KEY},
    )


def first_then(*answers: Answer) -> Callable[[dict[str, Any], int], Answer]:
    return lambda _, number: answers[min(number, len(answers) - 1)]


RIGHT = completion("Action: finish[5]")


def test_a_request_says_what_a_conversation_says() -> None:
    turns: list[Turn] = [
        {"role": "system", "content": "s"},
        *ASKED,
        {
            "role": "assistant",
            "content": "c",
            "reasoning": "r",
            "tool_calls": [{"name": "f", "arguments": '{"a":1}', "id": "i"}],
        },
        {"role": "tool", "content": "t", "tool_call_id": "i", "name": "f"},
    ]
    tools = tool_schemas(("calculator",))
    with chat_server(first_then(RIGHT)) as server:
        policy(server, tools=tools, api_key_env="KEY", extra_body={"top_k": 1}).act([turns])
    function = {"name": "f", "arguments": '{"a":1}'}
    assert server.requests == [
        {
            "model": "tiny",
            "temperature": 0.0,
            "max_tokens": 64,
            "top_k": 1,
            "tools": json.loads(tools),
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "How many?"},
                {
                    "role": "assistant",
                    "content": "c",
                    "reasoning_content": "r",
                    "tool_calls": [{"id": "i", "type": "function", "function": function}],
                },
                {"role": "tool", "content": "t", "tool_call_id": "i", "name": "f"},
            ],
        }
    ]
    assert (server.paths, server.headers[0]["authorization"]) == (["/v1/chat/completions"], f"Bearer {KEY}")


def test_turns_come_back_in_order_and_are_counted() -> None:
    def answer(body: dict[str, Any], number: int) -> Answer:
        finish = "length" if body["messages"][0]["content"] == "2" else "stop"
        return completion(body["messages"][0]["content"], finish=finish, reasoning_content="r")

    with chat_server(answer) as server:
        writer = policy(server)
        turns = writer.act([[{"role": "user", "content": str(n)}] for n in range(12)])
    assert turns == [Written(str(n), "r", None, "length" if n == 2 else "end_token", 3) for n in range(12)]
    assert (writer.n_generated_tokens, writer.n_prompt_tokens, writer.n_unstopped, writer.n_retries) == (36, 132, 1, 0)
    assert "authorization" not in server.headers[0]


def test_no_more_requests_are_in_work_than_batch_size() -> None:
    with chat_server(lambda *_: Answer(**{**vars(RIGHT), "stall_s": 0.05})) as server:
        policy(server, batch_size=3).act([ASKED] * 9)
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    "fault",
    [
        Answer(500, {"error": {"message": "oops"}}),
        Answer(503, b"<html>"),
        Answer(429, {"error": {"message": "slow down"}}),
        Answer(200, b'{"choices": [{"mess'),
        Answer(200, {"choices": []}),
        Answer(200, {"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]}),
        Answer(200, {"choices": [{"message": {"content": "x"}}]}),
        Answer(200, RIGHT.body, cut=True),
        Answer(200, b"\xff"),
        completion("x", finish="content_filter"),
    ],
    ids=["500", "503", "429", "no JSON", "no choice", "no text", "no reason", "cut", "no UTF-8", "filtered"],
)
def test_what_passes_is_tried_again_and_what_stays_ends_the_episode(fault: Answer) -> None:
    with chat_server(first_then(fault, fault, fault, RIGHT)) as server:
        writer = policy(server)
        assert writer.act([ASKED]) == [Written("Action: finish[5]", n_tokens=3)]
    assert (writer.n_retries, writer.n_failed) == (3, 0)
    with chat_server(first_then(fault)) as server:
        writer = policy(server)
        (failure,) = writer.act([ASKED])
    assert isinstance(failure, Failure)
    assert failure.status == "infrastructure"
    assert failure.message.startswith(server.url)
    assert failure.message.endswith("4 tries")
    assert (len(server.requests), writer.n_failed) == (4, 1)


def test_a_server_that_stalls_is_not_waited_for() -> None:
    with chat_server(lambda *_: Answer(200, RIGHT.body, stall_s=30)) as server:
        started_s = time.monotonic()
        (failure,) = policy(server, read_timeout_s=0.2, max_tries=2).act([ASKED])
        assert time.monotonic() - started_s < 5
    assert isinstance(failure, Failure)
    assert "no whole answer in 0.2 s; 2 tries" in failure.message


def test_a_server_that_is_gone_fails_episodes_and_the_step_stops() -> None:
    with chat_server(first_then(RIGHT)) as server:
        pass
    writer = policy(server, max_tries=2)
    (failure,) = writer.act([ASKED])
    assert isinstance(failure, Failure)
    assert "ConnectionRefusedError" in failure.message
    with pytest.raises(ModelError, match=r"the machines failed all of them.*ConnectionRefusedError"):
        play(writer, 3)


def test_retry_after_is_honoured_up_to_the_cap() -> None:
    for asked, least_s, most_s in (("0.2", 0.2, 0.29), ("3600", 0.3, 2.0)):
        with chat_server(first_then(Answer(429, {}, {"Retry-After": asked}), RIGHT)) as server:
            started_s = time.monotonic()
            policy(server).act([ASKED])
            assert least_s <= time.monotonic() - started_s < most_s + 1


def test_retry_after_may_be_a_date() -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    assert wait_s({"retry-after": "Wed, 21 Oct 2026 07:28:09 GMT", "date": date}) == 9.0
    assert wait_s({"retry-after": date, "date": "Wed, 21 Oct 2026 07:28:09 GMT"}) == 0.0
    assert wait_s({"retry-after": "soon"}) is None
    assert wait_s({}) is None


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            401,
            {"error": {"message": f"Incorrect API key provided: {KEY}"}},
            r"401 .*\(the key of KEY\): Incorrect .*\*\*\*.*api_key_env",
        ),
        (403, {"error": "no"}, "403 .*no; take a key"),
        (
            404,
            {"error": {"message": "The model `tiny` does not exist."}},
            "404 for model 'tiny' .*does not exist.*GET /v1/models",
        ),
        (
            400,
            {"object": "error", "message": '"auto" tool choice requires --enable-auto-tool-choice'},
            "400 .*--enable-auto-tool",
        ),
        (422, {"detail": [{"loc": ["body"]}]}, "422 .*extra_body"),
        (301, {}, "301 .*look at base_url"),
    ],
)
def test_a_request_that_is_wrong_stops_the_evaluation(status: int, body: Any, message: str) -> None:
    with chat_server(first_then(Answer(status, body))) as server:
        writer = policy(server, api_key_env="KEY", batch_size=2)
        with pytest.raises(ModelError, match=message) as caught:
            writer.act([ASKED] * 8)
    assert server.url in str(caught.value)
    assert KEY not in str(caught.value)
    assert KEY not in repr(vars(writer)["_server"]) + repr(writer)
    assert len(server.requests) < 8


CONTEXT_FAULTS = {
    "vLLM": {
        "object": "error",
        "message": "This model's maximum context length is 99 tokens. However, you requested 199 tokens.",
    },
    "OpenAI": {"error": {"message": "too many", "code": "context_length_exceeded"}},
    "llama.cpp": {"error": {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"}},
}


@pytest.mark.parametrize("server_name", CONTEXT_FAULTS)
@pytest.mark.parametrize("status", [400, 500])
def test_a_conversation_that_is_too_long_ends_its_episode_alone(server_name: str, status: int) -> None:
    def answer(body: dict[str, Any], number: int) -> Answer:
        return Answer(status, CONTEXT_FAULTS[server_name]) if len(body["messages"]) > 2 else completion("Action: think[x]")

    with chat_server(answer) as server:
        writer = policy(server)
        (episode,) = play(writer, 1)
    assert (episode.status, episode.n_assistant_turns, episode.prediction) == ("overlong", 1, None)
    assert (writer.n_overlong, writer.n_failed, len(server.requests)) == (1, 0, 2)


def test_a_turn_that_would_reach_behind_the_context_gets_the_room_there_is() -> None:
    message = "This model's maximum context length is 99 tokens. You requested 164 (90 in the messages, 64 in the completion)."
    with chat_server(first_then(Answer(400, {"message": message}), RIGHT)) as server:
        assert policy(server).act([ASKED]) == [Written("Action: finish[5]", n_tokens=3)]
    assert [body["max_tokens"] for body in server.requests] == [64, 9]


def play(writer: UrlPolicy | TransformersPolicy, n: int, **more: Any) -> list[Any]:
    questions = [Question("wordtraps", f"q{number}", "test", f"What is {number}+3?", "5") for number in range(n)]
    return run_episodes(
        writer, questions, first_turns=lambda q: [{"role": "user", "content": q.question}], tools=TOOLS, max_turns=3, **more
    )


def test_one_failing_episode_leaves_the_others_alone() -> None:
    def answer(body: dict[str, Any], number: int) -> Answer:
        return Answer(500, {}) if body["messages"][0]["content"] == "What is 1+3?" else RIGHT

    with chat_server(answer) as server:
        episodes = play(policy(server), 3)
    assert [episode.status for episode in episodes] == ["finished", "infrastructure", "finished"]
    assert [episode.prediction for episode in episodes] == ["5", None, "5"]
    assert "status 500" in episodes[1].error


def test_native_calls_of_a_server_run() -> None:
    function = {"name": "calculator", "arguments": '{"expression": "2+3"}'}
    calls = [{"id": "chatcmpl-tool-1", "type": "function", "function": function}]
    script = [
        completion(None, finish="tool_calls", tool_calls=calls, reasoning_content="I add."),
        completion("<think>r</think>5"),
    ]
    with chat_server(lambda body, _: script[len(body["messages"]) > 1]) as server:
        (episode,) = play(policy(server, tools=tool_schemas(TOOLS)), 1, native=native_rules(None, TOOLS))
    assert (episode.prediction, episode.n_tool_calls, episode.n_generated_tokens) == ("5", 1, 6)
    assert [message["role"] for message in server.requests[1]["messages"]] == ["user", "assistant", "tool"]
    assert server.requests[1]["messages"][1]["reasoning_content"] == "I add."
    assert episode.turns[-1]["reasoning"] == "r"


def test_seeds_are_sent_where_turns_are_drawn() -> None:
    with chat_server(first_then(RIGHT)) as server:
        play(policy(server, temperature=0.7), 2, trials=[0, 1])
        play(policy(server), 1)
    assert len({body["seed"] for body in server.requests[:2]}) == 2
    assert "seed" not in server.requests[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "localhost:8000/v1"}, r"base_url = 'localhost:8000/v1': expected http"),
        ({"base_url": "http://user:pw@host/v1"}, "a user, password or query"),
        ({"base_url": "http://host:x/v1"}, "base_url: no URL"),
        ({"base_url": "http://host/v1", "api_key_env": "ABSENT"}, "ABSENT is empty or not set"),
        ({"base_url": "http://host/v1", "api_key_env": "BROKEN"}, "BROKEN: expected printable"),
        ({"base_url": "http://host/v1", "extra_body": {"stream": True}}, r"extra_body sets \['stream'\]"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_request(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        UrlPolicy(
            Server(**settings, model="m"), max_new_tokens_per_turn=1, batch_size=1, environment={"BROKEN": f"{KEY}\nX-Evil: 1"}
        )
    assert KEY not in str(caught.value)
    assert "pw" not in str(caught.value).replace("password", "")


def test_episodes_behind_a_server_are_those_of_the_model_in_process(tmp_path: Path) -> None:
    """The server answers through the very model: prompts, turns and their ends are the same on both ways."""
    folder = make_lively_model(tmp_path / "model")
    chat = chat_encoder(folder / "tokenizer.json", template=ChatTemplate("chatml"), max_tokens=1)
    model, lock = TransformersPolicy(folder, chat=chat, max_new_tokens_per_turn=20, batch_size=7), threading.Lock()

    def answer(body: dict[str, Any], number: int) -> Answer:
        with lock:
            (turn,) = model.act([body["messages"]])
        assert isinstance(turn, Written)
        return completion(turn.text, finish="length" if turn.stop == "length" else "stop", n_tokens=turn.n_tokens)

    in_process = play(model, 20)
    with chat_server(answer) as server:
        writer = policy(server, batch_size=4)
        behind_a_server = play(writer, 20)
    assert behind_a_server == in_process
    assert len({episode.turns[1]["content"] for episode in in_process}) > 10
    assert writer.n_generated_tokens == sum(episode.n_generated_tokens for episode in in_process) > 200
