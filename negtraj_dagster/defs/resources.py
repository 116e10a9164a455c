"""What asset bodies are given: this deployment's settings and store, and the client that runs trainer children."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import dagster as dg
from dagster import PipesTempFileContextInjector, PipesTempFileMessageReader, PreviewWarning, open_pipes_session

from negtraj_dagster.defs.console import speak_plainly
from negtraj_dagster.defs.dead_runs import end_dead_runs, note_process
from negtraj_dagster.devices import child_devices, hold_devices
from negtraj_dagster.errors import ChildRunError
from negtraj_dagster.launch import RunChild, run_child
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.settings import Settings, load_settings
from negtraj_dagster.store import Store, address_space_mb, memory_cause

PACKAGE_LOGGER = "negtraj_dagster"
COMFORTABLE_MB = 8192
"""Of address space, not of memory: torch alone maps more than two thousand."""
LOG = logging.getLogger(__name__)


class _RunLog(logging.Handler):
    """Passes what the stages log to the run, where people read it: waits, damaged objects, files passed over."""

    def __init__(self, log: dg.DagsterLogManager) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Say it again as an event of the run."""
        self._log.log(record.levelno, record.getMessage())


class Workspace(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Settings and store of this process, read when a step starts (so a changed negtraj.toml needs no restart)."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Workspace"]:
        """While a run lasts: its process is noted, killed runs are ended in the books, and the stages' log is the run's."""
        speak_plainly(context.log)
        if context.instance is not None and context.run is not None:
            note_process(context.instance, context.run.run_id)
            for run_id in end_dead_runs(context.instance):
                LOG.warning("run %s was killed: marked as failed", run_id)
        package, handler = logging.getLogger(PACKAGE_LOGGER), _RunLog(context.log) if context.log else logging.NullHandler()
        package.addHandler(handler)
        propagates, package.propagate = package.propagate, False  # the run's own console says it once
        _warn_of_narrow_shell()
        try:
            yield self
        finally:
            package.removeHandler(handler)
            package.propagate = propagates

    @cached_property
    def settings(self) -> Settings:
        """The deployment's settings."""
        return load_settings()

    @cached_property
    def store(self) -> Store:
        """The deployment's store."""
        return Store(self.settings.home, remote=self.settings.store_url)

    def lineage(self, run: RunChild | None = None) -> Lineage:
        """The deployment's stages; `run` runs trainers and evaluators, plain children by default."""
        return Lineage(self.store, self.settings, run or _run_plainly)


def _warn_of_narrow_shell() -> None:
    """Libraries in Rust and C end a process that is refused memory, without a word of which limit refused it."""
    allowed_mb = address_space_mb()
    if allowed_mb is not None and allowed_mb < COMFORTABLE_MB:
        LOG.warning("memory may run out%s", memory_cause())


def _run_plainly(module: str, config: Path, ranks: int, threads: int) -> None:
    run_child(module, config, ranks=ranks, threads=threads)


class TrainerClient(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Runs a child in its own process group under Dagster Pipes: its log lines arrive in the run as they are written.

    Terminating the run ends every rank. No retry policy stands on the assets that use it: Dagster would start a
    terminated training again.
    """

    def bound_to(self, context: dg.AssetExecutionContext) -> RunChild:
        """Runs children that report to this step."""
        return lambda module, config, ranks, threads: self.run(context, module, config, ranks, threads)

    def run(self, context: dg.AssetExecutionContext, module: str, config: Path, ranks: int, threads: int) -> None:
        """Run `python -m module config` on `ranks` ranks until it has published its result.

        Raises:
            dg.Failure: the child failed; carries its exit code and the end of its stderr.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PreviewWarning)  # about Dagster's own internals, on every call
            with open_pipes_session(context, PipesTempFileContextInjector(), PipesTempFileMessageReader()) as session:
                result_path = Path(json.loads(config.read_text())["out_dir"]) / "result.json"
                try:
                    with hold_devices(child_devices(ranks), module.rpartition(".")[2]):
                        run_child(
                            module,
                            config,
                            ranks=ranks,
                            threads=threads,
                            extra_env=session.get_bootstrap_env_vars(),
                            result_path=result_path,
                        )
                except ChildRunError as error:
                    raise dg.Failure(description=str(error), allow_retries=False) from error
