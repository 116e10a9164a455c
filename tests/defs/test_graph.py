"""The definitions graph as text: who depends on whom, what is checked, what a job runs; `tests/golden/graph.txt` holds it."""

import difflib
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import dagster as dg
import pytest

from negtraj_dagster.definitions import build_definitions

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "graph.txt"
REFRESH = "UPDATE_GOLDEN=1 python -m pytest tests/defs/test_graph.py"


def graph_text(definitions: dg.Definitions) -> str:
    """Every asset, job and schedule in a fixed order; no code version, no path, nothing of this machine."""
    assets = definitions.resolve_asset_graph()
    checks = defaultdict(list)
    for check in assets.asset_check_keys:
        is_blocking = assets.get_check_spec(check).blocking
        checks[check.asset_key].append(f"{check.name} (blocking)" if is_blocking else check.name)
    blocks = []
    for key in sorted(assets.get_all_asset_keys()):
        node = assets.get(key)
        tags = [f"{name}={value}" for name, value in node.tags.items() if not name.startswith("dagster/kind/")]
        fields = {
            "group": [node.group_name],
            "kinds": node.kinds,
            "tags": tags,
            "deps": [parent.to_user_string() for parent in node.parent_keys],
            "checks": checks[key],
        }
        blocks.append(_block(f"asset {key.to_user_string()}", fields))
    for job in sorted(definitions.jobs or (), key=lambda job: job.name):
        keys = definitions.resolve_job_def(job.name).asset_layer.executable_asset_keys
        blocks.append(_block(f"job {job.name}", {"runs": [key.to_user_string() for key in keys]}))
    for schedule in sorted(definitions.schedules or (), key=lambda schedule: schedule.name):
        assert isinstance(schedule, dg.ScheduleDefinition)
        fields = {
            "job": [schedule.job_name],
            "cron": [str(schedule.cron_schedule)],
            "timezone": [schedule.execution_timezone or "UTC"],
            "status": [schedule.default_status.value],
        }
        blocks.append(_block(f"schedule {schedule.name}", fields))
    return "\n\n".join(blocks) + "\n"


def _block(title: str, fields: dict[str, Iterable[str]]) -> str:
    """A title and its fields, short ones on one line, long ones one word a line."""
    lines = [title]
    for name, values in fields.items():
        words = sorted(values)
        line = f"  {name}: {', '.join(words) or '-'}"
        lines += [line] if len(line) <= 100 else [f"  {name}:", *(f"    {word}" for word in words)]
    return "\n".join(lines)


def test_the_graph_is_the_reviewed_one() -> None:
    found = graph_text(build_definitions())
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(found, encoding="utf-8")
    golden = GOLDEN.read_text(encoding="utf-8") if GOLDEN.exists() else ""
    diff = difflib.unified_diff(golden.splitlines(), found.splitlines(), "tests/golden/graph.txt", "the code", lineterm="", n=2)
    if found != golden:
        pytest.fail("\n".join([*diff, "", f"The lineage has changed. If that is meant: {REFRESH}"]), pytrace=False)


def test_the_graphs_text_names_nothing_of_this_machine() -> None:
    text = graph_text(build_definitions())
    versions = [node.code_version for node in build_definitions().resolve_asset_graph().asset_nodes]
    assert not any(version in text for version in versions if version)
    assert str(Path(__file__).resolve().parents[2]) not in text
    assert os.environ["NEGTRAJ_HOME"] not in text
