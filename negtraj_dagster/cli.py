"""The `negtraj` command: runs lines and recipes, foresees runs, and shows what was decided and made.

`run`, `demo` and `ui` run the lineage, `check` reads a file before it lands, `init-task` makes a task of it, `plan` foresees a
run, `list` names rollouts, `show` prints training rows, `why` prints all that was decided about a rollout, `try` what a filter
would hit, `diff` what flipped between two runs, `export` hands a checkpoint out, `ask` puts a question to it, `rollback` gives
a line's title back, `study` prints what a study tells, `catalog` and `query` open the data to SQL, `verify` and `gc` look
after it.
"""

import argparse
import contextlib
import os
import select
import signal
import sys

from negtraj_dagster import paths
from negtraj_dagster.commands import (
    ask,
    catalog,
    check,
    diff,
    export,
    init_task,
    list_rollouts,
    plan,
    rollback,
    run,
    show,
    study,
    trial,
    ui,
    upkeep,
    why,
)
from negtraj_dagster.errors import NegtrajError, UsageError
from negtraj_dagster.exit_codes import CLOSED_PIPE, FAILED, INTERRUPTED, USAGE
from negtraj_dagster.printable import visible
from negtraj_dagster.store import machine_fault

COMMANDS = (
    run,
    ui,
    check,
    init_task,
    plan,
    list_rollouts,
    show,
    why,
    trial,
    diff,
    export,
    ask,
    rollback,
    study,
    catalog,
    upkeep,
)
"""In the order of `negtraj --help`."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; a user's mistake ends with a message, never a traceback. exit_codes.py says how a command ends."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    return _end_output(_run_command(options))


def _run_command(options: argparse.Namespace) -> int:
    try:
        return int(options.run(options))
    except UsageError as error:
        return _refuse(f"{visible(str(error))}; see `negtraj {options.command} --help`", USAGE)
    except NegtrajError as error:
        return _refuse(visible(str(error)))
    except KeyboardInterrupt:
        return _refuse("interrupted; what was finished is kept", INTERRUPTED)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_reader_gone():  # else the pipe of a child of ours
            return CLOSED_PIPE
        fault = machine_fault(error, paths.home())
        if fault is None:
            raise
        return _refuse(visible(str(fault)))


def _refuse(message: str, code: int = FAILED) -> int:
    with contextlib.suppress(BrokenPipeError):  # `2>&1 | head`: the code says it all the same
        print(f"negtraj: {message}", file=sys.stderr)
    return code


def _end_output(code: int) -> int:
    """Write what is still buffered; without a reader the command's own code stands, a lost output is a failure."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the interpreter flushes it when it ends
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        code = _refuse(
            f"the output cannot be written ({error.strerror}); free space there, or write it elsewhere", code or FAILED
        )
    try:
        sys.stderr.flush()
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    return code


def _is_reader_gone() -> bool:
    """Whether nobody reads stdout, or stderr, any more."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="negtraj", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
