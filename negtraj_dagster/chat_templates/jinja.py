"""Hugging Face chat templates by Jinja itself, set up as transformers sets it up: what trajtok's renderings are proved by.

Slow, and not for templates nobody has looked at: unlike trajtok's, this sandbox has no limits. trajtok goes first.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
import jinja2.nodes
import jinja2.parser
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from negtraj_dagster.chat_templates.base import Render
from negtraj_dagster.errors import SettingsError
from negtraj_dagster.schema import ConditionedTurn


class _Generation(Extension):
    """`{% generation %}` marks what an assistant said; it writes its body."""

    tags = {"generation"}  # noqa: RUF012 - how Jinja's extensions say it

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """The block as a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, and a short way to what it is asked for most."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A key of a message, which the sandbox comes to by an exception: `message.role`; anything else is left to it."""
        if type(obj) is dict and attribute not in DICT_ATTRIBUTES and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


DICT_ATTRIBUTES = frozenset(dir(dict))


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False, **options})


@lru_cache(maxsize=8)
def _compile(source: str) -> jinja2.Template:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation], keep_trailing_newline=False
    )
    environment.filters["tojson"] = _to_json
    for name in ("lipsum", "cycler", "joiner"):  # trajtok's engine has none of these: a template could tell the two apart
        del environment.globals[name]
    environment.globals["raise_exception"] = _raise_exception
    return environment.from_string(source)


def jinja_render(source: str, settings: Mapping[str, Any], *, name: str = "of Jinja text") -> Render:
    """The rendering of a chat template.

    Args:
        source: its text.
        settings: what it sees beside messages and tools; `today` ("2026-01-31") is what `strftime_now` knows of.
        name: what it is called in messages.

    Raises:
        SettingsError: Jinja cannot compile it.
    """
    try:
        template = _compile(source)
    except (MemoryError, OSError):  # the machine's
        raise
    except Exception as error:  # Jinja's own errors, and those of Python, which compiles what Jinja writes
        line = f" (line {error.lineno})" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise SettingsError(
            f"chat template {name}: Jinja, by which transformers renders, cannot use it: {type(error).__name__}: {error}{line}"
            f"; mend the template or set shards.chat_template to another one"
        ) from error

    def strftime_now(pattern: str) -> str:
        return datetime.datetime.fromisoformat(settings["today"]).strftime(pattern)

    def render(turns: Sequence[ConditionedTurn], tools: str | None, add_generation_prompt: bool) -> str:
        return template.render(
            messages=[message_for_template(turn) for turn in turns],
            tools=None if tools is None else json.loads(tools),
            documents=None,
            add_generation_prompt=add_generation_prompt,
            strftime_now=strftime_now,
            **settings,
        )

    return render


def message_for_template(turn: ConditionedTurn) -> dict[str, Any]:
    """A turn as transformers hands it to a template: arguments read, reasoning under each name that templates ask for."""
    message: dict[str, Any] = {"role": turn["role"], "content": turn["content"]}
    if "reasoning" in turn:
        message = {"thinking": turn["reasoning"], **message, "reasoning_content": turn["reasoning"]}
    if "tool_calls" in turn:
        message["tool_calls"] = [
            {
                "type": "function",
                **({"id": call["id"]} if "id" in call else {}),
                "function": {"name": call["name"], "arguments": json.loads(call["arguments"])},
            }
            for call in turn["tool_calls"]
        ]
    return message | {key: turn[key] for key in ("name", "tool_call_id") if key in turn}
