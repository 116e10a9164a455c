"""Qwen3's chat format in plain Python: tools, and reasoning for what follows the user's last question alone."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from negtraj_dagster.chat_templates.base import NativeTemplate, Render
from negtraj_dagster.schema import ConditionedTurn

TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_END = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


def _bind(settings: Mapping[str, Any]) -> Render:
    prompt = "<|im_start|>assistant\n" + ("" if settings.get("enable_thinking", True) else "<think>\n\n</think>\n\n")

    def render(turns: Sequence[ConditionedTurn], tools: str | None, add_generation_prompt: bool) -> str:
        last_question = _last_question(turns)
        body = [_message(turns, index, thinks=index > last_question) for index in range(len(turns))]
        return _head(turns, tools) + "".join(body) + (prompt if add_generation_prompt else "")

    return render


def _head(turns: Sequence[ConditionedTurn], tools: str | None) -> str:
    has_system = turns[0]["role"] == "system"
    system = turns[0]["content"] if has_system else ""
    schemas = json.loads(tools) if tools else []
    if schemas:
        schema_lines = "".join(f"\n{json.dumps(schema, ensure_ascii=False)}" for schema in schemas)
        system += ("\n\n" if has_system else "") + TOOLS + schema_lines + TOOLS_END
    return f"<|im_start|>system\n{system}<|im_end|>\n" if has_system or schemas else ""


def _last_question(turns: Sequence[ConditionedTurn]) -> int:
    """The last user message that is no tool's answer in disguise; the last message where there is none."""
    for index in range(len(turns) - 1, -1, -1):
        content = turns[index]["content"]
        is_answer = content.startswith("<tool_response>") and content.endswith("</tool_response>")
        if turns[index]["role"] == "user" and not is_answer:
            return index
    return len(turns) - 1


def _message(turns: Sequence[ConditionedTurn], index: int, *, thinks: bool) -> str:
    turn = turns[index]
    role, content = turn["role"], turn["content"]
    if role == "assistant":
        return _answer(turn, is_last=index == len(turns) - 1, thinks=thinks)
    if role == "tool":
        follows = index > 0 and turns[index - 1]["role"] == "tool"
        goes_on = index + 1 < len(turns) and turns[index + 1]["role"] == "tool"
        head, tail = "" if follows else "<|im_start|>user", "" if goes_on else "<|im_end|>\n"
        return f"{head}\n<tool_response>\n{content}\n</tool_response>{tail}"
    return "" if role == "system" and index == 0 else f"<|im_start|>{role}\n{content}<|im_end|>\n"


def _answer(turn: ConditionedTurn, *, is_last: bool, thinks: bool) -> str:
    content, reasoning = turn["content"], turn.get("reasoning")
    if reasoning is None:
        reasoning = ""
        if "</think>" in content:
            reasoning = content.split("</think>")[0].rstrip("\n").split("<think>")[-1].lstrip("\n")
            content = content.split("</think>")[-1].lstrip("\n")
    text = content
    if thinks and (is_last or reasoning):
        text = "<think>\n" + reasoning.strip("\n") + "\n</think>\n\n" + content.lstrip("\n")
    for n, call in enumerate(turn.get("tool_calls", ())):
        arguments = json.dumps(json.loads(call["arguments"]), ensure_ascii=False)
        text += "\n" if n or content else ""
        text += f'<tool_call>\n{{"name": "{call["name"]}", "arguments": {arguments}}}\n</tool_call>'
    return f"<|im_start|>assistant\n{text}<|im_end|>\n"


QWEN3 = NativeTemplate(1, _bind)
