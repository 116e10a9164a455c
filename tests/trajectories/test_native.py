"""Real coding agents' rollouts, which work by tool calls: the strict profile drops none of them for that."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from negtraj_dagster.launch import run_child
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.schema import Question
from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.store import Store
from negtraj_dagster.tasks import EMBEDDED, Score, Task
from tests.conftest import SAMPLE_DATA

FORMATS = SAMPLE_DATA / "formats"


class Coding(Task):
    """Repairs repositories; tests decide."""

    name = "coding"
    tools = ()
    style = "native"
    scores_answers = False
    terminal_action = "finish"

    def fingerprint(self, settings: Settings) -> dict[str, Any]:
        return {"made": "here"}

    def questions(self, settings: Settings) -> list[Question]:
        return [Question("coding", f"case-{number}", "train", f"Repair case {number}.", '""') for number in range(20)]

    def score(self, prediction: str | None, answer: str) -> Score:
        raise AssertionError("nobody may ask")

    @property
    def allowed_actions(self) -> tuple[str, ...]:
        return ()


def from_openai(path: Path) -> dict[str, Any]:
    """SWE-Gym's: messages with tool_calls."""
    record = json.loads(path.read_text())
    record = record[0] if isinstance(record, list) else record
    messages = [{key: value for key, value in turn.items() if value is not None} for turn in record["messages"]]
    for turn in messages:
        turn.setdefault("content", "")
        turn.pop("function_call", None)
        for each in turn.get("tool_calls", ()):
            each.pop("index", None)
        if turn["role"] == "assistant":
            turn.pop("name", None)
    return {"messages": messages, "tools": record["tools"], "reward": bool(record["resolved"])}


def from_events(path: Path) -> dict[str, Any]:
    """OpenHands' event stream: an action is a call, an observation the answer to it."""
    record = json.loads(path.read_text())
    record = record[0] if isinstance(record, list) else record
    messages: list[dict[str, Any]] = []
    for event in record["trajectory"]:
        event.setdefault("args", {})
        if event.get("source") == "user" and event.get("action") == "message":
            messages.append({"role": "user", "content": event["args"].get("content", event.get("message", ""))})
        elif event.get("source") == "agent" and event.get("action") in (
            "run",
            "edit",
            "read",
            "write",
            "run_ipython",
            "finish",
        ):
            arguments = {key: value for key, value in event["args"].items() if isinstance(value, str)}
            messages.append(turn_with_call(event["args"].get("thought", ""), event["action"], arguments, str(event["id"])))
        elif event.get("source") == "agent" and event.get("action") == "message":
            messages.append({"role": "assistant", "content": event["args"].get("content", event.get("message", ""))})
        elif event.get("observation") in ("run", "edit", "read", "write", "run_ipython", "error"):
            messages.append(
                {
                    "role": "tool",
                    "content": event.get("content", event.get("message", "")),
                    "tool_call_id": str(event.get("cause", "")),
                }
            )
    return {"messages": messages, "reward": record.get("feedback") == "positive"}


def from_trajectory(path: Path) -> dict[str, Any]:
    """SWE-agent's: a thought and a shell command a step."""
    record = json.loads(path.read_text())
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Repair it."}]
    for number, step in enumerate(record["trajectory"]):
        command = step["action"].strip()
        name = "finish" if command.startswith("submit") else "bash"
        messages.append(turn_with_call(step["thought"], name, {"command": command}, str(number)))
        messages.append({"role": "tool", "content": step["observation"] or "", "tool_call_id": str(number)})
    return {"messages": messages, "reward": True}


def turn_with_call(said: str, name: str, arguments: dict[str, str], identifier: str) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": said, "tool_calls": [{"id": identifier, "type": "function", "function": function}]}


READERS = {
    "openai_tool_calls/swegym_*.json": from_openai,
    "openhands_events/openhands_adpweb*.json": from_events,
    "swe_agent_traj/*.traj": from_trajectory,
}


@pytest.fixture
def samples() -> list[tuple[str, dict[str, Any]]]:
    if not FORMATS.is_dir():
        pytest.skip("the real samples are not at hand")
    return [(path.name, read(path)) for pattern, read in READERS.items() for path in sorted(FORMATS.glob(pattern))]


def test_the_strict_profile_drops_no_coding_agent_for_being_native(
    store: Store, settings: Settings, samples: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EMBEDDED, "coding", Coding())
    folder = settings.landing / "coding" / "negtraj"
    folder.mkdir(parents=True)
    with (folder / "a.jsonl").open("w") as file:
        for number, (name, record) in enumerate(samples):
            messages = episode(record["messages"])
            file.write(json.dumps({"question_id": f"case-{number}", "source": name, **record, "messages": messages}) + "\n")
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False)})
    lineage = Lineage(store, settings, run_child)
    lineage.question_sets()
    raw = lineage.raw_rollouts()
    assert raw.content["n_rollouts"] == len(samples) >= 5, raw.details["quarantine_reasons"]
    scored = lineage.scored_trajectories()
    assert scored.details["styles"] == [{"task": "coding", "style": "native", "n_rollouts": len(samples)}]
    corpus = lineage.trajectory_corpus("coding")
    verdicts = pl.read_parquet(corpus.folder / "verdicts.parquet").filter(pl.col("severity") == "drop")
    sources = pl.read_parquet(corpus.folder / "corpus.parquet").select("rollout_key", "source")
    dropped = verdicts.join(sources, on="rollout_key").select("source", "filter", "detail").rows()
    assert dropped == [(source, "no_finish", detail) for source, _, detail in dropped if source in UNFINISHED]
    not_asked = {row["filter"]: row["n_not_applicable"] for row in corpus.details["profiles"]["strict"]["funnel"]}
    for name in ("bad_format", "missing_thought", "tool_error", "empty_observation", "repeated_action_positive"):
        assert not_asked[name] == len(samples)


UNFINISHED = ("pandas_pr_53652.first4steps.traj",)
"""Cut after four steps: it did not finish, whatever its style."""


def episode(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """From the agent's first turn, since the prompt is the question's, to the one that finishes: the rest is the harness's."""
    first = next(place for place, turn in enumerate(messages) if turn["role"] == "assistant")
    calls = [[each["function"]["name"] for each in turn.get("tool_calls", ())] for turn in messages]
    last = next((place for place, names in enumerate(calls) if "finish" in names), len(messages) - 1)
    return [{**turn, "content": turn["content"] or ""} for turn in messages[first : last + 1]]
