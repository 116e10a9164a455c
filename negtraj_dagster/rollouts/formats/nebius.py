"""Nebius' SWE-agent trajectories: `trajectory` of system, user and ai turns, `target` for the outcome, failures included."""

from typing import Any

from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import check, optional_reward, optional_text, refusal, require
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.schema import Rollout

ROLE_OF = {"system": "system", "user": "user", "ai": "assistant"}
KEYS = {"instance_id", "model_name", "target", "trajectory"}
TURN_KEYS = {"role", "text", "system_prompt", "mask"}


def read_record(task: str, record: dict[str, Any]) -> Reading:
    """One record: one rollout. An agent's turn whose `mask` is false carries no loss.

    Raises:
        RolloutFormatError: no trajectory, or a turn of another shape.
    """
    turns, unread = [], {}
    for index, value in enumerate(require(record, "trajectory", list)):
        at = f"trajectory[{index}]"
        turn = check(value, at, dict)
        role = require(turn, "role", str, at=at)
        if role not in ROLE_OF:
            raise refusal(f"{at}.role", role, f"one of {', '.join(ROLE_OF)}")
        content = turn.get("text") or turn.get("system_prompt") or ""
        loss = {"loss": False} if role == "ai" and turn.get("mask") is False else {}
        if rest := {key: field_value for key, field_value in turn.items() if key not in TURN_KEYS and field_value is not None}:
            unread[str(index)] = rest
        turns.append(read_message({"role": ROLE_OF[role], "content": content, **loss}, at))
    prompt, agent_turns = split_prompt(turns, "trajectory")
    return [
        Rollout(
            task=task,
            question_id="",
            source="nebius",
            turns=agent_turns,
            reward=optional_reward(record, "target"),
            teacher=optional_text(record, "model_name") or "",
            group=optional_text(record, "instance_id"),
            prompt=prompt,
            extra=extra_json({**{key: value for key, value in record.items() if key not in KEYS}, "trajectory": unread}),
        )
    ]
