"""Tasks of a user's own file: every `Task` class in it, its file's hash in all that depends on it."""

import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.schema import Question, Split
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import file_sha256
from negtraj_dagster.tasks.base import Score, Task

HASH_CHARS = 16
TAKEN_OVER = (
    "name",
    "tools",
    "instruction",
    "terminal_action",
    "max_turns",
    "style",
    "min_chars",
    "scores_answers",
    "has_recorded_questions",
    "min_score",
)
"""A user's task's own words, as they are."""


class ModuleTask(Task):
    """A task of a user's file. Whatever the file changes is another version of it."""

    def __init__(self, module: Path, sha256: str, task: Task) -> None:
        self.module = module
        self._sha256, self._task = sha256, task
        for name in TAKEN_OVER:
            setattr(self, name, getattr(task, name))
        self.version = f"{task.version}-{sha256[:HASH_CHARS]}"

    def fingerprint(self, settings: Settings) -> dict[str, Any] | None:
        """The task's own, and the file's hash."""
        fingerprint = self._task.fingerprint(settings)
        return None if fingerprint is None else {"module": self._sha256, "task": fingerprint}

    def questions(self, settings: Settings) -> list[Question]:
        """The task's own."""
        return self._task.questions(settings)

    def recorded_split(self, group: str) -> Split:
        """The task's own."""
        return self._task.recorded_split(group)

    def read_recorded_answer(self, gold: str) -> str | None:
        """The task's own."""
        return self._task.read_recorded_answer(gold)

    def recorded_reading(self) -> object:
        """The task's own, and the file's hash."""
        return [self._sha256, self._task.recorded_reading()]

    def score(self, prediction: str | None, answer: str) -> Score:
        """The task's own."""
        return self._task.score(prediction, answer)

    def is_valid_answer(self, prediction: str) -> bool:
        """The task's own."""
        return self._task.is_valid_answer(prediction)

    def plain_answer(self, value: str) -> str:
        """The task's own."""
        return self._task.plain_answer(value)

    def missing_data_hint(self) -> str:
        """The task's own."""
        return self._task.missing_data_hint()


def load_module_tasks(files: Iterable[Path]) -> Iterator[ModuleTask]:
    """The tasks of some files, in the order of their names.

    Raises:
        SettingsError: a file is missing, does not load, or has no task; names the file.
    """
    for file in files:
        if not file.is_file():
            raise SettingsError(f"task_modules: {file}: no such file")
        sha256 = file_sha256(file)
        classes = inspect.getmembers(_load(file, sha256), inspect.isclass)
        own = [kind for _, kind in classes if issubclass(kind, Task) and kind is not Task and not inspect.isabstract(kind)]
        if not own:
            raise SettingsError(f"task_modules: {file}: has no class that is a negtraj_dagster.tasks.Task; define one")
        for kind in own:
            yield ModuleTask(file, sha256, kind())


def _load(file: Path, sha256: str) -> ModuleType:
    name = f"negtraj_task_{sha256[:HASH_CHARS]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SettingsError(f"task_modules: {file}: not a Python file; its name must end with .py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise SettingsError(f"task_modules: {file}: does not load ({type(error).__name__}: {error})") from error
    return module
