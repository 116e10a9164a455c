"""`negtraj ui`: the Dagster web UI."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from negtraj_dagster import paths
from negtraj_dagster.commands.dagster_home import prepare_dagster_home
from negtraj_dagster.exit_codes import FAILED, SUCCESS
from negtraj_dagster.store import replace_text

DEFAULT_PORT = 3000
UI_GRACE_S = 5.0
WORKSPACE = """\
load_from:
  - python_module:
      module_name: negtraj_dagster.definitions
      location_name: negtraj_dagster
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Its arguments."""
    ui = commands.add_parser("ui", help="start the Dagster web UI on 127.0.0.1")
    ui.add_argument("--port", type=int, default=DEFAULT_PORT)
    ui.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run Dagster's services until one of them or the user ends them."""
    port: int = options.port
    folder = prepare_dagster_home()
    replace_text(folder / "workspace.yaml", WORKSPACE)
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
    return SUCCESS if is_stopping.is_set() or code == 0 else FAILED


def _end_group(group: int, number: signal.Signals) -> None:
    """Signal every service of the UI; those that stay after their parent has gone get a SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
