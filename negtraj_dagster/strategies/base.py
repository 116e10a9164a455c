"""What a strategy is: two pure functions, one for training and one for inference, that share their wording."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from negtraj_dagster.schema import ConditionedTurn, Question, Turn, digest_json

Prompter = Callable[[Question, str | None], list[Turn]]
"""(question, class) -> the turns before the agent's first; class None = untagged."""


@dataclass(frozen=True)
class Strategy:
    """A way to learn from successes and failures.

    Attributes:
        classes: labels whose rollouts are trained.
        tags: class -> the sentence appended to the question; no entry = nothing appended.
        inference_class: the class the served model is asked for; None = untagged.
    """

    name: str
    version: int
    classes: tuple[str, ...]
    tags: Mapping[str, str]
    inference_class: str | None

    def identity(self) -> str:
        """Hash of all that decides a conditioned conversation: an edited sentence is another strategy."""
        body = [self.name, self.version, list(self.classes), dict(self.tags), self.inference_class]
        return digest_json(body)

    def prompter(self, instruction: str) -> Prompter:
        """The first prompt: the task's instruction, the question, the class's sentence.

        A prompt that rollouts brought stands as it was recorded, without the instruction; the class's sentence follows what
        its last user turn says.
        """

        def prompt(question: Question, class_name: str | None) -> list[Turn]:
            tag = self.tags.get(class_name or "", "")
            if question.prompt is not None:
                return _tagged(json.loads(question.prompt), tag)
            tagged_question = question.question + tag
            return [{"role": "user", "content": f"{instruction}\n\n{tagged_question}" if instruction else tagged_question}]

        return prompt

    def condition(
        self,
        prompt: Prompter,
        question: Question,
        turns: Sequence[Turn],
        class_name: str,
        *,
        keep_last_turns: bool = False,
    ) -> list[ConditionedTurn]:
        """The conversation to train on. Turns after the agent's last one are left out: nothing in them is a target.

        Args:
            prompt: `prompter(…)` or one that reads a prompt file.
            question: what was asked.
            turns: the recorded rollout, its first prompt not included.
            class_name: the rollout's label.
            keep_last_turns: leave none out, as the paper's code does.
        """
        tag = class_name if self.inference_class else None
        context: list[ConditionedTurn] = [conditioned(turn, 0.0) for turn in prompt(question, tag)]
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=-1)
        turns_to_keep = turns if keep_last_turns else turns[: last + 1]
        return context + [conditioned(turn, _weight(turn)) for turn in turns_to_keep]

    def inference_turns(self, prompt: Prompter, question: Question) -> list[Turn]:
        """What the trained agent is asked."""
        return prompt(question, self.inference_class)


def _tagged(prompt: list[Turn], tag: str) -> list[Turn]:
    last = max(index for index, turn in enumerate(prompt) if turn["role"] == "user")
    prompt[last] = {**prompt[last], "content": prompt[last]["content"] + tag}
    return prompt


def conditioned(turn: Turn, weight: float) -> ConditionedTurn:
    """A turn with its weight in place of `loss`; all else it says goes along."""
    turn_fields = {key: value for key, value in turn.items() if key != "loss"}
    return cast("ConditionedTurn", {**turn_fields, "weight": weight})


def _weight(turn: Turn) -> float:
    return float(turn.get("loss", turn["role"] == "assistant"))
