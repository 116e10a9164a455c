"""Rollouts that bring their question: for a task whose questions are the recorded prompts, what was asked is the identity."""

from dataclasses import replace

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.schema import Rollout, canonical_json, digest

ID_CHARS = 16


def with_recorded_question(rollout: Rollout) -> Rollout:
    """The rollout with its question's id: a hash of the prompt, the tools and the group.

    The group is the record's own, or the id that it gives its question (an instance): prompts of one group are never torn
    apart by a split, so the group is part of the id, and a later rollout cannot move an earlier one to another split.

    Raises:
        RolloutFormatError: it brings no prompt, or one that asks nothing.
    """
    if not asks_something(rollout):
        raise RolloutFormatError(
            "no user turn before the agent's first one, expected one: this task's questions are the recorded prompts; record "
            "what the agent was asked, or give the task question files"
        )
    group = rollout.group or rollout.question_id or None
    prompt = canonical_json([list(rollout.prompt), rollout.tools])
    return replace(rollout, question_id=digest("recorded question", group or "", prompt)[:ID_CHARS], group=group)


def asks_something(rollout: Rollout) -> bool:
    """Whether a user turn stands before the agent's first one."""
    return any(turn["role"] == "user" and turn["content"].strip() for turn in rollout.prompt)
