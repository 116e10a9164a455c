"""Plain ChatML: no default system message, one header line per turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from negtraj_dagster.schema import ConditionedTurn


@dataclass(frozen=True)
class ChatTemplate:
    """A template's name, the version of its text, the text that ends a trained turn, and its rendering."""

    name: str
    version: int
    end_of_turn: str
    render: Callable[[Sequence[ConditionedTurn], bool], str]


def _render(turns: Sequence[ConditionedTurn], add_generation_prompt: bool) -> str:
    text = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)
    return text + ("<|im_start|>assistant\n" if add_generation_prompt else "")


CHATML = ChatTemplate("chatml", 1, "<|im_end|>", _render)
