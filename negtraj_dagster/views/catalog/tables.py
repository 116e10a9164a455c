"""The views of catalog.duckdb: their columns with types, and what each means, in words for a newcomer."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from negtraj_dagster.conversations import INDEX_SCHEMA
from negtraj_dagster.schema import QUESTION_COLUMNS
from negtraj_dagster.trajectories.judging.contract import TURN
from negtraj_dagster.trajectories.judging.judge import VERDICT_SCHEMA
from negtraj_dagster.trajectories.labels import LABEL_SCHEMA
from negtraj_dagster.trajectories.quality import QUALITY_SCHEMA
from negtraj_dagster.trajectories.signatures import PAIR_SCHEMA

DUCKDB_TYPES: Mapping[pl.DataType | type[pl.DataType], str] = {
    pl.String: "VARCHAR",
    pl.Boolean: "BOOLEAN",
    pl.Int32: "INTEGER",
    pl.Int64: "BIGINT",
    pl.UInt32: "UINTEGER",
    pl.Float32: "FLOAT",
    pl.Float64: "DOUBLE",
}
INTERNAL = frozenset({"row_unit", "fact_key"})
"""Columns that keys are made of and that say nothing to a reader."""
STORED_AS = {"decided_by": "by", "decided_why": "why"}
"""Columns of views that files call otherwise: `by` has to stand in quotes in a query."""


def _types(schema: pl.Schema) -> dict[str, str]:
    name_of_stored = {stored: name for name, stored in STORED_AS.items()}
    return {name_of_stored.get(name, name): DUCKDB_TYPES[type_] for name, type_ in schema.items() if name not in INTERNAL}


@dataclass(frozen=True)
class View:
    """A view: what a row is, its columns with their types, and words on columns that mean another thing here than elsewhere."""

    doc: str
    columns: Mapping[str, str]
    words: Mapping[str, str] = field(default_factory=dict)

    def comment(self, column: str) -> str:
        """What a column means."""
        return self.words.get(column) or WORDS[column]


VIEWS: Mapping[str, View] = {
    "assets": View(
        "The stored objects that this catalogue was built from, one row an asset.",
        {"asset": "VARCHAR", "key": "VARCHAR", "version": "VARCHAR"},
        {"key": "digest of what the object was made of", "version": "digest of what the object holds"},
    ),
    "questions": View("Every question of every task. Rollouts join by task and question_id.", QUESTION_COLUMNS),
    "rollouts": View(
        "Every rollout that was read, one narrow row each, before any judgement. conversations has its text, by base_key.",
        _types(INDEX_SCHEMA),
        {"score": "how good the outcome is, as a number of the recording system's own scale"},
    ),
    "conversations": View(
        "What was said, one row a conversation: join by base_key. Select single rows or columns, texts are long.",
        {
            "base_key": "VARCHAR",
            "conversation": f"{TURN}[]",
            **dict.fromkeys(("tools", "tokenizer", "prompt", "extra"), "VARCHAR"),
        },
    ),
    "quarantine": View(
        "Records that could not be read, with the place and the reason. They are no rollouts.",
        {"file": "VARCHAR", "place": "VARCHAR", "reason": "VARCHAR"},
        {"reason": "what was found and what was expected"},
    ),
    "labels": View(
        "The class of every rollout: who gave it, and what every scorer says, so that disagreements can be counted.",
        _types(LABEL_SCHEMA),
    ),
    "verdicts": View(
        "One row a hit of a filter, for every variant that a profile uses; no row means that the rollout passed, or that the "
        "filter is not about its class or style. Without a corpus: the row filters' alone.",
        {"task": "VARCHAR", **_types(VERDICT_SCHEMA)},
    ),
    "scores": View(
        "Scores from 0 to 1, one row a rollout and score that applies to it.",
        {"rollout_key": "VARCHAR", "score_name": "VARCHAR", "score": "DOUBLE"},
    ),
    "qualities": View(
        "Quality of every rollout under every profile: mean of its scores, times a penalty for every flag.",
        {"task": "VARCHAR", **_types(QUALITY_SCHEMA)},
    ),
    "corpus": View(
        "Every judged rollout of every task with its question's split and its label, one row each.",
        {
            "task": "VARCHAR",
            "rollout_key": "VARCHAR",
            "ingest_seq": "UINTEGER",
            **dict.fromkeys(("question_id", "split", "question_hash", "source", "teacher"), "VARCHAR"),
            **dict.fromkeys(("label", "style", "answer", "base_key"), "VARCHAR"),
        },
    ),
    "pairs": View(
        "Rollouts of a task that resemble each other in what the agent said, each pair from both sides.",
        {"task": "VARCHAR", **_types(PAIR_SCHEMA)},
    ),
    "selection": View(
        "What every recipe trains on, and why not for all other rollouts of its task.",
        {
            "recipe": "VARCHAR",
            "rollout_key": "VARCHAR",
            "question_id": "VARCHAR",
            "class": "VARCHAR",
            "quality": "DOUBLE",
            "weight": "FLOAT",
            "repeat": "INTEGER",
            "selected": "BOOLEAN",
            "why_not": "VARCHAR",
        },
    ),
}
WORDS: Mapping[str, str] = {
    "answer": "the agent's answer, read again from its last action, or its pred; of a question: what is right, as JSON text",
    "asset": "the asset's key in the lineage",
    "base_key": "identity of the conversation: joins rollouts, corpus and conversations",
    "class": "positive, negative or unknown, as in labels",
    "conversation": "the turns in order: role, content, reasoning, tool_calls, tool_call_id",
    "decided_by": "who decided, where the label is a person's (overrides.csv)",
    "decided_why": "the person's reason",
    "detail": "what the filter found there",
    "earlier_key": "the earlier rollout that this one repeats, for duplicates",
    "facts": "gold facts that support the answer",
    "file": "the landed file",
    "filter": "the filter's name; unknown_question, evaluation_question and override are nobody's SQL and always drop",
    "gold": "the right answer as the record has it",
    "ingest_seq": "order of arrival, from 0; duplicates are judged against earlier rows",
    "is_earlier": "true: other_key arrived before rollout_key. Filter on it to see every pair once",
    "truth": "JSON text of the right answer: the question set's, or else the record's",
    "is_valid_answer": "whether the answer is of the kind that the task asks for",
    "label": "positive, negative, or unknown where nobody knows the outcome",
    "licence": "of the record, where it says so",
    "parent": "the session or segment that it went on from",
    "question_group": "what no split tears apart: an instance, a repository",
    "prompt": "JSON text of the turns before the agent's first one, where the record brings them",
    "extra": "JSON text of the record's keys that have no place of their own",
    "occurrence": "0, or the number of an equal conversation within one file",
    "origin_file": "the landed file the rollout stands in first",
    "origin_place": "where in origin_file: line or record",
    "origin_url": "where the record is from, where it says so",
    "other_key": "rollout_key of the other one",
    "place": "where in the file: line or record",
    "pred": "the answer as the record has it",
    "profile": "name of the quality profile (sql/profiles)",
    "quality": "0 to 1; dropped rollouts have theirs, too",
    "question": "the question's text",
    "question_hash": "identity of question, answer and facts: changes with any of them",
    "question_id": "joins questions, together with task",
    "reason": "the filter's reason in words",
    "recipe": "name of the recipe that selects",
    "recorded": "what the recorded reward says: success or not",
    "repeat": "how often the row stands in an epoch",
    "reward": "the outcome as recorded; null where none was",
    "rollout_key": "identity of the rollout, without any outcome: joins everything",
    "score": "0 to 1, 1 is best",
    "score_name": "the file in sql/scores",
    "scorer": "whose word the label is: recorded, task_strict, task_lenient, override, or none",
    "scorer_version": "version of that scorer",
    "selected": "whether the recipe trains on it",
    "session": "of the record, where it says so",
    "severity": "drop: not trained on. flag: costs quality. overruled: a person set it aside. A profile may decide otherwise",
    "similarity": "Jaccard of 3-word shingles, from 0.3",
    "source": "a teacher's run or temperature, as the record or file says",
    "split": "train and practice may be trained on; gate and test are held out",
    "step": "the agent's turn, from 1; null where the whole rollout is meant",
    "style": "how the agent speaks: react or native",
    "subject": "whom the record is about, where it says so",
    "task": "name of the task",
    "task_lenient": "whether the task's lenient rule finds the answer right; null where it cannot tell",
    "task_strict": "whether the task's strict rule finds the answer right; null where it cannot tell",
    "teacher": "the model that made the rollout, where known",
    "tokenizer": "of recorded token ids, where there are any",
    "tools": "JSON text of the tool schemas that the agent was given",
    "version": "version of the filter: its SQL, parameters and the model it reads",
    "weight": "loss weight of the row",
    "why_not": "empty where selected, else the first reason against it",
}
"""What columns mean wherever a view does not say otherwise."""
