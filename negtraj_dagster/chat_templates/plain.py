"""The native templates that write role and content alone, in plain Python."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from negtraj_dagster.chat_templates.base import NativeTemplate, Render
from negtraj_dagster.schema import ConditionedTurn


def _chatml(turns: Sequence[ConditionedTurn], tools: str | None, add_generation_prompt: bool) -> str:
    text = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)
    return text + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def _llama3(turns: Sequence[ConditionedTurn], tools: str | None, add_generation_prompt: bool) -> str:
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    text = "".join(f"{header.format(turn['role'])}{turn['content'].strip()}<|eot_id|>" for turn in turns)
    return ("<|begin_of_text|>" if turns else "") + text + (header.format("assistant") if add_generation_prompt else "")


def _zephyr(turns: Sequence[ConditionedTurn], tools: str | None, add_generation_prompt: bool) -> str:
    text = "".join(f"<|{turn['role']}|>\n{turn['content']}</s>\n" for turn in turns)
    return text + ("<|assistant|>\n" if add_generation_prompt else "")


def _with_system(turns: Sequence[ConditionedTurn], form: str) -> Iterator[tuple[bool, str]]:
    """Whether it is the user's, and the content, with the system message inside of the first one."""
    has_system = bool(turns) and turns[0]["role"] == "system"
    for index, turn in enumerate(turns[has_system:]):
        content = turn["content"]
        if has_system and index == 0:
            content = form.format(turns[0]["content"], content)
        yield turn["role"] == "user", content


def _llama2(turns: Sequence[ConditionedTurn], tools: str | None, add_generation_prompt: bool) -> str:
    form = "<<SYS>>\n{}\n<</SYS>>\n\n{}"
    messages = [(is_user, content.strip()) for is_user, content in _with_system(turns, form)]
    return "".join(f"<s>[INST] {text} [/INST]" if is_user else f" {text} </s>" for is_user, text in messages)


def _mistral(turns: Sequence[ConditionedTurn], tools: str | None, add_generation_prompt: bool) -> str:
    messages = _with_system(turns, "{}\n\n{}")
    return "<s>" + "".join(f" [INST] {content} [/INST]" if is_user else f" {content}</s>" for is_user, content in messages)


def _nat_exact(turns: Sequence[ConditionedTurn], tools: str | None, add_generation_prompt: bool) -> str:
    text, separator = "", "<s>"
    for turn in turns:
        text += separator + ("[INST]" if turn["role"] == "user" else "[/INST]")
        if not turn["content"]:
            separator = ""
        elif turn["weight"] > 0:
            text, separator = f"{text} {turn['content']} </s>", "<s>"
        else:
            text, separator = f"{text} {turn['content']}", " " if turn["role"] == "user" else " </s><s>"
    return text + (f"{separator}[/INST]" if add_generation_prompt else "")


def _without_settings(render: Render) -> NativeTemplate:
    def bind(settings: Mapping[str, Any]) -> Render:
        return render

    return NativeTemplate(1, bind)


CHATML = _without_settings(_chatml)
LLAMA2 = _without_settings(_llama2)
LLAMA3 = _without_settings(_llama3)
MISTRAL = _without_settings(_mistral)
NAT_EXACT = _without_settings(_nat_exact)
ZEPHYR = _without_settings(_zephyr)
