"""What a chat template is: a name or Jinja text with its settings, and a plain Python rendering to prove trajtok's by."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from negtraj_dagster import _trajtok  # noqa: TID251 - shards and the served prompt share one way to open a tokenizer
from negtraj_dagster.schema import ConditionedTurn, canonical_json, digest

Render = Callable[[Sequence[ConditionedTurn], str | None, bool], str]
"""(turns, tool schemas as JSON text, add_generation_prompt) -> the rendered text."""

EmptyThink = Literal["mask", "train"]

JINJA_VERSION = 2
"""Rises when the rows of a Jinja template come out otherwise."""
RESERVED = ("messages", "tools", "documents", "add_generation_prompt", "strftime_now", "raise_exception")
"""What a template is given by its caller; no settings."""


@dataclass(frozen=True)
class NativeTemplate:
    """A template that trajtok writes natively: the version of its text, and a plain rendering, given the settings."""

    version: int
    render: Callable[[Mapping[str, Any]], Render]


@dataclass(frozen=True)
class ChatTemplate:
    """The template a recipe renders with.

    Attributes:
        name: a native template's, or what names the Jinja text in messages.
        jinja: the text of a Hugging Face chat template; None for a native one.
        settings: canonical JSON text of what else it sees: special tokens, `enable_thinking`, `today`.
        empty_think: whether an empty `<think></think>` before a turn without reasoning is trained.
        as_served: whether a conversation that ends with the agent's turn is what a served model is given before it and the
            answer, where a Jinja template writes another beginning (`served.py`).
    """

    name: str
    jinja: str | None = None
    settings: str = "{}"
    empty_think: EmptyThink = "mask"
    as_served: bool = False

    @property
    def is_plain(self) -> bool:
        """A native one, as it is by default."""
        return (self.jinja, self.settings, self.empty_think, self.as_served) == (None, "{}", "mask", False)

    def identity(self, versions: Mapping[str, int]) -> str:
        """Names all that decides the text; `versions` are the native templates'."""
        if self.is_plain:
            return f"{self.name} {versions[self.name]}"
        text = f"native {self.name} {versions[self.name]}" if self.jinja is None else f"jinja {JINJA_VERSION} {self.jinja}"
        return digest("chat template", text, self.settings, self.empty_think, *(["as served"] if self.as_served else []))

    def to_json(self) -> Any:
        """For a card or a child's configuration; `from_json` reads it."""
        if self.is_plain:
            return self.name
        template = {"name": self.name, "jinja": self.jinja, "settings": self.settings, "empty_think": self.empty_think}
        return template | ({"as_served": True} if self.as_served else {})

    @classmethod
    def from_json(cls, value: Any) -> "ChatTemplate":
        """What `to_json` made."""
        return cls(value) if isinstance(value, str) else cls(**value)

    def open_tokenizer(self, tokenizer_json: Path, *, max_tokens: int, over_length: str = "drop") -> _trajtok.Tokenizer:
        """trajtok's tokenizer that renders with this template.

        Raises:
            TrajtokError: the tokenizer or the template is refused.
        """
        return _trajtok.Tokenizer(
            tokenizer_json,
            template=self.name,
            jinja=self.jinja,
            settings=self.settings,
            empty_think=self.empty_think,
            as_served=self.as_served,
            max_tokens=max_tokens,
            over_length=over_length,
        )

    def variables(self) -> dict[str, Any]:
        """The settings, read."""
        return dict(json.loads(self.settings))


def make_template(
    name: str,
    jinja: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    empty_think: EmptyThink = "mask",
    as_served: bool = False,
) -> ChatTemplate:
    """A template with its settings in canonical form; a native one writes what is served in any case."""
    return ChatTemplate(name, jinja, canonical_json(dict(settings or {})), empty_think, as_served and jinja is not None)
