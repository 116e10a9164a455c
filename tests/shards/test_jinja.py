"""Chat templates in the sandbox: text for text what transformers renders, and what is hostile is refused or stopped."""

import datetime
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from transformers.utils import chat_template_utils

from negtraj_dagster import _trajtok
from negtraj_dagster._trajtok import JinjaTemplate
from tests.support.real_tokenizers import PACKAGES
from tests.support.tool_conversations import Maker, Request

TEMPLATES = PACKAGES / "trl/chat_templates"
N_FAST, N_SLOW = 25, 2000
TODAY = "2026-01-31"


@pytest.fixture(autouse=True)
def fixed_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' own clock shows one day."""

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime(2026, 1, 31, tzinfo=tz)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)


def expected(source: str, request: Request) -> str | None:
    """What transformers renders; None where it raises."""
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            [request.messages],
            tools=request.tools,
            chat_template=source,
            add_generation_prompt=request.add_generation_prompt,
            **request.settings,
        )
    except Exception:
        return None
    return str(texts[0])


def rendered(template: JinjaTemplate, request: Request) -> str:
    """What trajtok renders."""
    return template.render(
        json.dumps(request.messages, ensure_ascii=False),
        tools=None if request.tools is None else json.dumps(request.tools, ensure_ascii=False),
        add_generation_prompt=request.add_generation_prompt,
        settings=json.dumps({**request.settings, "today": TODAY}),
    )


def compare(path: Path, n: int) -> Counter[str]:
    """How often the two agree, by how."""
    source, maker, counts = path.read_text(), Maker(1), Counter[str]()
    template = JinjaTemplate(source, origin=path.name)
    for _ in range(n):
        request = maker.request()
        theirs = expected(source, request)
        try:
            ours: str | None = rendered(template, request)
        except _trajtok.TemplateError:
            ours = None
        if ours == theirs:
            counts["equal" if ours is not None else "both refuse"] += 1
        else:
            counts["ours refuses" if ours is None else "theirs refuses" if theirs is None else "differ"] += 1
    return counts


def published() -> list[str]:
    """The published templates that the tests' packages hold."""
    return sorted(path.name for path in TEMPLATES.glob("*.jinja"))


needs_templates = pytest.mark.skipif(not TEMPLATES.is_dir(), reason="`make setup` fetches the published templates")


def test_the_published_templates_are_there() -> None:
    if not TEMPLATES.is_dir() and not os.environ.get("CI"):
        pytest.skip("`make setup` fetches the published templates")
    assert len(published()) == 72


@needs_templates
@pytest.mark.parametrize("name", published())
def test_published_templates_render_as_in_transformers(name: str) -> None:
    counts = compare(TEMPLATES / name, N_FAST)
    assert counts["equal"] + counts["both refuse"] == N_FAST, counts


@needs_templates
@pytest.mark.slow
@pytest.mark.parametrize("name", published())
def test_published_templates_render_as_in_transformers_on_many(name: str) -> None:
    counts = compare(TEMPLATES / name, N_SLOW)
    print(f"{name:42} {dict(counts)}")
    assert counts["equal"] + counts["both refuse"] == N_SLOW, counts


HOSTILE = {
    "endless range": "{% for i in range(10**9) %}x{% endfor %}",
    "nested loops": "{% for i in range(9999) %}" * 3 + "{% endfor %}" * 3,
    "endless text": "{% for i in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
    "huge text": "{{ 'x' * 10**12 }}",
    "huge list": "{{ ([1] * 10**12) | length }}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "deep nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep brackets": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "Python's classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "Python's globals": "{{ raise_exception.__globals__['os'].system('id') }}",
    "Python's builtins": "{{ self.__init__.__globals__.__builtins__ }}",
    "namespaces' attributes": "{{ namespace().__init__.__globals__ }}",
    "a file": "{% include '/etc/passwd' %}",
    "an import": "{% import '/etc/passwd' as x %}",
    "a base": "{% extends 'other' %}",
    "an exception": "{{ raise_exception('no') }}",
    "the clock": "{{ strftime_now('%H:%M:%S') }}",
    "a format": "{{ '{0.__class__}'.format(1) }}",
    "too large": "x" * (1 << 18) + "x",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_refused_or_stopped(source: str) -> None:
    with pytest.raises(_trajtok.TemplateError, match=r"^the chat template: ") as raised:
        JinjaTemplate(source).render("[]", settings=json.dumps({"today": TODAY}))
    assert "root:" not in str(raised.value)


BAD_INPUT = {
    "not JSON": ("{", "messages: not JSON at byte 1"),
    "a key twice": ('[{"a": 1, "a": 2}]', 'messages: key "a" stands twice'),
    "a number of no float": ("[1e999]", "messages: the number before byte 6 is too large"),
    "more than 128 bits": (f"[{2**200}]", "messages: the whole number .* has more than 128 bits"),
    "a lone surrogate": ('["\\ud800"]', "messages: lone surrogate"),
    "more text": ("[] []", "messages: more text behind the value, at byte 3"),
}


@pytest.mark.parametrize(("messages", "problem"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_messages_that_python_would_read_otherwise_are_refused(messages: str, problem: str) -> None:
    with pytest.raises(_trajtok.TemplateError, match=problem):
        JinjaTemplate("{{ messages }}").render(messages)


def test_messages_are_a_list_of_objects() -> None:
    for messages in ("{}", "[1]", "null"):
        with pytest.raises(_trajtok.TemplateError, match="messages: expected a list"):
            JinjaTemplate("").render(messages)


REPRS = [
    "it's",
    '"',
    "both ' and \"",
    "\n\t\\",
    "\x00\x1f\x7f\xa0\xad",
    "\u2028\u200b\ufeff",
    "\U000e0001",
    "é日🙂",
    "\u0301a",
    "\ue000",
]


@pytest.mark.parametrize("text", REPRS)
def test_text_in_a_list_is_written_as_python_does(text: str) -> None:
    assert JinjaTemplate("{{ it }}").render("[]", settings=json.dumps({"it": [text, {text: None}]})) == str(
        [text, {text: None}]
    )


def test_floats_are_written_as_python_does() -> None:
    numbers = [0.0, -0.0, 1e15, 1e16, 1.5e16, 1e-4, 1e-5, 123456.789, 5e-324, 1.7976931348623157e308, 1e22, 0.1, 100.0, -2.5e-9]
    assert JinjaTemplate("{{ it }}|{{ it | tojson }}").render("[]", settings=json.dumps({"it": numbers})) == (
        f"{numbers}|{json.dumps(numbers)}"
    )


def test_a_fault_names_the_template_and_its_line() -> None:
    with pytest.raises(_trajtok.TemplateError, match=r"some/template\.jinja: .*\(line 2\)"):
        JinjaTemplate("a\n{{ messages[0].content.shout() }}", origin="some/template.jinja").render('[{"content": "x"}]')
    with pytest.raises(_trajtok.TemplateError, match=r"t: syntax error: .*\(line 1\)"):
        JinjaTemplate("{% for %}", origin="t")
    with pytest.raises(_trajtok.TemplateError, match=r'the setting "today" is .*; expected "2026-01-31"'):
        JinjaTemplate("{{ strftime_now('%d') }}").render("[]", settings='{"today": "31.1.2026"}')


def test_a_method_is_no_key() -> None:
    text = JinjaTemplate(
        "{% for key, value in messages[0].items() %}{{ key }}={{ value }};{% endfor %}{{ messages[0].get('x') }}"
    )
    assert text.render('[{"items": 1, "b": true}]') == "items=1;b=True;None"
