"""Agent Trajectory Interchange Format (ATIF 1.0 to 1.8): steps of users, systems and agents, with what tools gave back.

Copied context is context here, too; a sub-agent that is embedded is a rollout of its own. A summary in the middle, after which
the model saw another prompt than the steps say, ends the rollout: what follows is refused, the continuation has its file.
"""

from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import (
    NOTHING,
    check,
    optional,
    optional_answer,
    optional_reward,
    optional_text,
    read_score,
    require,
)
from negtraj_dagster.rollouts.formats.messages import read_message
from negtraj_dagster.rollouts.formats.openai import read_content
from negtraj_dagster.rollouts.formats.segments import as_untrained, is_trained
from negtraj_dagster.rollouts.formats.tool_calls import read_tools
from negtraj_dagster.schema import Rollout, Turn

VERSIONS = tuple(f"ATIF-v1.{minor}" for minor in range(9))
ROLE_OF = {"user": "user", "system": "system", "agent": "assistant"}
STEP_KEYS = {
    "step_id",
    "source",
    "message",
    "reasoning_content",
    "tool_calls",
    "observation",
    "metrics",
    "is_copied_context",
    "model_name",
    "timestamp",
    "llm_call_count",
}
ROOT_KEYS = {"schema_version", "steps", "agent", "session_id", "trajectory_id", "subagent_trajectories"}
OUTCOME_KEYS = {"reward", "score", "pred", "gold", "group", "question_id", "source"}
"""Keys that a source's `columns` may fill; the format itself says no outcome."""


def read_record(task: str, record: dict[str, Any]) -> Reading:
    """One trajectory: a rollout, one for each embedded sub-agent, and an error for what cannot be trained.

    Raises:
        RolloutFormatError: no such version, steps that are not numbered from 1, images or sound, or no agent's step.
    """
    version = require(record, "schema_version", str)
    if version not in VERSIONS:
        raise RolloutFormatError(f"schema_version: found another one, expected {VERSIONS[0]} to {VERSIONS[-1]}")
    embedded = optional(record, "subagent_trajectories", list) or []
    rollouts: list[Rollout | RolloutFormatError] = [*_read(task, record, None)]
    session = optional_text(record, "session_id") or optional_text(record, "trajectory_id")
    for index, trajectory in enumerate(embedded):
        at = f"subagent_trajectories[{index}]"
        try:
            rollouts += _read(task, check(trajectory, at, dict), session)
        except RolloutFormatError as error:
            rollouts.append(RolloutFormatError(f"{at}: {error}"))
    return rollouts


def _read(task: str, record: dict[str, Any], parent: str | None) -> Reading:
    agent = optional(record, "agent", dict) or {}
    steps = require(record, "steps", list)
    turns: list[Turn] = []
    unread: dict[str, Any] = {}
    summarized_at = None
    for index, step in enumerate(steps):
        at = f"steps[{index}]"
        step = check(step, at, dict)
        if step.get("step_id") != index + 1:
            raise RolloutFormatError(f"{at}.step_id: expected {index + 1}, steps are numbered from 1; mend or restore the file")
        if _is_summary(step) and is_trained(turns):
            summarized_at = at
            break
        step_turns = _turns(step, at)
        turns += [as_untrained(turn) for turn in step_turns] if step.get("is_copied_context") else step_turns
        if rest := {key: value for key, value in step.items() if key not in STEP_KEYS and value not in NOTHING}:
            unread[str(index)] = rest
    if not is_trained(turns):
        raise RolloutFormatError(f"steps: none of {len(steps)} is the agent's own, expected at least one")
    prompt, agent_turns = split_prompt(turns, "steps")
    texts = {name: optional_text(record, name) for name in ("session_id", "trajectory_id", "question_id", "group", "source")}
    has_ids = any("token_ids" in turn for turn in agent_turns)
    rest = {key: value for key, value in record.items() if key not in ROOT_KEYS | OUTCOME_KEYS}
    rollout = Rollout(
        task=task,
        question_id=texts["question_id"] or "",
        source=texts["source"] or optional_text(agent, "name") or "",
        turns=agent_turns,
        reward=optional_reward(record, "reward"),
        pred=optional_answer(record, "pred"),
        gold=optional_answer(record, "gold"),
        teacher=_model(agent, steps) or "",
        session=texts["session_id"] or texts["trajectory_id"],
        tools=read_tools(agent.get("tool_definitions"), "agent.tool_definitions"),
        tokenizer=(_model(agent, steps) or "unknown") if has_ids else None,
        prompt=prompt,
        score=read_score(record.get("score"), "score"),
        parent=parent or _continued(agent, record),
        group=texts["group"],
        extra=extra_json(
            {**rest, "agent": {key: value for key, value in agent.items() if key != "tool_definitions"}, "steps": unread}
        ),
    )
    if summarized_at is None:
        return [rollout]
    fault = (
        "the context was summarized here, and what the model saw from here on is not recorded; land the continuation's own file"
    )
    return [rollout, RolloutFormatError(f"{summarized_at}: {fault}")]


def _turns(step: dict[str, Any], at: str) -> list[Turn]:
    source = require(step, "source", str, at=at)
    if source not in ROLE_OF:
        raise RolloutFormatError(f"{at}.source: found another one, expected user, system or agent")
    content = read_content(step.get("message"), f"{at}.message") or ""
    if source != "agent":
        return [read_message({"role": ROLE_OF[source], "content": content}, at)] if content else []
    calls = [_call(call, f"{at}.tool_calls[{n}]") for n, call in enumerate(optional(step, "tool_calls", list, at=at) or [])]
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if reasoning := optional(step, "reasoning_content", str, at=at):
        message["reasoning"] = reasoning
    if calls:
        message["tool_calls"] = calls
    metrics = optional(step, "metrics", dict, at=at) or {}
    if ids := metrics.get("completion_token_ids"):
        message["token_ids"] = ids
    if step.get("llm_call_count") == 0:  # what no model said
        message["loss"] = False
    return [read_message(message, at), *_results(step, calls, at)]


def _call(value: object, at: str) -> dict[str, Any]:
    call = check(value, at, dict)
    return {
        "id": optional_text(call, "tool_call_id", at=at) or "",
        "name": require(call, "function_name", str, at=at),
        "arguments": call.get("arguments") or {},
    }


def _results(step: dict[str, Any], calls: list[dict[str, Any]], at: str) -> list[Turn]:
    observation = optional(step, "observation", dict, at=at) or {}
    results = optional(observation, "results", list, at=f"{at}.observation") or []
    turns = []
    for index, result in enumerate(results):
        place = f"{at}.observation.results[{index}]"
        content = read_content(check(result, place, dict).get("content"), f"{place}.content") or ""
        called = optional_text(result, "source_call_id", at=place)
        if called is None and len(results) == len(calls):
            called = calls[index]["id"]
        if calls and called is not None:
            turns.append(read_message({"role": "tool", "content": content, "tool_call_id": called}, place))
        elif content:
            turns.append(read_message({"role": "tool" if calls else "user", "content": content}, place))
    return turns


def _is_summary(step: dict[str, Any]) -> bool:
    """Whether the agent's context was replaced here: a system's step that names the sub-agents that summarized it."""
    observation = step.get("observation")
    results = observation.get("results") if isinstance(observation, dict) else None
    return step.get("source") == "system" and any(
        isinstance(result, dict) and result.get("subagent_trajectory_ref") for result in results or []
    )


def _model(agent: dict[str, Any], steps: list[Any]) -> str | None:
    model_name = optional_text(agent, "model_name", at="agent")
    return model_name or next((step["model_name"] for step in steps if isinstance(step.get("model_name"), str)), None)


def _continued(agent: dict[str, Any], record: dict[str, Any]) -> str | None:
    """The session that a continuation's file went on from."""
    extra = agent.get("extra")
    if isinstance(extra, dict) and extra.get("continuation_index"):
        return f"{record.get('session_id')}, part {int(extra['continuation_index']) - 1}"
    return None
