"""The natively written chat templates: the published ones' text, and what a served model is given and writes in each target."""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import models

from negtraj_dagster import _trajtok
from negtraj_dagster.chat_templates import make_template, reference_render
from tests.support.published_templates import BOS_TOKENS, END_TOKENS, SOURCES, published, restricted
from tests.support.tool_conversations import Maker, Request

N_FAST, N_SLOW = 100, 2000
# Blank as trajtok takes it: Python counts the ASCII separators among white space too.
EMPTY_THINK = re.compile(r"<think>[^\S\x1c-\x1f]*</think>\n*")

REQUIRED = {
    "llama2": ["<s>", "</s>"],
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "mistral": ["<s>", "</s>"],
    "qwen3": ["<|im_start|>", "<|im_end|>"],
    "zephyr": ["</s>"],
}
OPTIONAL = {
    "llama2": ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"],
    "llama3": [],
    "mistral": ["[INST]", "[/INST]"],
    "qwen3": [
        *("<think>", "</think>", "<tools>", "</tools>"),
        *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    ],
    "zephyr": ["<|system|>", "<|user|>", "<|assistant|>"],
}
NAMES = list(REQUIRED)

pytestmark = pytest.mark.skipif(
    not all(path.is_file() for path in SOURCES.values()) and not os.environ.get("CI"),
    reason="`make setup` fetches the published templates",
)


class Tokenizers:
    """Tokenizers of one template by settings; they have its required control tokens, and the optional ones if asked for."""

    def __init__(self, name: str, folder: Path, *, has_optional: bool = True) -> None:
        tokenizer = HfTokenizer(models.BPE())
        tokenizer.add_special_tokens(REQUIRED[name] + (OPTIONAL[name] if has_optional else []))
        self._name, self._path = name, folder / "tokenizer.json"
        tokenizer.save(str(self._path))
        self._made: dict[tuple[Any, ...], _trajtok.Tokenizer] = {}

    def get(self, settings: dict[str, Any], empty_think: str = "mask", jinja: str | None = None) -> _trajtok.Tokenizer:
        chosen: dict[str, Any] = {"settings": json.dumps(settings), "empty_think": empty_think, "jinja": jinja}
        key = tuple(chosen.values())
        if key not in self._made:
            self._made[key] = _trajtok.Tokenizer(self._path, template=self._name, max_tokens=9, **chosen)
        return self._made[key]


def conversation_text(request: Request, targets: frozenset[int] = frozenset()) -> str:
    """The request as trajtok reads it, with these messages trained."""
    messages = []
    for at, message in enumerate(request.messages):
        made = {"role": message["role"], "content": message["content"], "weight": float(at in targets)}
        made |= {key: message[key] for key in ("tool_call_id", "name") if key in message}
        if "reasoning_content" in message:
            made["reasoning"] = message["reasoning_content"]
        if "tool_calls" in message:
            made["tool_calls"] = [
                {
                    "name": call["function"]["name"],
                    "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                    "id": call["id"],
                }
                for call in message["tool_calls"]
            ]
        messages.append(made)
    tools = {} if request.tools is None else {"tools": json.dumps(request.tools, ensure_ascii=False)}
    return json.dumps({"messages": messages, **tools}, ensure_ascii=False)


def answers_of(request: Request) -> list[int]:
    return [at for at, message in enumerate(request.messages) if message["role"] == "assistant"]


def requests(name: str, n: int) -> Iterator[Request]:
    maker = Maker(2)
    for _ in range(n):
        yield restricted(name, maker.request())


def compare_texts(name: str, tokenizers: Tokenizers, n: int) -> Counter[str]:
    """How often the native template's text is the published one's."""
    counts = Counter[str]()
    for request in requests(name, n):
        theirs = published(name, request)
        try:
            tokenizer = tokenizers.get(request.settings)
            pieces = tokenizer.render(conversation_text(request), add_generation_prompt=request.add_generation_prompt)
            ours: str | None = "".join(text for text, _, _ in pieces)
        except _trajtok.TrajtokError as error:
            ours = None if str(error).startswith("template_refuses: ") else str(error)
        counts["differ" if ours != theirs else "both refuse" if ours is None else "equal"] += 1
    return counts


def check_texts(name: str, folder: Path, n: int) -> None:
    for has_optional in (True, False):
        counts = compare_texts(name, Tokenizers(name, folder, has_optional=has_optional), n)
        print(f"{name:8} optional={has_optional} {dict(counts)}")
        assert counts["differ"] == 0, counts
        assert counts["equal"] >= n * (0.5 if name == "mistral" else 1), counts


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_those_of_the_published_templates(name: str, tmp_path: Path) -> None:
    check_texts(name, tmp_path, N_FAST)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_texts_are_those_of_the_published_templates_on_many(name: str, tmp_path: Path) -> None:
    check_texts(name, tmp_path, N_SLOW)


def oracle(name: str, request: Request, targets: frozenset[int], empty_think: str) -> tuple[str, list[bool]] | str:
    """The text and which of its characters are trained, by the published template alone; or why the row is no row."""
    text = published(name, request)
    if text is None:
        return "template_refuses"
    is_trained = [False] * len(text)
    for target in sorted(targets):
        prompt = published(name, replace(request, messages=request.messages[:target], add_generation_prompt=True))
        alone = published(name, replace(request, messages=request.messages[: target + 1]))
        assert prompt is not None
        assert alone is not None
        end = alone.rindex(END_TOKENS[name]) + len(END_TOKENS[name])
        if not text.startswith(prompt):
            return "prompt_differs"
        if not (alone.startswith(prompt) and text.startswith(alone[:end])):
            return "target_differs"
        message = request.messages[target]
        if name == "qwen3" and _is_cut(message):
            return "not_rendered"
        start = len(prompt)
        if empty_think == "mask" and "reasoning_content" not in message and (found := EMPTY_THINK.match(alone, start)):
            start = found.end()
        is_trained[start:end] = [True] * (end - start)
    return text, is_trained


def _is_cut(message: dict[str, Any]) -> bool:
    """Whether Qwen3's template, which looks for reasoning in the content, leaves out other text of it."""
    first, *others = message["content"].split("</think>")
    before = first.split("<think>")[:-1]
    return "reasoning_content" not in message and bool(others) and (len(others) > 1 or "<think>".join(before).strip("\n") != "")


def compare_targets(name: str, tokenizers: Tokenizers, n: int) -> Counter[str]:
    """Asserts that each row is what the oracle says; counts the outcomes."""
    counts, draw = Counter[str](), random.Random(3)
    for drawn in requests(name, n):
        request = replace(drawn, add_generation_prompt=False)
        answers = answers_of(request)
        targets = frozenset(at for at in answers if draw.random() < 0.4) or frozenset(answers[-1:])
        if draw.random() < 0.5:  # such as rows are that end with their target
            request = replace(request, messages=request.messages[: max(targets) + 1])
        empty_think = draw.choice(["mask", "train"])
        expected = oracle(name, request, targets, empty_think)
        conversation = conversation_text(request, targets)
        tokenizer = tokenizers.get(request.settings, empty_think)
        if isinstance(expected, str):
            with pytest.raises(_trajtok.TrajtokError, match=rf"^{expected}: "):
                tokenizer.render(conversation)
            counts[expected] += 1
            continue
        pieces = tokenizer.render(conversation)
        assert "".join(text for text, _, _ in pieces) == expected[0]
        assert [weight > 0 for text, _, weight in pieces for _ in text] == expected[1], conversation
        counts["row"] += 1
    return counts


def check_targets(name: str, folder: Path, n: int) -> None:
    counts = compare_targets(name, Tokenizers(name, folder), n)
    print(f"{name:8} {dict(counts)}")
    seen = {"mistral": {"row", "template_refuses"}, "qwen3": {"row", "prompt_differs", "target_differs", "not_rendered"}}
    assert set(counts) == seen.get(name, {"row"}), counts


@pytest.mark.parametrize("name", NAMES)
def test_a_target_is_what_a_served_model_writes_after_its_prompt(name: str, tmp_path: Path) -> None:
    check_targets(name, tmp_path, N_FAST)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_target_is_what_a_served_model_writes_after_its_prompt_on_many(name: str, tmp_path: Path) -> None:
    check_targets(name, tmp_path, N_SLOW)


@pytest.mark.parametrize("name", NAMES)
def test_optional_control_tokens_are_those_that_the_tokenizer_has(name: str, tmp_path: Path) -> None:
    with_all, without = Tokenizers(name, tmp_path).get({}), Tokenizers(name, tmp_path, has_optional=False).get({})
    assert set(with_all.control_tokens) == {*REQUIRED[name], *OPTIONAL[name]}
    assert set(without.control_tokens) == {*REQUIRED[name]}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_the_plain_python_of_a_template_is_the_published_text(name: str) -> None:
    counts: Counter[str] = Counter()
    for request in requests(name, N_FAST):
        expected = published(name, request)
        if expected is None:
            counts["refused"] += 1
            continue
        template = make_template(name, settings=request.settings)
        conversation = json.loads(conversation_text(request))
        render = reference_render(template)
        assert render(conversation["messages"], conversation.get("tools"), request.add_generation_prompt) == expected
        counts["equal"] += 1
    assert counts["equal"] >= N_FAST // 2, counts


def controls_of(tokenizer: _trajtok.Tokenizer, request: Request) -> list[str]:
    pieces = tokenizer.render(conversation_text(request), add_generation_prompt=True)
    return [text for text, is_control, _ in pieces if is_control]


@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_a_message_becomes_a_control_token(name: str, tmp_path: Path) -> None:
    def request(text: str) -> Request:
        messages: list[dict[str, Any]] = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        if name != "qwen3":
            return Request(messages, None, add_generation_prompt=True)
        call = {"id": text, "function": {"name": text, "arguments": {text: text}}}
        messages[1] |= {"reasoning_content": text, "tool_calls": [call]}
        messages.append({"role": "tool", "content": text})
        return Request(messages, [{"type": "function", "function": {"name": text}}], add_generation_prompt=True)

    tokenizer = Tokenizers(name, tmp_path).get({})
    hostile = "".join(REQUIRED[name] + OPTIONAL[name])
    assert controls_of(tokenizer, request(hostile)) == controls_of(tokenizer, request("x")) != []


def outcome(tokenizer: _trajtok.Tokenizer, conversation: str) -> list[tuple[str, bool, float]] | str:
    """A row's pieces, or why it is none."""
    try:
        return tokenizer.render(conversation)
    except _trajtok.TrajtokError as error:
        return str(error).split(":")[0]


@pytest.mark.parametrize("name", ["llama3", "mistral", "qwen3"])
def test_pieces_are_those_of_the_published_template_run_as_jinja(name: str, tmp_path: Path) -> None:
    tokenizers, counts = Tokenizers(name, tmp_path), Counter[str]()
    tokens = {"bos_token": BOS_TOKENS.get(name), "eos_token": END_TOKENS[name]}
    for drawn in requests(name, N_FAST):
        request = replace(drawn, messages=drawn.messages[: 1 + max(answers_of(drawn))], add_generation_prompt=False)
        conversation = conversation_text(request, frozenset([len(request.messages) - 1]))
        native = tokenizers.get(request.settings)
        jinja = tokenizers.get(tokens | request.settings, jinja=SOURCES[name].read_text("utf-8"))
        expected, found = outcome(jinja, conversation), outcome(native, conversation)
        # That engine refuses where the template looks into a content; the native template knows what it does there.
        is_comparable = expected != "template_reads_content"
        assert found == expected or not is_comparable
        counts[expected if isinstance(expected, str) else "row"] += 1
    assert counts["row"] > N_FAST / 2, counts


def test_a_setting_that_a_template_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(_trajtok.TemplateError, match='template mistral has no setting "enable_thinking"; expected none'):
        Tokenizers("mistral", tmp_path).get({"enable_thinking": True})
