"""Registry of tasks: where a task's questions come from, which tools its agent has, and what counts as right."""

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.settings import did_you_mean
from negtraj_dagster.tasks.base import Score, Task
from negtraj_dagster.tasks.strategyqa import STRATEGYQA
from negtraj_dagster.tasks.wordtraps import WORDTRAPS

TASKS: dict[str, Task] = {task.name: task for task in (WORDTRAPS, STRATEGYQA)}

__all__ = ["TASKS", "Score", "Task", "get_task"]


def get_task(name: str) -> Task:
    """The task of that name.

    Raises:
        SettingsError: there is none; names the nearest.
    """
    if name not in TASKS:
        raise SettingsError(f"unknown task {name!r}{did_you_mean(name, TASKS)}")
    return TASKS[name]
