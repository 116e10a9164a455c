"""The scripted wordtraps teacher: plays every training question in the agent loop and lands its rollouts as a file.

It is wrong in two ways: systematically, by its families' traps, and at random, by slips. About 30 % of its episodes
succeed. Its file enters through the landing folder like anyone's.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from negtraj_dagster.agent.loop import Episode, run_episodes
from negtraj_dagster.agent.tools import TOOLS
from negtraj_dagster.schema import Question, Turn, canonical_json, digest, digest_json
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import replace_text
from negtraj_dagster.tasks.wordtraps import WORDTRAPS, Problem, Result, Step, split_problems

TEACHER_VERSION = 1
TRAP_SHARE = {"more": 0.75, "fewer": 0.60, "change": 0.60, "boxes": 0.60, "save": 0.65, "bags": 0.50}
SLIP_SHARE = 0.06
"""Mental arithmetic instead of the calculator, and wrong by one or two."""
MISREAD_SHARE = 0.04
EARLY_FINISH_SHARE = 0.03
LAST_OBSERVATION = re.compile(r"Observation: (.*)\Z", re.DOTALL)


@dataclass
class _Plan:
    """What the teacher has set its mind to for one question."""

    steps: tuple[Step, ...]
    rng: random.Random
    numbers: list[int]
    values: list[str]


class ScriptedTeacher:
    """A policy that follows a plan per question and reads the calculator's observations."""

    def __init__(self, problems: Sequence[Problem], seed: int) -> None:
        self._plans = {problem.text: _plan(problem, seed) for problem in problems}

    def act(self, conversations: Sequence[Sequence[Turn]]) -> list[str]:
        """The next turn of every conversation."""
        return [self._turn(self._plans[turns[0]["content"]], turns) for turns in conversations]

    def _turn(self, plan: _Plan, turns: Sequence[Turn]) -> str:
        if len(turns) > 1:
            self._note(plan, turns)
        n_done, rng = len(plan.values), plan.rng
        if n_done == len(plan.steps) or (n_done and rng.random() < EARLY_FINISH_SHARE):
            return f"Thought: done.\nAction: finish[{plan.values[-1]}]"
        step = plan.steps[n_done]
        left, right = (plan.values[x.step] if isinstance(x, Result) else str(x) for x in (step.left, step.right))
        if rng.random() < MISREAD_SHARE:
            right = str(rng.choice(plan.numbers))
        if rng.random() < SLIP_SHARE:
            value = _slip(left, step.operator, right, rng)
            return f"Thought: {step.goal}. I know {left}{step.operator}{right}={value}.\nAction: think[{value}]"
        return f"Thought: {step.goal}.\nAction: calculator[{left}{step.operator}{right}]"

    def _note(self, plan: _Plan, turns: Sequence[Turn]) -> None:
        call, observation = turns[-2]["content"], turns[-1]["content"]
        if "Action: think[" in call:
            plan.values.append(call.rsplit("[", 1)[1].rstrip("]"))
            return
        match = LAST_OBSERVATION.search(observation)
        plan.values.append(match[1] if match else "0")


def _plan(problem: Problem, seed: int) -> _Plan:
    rng = random.Random(int(digest(str(TEACHER_VERSION), str(seed), problem.question_id)[:16], 16))
    is_trapped = rng.random() < TRAP_SHARE[problem.family]
    numbers = [int(number) for number in re.findall(r"\d+", problem.text)]
    return _Plan(problem.trapped_steps if is_trapped else problem.steps, rng, numbers, [])


def _slip(left: str, operator: str, right: str, rng: random.Random) -> str:
    exact = TOOLS["calculator"](f"{left}{operator}{right}")
    offset = rng.choice((-2, -1, 1, 2))
    return "0" if exact.startswith("Error") else str(int(float(exact)) + offset)


def teacher_key(settings: Settings) -> str:
    """Identity of what the teacher would land."""
    fingerprint = WORDTRAPS.fingerprint(settings)
    return digest_json({"teacher_version": TEACHER_VERSION, "questions": fingerprint})


def land_teacher_rollouts(settings: Settings) -> Path | None:
    """Write the teacher's rollouts into the landing folder unless they are there; None when the task is off."""
    if not settings.wordtraps.enabled:
        return None
    key = teacher_key(settings)
    name = f"teacher-seed{settings.wordtraps.seed}-{key[:12]}.jsonl"
    paths = [landing / "wordtraps" / "negtraj" / name for landing in settings.landings]
    if landed := next((path for path in paths if path.exists()), None):
        return landed
    replace_text(paths[-1], "".join(f"{line}\n" for line in _teacher_lines(settings)))
    return paths[-1]


def _teacher_lines(settings: Settings) -> list[str]:
    task = WORDTRAPS
    problems = split_problems(settings)["train"]
    questions = [
        Question(task.name, problem.question_id, "train", problem.text, json.dumps(problem.answer)) for problem in problems
    ]
    episodes = run_episodes(
        ScriptedTeacher(problems, settings.wordtraps.seed),
        questions,
        first_turns=lambda question: [{"role": "user", "content": question.question}],
        tools={name: TOOLS[name] for name in task.tools},
        max_turns=task.max_turns,
    )
    return [_line(question, episode) for question, episode in zip(questions, episodes, strict=True)]


def _line(question: Question, episode: Episode) -> str:
    score = WORDTRAPS.score(episode.prediction, question.answer)
    return canonical_json(
        {
            "question_id": question.question_id,
            "source": "teacher",
            "teacher": f"scripted-{TEACHER_VERSION}",
            "reward": score.strict,
            "pred": episode.prediction,
            "gold": question.answer,
            "messages": episode.recorded,
        }
    )
