"""StrategyQA as NAT publishes it: yes/no questions in train.jsonl and test_random_500.jsonl (nothing is shipped here)."""

import json
import re
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import QuestionSetError
from negtraj_dagster.schema import Question, Split
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import file_sha256
from negtraj_dagster.tasks.base import Score, Task, read_json_lines
from negtraj_dagster.tasks.scorers import is_yes_or_no, score_yes_no

FILES: dict[Split, str] = {"train": "strategyqa/train.jsonl", "test": "strategyqa/test_random_500.jsonl"}
VERDICT = re.compile(r"\s*(?:yes|no)\b\W*", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<!\b[A-Z]\.)(?<!\b(?:Dr|Jr|Mr|Ms|No|Sr|St|vs)\.)(?<!\bMrs\.)(?<=[.!?])\s+(?=[A-Z0-9\"'(])")


class StrategyQa(Task):
    """Yes/no questions whose answer needs several facts; the agent may search."""

    name = "strategyqa"
    version = 3
    tools = ("search",)
    instruction = (
        "Answer the question with yes or no. Work in turns: write a Thought and then one Action, which is "
        "search[what to look up] or finish[yes or no]. After each search you are shown an Observation."
    )

    def fingerprint(self, settings: Settings) -> dict[str, Any] | None:
        """The two files' hashes, or None without NEGTRAJ_NAT_DIR."""
        if settings.nat_dir is None:
            return None
        return {split: file_sha256(_existing(settings.nat_dir / name)) for split, name in FILES.items()}

    def questions(self, settings: Settings) -> list[Question]:
        """Both splits; ids are the files' own."""
        assert settings.nat_dir is not None
        return [
            _question(settings.nat_dir / name, number, row, split)
            for split, name in FILES.items()
            for number, row in enumerate(read_json_lines(settings.nat_dir / name), 1)
        ]

    def score(self, prediction: str | None, answer: str) -> Score:
        """By `score_yes_no`."""
        return score_yes_no(prediction or "", answer)

    def is_valid_answer(self, prediction: str) -> bool:
        """By `is_yes_or_no`."""
        return is_yes_or_no(prediction)

    def plain_answer(self, value: str) -> str:
        """Booleans are the task's yes and no."""
        plain = super().plain_answer(value)
        return {"true": "yes", "false": "no"}.get(plain.strip().lower(), plain)

    def missing_data_hint(self) -> str:
        """How to get the data in."""
        return "set NEGTRAJ_NAT_DIR to a folder in NAT's layout (strategyqa/train.jsonl, strategyqa/*_positive.json, …)"


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise QuestionSetError(f"{path}: missing; NEGTRAJ_NAT_DIR must hold {', '.join(FILES.values())}")
    return path


def _question(path: Path, number: int, row: dict[str, Any], split: Split) -> Question:
    identifier, text, answer = (row.get(key) for key in ("id", "question", "answer"))
    if identifier is None:
        identifier = row.get("qid")
    if not isinstance(identifier, (str, int)) or not isinstance(text, str) or not isinstance(answer, bool):
        raise QuestionSetError(
            f"{path}, line {number}: expected id (text or number), question (text), answer (true or false); "
            f"found keys {sorted(row)}"
        )
    return Question("strategyqa", str(identifier), split, text.strip(), json.dumps(answer), _facts(row))


def _facts(row: dict[str, Any]) -> tuple[str, ...]:
    """The row's facts; NAT's test file has them as sentences of `explanation` instead, behind the verdict."""
    facts, explanation = row.get("facts"), row.get("explanation")
    if facts is None and isinstance(explanation, str):
        facts = SENTENCE_END.split(VERDICT.sub("", explanation, count=1).strip())
    return tuple(fact for fact in facts or () if isinstance(fact, str) and fact)


STRATEGYQA = StrategyQa()
