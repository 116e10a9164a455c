"""The web UI as `make ui` starts it: it answers, shows the lineage, and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

QUERY = "{ assetNodes { assetKey { path } description groupName } }"
START_S, STOP_S = 90, 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int) -> dict[str, object]:
    body = json.dumps({"query": QUERY}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return dict(json.load(answer))


def members(session: int) -> list[int]:
    """Processes of a session, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_the_ui_shows_the_lineage_and_leaves_no_process_behind(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "negtraj_dagster.cli", "ui", "--port", str(port)]
    with (tmp_path / "ui.log").open("w") as log:
        ui = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "DAGSTER_HOME": str(tmp_path / "dagster")})
    session = 0
    try:
        answer = None
        deadline = time.monotonic() + START_S
        while answer is None and time.monotonic() < deadline and ui.poll() is None:
            time.sleep(0.5)
            try:
                answer = ask(port)
            except OSError:
                continue
        assert answer is not None, (tmp_path / "ui.log").read_text()
        nodes = {"/".join(node["assetKey"]["path"]): node for node in answer["data"]["assetNodes"]}  # type: ignore[index]
        assert nodes["wordtraps_nat/checkpoint"]["groupName"] == "wordtraps_nat"
        assert all(node["description"] for node in nodes.values())
        children = Path(f"/proc/{ui.pid}/task/{ui.pid}/children").read_text().split()
        session = int(children[0])
        assert len(members(session)) > 2
        ui.send_signal(signal.SIGTERM)
        assert ui.wait(STOP_S) == 0
        deadline = time.monotonic() + 5
        while members(session) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert members(session) == []
    finally:
        ui.kill()
        if session and members(session):
            os.killpg(session, signal.SIGKILL)
