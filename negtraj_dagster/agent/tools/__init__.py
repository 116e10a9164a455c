"""The agent's tools: functions of text, the same answer every time. Nothing here reaches a network."""

from collections.abc import Iterable, Sequence

from negtraj_dagster.agent.episodes import Tool
from negtraj_dagster.agent.tools.calculator import calculate
from negtraj_dagster.agent.tools.search import SearchTool
from negtraj_dagster.errors import SettingsError


def think(argument: str) -> str:
    """Take note of a thought: the tool that does nothing."""
    del argument
    return "OK"


TOOLS: dict[str, Tool] = {"calculator": calculate, "think": think}
"""Tools that need nothing but their argument."""


TOOL_VERSIONS = {"calculator": 1, "think": 1, "search": 1}
"""Each rises when its tool answers otherwise: it is part of what an evaluation is known by."""


def make_tools(names: Iterable[str], *, passages: Sequence[str] = ()) -> dict[str, Tool]:
    """A task's tools by name.

    Args:
        names: from TOOLS, or `search`.
        passages: what `search` looks things up in.

    Raises:
        SettingsError: an unknown tool.
    """
    tool_names = {*TOOLS, "search"}
    if unknown := sorted(set(names) - tool_names):
        raise SettingsError(f"unknown tools {unknown}; known: {sorted(tool_names)}; add them to agent/tools")
    return {name: SearchTool(passages) if name == "search" else TOOLS[name] for name in names}
