"""What SQL files know of a task."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import polars as pl

from negtraj_dagster.schema import digest_json

TASK_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "task": pl.String,
    "style": pl.String,
    "terminal_actions": pl.List(pl.String()),
    "allowed_actions": pl.List(pl.String()),
    "min_chars": pl.Int32,
    "max_tokens": pl.Int32,
}
TASK_SCHEMA = pl.Schema(TASK_TYPES)


@dataclass(frozen=True)
class TaskRule:
    """A row of the table `tasks`.

    Attributes:
        style: how the task's agents speak: ReAct text, or tool calls.
        terminal_actions: which end an episode.
        allowed_actions: the tools offered and the terminal actions; empty where every rollout brings its own tools.
        min_chars: what an agent must at least say in an episode.
        max_tokens: of the longest row that a recipe of the task trains; None where there is no recipe.
    """

    task: str
    style: Literal["react", "native"]
    terminal_actions: tuple[str, ...]
    allowed_actions: tuple[str, ...]
    min_chars: int = 1
    max_tokens: int | None = None

    def identity(self) -> str:
        """Digest of what most files see; `max_tokens` changes with recipes and concerns the files that read it."""
        return digest_json({name: value for name, value in asdict(self).items() if name != "max_tokens"})


def task_table(rules: Iterable[TaskRule]) -> pl.DataFrame:
    """The table `tasks` (`TASK_SCHEMA`)."""
    rows = [
        (rule.task, rule.style, list(rule.terminal_actions), list(rule.allowed_actions), rule.min_chars, rule.max_tokens)
        for rule in rules
    ]
    return pl.DataFrame(rows, schema=TASK_SCHEMA, orient="row")


def token_limits(rules: Iterable[TaskRule]) -> str:
    """Digest of the token limits of some tasks."""
    return digest_json(sorted([rule.task, rule.max_tokens] for rule in rules))
