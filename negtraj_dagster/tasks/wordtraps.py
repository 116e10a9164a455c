"""The embedded task: two-step word problems, six families, each with one systematic trap. Generated, not shipped.

A problem carries its solution and its trap as small programs, so that the scripted teacher (`rollouts/collect.py`) can
solve it, fall into the trap, or slip. The setting follows an experiment whose figures are in docs/effect.md: few
successes, systematic misconceptions, whole numbers as tokens.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from negtraj_dagster.schema import Question, Split, digest
from negtraj_dagster.settings import Settings
from negtraj_dagster.tasks.base import Score, Task
from negtraj_dagster.tasks.numbers import begins_with_number, read_only_number

NAMES = ("Ada", "Ben", "Cleo", "Dev", "Ella", "Femi", "Gus", "Hana")
THINGS = ("plums", "stamps", "beads", "nuts", "maps", "tiles")
GENERATOR_VERSION = 1
SPLIT_SEEDS: dict[Split, int] = {"test": 11, "gate": 12, "train": 13, "practice": 14}
N_FIRST_GATE = 200
"""Gate questions that are drawn before the train questions; further ones are drawn after them, so that a larger gate changes
no train question, and a home's rollouts keep theirs."""


@dataclass(frozen=True)
class Result:
    """Stands for the outcome of an earlier step, counted from 0."""

    step: int


@dataclass(frozen=True)
class Step:
    """One calculator call: `left operator right`, and what the agent thinks it is after."""

    goal: str
    left: int | Result
    operator: str
    right: int | Result


@dataclass(frozen=True)
class Problem:
    """A question with its right solution and the solution of someone who fell into its trap."""

    family: str
    text: str
    steps: tuple[Step, ...]
    trapped_steps: tuple[Step, ...]
    answer: int

    @property
    def question_id(self) -> str:
        """Identity by text: the same problem drawn twice is one question."""
        return f"wt-{digest(self.text)[:16]}"


def solve(steps: tuple[Step, ...]) -> int:
    """The whole-number outcome of a right solution."""
    values: list[int] = []
    for step in steps:
        left, right = (values[x.step] if isinstance(x, Result) else x for x in (step.left, step.right))
        values.append({"+": left + right, "-": left - right, "*": left * right, "/": left // max(right, 1)}[step.operator])
    return values[-1]


def _problem(family: str, text: str, steps: tuple[Step, ...], trapped: tuple[Step, ...]) -> Problem:
    return Problem(family, text, steps, trapped, solve(steps))


def _more(rng: random.Random) -> Problem:
    """`12, which is 5 more than B` means B = 12 - 5; the word `more` tempts to add."""
    a, b = rng.sample(NAMES, 2)
    noun, extra = rng.choice(THINGS), rng.randint(2, 20)
    count = extra + rng.randint(2, 20)
    both = Step("both", count, "+", Result(0))
    return _problem(
        "more",
        f"{a} has {count} {noun}, which is {extra} more than {b} has. How many {noun} do they have together?",
        (Step("other", count, "-", extra), both),
        (Step("other", count, "+", extra), both),
    )


def _fewer(rng: random.Random) -> Problem:
    """`12, which is 5 fewer than B` means B = 12 + 5; the word `fewer` tempts to subtract."""
    a, b = rng.sample(NAMES, 2)
    noun, gap = rng.choice(THINGS), rng.randint(2, 20)
    count = gap + rng.randint(2, 20)
    both = Step("both", count, "+", Result(0))
    return _problem(
        "fewer",
        f"{a} has {count} {noun}, which is {gap} fewer than {b} has. How many {noun} do they have together?",
        (Step("other", count, "+", gap), both),
        (Step("other", count, "-", gap), both),
    )


def _change(rng: random.Random) -> Problem:
    """The price is for each; the trap takes it once."""
    a, noun, n, price = rng.choice(NAMES), rng.choice(THINGS), rng.randint(2, 6), rng.randint(2, 15)
    paid = n * price + rng.randint(1, 10)
    return _problem(
        "change",
        f"{a} buys {n} {noun} for {price} dollars each and pays with {paid} dollars. How much change does {a} get?",
        (Step("cost", n, "*", price), Step("change", paid, "-", Result(0))),
        (Step("change", paid, "-", price),),
    )


def _boxes(rng: random.Random) -> Problem:
    """An irrelevant number stands beside; the trap takes it away instead."""
    a, n, per_box = rng.choice(NAMES), rng.randint(2, 6), rng.randint(3, 15)
    noun, other = rng.sample(THINGS, 2)
    n_given, distractor = rng.randint(1, min(40, n * per_box - 1)), rng.randint(2, 40)
    inside = Step("boxes", n, "*", per_box)
    return _problem(
        "boxes",
        f"{a} has {n} boxes with {per_box} {noun} in each box and {distractor} {other}. "
        f"{a} gives away {n_given} {noun}. How many {noun} are left?",
        (inside, Step("left", Result(0), "-", n_given)),
        (inside, Step("left", Result(0), "-", distractor)),
    )


def _save(rng: random.Random) -> Problem:
    """Two steps are needed; the trap stops after the first."""
    a, days, daily = rng.choice(NAMES), rng.randint(2, 6), rng.randint(3, 15)
    spent = rng.randint(1, min(40, daily * days - 1))
    saved = Step("saved", daily, "*", days)
    return _problem(
        "save",
        f"{a} saves {daily} dollars a day for {days} days and then spends {spent} dollars. How many dollars are left?",
        (saved, Step("left", Result(0), "-", spent)),
        (saved,),
    )


def _bags(rng: random.Random) -> Problem:
    """Sharing into bags is a division; the trap multiplies."""
    a, b = rng.sample(NAMES, 2)
    noun, per_bag, n_bags = rng.choice(THINGS), rng.randint(2, 6), rng.randint(2, 12)
    first = rng.randint(1, per_bag * n_bags - 1)
    both = Step("both", first, "+", per_bag * n_bags - first)
    return _problem(
        "bags",
        f"{a} picks {first} {noun} and {b} picks {per_bag * n_bags - first} {noun}. "
        f"They put {per_bag} {noun} in each bag. How many bags do they fill?",
        (both, Step("bags", Result(0), "/", per_bag)),
        (both, Step("bags", Result(0), "*", per_bag)),
    )


FAMILIES: tuple[Callable[[random.Random], Problem], ...] = (_more, _fewer, _change, _boxes, _save, _bags)


def draw_problems(seed: int, n: int, *, exclude: frozenset[str] = frozenset()) -> list[Problem]:
    """`n` different problems, none of whose texts is excluded; the same for the same arguments."""
    rng, drawn_texts = random.Random(seed), set(exclude)
    problems: list[Problem] = []
    while len(problems) < n:
        problem = rng.choice(FAMILIES)(rng)
        if problem.text not in drawn_texts:
            drawn_texts.add(problem.text)
            problems.append(problem)
    return problems


def split_problems(settings: Settings) -> dict[Split, list[Problem]]:
    """The problems of every split; a text is in one split only."""
    sizes = settings.wordtraps
    n_first_gate = min(sizes.n_gate_questions, N_FIRST_GATE)
    draws: tuple[tuple[Split, int, int], ...] = (
        ("test", sizes.n_test_questions, 0),
        ("gate", n_first_gate, 0),
        ("train", sizes.n_train_questions, sizes.seed),
        ("gate", sizes.n_gate_questions - n_first_gate, 1),
        ("practice", sizes.n_practice_questions, 0),
    )
    splits: dict[Split, list[Problem]] = {"test": [], "gate": [], "train": [], "practice": []}
    earlier_texts: frozenset[str] = frozenset()
    for split, n, offset in draws:
        problems = draw_problems(SPLIT_SEEDS[split] * 1_000_003 + offset, n, exclude=earlier_texts)
        splits[split] += problems
        earlier_texts |= {problem.text for problem in problems}
    return splits


class Wordtraps(Task):
    """Two-step word problems with a calculator."""

    name = "wordtraps"
    version = 3
    tools = ("calculator", "think")
    max_turns = 5

    def fingerprint(self, settings: Settings) -> dict[str, Any] | None:
        """The generator's version and sizes; None when the embedded task is switched off."""
        if not settings.wordtraps.enabled:
            return None
        return {"generator_version": GENERATOR_VERSION, **settings.wordtraps.model_dump()}

    def questions(self, settings: Settings) -> list[Question]:
        """All splits, generated."""
        return [
            Question(self.name, problem.question_id, split, problem.text, json.dumps(problem.answer), family=problem.family)
            for split, problems in split_problems(settings).items()
            for problem in problems
        ]

    def score(self, prediction: str | None, answer: str) -> Score:
        """Strict: the answer's digits and nothing else. Lenient: it says one number, whatever is around it, and an equal one.

        "The answer is 8." is 8; "1 or 2" says two numbers, and so does "1,8".
        """
        text = prediction or ""
        return Score(strict=text == answer, lenient=read_only_number(text) == float(json.loads(answer)))

    def is_valid_answer(self, prediction: str) -> bool:
        """One number at its beginning, and no other: units, commas and marks forgiven, sentences not."""
        return begins_with_number(prediction) and read_only_number(prediction) is not None

    def missing_data_hint(self) -> str:
        """How to switch it on."""
        return "set enabled = true under [wordtraps] in negtraj.toml"


WORDTRAPS = Wordtraps()


FORMAT_STRINGS = (
    "user\n",
    "assistant\n",
    "Thought: ",
    ".\nAction: calculator[",
    ".\nAction: finish[",
    ".\nAction: think[",
    "Observation: ",
)
"""Pieces that stand in every rollout; the tokenizer keeps each as one ordinary vocabulary entry (not an added token)."""
N_TOKENIZER_PROBLEMS = 2000
TOKENIZER_SEED = 7


def tokenizer_texts() -> list[str]:
    """Texts to train the task's tokenizer on: generated at a fixed seed, never taken from rollouts."""
    texts = [f"user\n{number}" for number in range(0, 130)]
    for problem in draw_problems(TOKENIZER_SEED, N_TOKENIZER_PROBLEMS):
        texts += [f"user\n{problem.text} Solve the question {how}." for how in ("correctly", "incorrectly")]
        values: list[int] = []
        for step in problem.steps:
            left, right = (values[x.step] if isinstance(x, Result) else x for x in (step.left, step.right))
            values.append(solve((Step("", left, step.operator, right),)))
            call = f"{left}{step.operator}{right}"
            texts.append(f"assistant\nThought: {step.goal}.\nAction: calculator[{call}]")
            texts.append(f"assistant\nThought: {step.goal}. I know {call}={values[-1]}.\nAction: think[{values[-1]}]")
            texts.append(f"user\nObservation: {values[-1]}")
        texts += ["user\nObservation: OK", f"assistant\nThought: done.\nAction: finish[{values[-1]}]"]
    return texts
