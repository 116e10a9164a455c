"""What published chat templates write: the oracle for the natively written ones.

    text = published("qwen3", request)

Two come as Jinja from the `trl` package, one from `axolotl`; `llama2` and `zephyr` from FastChat's `conversation.py`, which is
executed by its path and needs nothing but the standard library. `restricted` turns a drawn request into one that the source
writes as the models' own templates do.
"""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from transformers.utils import chat_template_utils

from tests.support.real_tokenizers import PACKAGES
from tests.support.tool_conversations import Request

TRL = PACKAGES / "trl/chat_templates"
AXOLOTL = PACKAGES / "axolotl/utils/chat_templates/templates"
FASTCHAT = PACKAGES / "fastchat/conversation.py"

SOURCES = {
    "llama2": FASTCHAT,
    "llama3": TRL / "llama3.jinja",
    "mistral": AXOLOTL / "mistral_v1.jinja",
    "qwen3": TRL / "qwen3.jinja",
    "zephyr": FASTCHAT,
}
END_TOKENS = {"llama2": "</s>", "llama3": "<|eot_id|>", "mistral": "</s>", "qwen3": "<|im_end|>", "zephyr": "</s>"}
BOS_TOKENS = {"llama3": "<|begin_of_text|>", "mistral": "<s>"}
EXTRAS = ("reasoning_content", "tool_calls")

JINJA_NAMES = (
    *("cohere", "cohere2", "deepseek_r1_distill", "deepseekv3", "gemma", "gemma3", "gemma4", "gemma4_v5", "gptoss", "lfm2"),
    *("lfm2_2_5", "lfm2_v2", "llama3", "llama3_1", "llama3_2", "muse_glimmer", "nemotron_3_nano", "nemotron_3_super"),
    *(
        "nemotron_3_ultra",
        "phi3",
        "phi3_5",
        "qwen2_5",
        "qwen2_5_training",
        "qwen3",
        "qwen3_5_nothink",
        "qwen3_5_think",
        "qwen3_6",
    ),
    *("qwen3_8", "qwen3_instruct_2507", "qwen3_training"),
)
"""Thirty of the package's templates for text, each of another family or another version of one."""

Message = dict[str, Any]


def published(name: str, request: Request) -> str | None:
    """The text for a request; None where the template raises."""
    return _RENDERERS[name](request)


def restricted(name: str, request: Request) -> Request:
    """The request without what the template does not write."""
    if name == "qwen3":
        kept = {key: value for key, value in request.settings.items() if key == "enable_thinking"}
        return replace(request, settings=kept)
    messages = [{key: value for key, value in message.items() if key not in EXTRAS} for message in request.messages]
    if name == "zephyr":
        messages = [_filled(message) for message in messages if message["role"] != "tool"]
    elif name == "llama2":
        messages = [_filled(message) for message in _alternating(messages)]
    elif name == "mistral" and request.add_generation_prompt:
        # The other half stays as it is: the template raises where the roles do not alternate.
        messages = _alternating(messages)
    return replace(request, messages=messages, tools=None, settings={})


def _filled(message: Message) -> Message:
    """FastChat takes an empty message for the place where the model answers."""
    return message if message["content"].strip() else {**message, "content": " x\n"}


def _alternating(messages: list[Message]) -> list[Message]:
    kept = [message for message in messages[:1] if message["role"] == "system"]
    n_before = len(kept)
    for message in messages:
        if message["role"] == ("user", "assistant")[(len(kept) - n_before) % 2]:
            kept.append(message)
    return kept


def _render_jinja(name: str, request: Request) -> str | None:
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            [request.messages],
            tools=request.tools,
            chat_template=SOURCES[name].read_text("utf-8"),
            add_generation_prompt=request.add_generation_prompt,
            bos_token=BOS_TOKENS.get(name),
            eos_token=END_TOKENS[name],
            **request.settings,
        )
    except Exception:
        return None
    return str(texts[0])


@lru_cache
def _fastchat() -> Any:
    spec = importlib.util.spec_from_file_location("_fastchat_conversation", FASTCHAT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _fastchat_prompt(template: str, messages: list[Message], *, asks: bool) -> str:
    prompt = _fastchat().get_conv_template(template)
    if messages and messages[0]["role"] == "system":
        prompt.set_system_message(messages[0]["content"])
        messages = messages[1:]
    else:
        prompt.system_template = ""
    for message in messages:
        prompt.append_message(prompt.roles[message["role"] == "assistant"], message["content"])
    if asks:
        prompt.append_message(prompt.roles[1], None)
    return str(prompt.get_prompt())


def _render_zephyr(request: Request) -> str:
    return _fastchat_prompt("zephyr", request.messages, asks=request.add_generation_prompt)


def _render_llama2(request: Request) -> str:
    """FastChat strips nothing, writes no first `<s>`, one too many behind an answer, and `[/INST]` with the answer alone.

    The published template strips each content; the first user message's with the system message before it, as one text.
    """
    has_system = request.messages[0]["role"] == "system"
    messages = []
    for at, message in enumerate(request.messages):
        strip = (str, str.rstrip)[at] if has_system and at < 2 else str.strip
        messages.append({**message, "content": strip(message["content"])})
    text = "<s>" + _fastchat_prompt("llama-2", messages, asks=messages[-1]["role"] == "user")
    return text if messages[-1]["role"] == "user" else text.removesuffix("<s>")


_RENDERERS: dict[str, Callable[[Request], str | None]] = {
    "llama2": _render_llama2,
    "llama3": partial(_render_jinja, "llama3"),
    "mistral": partial(_render_jinja, "mistral"),
    "qwen3": partial(_render_jinja, "qwen3"),
    "zephyr": _render_zephyr,
}
