"""Conversations by seed that try what chat templates do: tools, parallel calls, reasoning, odd white space, odd numbers."""

import json
import random
from dataclasses import dataclass, field
from typing import Any, cast

from negtraj_dagster.schema import ConditionedTurn

WORDS = [
    *("hello", "<b>", "&amp;", "it's", '"q"', "日本", "naïve", "🙂", "{{ x }}", "{% if %}", "line\nbreak", "\ttab", "a\\b"),
    *("</think>", "<think>x</think>", "[INST]", "1.50", "null", "  spaced  ", "\u00a0", "e\u0301", "end\n\n", "<|im_end|>"),
    *("\u2028", "\x1f", "<tool_call>", "</s>", "%d", "{0}"),
]
NUMBERS = [0, 1, -7, 10**15, 2**63, -(2**63), 1.0, 0.1, 1e16, 1e-5, -0.0, 3.14159, 1e22, 123456789.125, 1e-7, 5e-324]


@dataclass(frozen=True)
class Request:
    """What a template is rendered with."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    add_generation_prompt: bool
    settings: dict[str, Any] = field(default_factory=dict)


def conditioned(request: Request) -> tuple[list[ConditionedTurn], str | None]:
    """The request as a conditioned conversation with every assistant turn a target, and its tools' schemas."""
    turns: list[ConditionedTurn] = []
    for message in request.messages:
        turn: dict[str, Any] = {"role": message["role"], "content": message["content"]}
        turn["weight"] = 1.0 if message["role"] == "assistant" else 0.0
        if message.get("reasoning_content"):
            turn["reasoning"] = message["reasoning_content"]
        if "tool_calls" in message:
            turn["tool_calls"] = [_call(call) for call in message["tool_calls"]]
        turn |= {key: message[key] for key in ("tool_call_id", "name") if key in message}
        turns.append(cast(ConditionedTurn, turn))
    last = max((index for index, turn in enumerate(turns) if turn["role"] == "assistant"), default=-1)
    tools = None if request.tools is None else json.dumps(request.tools, ensure_ascii=False)
    return turns[: last + 1], tools


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {"id": call["id"], "name": function["name"], "arguments": json.dumps(function["arguments"], ensure_ascii=False)}


class Maker:
    """Draws requests; one seed gives one row of them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def request(self) -> Request:
        """The next one."""
        draw = self._random
        has_tools = draw.random() < 0.5
        messages = [{"role": "system", "content": self._text()}] if draw.random() < 0.5 else []
        for _ in range(draw.randint(1, 4)):
            messages.append({"role": "user", "content": self._text()})
            if draw.random() < 0.1:
                messages.append({"role": "user", "content": self._text()})
            messages += self._answer(has_tools=has_tools)
        tools = [self._tool(number) for number in range(draw.randint(1, 3))] if has_tools and draw.random() < 0.9 else None
        settings: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
        if draw.random() < 0.3:
            settings["enable_thinking"] = draw.random() < 0.5
        return Request(messages, tools, draw.random() < 0.5, settings)

    def _answer(self, *, has_tools: bool) -> list[dict[str, Any]]:
        """An assistant's turns up to its last one, with the tools' answers between."""
        draw, turns = self._random, []
        while True:
            turn: dict[str, Any] = {"role": "assistant", "content": self._text()}
            if draw.random() < 0.4:
                turn["reasoning_content"] = self._text()
            n_calls = (draw.randint(0, 8) if draw.random() < 0.3 else draw.randint(0, 1)) if has_tools else 0
            calls = [self._call(number) for number in range(n_calls)]
            turns.append(turn | ({"tool_calls": calls} if calls else {}))
            for call in calls:
                name = call["function"]["name"]
                turns.append({"role": "tool", "name": name, "tool_call_id": call["id"], "content": self._text()})
            if not calls or draw.random() < 0.3:
                return turns

    def _call(self, number: int) -> dict[str, Any]:
        arguments = dict([("a", self._value()), ("zü", self._value())][: self._random.randint(0, 2)])
        return {
            "type": "function",
            "id": f"call{number:05d}",
            "function": {"name": f"tool_{number % 3}", "arguments": arguments},
        }

    def _tool(self, number: int) -> dict[str, Any]:
        draw, properties = self._random, {}
        for _ in range(draw.randint(0, 3)):
            kind = draw.choice(["string", "integer", "array", "object"])
            schema: dict[str, Any] = {"type": kind, "description": self._text(3)}
            if kind == "array":
                schema["items"] = {"type": "string"}
            if draw.random() < 0.2:
                schema["enum"] = ["a", "b"]
            properties[draw.choice(["q", "items", "n", "flag"])] = schema
        parameters = {"type": "object", "properties": properties, "required": list(properties)[:1]}
        function = {"name": f"tool_{number}", "description": self._text(4), "parameters": parameters}
        return {"type": "function", "function": function}

    def _text(self, n_words: int = 6) -> str:
        draw = self._random
        if draw.random() < 0.08:
            return ""
        text = " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, n_words)))
        return f"\n {text} \n" if draw.random() < 0.2 else text

    def _value(self, depth: int = 0) -> Any:
        draw = self._random
        kind = draw.random()
        if kind < 0.3:
            return self._text(3)
        if kind < 0.6:
            return draw.choice(NUMBERS)
        if kind < 0.7 or depth > 2:
            return draw.choice([True, False, None])
        if kind < 0.85:
            return [self._value(depth + 1) for _ in range(draw.randint(0, 3))]
        return {draw.choice(["b", "a", "items", "key", "ü", "x y"]): self._value(depth + 1) for _ in range(draw.randint(0, 3))}
