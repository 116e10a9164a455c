"""Progress lines of a child process: to the Dagster run through Pipes, to a terminal, or nowhere.

Imported by child processes; dagster_pipes is loaded only when a Dagster run started the child.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Protocol

TERMINAL_PERIOD_S = 1.0


class Say(Protocol):
    """Publishes one line; `always` passes it to the terminal even if the last one was a moment ago."""

    def __call__(self, line: str, *, always: bool = False) -> None:
        """Publish `line`."""


@contextlib.contextmanager
def open_progress() -> Iterator[Say]:
    """Yield a function that publishes a line; ranks other than 0 say nothing.

    Where it goes is the environment's choice: DAGSTER_PIPES_CONTEXT (set by Dagster) sends it to the run's log,
    NEGTRAJ_PROGRESS=1 to stderr, at most once a second.
    """
    with contextlib.ExitStack() as stack:
        is_speaker = os.environ.get("RANK", "0") == "0"
        pipes = None
        if is_speaker and os.environ.get("DAGSTER_PIPES_CONTEXT"):
            from dagster_pipes import open_dagster_pipes

            pipes = stack.enter_context(open_dagster_pipes())
        to_terminal = is_speaker and os.environ.get("NEGTRAJ_PROGRESS") == "1"
        last_s = float("-inf")

        def say(line: str, *, always: bool = False) -> None:
            nonlocal last_s
            if pipes is not None:
                pipes.log.info(line)
            if to_terminal and (always or time.monotonic() - last_s >= TERMINAL_PERIOD_S):
                last_s = time.monotonic()
                print(line, file=sys.stderr, flush=True)

        yield say


def clock_text(seconds: float) -> str:
    """`0:31`, `12:05`, `1:02:03`."""
    minutes, rest_s = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest_s:02d}" if hours else f"{minutes}:{rest_s:02d}"
