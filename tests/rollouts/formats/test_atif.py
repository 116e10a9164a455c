"""ATIF: copied context, embedded sub-agents, summaries, token ids; and SWE-agent's files with the report beside them."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.rollouts.read import read_landed_files
from negtraj_dagster.schema import Rollout
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Store
from tests.rollouts.formats.test_sessions import trained

STEPS = [
    {"source": "user", "message": "Repair it."},
    {
        "source": "agent",
        "message": "I look.",
        "reasoning_content": "Hm.",
        "tool_calls": [{"tool_call_id": "c", "function_name": "run", "arguments": {"a": 1}}],
        "observation": {"results": [{"source_call_id": "c", "content": "x"}]},
        "metrics": {"completion_token_ids": [1, 2]},
    },
    {"source": "agent", "message": "Done."},
]


def trajectory(steps: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    numbered = [{"step_id": number, **step} for number, step in enumerate(steps, 1)]
    agent = {"name": "mine", "version": "1", "model_name": "m"}
    return {"schema_version": "ATIF-v1.7", "session_id": "s", "agent": agent, "steps": numbered, **more}


def read(record: dict[str, Any]) -> list[Rollout | RolloutFormatError]:
    return list(FORMATS["atif"].read("t", record))


def test_a_trajectory_keeps_thoughts_calls_results_and_token_ids() -> None:
    (rollout,) = read(trajectory(STEPS, reward=1))
    assert isinstance(rollout, Rollout)
    assert rollout.turns == (
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning": "Hm.",
            "tool_calls": [{"name": "run", "arguments": '{"a": 1}', "id": "c"}],
            "token_ids": [1, 2],
        },
        {"role": "tool", "content": "x", "tool_call_id": "c"},
        {"role": "assistant", "content": "Done."},
    )
    assert (rollout.tokenizer, rollout.reward, rollout.session, rollout.source) == ("m", True, "s", "mine")


def test_copied_context_is_never_trained_again() -> None:
    copied = [{**step, "is_copied_context": True} for step in STEPS[:2]]
    (rollout,) = read(trajectory([*copied, STEPS[2]]))
    assert isinstance(rollout, Rollout)
    assert trained(rollout) == ["Done."]
    assert rollout.turns[0]["loss"] is False


def test_an_embedded_sub_agent_is_a_rollout_with_its_parent() -> None:
    inner = trajectory([{"source": "user", "message": "Search."}, {"source": "agent", "message": "Found."}])
    outer, sub_agent = read(trajectory(STEPS, subagent_trajectories=[{**inner, "session_id": "sub"}]))
    assert isinstance(outer, Rollout)
    assert isinstance(sub_agent, Rollout)
    assert (sub_agent.parent, sub_agent.session, trained(sub_agent)) == ("s", "sub", ["Found."])


def test_what_follows_a_summary_is_refused_and_what_stands_before_it_is_read() -> None:
    summary = {"source": "system", "message": "…", "observation": {"results": [{"subagent_trajectory_ref": [{}]}]}}
    rollout, fault = read(trajectory([*STEPS, summary, STEPS[0], STEPS[2]]))
    assert isinstance(rollout, Rollout)
    assert trained(rollout) == ["I look.", "Done."]
    assert "steps[3]: the context was summarized here" in str(fault)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": "ATIF-v2.0"}, "expected ATIF-v1.0 to ATIF-v1.8"),
        ({"steps": [{"step_id": 2, "source": "user", "message": "x"}]}, "steps are numbered from 1"),
        ({"steps": [{"step_id": 1, "source": "agent", "message": [{"type": "image", "source": {}}]}]}, "unsupported"),
        ({"steps": [{"step_id": 1, "source": "user", "message": "x"}]}, "none of 1 is the agent's own"),
    ],
    ids=["version", "numbers", "image", "no agent"],
)
def test_what_is_no_trajectory_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RolloutFormatError, match=message):
        read({**trajectory(STEPS), **change})


def test_a_report_beside_a_swe_agent_file_says_its_outcome_and_a_new_one_is_read_again(
    store: Store, settings: Settings
) -> None:
    folder = settings.landing / "strategyqa" / "swe_agent"
    folder.mkdir(parents=True)
    history = [{"role": "user", "content": "Repair."}, {"role": "assistant", "content": "ls", "thought": "ls", "action": "ls"}]
    record = {"trajectory": [], "history": history, "info": {"exit_status": "submitted"}, "environment": "e"}
    (folder / "a.traj").write_text(json.dumps(record, indent=2))

    def rewards() -> list[bool | None]:
        raw = read_landed_files(store, settings)
        assert raw.details["n_quarantined"] == 0
        return pl.read_parquet(Path(raw.folder) / "rollouts.parquet", glob=False)["reward"].to_list()

    assert rewards() == [None]
    (folder / "a.report.json").write_text('{"resolved": false}')
    assert rewards() == [False]
    (folder / "a.report.json").write_text('{"resolved": true}')
    assert rewards() == [True]
