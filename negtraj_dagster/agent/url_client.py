"""A policy behind an OpenAI-compatible server (vLLM, transformers serve, llama.cpp), by `POST {base_url}/chat/completions`.

What fails for a while is tried again; what keeps failing ends that episode as `infrastructure`, never as a wrong answer; a
request that the server calls wrong stops the evaluation. Reasoning is sent as `reasoning_content`, the name under which rows
hand it to the chat template, and read under this name and `reasoning`, or from think tags in the content. Servers leave special
tokens out of what they send, where a model in process keeps them: `extra_body` may say otherwise (vLLM: `skip_special_tokens`).
No torch here.
"""

import json
import os
import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from negtraj_dagster.agent.episodes import Failure, StopCause, Written
from negtraj_dagster.agent.http_exchange import Address, Exchange, Reply, post_json
from negtraj_dagster.agent.server_faults import describe_refusal, is_context_fault, read_error, room_behind_prompt, wait_s
from negtraj_dagster.errors import ModelError, SettingsError
from negtraj_dagster.schema import ToolCall, Turn

TRY_AGAIN = frozenset([408, 409, 425, 429])
"""Client errors that pass; all server errors (5xx) may."""
RESERVED = frozenset(
    ["messages", "model", "tools", "stream", "n", "max_tokens", "max_completion_tokens", "temperature", "seed"]
)
MAX_SEED = 2**31
"""Every server takes a seed below it."""
N_SHOWN_CHARS = 300


@dataclass(frozen=True)
class Server:
    """A server and how patient its clients are.

    Attributes:
        base_url: up to and including `/v1`; no user, password or query in it.
        model: the name under which the server has the model.
        api_key_env: the environment variable that holds the key; None = no key is sent.
        connect_timeout_s: until a connection stands.
        read_timeout_s: until the whole answer is there, from the request on.
        max_tries: requests per turn, at most.
        backoff_s: the first wait; doubled for each further one, with jitter.
        max_wait_s: the longest wait, also where the server's Retry-After asks for a longer one.
        extra_body: further keys of the request, such as chat_template_kwargs.
    """

    base_url: str
    model: str
    api_key_env: str | None = None
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 600.0
    max_tries: int = 6
    backoff_s: float = 1.0
    max_wait_s: float = 60.0
    extra_body: Mapping[str, Any] = field(default_factory=dict)


class UrlPolicy:
    """Turns that a server writes, `batch_size` requests at once.

    Attributes:
        n_generated_tokens, n_prompt_tokens: as far as the server says.
        n_unstopped: turns that were cut at the limit and used as they are.
        n_overlong: conversations that fill the model's context.
        n_failed: turns that the server never wrote.
        n_retries: requests beyond the first of a turn.
        device: where the model runs, for reports.
    """

    def __init__(
        self,
        server: Server,
        *,
        max_new_tokens_per_turn: int,
        batch_size: int,
        tools: str | None = None,
        temperature: float = 0.0,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Check the settings; no request is sent.

        Args:
            server: where, and how patiently.
            max_new_tokens_per_turn: limit of a turn that does not end by itself.
            batch_size: requests at once.
            tools: JSON text of the tool schemas a native agent is offered; None for ReAct text.
            temperature: 0 takes the likeliest token.
            environment: holds the key.

        Raises:
            SettingsError: the address cannot be used, the key is missing, or `extra_body` sets what is set here.
        """
        if reserved_keys := sorted(RESERVED & server.extra_body.keys()):
            raise SettingsError(f"extra_body sets {reserved_keys}, which the evaluation sets itself; leave them out")
        self._address = Address.parse(server.base_url)
        self._key = _read_key(server.api_key_env, environment)
        self._server = server
        self._tools = None if tools is None else json.loads(tools)
        self._max_new_tokens, self._temperature = max_new_tokens_per_turn, temperature
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._jitter = random.Random(0)
        self.batch_size, self.device = batch_size, self._address.url
        self.n_generated_tokens = self.n_prompt_tokens = self.n_unstopped = 0
        self.n_overlong = self.n_failed = self.n_retries = 0

    def act(self, conversations: Sequence[Sequence[Turn]], *, seeds: Sequence[int] | None = None) -> list[Written | Failure]:
        """Have the next assistant turn of every conversation written, in order.

        Raises:
            ModelError: the server says that the request itself is wrong.
        """
        self._stop.clear()
        with ThreadPoolExecutor(max_workers=self.batch_size) as pool:
            futures = [
                pool.submit(self._turn, conversation, None if seeds is None else seed)
                for conversation, seed in zip(conversations, seeds or [0] * len(conversations), strict=True)
            ]
            return [future.result() for future in futures]

    def _turn(self, conversation: Sequence[Turn], seed: int | None) -> Written | Failure:
        body = self._body(conversation, seed)
        fault = "nothing was tried"
        for number in range(self._server.max_tries):
            if self._stop.is_set():
                break
            with self._lock:
                self.n_retries += number > 0
            exchange = post_json(
                self._address, body, key=self._key, timeouts_s=(self._server.connect_timeout_s, self._server.read_timeout_s)
            )
            outcome = self._judge(exchange, body)
            if isinstance(outcome, (Written, Failure)):
                return self._counted(outcome)
            fault = outcome
            is_last = number == self._server.max_tries - 1
            is_mended = isinstance(exchange, Reply) and exchange.status == 400  # by another limit of the turn
            if not is_last and not is_mended:
                with self._lock:
                    jitter = self._jitter.random()
                asked_s = wait_s(exchange.headers) if isinstance(exchange, Reply) else None
                self._stop.wait(self._wait(number, jitter, asked_s))
        return self._counted(Failure("infrastructure", f"{self._address.url}: {fault}; {self._server.max_tries} tries"))

    def _wait(self, number: int, jitter: float, asked_s: float | None) -> float:
        """Seconds before the next try: exponential, between half and all of it; no shorter than the server asks for."""
        backoff = self._server.backoff_s * 2.0**number * (0.5 + jitter / 2)
        return min(max(backoff, asked_s or 0.0), self._server.max_wait_s)

    def _body(self, conversation: Sequence[Turn], seed: int | None) -> dict[str, Any]:
        body: dict[str, Any] = {
            **self._server.extra_body,
            "model": self._server.model,
            "messages": [message_of(turn) for turn in conversation],
            "temperature": self._temperature,
            "max_tokens": self._max_new_tokens,
        }
        if self._tools is not None:
            body["tools"] = self._tools
        if seed is not None and self._temperature > 0:
            body["seed"] = seed % MAX_SEED
        return body

    def _judge(self, exchange: Exchange, body: dict[str, Any]) -> Written | Failure | str:
        """The turn, why there will be none, or why it is to be tried again; may change the body for the next try.

        Raises:
            ModelError: the request is wrong and stays so.
        """
        if not isinstance(exchange, Reply):
            return exchange
        if exchange.status == 200:
            return self._written(exchange.text)
        message = read_error(exchange.text, self._key)[:N_SHOWN_CHARS]
        if exchange.status in TRY_AGAIN or exchange.status >= 500:
            if is_context_fault(message):  # some servers say so with a 500
                return Failure("overlong", message)
            return f"status {exchange.status}, {message}"
        if is_context_fault(message):
            room = room_behind_prompt(message)
            if room is None or not 0 < room < body["max_tokens"]:
                return Failure("overlong", message)
            body["max_tokens"] = room  # the limit of a turn reaches behind the context: what fits is written
            return f"status {exchange.status}, {message}"
        self._stop.set()  # nobody waits for the others' retries
        server = self._server
        raise ModelError(describe_refusal(self._address.url, server.model, exchange.status, message, server.api_key_env))

    def _written(self, text: str) -> Written | Failure | str:
        try:
            answer = json.loads(text)
            (choice,) = answer["choices"]
            message, finish = choice["message"], choice["finish_reason"]
            calls = tuple(_call(call) for call in message.get("tool_calls") or ())
            content = message.get("content") or ""
            reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
            usage = answer.get("usage") or {}
            n_tokens, n_prompt = usage.get("completion_tokens") or 0, usage.get("prompt_tokens") or 0
            if not (isinstance(content, str) and isinstance(reasoning, str) and isinstance(n_tokens + n_prompt, int)):
                raise TypeError("a text or a count is of another type")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            message, answered = str(error), text
            if self._key is not None:
                message, answered = message.replace(self._key, "***"), answered.replace(self._key, "***")
            return f"an answer that is no chat completion ({type(error).__name__}: {message[:80]}), {answered[:80]!r}"
        if calls and self._tools is None:
            return "a tool call where no tools were offered"
        if finish not in ("stop", "length", "tool_calls", "eos"):
            return f"a turn that ended by {str(finish)[:80]!r}"
        with self._lock:
            self.n_prompt_tokens += n_prompt
        stop: StopCause = "length" if finish == "length" else "end_token"
        return Written(content, reasoning, None if self._tools is None else calls, stop, n_tokens)

    def _counted(self, turn: Written | Failure) -> Written | Failure:
        with self._lock:
            if isinstance(turn, Written):
                self.n_generated_tokens += turn.n_tokens
                self.n_unstopped += turn.stop == "length"
            else:
                self.n_overlong += turn.status == "overlong"
                self.n_failed += turn.status == "infrastructure"
        return turn


def message_of(turn: Turn) -> dict[str, Any]:
    """A turn in OpenAI's form."""
    message: dict[str, Any] = {"role": turn["role"], "content": turn["content"]}
    if turn.get("reasoning"):
        message["reasoning_content"] = turn["reasoning"]
    if turn.get("tool_calls"):
        message["tool_calls"] = [
            {"id": call.get("id", ""), "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for call in turn["tool_calls"]
        ]
    return message | {key: turn[key] for key in ("name", "tool_call_id") if key in turn}


def _call(call: Mapping[str, Any]) -> ToolCall:
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise TypeError("a tool call without a name or arguments")
    return {"name": name, "arguments": arguments, **({"id": call["id"]} if isinstance(call.get("id"), str) else {})}  # type: ignore[typeddict-item]


def _read_key(name: str | None, environment: Mapping[str, str]) -> str | None:
    if name is None:
        return None
    key = environment.get(name, "")
    if not key.strip():
        raise SettingsError(f"the environment variable {name} is empty or not set, which api_key_env names; export it")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise SettingsError(f"the environment variable {name}: expected printable ASCII without spaces; export the key again")
    return key
