"""Registry of the agent's tools: name -> pure function of text. Anything with a network or a disk behind it is not here."""

from negtraj_dagster.agent.loop import Tool
from negtraj_dagster.agent.tools.calculator import calculate


def think(argument: str) -> str:
    """Take note of a thought: the tool that does nothing."""
    del argument
    return "OK"


TOOLS: dict[str, Tool] = {"calculator": calculate, "think": think}
