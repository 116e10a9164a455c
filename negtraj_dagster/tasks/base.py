"""What every task provides, and the question files shared by tasks that read them."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from negtraj_dagster.errors import QuestionSetError
from negtraj_dagster.schema import Question, Split, canonical_json
from negtraj_dagster.settings import Settings

MAX_EXACT = 2**53
"""From here on a float is no certain whole number."""


@dataclass(frozen=True)
class Score:
    """Whether a prediction is right: `strict` by the paper's rule, `lenient` after forgiving normalisation.

    Attributes:
        f1: overlap of its words with those of the right answer, 0..1; None where the task's rule has none.
    """

    strict: bool
    lenient: bool
    f1: float | None = None


class Task(ABC):
    """A task's questions, tools and scoring rule.

    Attributes:
        version: rises when `score` or `is_valid_answer` judge otherwise.
        style: how its agents speak: ReAct text (Thought, Action: name[argument]), or native tool calls.
        min_chars: what an agent must at least say in an episode.
        scores_answers: whether `score` can judge by an answer's text; where tests decide, only the recorded reward counts.
        has_recorded_questions: whether its questions are the prompts that its rollouts bring; it has no question files then.
        min_score: the recorded score from which a rollout without a recorded reward is a success.
    """

    name: str
    version: int | str = 1
    tools: tuple[str, ...] = ()
    instruction: str = ""
    terminal_action: str = "finish"
    max_turns: int = 7
    style: Literal["react", "native"] = "react"
    min_chars: int = 40
    scores_answers: bool = True
    has_recorded_questions: bool = False
    min_score: float | None = None

    @abstractmethod
    def fingerprint(self, settings: Settings) -> dict[str, Any] | None:
        """What the questions depend on (file hashes or generator settings), cheap to ask; None = no data here."""

    @abstractmethod
    def questions(self, settings: Settings) -> list[Question]:
        """Every question of every split, in a fixed order. Only called when `fingerprint` is not None."""

    @abstractmethod
    def score(self, prediction: str | None, answer: str) -> Score:
        """Judge a prediction against `answer` (JSON text, as in `Question.answer`). None is wrong."""

    def is_valid_answer(self, prediction: str) -> bool:
        """Whether an answer is of the kind that is asked for (yes or no, a number), right or wrong."""
        return bool(prediction.strip())

    def plain_answer(self, value: str) -> str:
        """An answer that was the value of a tool call's argument, as an agent would write it.

        Args:
            value: a text as it is, any other JSON value as JSON text: `true`, `12.0`, `["a"]`.
        """
        return _plain(value)

    def recorded_split(self, group: str) -> Split:
        """The split of a group of recorded prompts; what is the same for a group always."""
        del group
        return "train"

    def read_recorded_answer(self, gold: str) -> str | None:
        """The right answer that a rollout was judged by, as `Question.answer`; None where it says none that can be compared."""
        return canonical_json(gold)

    def recorded_reading(self) -> object:
        """What decides the two above, as JSON."""
        return None

    def missing_data_hint(self) -> str:
        """What a user does to have this task's data."""
        return f"the task {self.name} has no data in this deployment"

    @property
    def allowed_actions(self) -> tuple[str, ...]:
        """Names an agent may call, the terminal action included; empty where only the rollouts know."""
        if not self.tools and (self.style == "native" or self.has_recorded_questions):
            return ()
        return (*self.tools, self.terminal_action)


def _plain(value: str) -> str:
    """What a JSON text says: a list or object of one value that value, a whole number its digits; other text as it is."""
    try:
        answer = json.loads(value)
    except (ValueError, RecursionError):
        return value
    while isinstance(answer, (list, dict)) and len(answer) == 1:
        answer = next(iter(answer.values() if isinstance(answer, dict) else answer))
    if isinstance(answer, str):
        return answer
    if isinstance(answer, float) and abs(answer) < MAX_EXACT:
        return str(int(answer)) if answer.is_integer() else str(answer)
    return json.dumps(answer) if isinstance(answer, (bool, int)) else value


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines question file.

    Raises:
        QuestionSetError: names file and line. A question file is small and curated: one bad line stops it.
    """
    rows = []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line_number = path.read_bytes().count(b"\n", 0, error.start) + 1
        raise QuestionSetError(f"{path}, line {line_number}: not UTF-8 (byte {error.start} of the file); convert it") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise QuestionSetError(f"{path}, line {number}: not JSON ({error}); mend or remove the line") from error
        if not isinstance(row, dict):
            raise QuestionSetError(f"{path}, line {number}: found {type(row).__name__}, expected an object")
        rows.append(row)
    return rows
