"""A run that kills itself at a chosen place: the parent forks it from a server that has imported everything once."""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negtraj_dagster.graph import keys_in_order
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.rollouts import read
from negtraj_dagster.settings import load_settings
from negtraj_dagster.shards import build, tokenize
from negtraj_dagster.store import Store
from negtraj_dagster.trajectories import score
from tests.support import deployment as dep

Kill = tuple[str, int]
"""`rename` or `chunk` (of conversations that are judged), and which one: the process ends before the one, after the other."""
NEVER: Kill = ("rename", 0)
TIMEOUT_S = 120


@dataclass(frozen=True)
class Outcome:
    """The objects a run acknowledged as (asset, key, version), and how many places it passed where it was not killed."""

    acknowledged: list[tuple[str, str, str]]
    n_places: dict[str, int] | None


def run_until_killed(kill: Kill, environment: Mapping[str, str], report: Path) -> Outcome:
    """Build all assets of a deployment in a process of its own, which ends by SIGKILL at a place."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    report.unlink(missing_ok=True)
    process = context.Process(target=_build_all, args=(kill, dict(environment), report))
    process.start()
    process.join(TIMEOUT_S)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    n_places = lines.pop() if process.exitcode == 0 else None
    return Outcome([tuple(line) for line in lines], n_places)


def _build_all(kill: Kill, environment: dict[str, str], report: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (open as long as the process is)
    read.BATCH_RECORDS = build.BATCH_ROWS = 20  # many publications: many places to be killed at
    tokenize.BATCH_ROWS, score.CHUNK_BYTES = 10, 15_000
    settings = load_settings()
    counts = _watch(kill, settings.home)
    lineage = Lineage(Store(settings.home), settings, dep.counting_child)
    with report.open("w") as handle:
        for asset in keys_in_order([recipe for recipe in lineage.recipes.values() if recipe.line == "tiny"]):
            published = lineage.build(asset)
            print(json.dumps([asset, published.key, published.version]), file=handle, flush=True)
        print(json.dumps(counts), file=handle)


def _watch(kill: Kill, home: Path) -> dict[str, int]:
    """Count renames below the home and judged chunks, and die at the chosen one."""
    counts = {"rename": 0, "chunk": 0}

    def count(place: str) -> None:
        counts[place] += 1
        if (place, counts[place]) == kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:  # raised before the rename is done
        if event == "os.rename" and str(arguments[0]).startswith(str(home)):
            count("rename")

    read_chunk = score._Stage._read_chunk

    def counted_chunk(self: Any, *arguments: Any) -> Any:
        answer = read_chunk(self, *arguments)
        count("chunk")
        return answer

    score._Stage._read_chunk = counted_chunk  # type: ignore[method-assign]
    sys.addaudithook(watch)
    return counts
