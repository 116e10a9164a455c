"""A task without code: what settings declare, and the tasks that ship so."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from negtraj_dagster.errors import QuestionSetError
from negtraj_dagster.schema import Question, Split, digest
from negtraj_dagster.settings import Settings, TaskSettings, did_you_mean, parse
from negtraj_dagster.store import file_sha256
from negtraj_dagster.tasks.base import Score, Task
from negtraj_dagster.tasks.question_files import read_rows
from negtraj_dagster.tasks.scorers import SCORERS

SHIPPED = Path(__file__).parent / "shipped"
SPLITS: tuple[Split, ...] = ("train", "practice", "gate", "test")
ID_CHARS = 16
DRAWS = 2**32
ID_COLUMNS = ("question_id", "id", "qid", "_id")


class DeclaredTask(Task):
    """What `[tasks.NAME]` says, as a task."""

    def __init__(self, name: str, declared: TaskSettings) -> None:
        self.name = name
        self.declared = declared
        self.version = f"{declared.score}-{SCORERS[declared.score].version}"
        self.tools = declared.tools
        self.instruction = declared.instruction
        self.terminal_action = declared.terminal_action
        self.max_turns = declared.max_turns
        self.style = declared.style
        self.min_chars = declared.min_chars
        self.scores_answers = declared.score != "recorded"
        self.has_recorded_questions = declared.kind == "recorded"
        self.min_score = declared.min_score

    def fingerprint(self, settings: Settings) -> dict[str, Any] | None:
        """Hashes of its files and the settings by which they are read; None where no file is named."""
        if self.declared.questions is None:
            return None
        reading = self.declared.model_dump(mode="json", include={"columns", "held_out", "prefix_ids", "answer_after", "score"})
        return {"reading": reading, "files": {name: file_sha256(_existing(path)) for name, path in self._files().items()}}

    def questions(self, settings: Settings) -> list[Question]:
        """Every row of every file; rows that say the same are one question."""
        questions: dict[Question, None] = {}
        for name, path in self._files().items():
            for place, row in read_rows(path):
                questions.setdefault(self._question(place, row, name))
        return list(questions)

    def score(self, prediction: str | None, answer: str) -> Score:
        """By the declared rule."""
        scorer = SCORERS[self.declared.score]
        return scorer.unanswered if prediction is None else scorer.score(prediction, answer)

    def is_valid_answer(self, prediction: str) -> bool:
        """Whether an answer is of the kind that the declared rule compares."""
        return SCORERS[self.declared.score].is_valid(prediction)

    def plain_answer(self, value: str) -> str:
        """Booleans are yes and no where those are asked for."""
        plain = super().plain_answer(value)
        return {"true": "yes", "false": "no"}.get(plain.strip().lower(), plain) if self.declared.score == "yes_no" else plain

    def recorded_split(self, group: str) -> Split:
        """By `held_out`."""
        return draw_split(group, self.declared.held_out)

    def read_recorded_answer(self, gold: str) -> str | None:
        """By the declared rule; None where it is nothing that the rule compares."""
        try:
            value = json.loads(gold)
        except (ValueError, RecursionError):
            value = gold
        try:
            return SCORERS[self.declared.score].read(value)
        except ValueError:
            return None

    def recorded_reading(self) -> object:
        """The shares and the rule."""
        return [dict(sorted(self.declared.held_out.items())), self.version]

    def missing_data_hint(self) -> str:
        """Which key names its files, or whose rollouts bring the questions."""
        if self.has_recorded_questions:
            return f"land rollouts of the task {self.name} that hold what the agent was asked"
        return f'set questions = {{train = "…", test = "…"}} under [tasks.{self.name}] in negtraj.toml'

    def _files(self) -> dict[str, Path]:
        """By split; by an empty name one file for all splits."""
        questions = self.declared.questions
        assert questions is not None
        return {"": questions} if isinstance(questions, Path) else {str(split): path for split, path in questions.items()}

    def _question(self, place: str, row: Mapping[str, Any], file_split: str) -> Question:
        columns = self.declared.columns
        names = (columns.question,) if isinstance(columns.question, str) else columns.question
        text = " ".join(_text_of(row, name, place).strip() for name in names)
        if not text:
            raise QuestionSetError(f"{place}: its question is empty; give it one, or remove it")
        identifier = self._identifier(row, place) or digest(text)[:ID_CHARS]
        split = self._split(row, place, identifier, file_split)
        if self.declared.prefix_ids:
            identifier = f"{split}/{identifier}"
        family = _text_of(row, columns.family, place) if columns.family else None
        facts = tuple(self._facts(row, place))
        return Question(self.name, identifier, split, text, self._answer(row, place), facts, family=family)

    def _identifier(self, row: Mapping[str, Any], place: str) -> str | None:
        name = self.declared.columns.id or next((name for name in ID_COLUMNS if name in row), None)
        return None if name is None else _text_of(row, name, place)

    def _split(self, row: Mapping[str, Any], place: str, identifier: str, file_split: str) -> Split:
        columns = self.declared.columns
        name = file_split or (_text_of(row, columns.split, place) if columns.split else "")
        for split in SPLITS:
            if name == split:
                return split
        if name:
            raise QuestionSetError(f"{place}: split {name!r}{did_you_mean(name, SPLITS)}")
        group = _text_of(row, columns.group, place) if columns.group else identifier
        return draw_split(group, self.declared.held_out)

    def _answer(self, row: Mapping[str, Any], place: str) -> str:
        name, scorer = self.declared.columns.answer, SCORERS[self.declared.score]
        value = row.get(name)
        if self.declared.answer_after is not None and isinstance(value, str):
            _, mark, value = value.rpartition(self.declared.answer_after)
            if not mark:
                raise QuestionSetError(f"{place}: {name} has no {self.declared.answer_after!r}, which stands before the answer")
            value = value.strip()
        try:
            return scorer.read(value)
        except ValueError as error:
            shown = repr(value)[:60]
            known = "" if name in row else did_you_mean(name, row)
            raise QuestionSetError(
                f"{place}: {name} = {shown}, expected {error} (score = {self.declared.score!r}){known}"
            ) from error

    def _facts(self, row: Mapping[str, Any], place: str) -> Iterator[str]:
        name = self.declared.columns.facts
        if name is None or row.get(name) is None:
            return
        facts = [row[name]] if isinstance(row[name], str) else row[name]
        if not isinstance(facts, list) or not all(isinstance(fact, str) for fact in facts):
            raise QuestionSetError(f"{place}: {name} = {str(facts)[:60]!r}, expected a text or a list of texts")
        yield from (fact for fact in facts if fact)


def draw_split(group: str, shares: Mapping[Literal["gate", "test"], float]) -> Split:
    """The split of a group, by a hash: whatever else there is, a group never changes its split.

    Args:
        group: what must stay together.
        shares: share by held-out split; the rest is `train`.
    """
    draw = int(digest("split", group)[:8], 16) / DRAWS
    bound = 0.0
    for split, share in sorted(shares.items()):
        bound += share
        if draw < bound:
            return split
    return "train"


def declared_tasks(settings: Settings) -> dict[str, DeclaredTask]:
    """The tasks that ship as settings and those of a deployment, by name; a deployment's keys stand before the shipped ones."""
    shipped = _shipped()
    names = sorted({*shipped, *settings.tasks})
    return {name: DeclaredTask(name, _merged(shipped.get(name), settings.tasks.get(name))) for name in names}


@cache
def _shipped() -> dict[str, TaskSettings]:
    files = sorted(SHIPPED.glob("*.toml"))
    return {file.stem: parse(TaskSettings, tomllib.loads(file.read_text(encoding="utf-8")), file) for file in files}


def _merged(shipped: TaskSettings | None, own: TaskSettings | None) -> TaskSettings:
    if own is None or shipped is None:
        return own or shipped or TaskSettings()
    return shipped.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


def _text_of(row: Mapping[str, Any], name: str, place: str) -> str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        known = "" if name in row else did_you_mean(name, map(str, row))
        raise QuestionSetError(f"{place}: {name} = {str(value)[:60]!r}, expected a text or a whole number{known}")
    return str(value)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise QuestionSetError(f"{path}: no such file; [tasks.NAME] questions must name a file that is there")
    return path
