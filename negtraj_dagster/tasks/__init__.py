"""Registry of tasks: where a task's questions come from, which tools its agent has, and what counts as right."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.settings import Settings, TaskSettings, did_you_mean
from negtraj_dagster.tasks.base import Score, Task
from negtraj_dagster.tasks.declared import DeclaredTask, declared_tasks
from negtraj_dagster.tasks.modules import ModuleTask, load_module_tasks
from negtraj_dagster.tasks.strategyqa import STRATEGYQA
from negtraj_dagster.tasks.wordtraps import WORDTRAPS

EMBEDDED: dict[str, Task] = {task.name: task for task in (WORDTRAPS, STRATEGYQA)}
"""Tasks with code of their own; `load_tasks` has all of a deployment."""

__all__ = ["EMBEDDED", "Score", "Task", "find_task", "load_tasks", "task_from_job", "task_to_job"]


def load_tasks(settings: Settings) -> dict[str, Task]:
    """Every task of a deployment by name: embedded, shipped as settings, declared by the user, and of the user's modules.

    Raises:
        SettingsError: two have one name, or a module cannot be loaded.
    """
    tasks: dict[str, Task] = dict(EMBEDDED)
    for task in (*declared_tasks(settings).values(), *load_module_tasks(settings.task_modules)):
        if task.name in tasks:
            raise SettingsError(f"[tasks.{task.name}]: there is a task of that name already; choose another name")
        tasks[task.name] = task
    return tasks


def find_task(name: str, tasks: Mapping[str, Task]) -> Task:
    """The task of that name.

    Raises:
        SettingsError: there is none; names the nearest.
    """
    if name not in tasks:
        raise SettingsError(f"unknown task {name!r}{did_you_mean(name, tasks)}")
    return tasks[name]


def task_to_job(task: Task) -> dict[str, Any]:
    """What a child process needs to have the same task, as JSON."""
    if isinstance(task, DeclaredTask):
        return {"name": task.name, "declared": task.declared.model_dump(mode="json")}
    return {"name": task.name, **({"module": str(task.module)} if isinstance(task, ModuleTask) else {})}


def task_from_job(job: Mapping[str, Any]) -> Task:
    """The task that `task_to_job` described."""
    if "declared" in job:
        return DeclaredTask(job["name"], TaskSettings.model_validate(job["declared"]))
    of_module = {task.name: task for task in load_module_tasks([Path(job["module"])])} if "module" in job else EMBEDDED
    return find_task(job["name"], of_module)
