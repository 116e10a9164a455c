"""The executor of every run: all steps in one process, failures of ours in plain words.

A process per step costs seconds, and trainers are child processes anyway.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster import Executor

from negtraj_dagster.defs.console import shield_log_helpers, speak_plainly


class _PlainExecutor(Executor):
    """Dagster's in-process executor over a log that speaks plainly."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner

    @property
    def retries(self) -> Any:
        """The inner executor's."""
        return self._inner.retries

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        """Execute the plan's steps one after another."""
        speak_plainly(plan_context.log)
        shield_log_helpers()
        yield from self._inner.execute(plan_context, execution_plan)


@dg.executor(name="in_process", config_schema=dg.in_process_executor.config_schema)  # type: ignore[call-overload,untyped-decorator]
def plain_in_process_executor(context: dg.InitExecutorContext) -> Executor:
    """Every step in the run's own process, one after another."""
    create = dg.in_process_executor.executor_creation_fn
    assert create is not None  # of a definition of Dagster's own
    inner = create(context)
    assert isinstance(inner, Executor)
    return _PlainExecutor(inner)
