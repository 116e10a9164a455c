"""A message of content blocks (text, thinking, tool calls and their results), as agents' sessions write it, becomes turns."""

from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.reasoning import CLOSE
from negtraj_dagster.rollouts.formats.fields import check, optional_text, require
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.rollouts.formats.openai import TEXT_PARTS, THOUGHTS, read_content, read_thought
from negtraj_dagster.schema import Turn, json_as_recorded

CALLS = ("tool_use", "toolCall", "tool_call", "tool-call")
RESULTS = ("tool_result", "toolResult", "tool_call_response", "tool-result")


def read_blocks(blocks: list[Any], role: str, place: str) -> list[Turn]:
    """Turns of one message: the agent's is one; of others each result of a tool is one, and the text around them.

    Raises:
        RolloutFormatError: an image, sound or another block that is no text.
    """
    if len(blocks) == 1 and (text := _plain_text(blocks[0])) is not None:  # as most messages are
        return read_text(text, role, place)
    texts, thoughts, calls, turns = [], [], [], []
    for index, block in enumerate(blocks):
        if (text := _plain_text(block)) is not None:
            texts.append(text)
            continue
        at = f"{place}[{index}]"
        kind = require(check(block, at, dict), "type", str, at=at)
        if kind in TEXT_PARTS:
            texts.append(block["content"] if kind == "text" and "content" in block else require(block, "text", str, at=at))
        elif kind in THOUGHTS and role == "assistant":
            thoughts.append(read_thought(block))
        elif kind in CALLS and role == "assistant":
            calls.append(_call(block, at))
        elif kind in RESULTS:
            turns.append(_result(block, at))
        else:
            raise RolloutFormatError(
                f"{at}: found a block that is no text, thinking, tool call or result; images are unsupported"
            )
    if not calls and not any(thoughts):
        return [*turns, *read_text("".join(texts), role, place)]
    message: dict[str, Any] = {"role": role, "content": "".join(texts), "tool_calls": calls}
    if any(thoughts):
        message["reasoning"] = "\n".join(filter(None, thoughts))
    return [*turns, read_message(message, place)]


def read_text(text: str, role: str, place: str) -> list[Turn]:
    """Turns of a message of one block of text."""
    if role == "user":
        return [{"role": "user", "content": text}] if text else []
    if role == "assistant" and CLOSE not in text:
        return [{"role": "assistant", "content": text}]
    return [read_message({"role": role, "content": text}, place)] if role == "assistant" or text else []


def _plain_text(block: Any) -> str | None:
    """The text of a block that is one, as most are; None where the block has to be looked at."""
    if (
        type(block) is dict
        and block.get("type") == "text"
        and "content" not in block
        and type(text := block.get("text")) is str
    ):
        return text
    return None


def _call(block: dict[str, Any], at: str) -> dict[str, Any]:
    call_id, name, arguments = block.get("id"), block.get("name"), block.get("input")
    if call_id and type(call_id) is type(name) is str and arguments is not None and "toolName" not in block:
        return {"id": call_id, "name": name, "arguments": arguments}
    arguments = next((block[key] for key in ("input", "arguments", "args") if block.get(key) is not None), {})
    return {
        "id": optional_text(block, "id", at=at) or optional_text(block, "toolCallId", at=at) or "",
        "name": require(block, "toolName" if "toolName" in block else "name", str, at=at),
        "arguments": arguments,
    }


def _result(block: dict[str, Any], at: str) -> Turn:
    content, called = block.get("content"), block.get("tool_use_id")
    if type(content) is str and called and type(called) is str:
        return {"role": "tool", "content": content, "tool_call_id": called}
    content = next((block[key] for key in ("content", "response", "result", "output") if block.get(key) is not None), "")
    text = read_content(content, f"{at}.content") if isinstance(content, (str, list)) else json_as_recorded(content)
    called = next((block[key] for key in ("tool_use_id", "toolCallId", "id") if block.get(key)), None)
    message = {"role": "tool", "content": text or "", **({"tool_call_id": called} if called else {})}
    return read_message(message, at)
