"""The syntax of a template is found by what it writes; one that cannot be read is named."""

import json
from pathlib import Path

import pytest

from negtraj_dagster.agent.call_syntax import CallSyntax, argument_types, find_call_syntax
from negtraj_dagster.chat_templates import ChatTemplate, make_template
from negtraj_dagster.errors import ModelError
from negtraj_dagster.schema import conditioned_json
from tests.support.published_templates import TRL
from tests.support.real_tokenizers import PACKAGES, real_tokenizer
from tests.support.template_tokenizers import SETTINGS, save_template_tokenizer
from tests.support.tool_conversations import Maker, conditioned

AXOLOTL = PACKAGES / "axolotl/utils/chat_templates/templates"
HEADER = "{% if m.role == 'assistant' %}<|im_start|>assistant\n"
DEEPSEEK_V31 = (
    "{{ tools | tojson if tools else '' }}{% for m in messages %}{% if m.role == 'assistant' %}<｜Assistant｜>{{ m.content }}"
    "{% if m.tool_calls %}<｜tool▁calls▁begin｜>{% for c in m.tool_calls %}<｜tool▁call▁begin｜>{{ c.function.name }}"
    "<｜tool▁sep｜>{{ c.function.arguments | tojson }}<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>{% endif %}"
    "<｜end▁of▁sentence｜>"
    "{% else %}<｜User｜>{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)
EXPECTED = {
    TRL: {
        "qwen2_5": CallSyntax("hermes", glue="\n"),
        "qwen3": CallSyntax("hermes", glue="\n"),
        "qwen3_instruct_2507": CallSyntax("hermes", glue="\n"),
        "qwen3_5_think": CallSyntax("function_xml", is_thought_open=True, glue="\n\n"),
        "qwen3_8": CallSyntax("function_xml", is_thought_open=True, glue="\n\n"),
        "nemotron_3_nano": CallSyntax("function_xml", is_thought_open=True, glue="\n"),
        "glm4moe": CallSyntax("glm", glue="\n"),
        "llama3_1": CallSyntax("llama_json", max_calls=1),
        "llama3_2": CallSyntax("llama_json", max_calls=1),
        "lfm2_v2": CallSyntax("pythonic"),
        "lfm2_2_5": CallSyntax("pythonic"),
        "gemma4": CallSyntax("gemma", ("<|channel>thought", "<channel|>")),
        "gemma4_v5": CallSyntax("gemma", ("<|channel>thought", "<channel|>")),
    },
    AXOLOTL: {
        "qwen_25": CallSyntax("hermes", glue="\n"),
        "jamba": CallSyntax("jamba", lead=" "),
        "llama4": CallSyntax("llama_json"),
        "mistral_v2v3": CallSyntax("mistral", lead=" "),
        "mistral_v3_tekken": CallSyntax("mistral"),
    },
}
CASES = [(folder / f"{name}.jinja", syntax) for folder, names in EXPECTED.items() for name, syntax in names.items()]


def source_of(path: Path) -> str:
    if not path.is_file():
        pytest.skip(f"{path.name} is missing: run `make setup`")
    return path.read_text("utf-8")


def found(source: str, folder: Path) -> CallSyntax:
    template = make_template("t.jinja", source, settings=SETTINGS, as_served=True)
    return find_call_syntax(template, save_template_tokenizer(source, folder))


@pytest.mark.parametrize(("path", "syntax"), CASES, ids=[f"{path.parent.name[:4]} {path.stem}" for path, _ in CASES])
def test_the_syntax_of_a_published_template_is_found(path: Path, syntax: CallSyntax, tmp_path: Path) -> None:
    assert found(source_of(path), tmp_path) == syntax


def test_the_syntax_of_the_native_template_is_found() -> None:
    assert find_call_syntax(ChatTemplate("qwen3"), real_tokenizer("qwen")) == CallSyntax("hermes", glue="\n")


def test_deepseeks_syntax_is_found(tmp_path: Path) -> None:
    assert found(DEEPSEEK_V31, tmp_path) == CallSyntax("deepseek")


def test_a_template_without_tools_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"chat template chatml: .* where tools are offered.*shards\.chat_template"):
        find_call_syntax(ChatTemplate("chatml"), real_tokenizer("qwen"))


@pytest.mark.parametrize("name", ["gptoss", "muse_glimmer"])
def test_a_syntax_that_nothing_reads_is_refused_with_what_it_writes(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"chat template t\.jinja: no syntax .*hermes.*to=.*look_up.*native agents cannot"):
        found(source_of(TRL / f"{name}.jinja"), tmp_path)


def test_a_template_without_results_is_refused(tmp_path: Path) -> None:
    source = source_of(TRL / "qwen3.jinja")
    refuses = "{% if messages[-1].role == 'tool' %}{{ raise_exception('no results') }}{% endif %}"
    with pytest.raises(ModelError, match=r"no prompt behind a tool's result .*no results"):
        found(refuses + source, tmp_path)


TAGS = ("<tool_call>", "think>", "<tool_calls>")


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3_instruct_2507", "qwen3"])
def test_drawn_turns_are_read_back_as_they_were_written(name: str, tmp_path: Path) -> None:
    """Calls with arguments of all kinds, behind odd contents: odd numbers, line breaks, tags inside of arguments."""
    source = source_of(TRL / f"{name}.jinja")
    template = make_template("t.jinja", source, settings=SETTINGS)
    path = save_template_tokenizer(source, tmp_path)
    syntax, tokenizer = find_call_syntax(template, path), template.open_tokenizer(path, max_tokens=1 << 20)
    maker, n_calls = Maker(7), 0
    for _ in range(300):
        turns, tools = conditioned(maker.request())
        last = max((n for n, turn in enumerate(turns) if turn.get("tool_calls")), default=0)
        texts = (turns[last]["content"], turns[last].get("reasoning", ""))
        if not last or any(tag in text for tag in TAGS for text in texts):
            continue
        context = [{**turn, "weight": 0.0} for turn in turns[:last]]
        try:
            pieces = tokenizer.render(conditioned_json([*context, turns[last]], tools))  # type: ignore[list-item]
        except ValueError:  # the template leaves something of it out
            continue
        written = "".join(text for text, _, weight in pieces if weight > 0).removesuffix("\n").removesuffix("<|im_end|>")
        read = syntax.read(written, argument_types(tools))
        assert read.fault is None
        assert [(call["name"], json.loads(call["arguments"])) for call in read.tool_calls] == [
            (call["name"], json.loads(call["arguments"])) for call in turns[last]["tool_calls"]
        ]
        assert read.content.strip() == texts[0].strip()
        n_calls += len(read.tool_calls)
    assert n_calls > 50
