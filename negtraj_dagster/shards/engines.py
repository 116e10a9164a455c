"""Tells rows that Jinja itself refuses, or writes otherwise than trajtok's engine, from rows that were made wrongly.

The two engines are two programs: a template can use what only one of them has, or what they answer differently
(docs/decisions/templates.md). Such a row is the template's fault, not the mask's: it is left out, the others are kept.
"""

import re
import traceback
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from negtraj_dagster import _trajtok  # noqa: TID251 - its rendering is compared with Jinja's
from negtraj_dagster.chat_templates import Render
from negtraj_dagster.schema import ConditionedTurn, conditioned_json
from negtraj_dagster.shards.rows import is_target

ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
"""Python's way to write an object that has none: another one in every process."""
N_SHOWN = 60
MACHINE_ERRORS = (MemoryError, OSError)
"""What no template raises of itself: it has no files. Another machine, or the next run, would render the row."""


class TemplateRaisesError(Exception):
    """Jinja itself raises where trajtok's engine renders."""


class Engines:
    """Both renderings of one Jinja template.

    Args:
        name: what the template is called in messages.
        render: its rendering by Jinja.
        tokenizer: renders by trajtok's engine.
    """

    def __init__(self, name: str, render: Render, tokenizer: _trajtok.Tokenizer) -> None:
        self._name, self._reference, self._tokenizer = name, render, tokenizer

    def render(self, turns: Sequence[ConditionedTurn], tools: str | None, add_generation_prompt: bool) -> str:
        """Jinja's rendering.

        Raises:
            TemplateRaisesError: Jinja raises anything but MACHINE_ERRORS; templates are programs.
            MemoryError: there is no room, or OSError: the machine refuses something else; the row is not at fault.
        """
        try:
            return self._reference(turns, tools, add_generation_prompt)
        except MACHINE_ERRORS:
            raise
        except Exception as error:
            raise TemplateRaisesError(
                f"template {self._name}: Jinja, by which transformers renders, raises {_describe(error)} on "
                f"{_part(turns, add_generation_prompt)}, where trajtok's engine renders on; mend the template so that it asks "
                f"whether a value is there before it uses it, or leave such conversations out"
            ) from error

    def find_difference(self, turns: Sequence[ConditionedTurn], tools: str | None) -> str | None:
        """Where the two engines write other text for a conversation, or for one of its prompts; None where they agree.

        Raises:
            TemplateRaisesError: as for `render`.
        """
        for part, add_generation_prompt in _parts(turns):
            ours = self._render_ours(part, tools, add_generation_prompt)
            if ours is None:
                continue
            theirs = self.render(part, tools, add_generation_prompt)
            if ours != theirs:
                at = _first_difference(ours, theirs)
                text = (
                    f"template {self._name}: for {_part(part, add_generation_prompt)} Jinja, by which transformers renders, "
                    f"writes {_excerpt(theirs, at)}, trajtok's engine {_excerpt(ours, at)}, from character {at} on; "
                    f"write that place of the template otherwise (docs/decisions/templates.md lists what the engines differ in)"
                )
                return ADDRESS.sub("0x…", text)
        return None

    def _render_ours(self, turns: Sequence[ConditionedTurn], tools: str | None, add_generation_prompt: bool) -> str | None:
        conversation = conditioned_json(turns, tools)
        try:
            pieces = self._tokenizer.render(conversation, add_generation_prompt=add_generation_prompt)
        except _trajtok.TrajtokError:  # a part of a row may be refused where the row is not
            return None
        return "".join(text for text, _, _ in pieces)


def _parts(turns: Sequence[ConditionedTurn]) -> Iterable[tuple[Sequence[ConditionedTurn], bool]]:
    """All that a row is proved by: the whole, the prompt of every target, the conversation that ends with it."""
    yield turns, False
    for index in (index for index, turn in enumerate(turns) if is_target(turn)):
        yield turns[:index], True
        yield turns[: index + 1], False


def _part(turns: Sequence[ConditionedTurn], add_generation_prompt: bool) -> str:
    if not add_generation_prompt:
        return f"the conversation's first {len(turns)} messages"
    return f"the prompt before messages[{len(turns)}]"


def _first_difference(a: str, b: str) -> int:
    return next((at for at, (x, y) in enumerate(zip_longest(a, b)) if x != y), len(a))


def _excerpt(text: str, at: int) -> str:
    start = max(0, at - N_SHOWN // 3)
    return repr(text[start : at + N_SHOWN])


def _describe(error: Exception) -> str:
    """The kind of an error, what it says, and the template's line."""
    line = next(
        (frame.lineno for frame in reversed(traceback.extract_tb(error.__traceback__)) if frame.filename == TEMPLATE), None
    )
    place = "" if line is None else f" (line {line})"
    return ADDRESS.sub("0x…", f"{type(error).__name__}: {str(error)[:200]}{place}")


TEMPLATE = "<template>"
"""What Jinja calls a template that is no file."""
