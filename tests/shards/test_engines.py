"""Where Jinja itself raises or writes other text than trajtok's engine: the row is rejected by name, and the batch goes on."""

import errno
from pathlib import Path

import pytest

from negtraj_dagster.chat_templates import make_template
from negtraj_dagster.errors import NegtrajError, SettingsError
from negtraj_dagster.schema import ConditionedTurn, conditioned_json
from negtraj_dagster.shards.tokenize import TokenRule, token_keys, token_rule, tokenize
from negtraj_dagster.store import Store
from tests.support.template_tokenizers import SETTINGS, save_template_tokenizer

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_TOOLS = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}SNIPPET<|im_end|>\n{% endif %}" + TURNS
UNGUARDED = "{%- for tool in tools %}{{ tool | tojson }}\n{%- endfor %}" + TURNS
"""Loops over the schemas whether there are any or not."""
WRAPPED = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ 'Use ' | safe + '<function=' + tool.function.name + '>' }}\n"
    "{% endfor %}<|im_end|>\n{% endif %}" + TURNS
)
"""Adds a tag to a text that is marked as safe, which Jinja escapes."""
TALK: list[ConditionedTurn] = [
    {"role": "user", "content": "How many?", "weight": 0.0},
    {"role": "assistant", "content": "Two.", "weight": 1.0},
]
TOOLS = '[{"type": "function", "function": {"name": "look", "description": "It looks.", "parameters": {}}}]'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    save_template_tokenizer(TURNS, path)
    return path


def reasons(store: Store, folder: Path, source: str) -> tuple[TokenRule, dict[bool, tuple[str, str]]]:
    """Reason and detail of a conversation with and one without tools, tokenized as one batch."""
    rule = token_rule(folder, make_template("some.jinja", source, settings=SETTINGS), 4096, "drop")
    texts = {has_tools: conditioned_json(TALK, TOOLS if has_tools else None) for has_tools in (True, False)}
    tokenize(store, rule, {rule.token_key(text): text for text in texts.values()})
    rows = {key: (reason, detail) for key, reason, detail in token_keys(store, rule)["token_key", "reason", "detail"].rows()}
    return rule, {has_tools: rows[rule.token_key(text)] for has_tools, text in texts.items()}


def test_a_row_on_which_jinja_raises_is_rejected_and_the_batch_goes_on(store: Store, folder: Path) -> None:
    rule, rows = reasons(store, folder, UNGUARDED)
    assert rows[True] == ("", "")
    reason, detail = rows[False]
    assert reason == "template_refuses"
    assert detail.startswith(f"token row {rule.token_key(conditioned_json(TALK))}: template some.jinja: ")
    assert "TypeError: 'NoneType' object is not iterable" in detail


@pytest.mark.parametrize(
    "error", [MemoryError("no room"), OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=repr
)
def test_what_the_machine_refuses_while_jinja_renders_is_no_rows_fault(
    error: BaseException, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as during:
        during.setattr("negtraj_dagster.chat_templates.jinja.message_for_template", refuse)
        with pytest.raises((type(error), NegtrajError)):
            reasons(store, folder, TURNS)
    _, rows = reasons(store, folder, TURNS)
    assert rows[False] == ("", "")


def test_a_row_that_the_engines_write_otherwise_is_rejected_and_the_batch_goes_on(store: Store, folder: Path) -> None:
    rule, rows = reasons(store, folder, WRAPPED)
    assert rows[False] == ("", "")
    reason, detail = rows[True]
    assert reason == "engines_differ"
    assert detail.startswith(f"token row {rule.token_key(conditioned_json(TALK, TOOLS))}: template some.jinja: ")
    assert "Use &lt;function=look" in detail
    assert "Use <function=look>" in detail


def test_a_prompt_alone_that_the_engines_write_otherwise_rejects_its_row(store: Store, folder: Path) -> None:
    prompt = "<|im_start|>assistant\n"
    assert TURNS.count(prompt) == 1
    _, rows = reasons(store, folder, TURNS.replace(prompt, prompt + "{{ '' if 'lines' is filter else 'Well' }}"))
    reason, detail = rows[False]
    assert reason == "engines_differ"
    assert "for the prompt before messages[1] Jinja" in detail


RAISES = {
    "undefined": ("{{ nope[:2] }}", "UndefinedError"),
    "an order of kinds": ("{{ [1, 'a'] | sort }}", "TypeError"),
    "none sorted": ("{{ [none, 1] | sort }}", "TypeError"),
    "none as a list": ("{{ none | list }}", "TypeError"),
    "none in a loop": ("{% for x in none %}{% endfor %}", "TypeError"),
    "none compared": ("{{ none < 1 }}", "TypeError"),
    "a text compared with a number": ("{{ 'a' < 1 }}", "TypeError"),
    "an odd text": ("{{ 'a' is odd }}", "TypeError"),
    "joined numbers": ("{{ ','.join([1]) }}", "TypeError"),
    "a number in a text": ("{{ 1 in 'a1' }}", "TypeError"),
    "a missing filter": ("{% if tools %}{{ 'a b' | split }}{% endif %}", "TemplateRuntimeError"),
    "a missing test": ("{% if tools %}{{ 1 is startingwith(2) }}{% endif %}", "TemplateRuntimeError"),
}
REFUSED_BY_BOTH = {
    "division by zero": "{{ 1 // (0 if tools else 1) }}",
    "an exception": "{{ raise_exception('no tools here') }}",
    "a missing key": "{{ {}['a']['b'] }}",
    "endless recursion": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "deep recursion": "{% macro f(n) %}{{ f(n + 1) if n < 60 }}{% endmacro %}{{ f(0) }}",
    "a filter of neither": "{% if tools %}{{ 'a' | nofilter }}{% endif %}",
    "a filter of Jinja alone": "{{ 'a b' | wordcount }}",
    "text times a negative number": "{{ 'ab' * -1 }}",
    "a printf format": "{{ '%s-%.2f' % ('a', 1.5) }}",
    "a list's method": "{{ [1, 2].index(2) }}",
    "2 to the power of 200": "{{ 2 ** 200 }}",
    "a printed range": "{{ range(3) }}",
}
DIFFERS = {
    "safe and more": "{{ 'x' | safe + '<a>' }}",
    "more and safe": "{{ '<a>' + ('x' | safe) }}",
    "safe replaced": "{{ ('a' | safe).replace('a', '<b>') }}",
    "safe formatted": "{{ ('{}' | safe).format('<a>') }}",
    "safe trimmed": "{{ (' x ' | safe | trim) + '<a>' }}",
    "safe in upper case": "{{ ('x' | safe).upper() + '<a>' }}",
    "escaped quotes": "{{ '\"' | e }}",
    "autoescape": "{% autoescape true %}{{ '<a>' }}{% endautoescape %}",
    # trajtok keeps both keys unless their hashes, seeded anew for each map, collide: 1 map of 128 is written as Jinja does
    "equal keys": "{{ {1: 2, true: 4} | tojson }}" * 4,
    "a slice of none": "{{ none[:2] }}",
    "a printed namespace": "{{ namespace(a=1) }}",
    "a printed macro": "{% macro m() %}{% endmacro %}{{ m }}",
    "a printed generator": "{{ ['a'] | map('upper') }}",
    "a defined method": "{{ ''.strip is defined }}",
    "a known filter": "{{ 'lines' is filter }}",
    "an attribute": "{{ {'a': 1} | attr('a') }}",
    "an indented end": "{{ 'a\\nb\\n' | indent(2) }}|",
    "a pretty print": "{{ {'b': 1, 'a': 2} | pprint }}",
    "the template itself": "{{ self is defined }}",
    "a title": '{{ "it\'s".title() }}',
    "a key named as a method": "{{ {'items': 1}.items }}",
    "carriage returns": "a\r\nb",
}


@pytest.mark.parametrize(("snippet", "error"), RAISES.values(), ids=RAISES)
def test_what_jinja_alone_refuses_rejects_its_row(store: Store, folder: Path, snippet: str, error: str) -> None:
    _, rows = reasons(store, folder, WITH_TOOLS.replace("SNIPPET", snippet))
    assert rows[False] == ("", "")
    assert rows[True][0] == "template_refuses"
    assert error in rows[True][1]


@pytest.mark.parametrize("snippet", REFUSED_BY_BOTH.values(), ids=REFUSED_BY_BOTH)
def test_what_trajtok_refuses_rejects_its_row(store: Store, folder: Path, snippet: str) -> None:
    _, rows = reasons(store, folder, WITH_TOOLS.replace("SNIPPET", snippet))
    assert rows[False] == ("", "")
    assert rows[True][0] == "template_refuses"


@pytest.mark.parametrize("snippet", DIFFERS.values(), ids=DIFFERS)
def test_what_the_engines_write_otherwise_rejects_its_row(store: Store, folder: Path, snippet: str) -> None:
    _, rows = reasons(store, folder, WITH_TOOLS.replace("SNIPPET", snippet))
    assert rows[False] == ("", "")
    assert rows[True][0] == "engines_differ"
    assert " at 0x7" not in rows[True][1], "an address differs from run to run"


REFUSED_AT_LOAD = {
    "a filter of trajtok's alone": ("{{ 'a b' | split }}", "No filter named 'split'.*line 1"),
    "more nested loops than Python takes": ("{% for a in [1] %}" * 25 + "{% endfor %}" * 25, "too many statically nested"),
}


@pytest.mark.parametrize(("snippet", "problem"), REFUSED_AT_LOAD.values(), ids=REFUSED_AT_LOAD)
def test_a_template_that_jinja_cannot_compile_is_refused_by_name(
    store: Store, folder: Path, snippet: str, problem: str
) -> None:
    with pytest.raises(SettingsError, match=rf"chat template some\.jinja: .*{problem}"):
        reasons(store, folder, snippet + TURNS)
