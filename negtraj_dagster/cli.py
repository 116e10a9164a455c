"""The `negtraj` command: `demo` runs the embedded line and prints its table, `ui` starts the Dagster web UI."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from negtraj_dagster import paths
from negtraj_dagster.errors import NegtrajError, SettingsError

DEFAULT_PORT = 3000
UI_GRACE_S = 5.0
PATH_VARIABLES = ("NEGTRAJ_SETTINGS", "NEGTRAJ_NAT_DIR")
WORKSPACE = """\
load_from:
  - python_module:
      module_name: negtraj_dagster.definitions
      location_name: negtraj_dagster
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; a user's mistake ends with a message and exit code 1, never a traceback."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "demo":
            return _demo(options.line)
        return _ui(options.port)
    except NegtrajError as error:
        print(f"negtraj: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="negtraj", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="bring a line up to date and print its comparison")
    demo.add_argument("--line", default="wordtraps", help="which line (default: wordtraps)")
    ui = commands.add_parser("ui", help="start the Dagster web UI on 127.0.0.1")
    ui.add_argument("--port", type=int, default=DEFAULT_PORT)
    return parser


def prepare_dagster_home() -> Path:
    """A persistent DAGSTER_HOME under NEGTRAJ_HOME (an exported one is respected), with our dagster.yaml in it.

    Relative paths in the environment become absolute, so that children may run in another folder.
    """
    os.environ["NEGTRAJ_HOME"] = str(paths.home())
    for name in PATH_VARIABLES:
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().resolve())
    if recipes := os.environ.get("NEGTRAJ_RECIPES"):
        os.environ["NEGTRAJ_RECIPES"] = os.pathsep.join(str(Path(part).resolve()) for part in recipes.split(os.pathsep))
    folder = Path(os.environ.setdefault("DAGSTER_HOME", str(paths.home() / "dagster")))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "dagster.yaml").exists():
            (folder / "dagster.yaml").write_text((Path(__file__).parent / "dagster.yaml").read_text())
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written ({error.strerror}); set NEGTRAJ_HOME to a folder of yours") from error
    return folder


def _demo(line: str) -> int:
    prepare_dagster_home()
    from negtraj_dagster.demo import run_line  # late: the Dagster import takes a second that --help should not pay

    return run_line(line)


def _ui(port: int) -> int:
    folder = prepare_dagster_home()
    (folder / "workspace.yaml").write_text(WORKSPACE)
    scripts = Path(sys.executable).parent
    command = [str(scripts / "dagster"), "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    print(f"Dagster UI: http://127.0.0.1:{port}  (NEGTRAJ_HOME={paths.home()})", flush=True)
    env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"}
    # in DAGSTER_HOME: away from a checkout's own dagster.yaml and pyproject.toml, which are not this instance's
    services = subprocess.Popen(command, cwd=folder, env=env, start_new_session=True)
    is_stopping = threading.Event()

    def stop(*_: object) -> None:
        _end_group(services.pid, signal.SIGINT)
        if not is_stopping.is_set():  # a web server with an open page would wait for its browser
            is_stopping.set()
            late = threading.Timer(UI_GRACE_S, _end_group, (services.pid, signal.SIGKILL))
            late.daemon = True
            late.start()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    code = services.wait()
    _end_group(services.pid, signal.SIGKILL)
    return 0 if is_stopping.is_set() or code == 0 else 1


def _end_group(group: int, number: signal.Signals) -> None:
    """Signal every service of the UI; those that stay after their parent has gone get a SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main())
