"""What a task and its recipes would say for files of rollouts: the rule of its answers, the shares held out, the templates."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Literal

from negtraj_dagster.modeling import SCRATCH_MODELS
from negtraj_dagster.printable import toml_text
from negtraj_dagster.recipes import ShardsSettings
from negtraj_dagster.schema import Split
from negtraj_dagster.settings import Settings, TaskSettings
from negtraj_dagster.tasks.declared import DeclaredTask, draw_split
from negtraj_dagster.views.format_reading import MIN_SCORE, Ending, FormatReading

TOY = "bytes"
BYTES_A_TOKEN = {True: 1.0, False: 3.0}
"""Of the toy, and of tokenizers with a vocabulary of words: rather too few than too many."""
MARKUP = 1.15
"""What a template writes around the texts."""
MOST = 0.97
TOLERANT_SHARE = 0.9
"""Of rows a turn, too, of which long rollouts have many."""
LEAST_TOKENS = 512
N_STEPS = 100
TOY_TOKENS = 1024
"""Longer rows of the toy are trained for fewer steps: it learns nothing, and a processor takes minutes for them."""
MIN_STEPS = 5
MIN_AGREEMENT = 0.9
"""Of either outcome: below it a rule drops, as contradicting their labels, more rollouts than parsers usually get wrong."""
MIN_READABLE = 0.5
"""Of the rollouts with a right answer: those whose own answer stands where the rule can read it."""
MIN_SUITE = 30
"""Questions; with fewer the interval of a difference is wider than half of the scale."""
STRATEGIES = {"vanilla": ("control", "successes only"), "nat": ("candidate", "successes and failures, told apart")}
RULES = (
    ("yes_no", re.compile(r"(?:yes|no|true|false)\Z", re.IGNORECASE)),
    ("number", re.compile(r"[-+$]?[\d,]+(?:\.\d+)?\Z")),
    ("choice", re.compile(r"\(?[A-Za-z]\)?\Z")),
)
"""Rules by what every right answer of the files looks like; other answers are compared letter by letter."""
Shares = Mapping[Literal["gate", "test"], float]
SHARES: tuple[Shares, ...] = (
    {"gate": 0.05, "test": 0.1},
    {"gate": 0.1, "test": 0.2},
    {"gate": 0.2, "test": 0.3},
    {"gate": 0.3, "test": 0.3},
)
"""Held out are the first of these by which every split has a prompt, and training one of each outcome."""
RECIPE = """description = "{task}: {what}."
task = "{task}"
line = "{task}"
role = "{role}"
base_model = {base_model}

[strategy]
name = "{strategy}"

[selection]
profile = "strict"

[shards]
max_tokens = {max_tokens}{shards}

[training]
steps = {steps}
batch_size = 8

[evaluation]
split = "test"
"""


@dataclass(frozen=True)
class ProposedTask:
    """What `negtraj init-task` writes.

    Attributes:
        reading: of all the files.
    """

    name: str
    reading: FormatReading
    base_model: str
    settings: Settings

    @property
    def is_recorded(self) -> bool:
        """Whether rollouts bring what was asked, so that the prompts are the questions; those that do not are refused then."""
        return self.reading.n_with_prompt > self.reading.n_read / 2

    @cached_property
    def style(self) -> str:
        """How its agents speak."""
        return "react" if self.reading.n_with_actions > self.reading.n_read / 2 else "native"

    @cached_property
    def terminal_action(self) -> str | None:
        """The action that most rollouts end with."""
        actions = self.reading.last_actions.most_common(1)
        return next((name for name, count in actions if count > self.reading.n_read / 2), None)

    @cached_property
    def rule(self) -> tuple[str, str]:
        """How its answers are compared, and why so."""
        rule, reason = self._rule_of_answers()
        if self.is_recorded and rule != "recorded" and self._shares is None:
            lacks = " and ".join(self._what_lacks(SHARES[0]))
            return "recorded", (
                f"too few prompts ({len(self.reading.outcomes_by_group)}, those of a group counted once) to hold some out, "
                f"so nothing is evaluated: {lacks}. Once more have landed, say here: score = {toml_text(rule)} and held_out = "
                f"{_inline(SHARES[0])}"
            )
        return rule, reason

    def _rule_of_answers(self) -> tuple[str, str]:
        golds = [_plain(gold) for gold in self.reading.golds]
        if not golds:
            return "recorded", "no record says what is right, so only its own outcome counts, and nothing is evaluated here"
        guess = next((rule for rule, pattern in RULES if all(pattern.match(gold.strip()) for gold in golds)), "exact")
        tallies = {rule: self._agreement(rule) for rule in dict.fromkeys((guess, "exact", "f1"))}
        for rule, tally in tallies.items():
            if tally.is_good(n_endings=len(self.reading.endings)):
                return (
                    rule,
                    f"how an answer is compared with the right one; it tells {tally.describe()} of the recorded outcomes",
                )
        if not any(ending.is_right is not None for ending in self.reading.endings):
            return guess, "how an answer is compared with the right one; no outcome is recorded to try it on"
        found = ", ".join(f"{rule} {tally.describe()}" for rule, tally in tallies.items())
        return "recorded", (
            f"no rule tells the recorded outcomes by the answers of {len(self.reading.endings):,} rollouts (of those that it "
            f"can read, {found}), so nothing is evaluated here"
        )

    @cached_property
    def held_out(self) -> Shares:
        """Share of the prompts by split."""
        if self.rule[0] == "recorded":
            return {"gate": 0.0, "test": 0.0}
        return self._shares or SHARES[0]

    @cached_property
    def _shares(self) -> Shares | None:
        return next((shares for shares in SHARES if not self._what_lacks(shares)), None)

    def warnings(self) -> Iterator[str]:
        """What keeps the recipes from telling anything."""
        rule, reason = self.rule
        n_test = self._n_by_split(self.held_out)["test"]
        positions = self._positions()
        if (n_longer := self._max_tokens(positions)[1]) > self.reading.n_read / 2:
            yield (
                f"{n_longer:,} of {self.reading.n_read:,} rollouts are longer than the {positions:,} positions of "
                f"{self.base_model}: their ends are cut away, and those whose prompt alone is longer make no row. --base-model "
                "names another."
            )
        if self.reading.n_scored_alone and self.reading.highest_score > 1:
            yield (
                f"Scores reach {self.reading.highest_score:g}, and min_score = {MIN_SCORE} takes those from {MIN_SCORE} on for "
                f"successes: say in tasks/{self.name}.toml from which score on a rollout is one."
            )
        if self.is_recorded and (n_refused := self.reading.n_asking_nothing):
            yield (
                f"{n_refused:,} of {self.reading.n_read:,} rollouts have no user turn before the agent's first one: a task of "
                "recorded prompts refuses them."
            )
        if rule == "recorded":
            yield f'score = "recorded": {reason}.'
        elif self.is_recorded and n_test < MIN_SUITE:
            yield (
                f"The recipes are compared on {n_test} test prompts: too few to tell which is better. It runs; land more "
                "prompts before you believe it."
            )
        outcomes = {*self.reading.rewards, *chain.from_iterable(self.reading.outcomes_by_group.values())}
        if outcomes - {None} == {True}:
            yield f"Every rollout succeeded: {self.name}_nat stops before training, until failures land for it to learn from."
        elif outcomes - {None} == {False}:
            yield "No rollout succeeded: both recipes stop before training, until successes land."

    def task(self) -> str:
        """The task's file."""
        reading, lines = self.reading, []
        if self.is_recorded:
            n = self._n_by_split(self.held_out)
            lines.append('kind = "recorded" # every prompt of the rollouts is a question')
            counts = f"of {len(reading.outcomes_by_group):,} prompts {n['gate']:,} and {n['test']:,}, drawn by a hash"
            said = "nothing is evaluated here" if self.rule[0] == "recorded" else f"never trained: {counts}"
            lines.append(f"held_out = {_inline(self.held_out)} # {said}")
        else:
            lines += [
                "# The rollouts bring no prompts: name the files that hold the questions, by the ids that the rollouts name.",
                '# questions = {train = "train.jsonl", test = "test.jsonl"}',
            ]
        rule, reason = self.rule
        lines.append(f'score = "{rule}" # {reason}')
        if reading.n_scored_alone:
            lines.append(f"min_score = {MIN_SCORE} # from this recorded score on, a rollout without a reward is a success")
        lines.append(f'style = "{self.style}"')
        if self.terminal_action is not None:
            lines.append(f"terminal_action = {toml_text(self.terminal_action)} # most rollouts end with it")
        return "".join(f"{line}\n" for line in lines)

    def recipes(self) -> Iterator[tuple[str, str]]:
        """Strategy and text of each recipe's file."""
        positions = self._positions()
        max_tokens, n_longer = self._max_tokens(positions)
        shards = "".join(f"\n{line}" for line in self._shards(n_longer, positions))
        for strategy, (role, what) in STRATEGIES.items():
            recipe = RECIPE.format(
                task=self.name,
                what=what,
                role=role,
                base_model=toml_text(self.base_model),
                strategy=strategy,
                shards=shards,
                max_tokens=max_tokens,
                steps=self._steps(max_tokens),
            )
            yield strategy, recipe

    def _agreement(self, rule: str) -> "Agreement":
        declared = TaskSettings.model_validate({"kind": "recorded", "score": rule})
        task = DeclaredTask(self.name, declared)
        agreement = Agreement()
        for ending in self.reading.endings:
            answer, right = self._answer(ending, task), task.read_recorded_answer(ending.gold)
            if ending.is_right is not None and answer is not None and right is not None:
                agreement.take(ending.is_right, told=task.score(answer, right).lenient)
        return agreement

    def _answer(self, ending: Ending, task: DeclaredTask) -> str | None:
        """As sql/model/outcomes.sql and the labels read it."""
        terminal = self.terminal_action or task.terminal_action
        name, argument, is_call = ending.action or ("", "", False)
        if name == terminal:
            answer = _answer_in(argument) if is_call else argument
            return task.plain_answer(answer.strip()) if is_call and answer is not None else answer and answer.strip()
        if not ending.has_calls and (self.style == "react" or ending.action is not None):
            return None  # as the run has it: such a rollout speaks ReAct, and did not end by its word
        if ending.pred is not None and ending.pred.strip():
            return task.plain_answer(ending.pred)
        return ending.last_words if ending.last_words and task.is_valid_answer(ending.last_words) else None

    def _n_by_split(self, shares: Shares) -> Counter[Split]:
        return Counter(draw_split(group, shares) for group in self.reading.outcomes_by_group)

    def _what_lacks(self, shares: Shares) -> list[str]:
        """Splits without a prompt, outcomes that no prompt left to train has."""
        splits = {group: draw_split(group, shares) for group in self.reading.outcomes_by_group}
        outcomes = self.reading.outcomes_by_group
        trained = {outcome for group, split in splits.items() if split == "train" for outcome in outcomes[group]}
        present = set().union(*outcomes.values())
        lacks = [f"none is held out for {split}" for split in shares if split not in splits.values()]
        names = {True: "success", False: "failure"}
        return lacks + [f"no {name} is left to train" for is_right, name in names.items() if is_right in present - trained]

    def _positions(self) -> int:
        """How many tokens a row of the base model has at most."""
        toy = SCRATCH_MODELS[TOY].max_positions
        sources = self.settings.base_models
        folder = sources[self.base_model].folder if self.base_model in sources else None
        try:
            config = {} if folder is None else json.loads((folder / "config.json").read_bytes())
            return int(config.get("max_position_embeddings", toy))
        except (OSError, ValueError, AttributeError):
            return toy  # what is wrong with the folder, reading it as a base model says

    def _max_tokens(self, positions: int) -> tuple[int, int]:
        """A power of two that the rows of most rollouts fit in, and how many are longer than the model's positions."""
        bytes_a_token = BYTES_A_TOKEN[self.base_model == TOY]
        estimates = sorted(int(size / bytes_a_token * MARKUP) for size in self.reading.n_bytes)
        typical = estimates[min(int(len(estimates) * MOST), len(estimates) - 1)]
        n_longer = sum(estimate > positions for estimate in estimates)
        return min(max(LEAST_TOKENS, 1 << (typical - 1).bit_length()), positions), n_longer

    def _steps(self, max_tokens: int) -> str:
        if self.base_model != TOY or max_tokens <= TOY_TOKENS:
            return str(N_STEPS)
        return f"{max(MIN_STEPS, N_STEPS * TOY_TOKENS // max_tokens)} # few, for rows as long as these take a processor minutes"

    def _shards(self, n_longer: int, positions: int) -> Iterator[str]:
        reading = self.reading
        if n_longer:
            yield (
                f'over_length = "cut_at_turn" # {n_longer:,} of {reading.n_read:,} rollouts are longer than the {positions:,} '
                f"positions of the model"
            )
        if n_longer > reading.n_read * ShardsSettings.model_fields["max_rejected_share"].default:
            yield (f"max_rejected_share = {TOLERANT_SHARE} # where no first turn fits; a model with more positions keeps them")
        if reading.n_with_calls > reading.n_with_tools:
            yield 'missing_tools = "allow" # calls are recorded, the schemas of the tools are not'
        if (reading.n_with_calls or reading.n_with_reasoning) and self.base_model == TOY:  # which has no template of its own
            yield 'chat_template = "qwen3" # writes calls and reasoning; leave both lines out for a model with a template'
            yield 'reasoning = "per_turn_rows" # it writes an empty thought before the last answer alone'


class Agreement:
    """How often a rule tells of an answer what the record says of its rollout."""

    def __init__(self) -> None:
        self.n_by_outcome: Counter[bool] = Counter()
        self.n_agreeing: Counter[bool] = Counter()

    def take(self, is_right: bool, *, told: bool) -> None:
        """One answer: its recorded outcome, and the rule's."""
        self.n_by_outcome[is_right] += 1
        self.n_agreeing[is_right] += told == is_right

    @property
    def n_judged(self) -> int:
        """Rollouts whose answer the rule could read."""
        return self.n_by_outcome.total()

    def is_good(self, *, n_endings: int) -> bool:
        """Whether it can read most answers, and agrees with most of the failures and of the successes, of which there are."""
        shares = [self.n_agreeing[outcome] / n for outcome, n in self.n_by_outcome.items()]
        is_told_right = self.n_agreeing[True] > 0  # a rule that calls everything wrong tells every failure
        return is_told_right and self.n_judged >= n_endings * MIN_READABLE and min(shares) >= MIN_AGREEMENT

    def describe(self) -> str:
        """How many outcomes it tells."""
        return f"{self.n_agreeing.total():,} of {self.n_judged:,}"


def _inline(shares: Shares) -> str:
    return "{" + ", ".join(f"{split} = {share}" for split, share in shares.items()) + "}"


def _plain(gold: str) -> str:
    try:
        return str(json.loads(gold))
    except (ValueError, RecursionError):
        return gold


def _answer_in(arguments: str) -> str | None:
    """The answer in the arguments of a terminal call, as `answer`, `result` or `message` names it."""
    try:
        values = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    named = [values.get(name) for name in ("answer", "result", "message")] if isinstance(values, dict) else []
    answer = next((value for value in named if value is not None), None)
    return answer if answer is None or isinstance(answer, str) else json.dumps(answer)
