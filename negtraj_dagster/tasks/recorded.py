"""Questions that rollouts bring: the prompts before the agent's first turn, as a task's question set.

A prompt's text is kept by its id once it was read, so that a night's new rollouts cost no reading of the old ones.
"""

import json
from dataclasses import dataclass
from typing import Any

import polars as pl

from negtraj_dagster.conversations import read_conversations, read_index
from negtraj_dagster.schema import Question, Turn
from negtraj_dagster.store import Published, Store
from negtraj_dagster.tables import RowCache, frame_digest
from negtraj_dagster.tasks.base import Task

PROMPT_SCHEMA = pl.Schema(dict.fromkeys(("question_id", "question", "prompt"), pl.String))
PROMPTS_VERSION = 1
"""Rises when another text of a prompt is taken for its question."""
UNKNOWN_ANSWER = "null"
"""The answer of a question of which no rollout says what is right: it is trained, and no evaluation asks it."""


@dataclass(frozen=True)
class RecordedQuestions:
    """The questions of one task's rollouts.

    Attributes:
        table: question_id, base_key (of the first rollout that asks it), question_group, gold (the first that is recorded).
    """

    store: Store
    raw: Published
    task: Task
    table: pl.DataFrame

    @classmethod
    def find(cls, store: Store, raw: Published, task: Task) -> "RecordedQuestions":
        """Those of the present `raw_rollouts`."""
        rows = read_index(store, raw).filter(pl.col("task") == task.name)
        table = rows.group_by("question_id", maintain_order=True).agg(
            pl.col("base_key").first(), pl.col("question_group").first(), pl.col("gold").drop_nulls().first()
        )
        return cls(store, raw, task, table.sort("question_id"))

    def fingerprint(self) -> dict[str, Any] | None:
        """What the questions depend on; None where there are none."""
        if self.table.is_empty():
            return None
        question_rows = frame_digest(self.table.select("question_id", "question_group", "gold"))
        return {"asked": question_rows, "reading": [PROMPTS_VERSION, self.task.recorded_reading()]}

    def questions(self) -> list[Question]:
        """One of each prompt, with the split of its group and the answer that its rollouts were judged by."""
        rows = self.table.join(self._prompts(), on="question_id", how="left", maintain_order="left")
        columns = ("question_id", "question", "prompt", "question_group", "gold")
        return [
            Question(
                self.task.name,
                question_id,
                self.task.recorded_split(group or question_id),
                question,
                UNKNOWN_ANSWER if gold is None else self.task.read_recorded_answer(gold) or UNKNOWN_ANSWER,
                prompt=prompt,
            )
            for question_id, question, prompt, group, gold in rows.select(columns).rows()
        ]

    def _prompts(self) -> pl.DataFrame:
        cache = RowCache(self.store, f"prompts/{self.task.name}-{PROMPTS_VERSION}", "question_id", PROMPT_SCHEMA)
        missing = cache.missing(self.table.select("question_id", "base_key"))
        if missing.height:
            read = read_conversations(self.store, self.raw, missing["base_key"]).select("base_key", "prompt")
            texts = missing.join(read, on="base_key", how="left", maintain_order="left")
            question_rows = [
                (question_id, what_is_asked(json.loads(prompt)), prompt) for question_id, _, prompt in texts.rows()
            ]
            cache.add(missing["question_id"], pl.DataFrame(question_rows, schema=PROMPT_SCHEMA, orient="row"))
        return cache.rows(self.table).unique("question_id")


def what_is_asked(prompt: list[Turn]) -> str:
    """What a prompt's last user turn says: the part of it that differs from question to question."""
    return next(turn["content"] for turn in reversed(prompt) if turn["role"] == "user")
