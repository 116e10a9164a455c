"""Results of verifiers' environments: records of `prompt` and `completion`, and since 0.4 traces and episodes of them.

    {"prompt": […], "completion": […], "reward": 1.0, "answer": "…"}
    {"id": "…", "task": {"data": {…}}, "nodes": [{"parent": 0, "message": {…}, "sampled": true}], "rewards": {…}}
    {"id": "…", "task": {…}, "traces": [{…}]}

A trace is a tree of messages; `sampled` says which of them the model wrote.
"""

from typing import Any

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts.formats.base import Reading, extra_json, split_prompt
from negtraj_dagster.rollouts.formats.fields import check, optional, optional_answer, optional_text, require
from negtraj_dagster.rollouts.formats.openai import json_list, read_messages
from negtraj_dagster.rollouts.formats.segments import branches, is_trained, read_tree, segment_parents
from negtraj_dagster.rollouts.formats.speakers import outcome_of
from negtraj_dagster.rollouts.formats.tool_calls import read_tools
from negtraj_dagster.schema import Rollout, Turn, json_as_recorded

KEYS = {"prompt", "completion", "reward", "answer", "example_id", "id", "tools", "model", "task"}
EXTRA_OF_TRACES = ("agent", "rewards", "metrics", "info", "stop_condition", "errors")
ATTEMPT, COMPACTION = "compaction_attempt", "compaction"
"""Links of nodes: a summary that the agent tried to make, and the one that it went on from."""


def read_record(task: str, record: dict[str, Any]) -> Reading:
    """One record: a rollout, or those of a trace or of an episode's traces.

    Raises:
        RolloutFormatError: no prompt or completion, nor nodes, nor traces, or messages of another shape.
    """
    if "nodes" in record:
        return _read_trace(task, record)
    if "traces" in record:
        traces = [check(trace, "traces", dict) for trace in require(record, "traces", list)]
        return [part for trace in traces for part in _trace_of_episode(task, {"task": record.get("task"), **trace})]
    return [_completion(task, record)]


def _completion(task: str, record: dict[str, Any]) -> Rollout:
    """A text in the place of messages is one message."""
    asked, completed = (require(record, key, object) for key in ("prompt", "completion"))
    prompt, in_prompt = read_messages(_messages(asked, "user", "prompt"), "prompt")
    answers, in_completion = read_messages(_messages(completed, "assistant", "completion"), "completion")
    before, agent_turns = split_prompt(answers, "completion")
    reward, score = outcome_of(record, "reward")
    identifier = optional_text(record, "example_id") or optional_text(record, "id") or ""
    rest = {key: value for key, value in record.items() if key not in KEYS}
    return Rollout(
        task=task,
        question_id=identifier,
        source=optional_text(record, "task") or "",
        turns=agent_turns,
        reward=reward,
        gold=optional_answer(record, "answer"),
        teacher=optional_text(record, "model") or "",
        tools=read_tools(record.get("tools"), "tools"),
        prompt=(*prompt, *before),
        score=score,
        group=identifier or None,
        extra=extra_json({**rest, "prompt": in_prompt, "completion": in_completion}),
    )


def _messages(value: object, role: str, place: str) -> list[Any]:
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [{"role": role, "content": value}]
    return json_list(value, place)


def _trace_of_episode(task: str, trace: dict[str, Any]) -> Reading:
    try:
        return _read_trace(task, trace)
    except RolloutFormatError as error:
        return [error]


def _read_trace(task: str, trace: dict[str, Any]) -> Reading:
    agent = optional(trace, "agent", dict) or {}
    if agent.get("trainable") is False:
        raise RolloutFormatError("agent.trainable: found false, expected an agent that is trained; leave the trace out")
    nodes = {str(index): check(node, f"nodes[{index}]", dict) for index, node in enumerate(require(trace, "nodes", list))}
    unresumed = _unresumed_attempts(nodes)
    messages, errors = read_tree(
        {name: _parent(node, name) for name, node in nodes.items()},
        lambda name: _turns(nodes[name], f"nodes[{name}].message", is_trained=name not in unresumed),
    )
    segments = branches(messages)
    summaries = {
        segment.calls[0]: link for segment in segments for name in segment.calls for link in _links(nodes[name], COMPACTION)
    }
    parents = segment_parents(segments, summaries)
    task_of = optional(trace, "task", dict) or {}
    facts = optional(task_of, "data", dict, at="task") or {}
    identifier = next((text for key in ("id", "idx") if (text := optional_text(facts, key, at="task.data"))), None)
    identifier = identifier or optional_text(task_of, "key", at="task") or ""
    reward, score = outcome_of({"reward": _reward(trace)}, "reward")
    session = optional_text(trace, "id") or ""
    rollouts: list[Rollout | RolloutFormatError] = list(errors)
    for segment in segments:
        if not is_trained(segment.turns):
            continue
        parent = parents[segment.name]
        prompt, agent_turns = split_prompt(segment.turns, f"nodes up to {segment.name}")
        rollouts.append(
            Rollout(
                task=task,
                question_id=identifier,
                source=optional_text(task_of, "type", at="task") or "",
                turns=agent_turns,
                reward=reward,
                gold=optional_answer(facts, "answer"),
                teacher=_model(trace, agent),
                session=session,
                tools=_tools(nodes[segment.calls[0]], trace),
                prompt=prompt,
                score=score,
                parent=f"{session}/{parent}" if parent else None,
                group=identifier or None,
                extra=extra_json({"segment": segment.name, **{key: trace.get(key) for key in EXTRA_OF_TRACES}}),
            )
        )
    return rollouts


def _parent(node: dict[str, Any], name: str) -> str | None:
    parent = optional(node, "parent", int, at=f"nodes[{name}]")
    return None if parent is None else str(parent)


def _links(node: dict[str, Any], kind: str) -> list[str]:
    """Nodes that a node is linked to by a kind of link."""
    links = [check(link, "semantic_parents", dict) for link in node.get("semantic_parents") or []]
    return [str(link.get("node")) for link in links if link.get("type") == kind]


def _unresumed_attempts(nodes: dict[str, dict[str, Any]]) -> set[str]:
    """Summaries that the agent did not go on from."""
    resumed = {name for node in nodes.values() for name in _links(node, COMPACTION)}
    return {name for name, node in nodes.items() if _links(node, ATTEMPT)} - resumed


def _turns(node: dict[str, Any], at: str, *, is_trained: bool) -> list[Turn]:
    message = dict(require(node, "message", dict, at=at))
    message.pop("provider_state", None)  # encrypted
    if calls := message.get("tool_calls"):
        message["tool_calls"] = [_call(check(call, f"{at}.tool_calls", dict)) for call in calls]
    if message.get("role") == "assistant" and not (is_trained and node.get("sampled")):
        message["loss"] = False
    return read_messages([message], at)[0]


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """A call in our spelling; a custom tool's input is a text, which no template writes as it stands."""
    arguments = call.get("arguments")
    if call.get("type") == "custom":
        arguments = json_as_recorded({"input": arguments})
    return {"id": call.get("id") or "", "name": call.get("name"), "arguments": arguments}


def _reward(trace: dict[str, Any]) -> float | None:
    """The weighted sum of the scores; None where there are none."""
    recorded = (optional(trace, "rewards", dict) or {}).values()
    rewards = [check(value, "rewards", dict) for value in recorded if value is not None]
    numbers = [float(reward.get("score") or 0.0) * float(reward.get("weight", 1.0)) for reward in rewards]
    return sum(numbers) if numbers else None


def _model(trace: dict[str, Any], agent: dict[str, Any]) -> str:
    calls = [check(call, "calls", dict) for call in optional(trace, "calls", list) or []]
    config = optional(agent, "config", dict, at="agent") or {}
    return next((str(name) for name in (*(call.get("model") for call in calls), config.get("model")) if name), "")


def _tools(root: dict[str, Any], trace: dict[str, Any]) -> str | None:
    tools = [check(tool, "tools", dict) for tool in root.get("tools") or trace.get("tools") or []]
    functions = [{key: tool[key] for key in ("name", "description", "parameters") if key in tool} for tool in tools]
    return read_tools([{"type": "function", "function": function} for function in functions], "tools")
