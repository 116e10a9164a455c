"""What one format makes of files of rollouts: how many, what their records say, how they end, what is refused."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from negtraj_dagster.rollouts.formats import Reading
from negtraj_dagster.rollouts.recorded import asks_something, with_recorded_question
from negtraj_dagster.schema import Rollout, Turn

ACTION = re.compile(r"^Action(?: \d+)?: *(\w+)\[([^\n]*)", re.MULTILINE)
DIGITS = re.compile(r"\d+")
MAX_ENDINGS = 20_000
"""Rollouts by whose answers a rule is chosen: their texts are held in memory."""
MIN_SCORE = 0.5
"""From this recorded score on, a rollout without a reward is taken for a success until a task says otherwise."""


class Ending(NamedTuple):
    """How a rollout ended that says what is right.

    Attributes:
        is_right: its recorded outcome.
        action: name, argument (of a call its arguments, JSON text) and whether it is a call: the last agent turn's last one.
        has_calls: whether any turn calls a tool.
        last_words: the last agent turn's text, where it calls nothing.
    """

    gold: str
    is_right: bool | None
    pred: str | None
    action: tuple[str, str, bool] | None
    has_calls: bool
    last_words: str


@dataclass
class FormatReading:
    """What one format makes of a file, or of several.

    Attributes:
        n_documents: how many records, or files that are read as one, it has.
        n_read: how many rollouts are in them.
        n_with_actions: how many write what they do as ReAct does, `Action: name[argument]`.
        n_asking_nothing: how many a task of recorded prompts would refuse: no user turn stands before the agent's first one.
        n_bytes: the text of each rollout, in UTF-8.
        last_actions: by their name, of calls and of ReAct's: how many rollouts end with such a one.
        n_scored: how many have a numeric score.
        n_scored_alone: how many of them have no reward.
        outcomes_by_group: of the prompts that rollouts bring, by what must stay in one split.
        faults: the first record's place and fault of each kind, and how often the kind comes.
    """

    name: str
    n_documents: int = 0
    n_read: int = 0
    rewards: Counter[bool | None] = field(default_factory=Counter)
    n_scored: int = 0
    n_scored_alone: int = 0
    highest_score: float = 0.0
    n_with_prompt: int = 0
    n_with_calls: int = 0
    n_with_tools: int = 0
    n_with_reasoning: int = 0
    n_with_actions: int = 0
    n_asking_nothing: int = 0
    n_bytes: list[int] = field(default_factory=list)
    last_actions: Counter[str] = field(default_factory=Counter)
    golds: set[str] = field(default_factory=set)
    endings: list[Ending] = field(default_factory=list)
    question_ids: set[str] = field(default_factory=set)
    outcomes_by_group: dict[str, set[bool | None]] = field(default_factory=dict)
    faults: dict[str, tuple[str, str, int]] = field(default_factory=dict)

    @property
    def n_refused(self) -> int:
        """How many records, or parts of a file, are refused."""
        return sum(count for _, _, count in self.faults.values())

    def take(self, place: str, reading: Reading) -> None:
        """What came of one document."""
        self.n_documents += 1
        for rollout in reading:
            if isinstance(rollout, Rollout):
                self._take_rollout(rollout)
            else:
                self._refuse(place, str(rollout))

    def _take_rollout(self, rollout: Rollout) -> None:
        last_turn = _last_agent_turn(rollout)
        action = _last_action(last_turn)
        has_calls = any("tool_calls" in turn for turn in rollout.turns)
        outcome = _outcome(rollout)
        self.n_read += 1
        self.rewards[rollout.reward] += 1
        self.n_scored += rollout.score is not None
        self.highest_score = max(self.highest_score, rollout.score or 0.0)
        self.n_scored_alone += rollout.score is not None and rollout.reward is None
        self.n_with_prompt += bool(rollout.prompt)
        self.n_with_calls += has_calls
        self.n_with_tools += rollout.tools is not None
        self.n_with_reasoning += any("reasoning" in turn for turn in rollout.turns)
        self.n_with_actions += any(ACTION.search(turn["content"]) for turn in rollout.turns if turn["role"] == "assistant")
        self.n_bytes.append(len(f"{rollout.prompt_json or ''}{rollout.turns_json}{rollout.tools or ''}".encode()))
        self.last_actions.update(() if action is None else (action[0],))
        self.question_ids |= {rollout.question_id} - {""}
        if rollout.gold is not None:
            self.golds.add(rollout.gold)
            if len(self.endings) < MAX_ENDINGS:
                self.endings.append(Ending(rollout.gold, outcome, rollout.pred, action, has_calls, _last_words(last_turn)))
        if asks_something(rollout):
            asked = with_recorded_question(rollout)
            self.outcomes_by_group.setdefault(asked.group or asked.question_id, set()).add(outcome)
        else:
            self.n_asking_nothing += 1

    def _refuse(self, place: str, fault: str, count: int = 1) -> None:
        """Faults that differ by numbers alone are of one kind."""
        kind = DIGITS.sub("0", fault)
        first_place, first_fault, n_before = self.faults.get(kind, (place, fault, 0))
        self.faults[kind] = (first_place, first_fault, n_before + count)

    def add(self, other: "FormatReading") -> None:
        """What another file says, as if it went on from this one."""
        for name, value in vars(other).items():
            if isinstance(value, (int, list)):
                setattr(self, name, getattr(self, name) + value)
            elif isinstance(value, (set, Counter)):
                getattr(self, name).update(value)
        self.highest_score = max(self.highest_score, other.highest_score)
        for group, outcomes in other.outcomes_by_group.items():
            self.outcomes_by_group.setdefault(group, set()).update(outcomes)
        for place, fault, count in other.faults.values():
            self._refuse(place, fault, count)


def _outcome(rollout: Rollout) -> bool | None:
    if rollout.reward is None and rollout.score is not None:
        return rollout.score >= MIN_SCORE
    return rollout.reward


def _last_agent_turn(rollout: Rollout) -> Turn:
    return next(turn for turn in reversed(rollout.turns) if turn["role"] == "assistant")


def _last_action(turn: Turn) -> tuple[str, str, bool] | None:
    if calls := turn.get("tool_calls"):
        return calls[-1]["name"], calls[-1]["arguments"], True
    actions = ACTION.findall(turn["content"])
    return (actions[-1][0], actions[-1][1].rstrip().removesuffix("]"), False) if actions else None


def _last_words(turn: Turn) -> str:
    return "" if turn.get("tool_calls") else turn["content"].strip()
