"""Rollouts of a few words, and what one SQL file says of them."""

import json
from typing import Any

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.conversations import INDEX_SCHEMA
from negtraj_dagster.tasks import EMBEDDED
from negtraj_dagster.tasks.question_sets import QUESTION_SCHEMA
from negtraj_dagster.trajectories.judging.judge import answer, verdict_rows
from negtraj_dagster.trajectories.judging.loading import load_conversations, load_row_tables, load_set_tables, make_model
from negtraj_dagster.trajectories.judging.rules import TaskRule
from negtraj_dagster.trajectories.labels import Labeller
from negtraj_dagster.trajectories.overrides import JUDGEMENT_SCHEMA
from negtraj_dagster.trajectories.signatures import find_pairs, find_quotes, sketch

REGISTRY = sql.load_registry()
RULE = TaskRule("strategyqa", "react", ("finish",), ("search", "finish"), min_chars=20, max_tokens=512)
SEARCH = "Thought: look.\nAction: search[x]"
FINISH = "Thought: done.\nAction: finish[Yes]"
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": json.dumps(arguments)}


def turn(said: Any) -> dict[str, Any]:
    """A text is an assistant turn, one that starts with `>` an observation, with `$` a tool's; a list holds calls."""
    if isinstance(said, list):
        return {"role": "assistant", "content": "", "tool_calls": said}
    if said.startswith(">"):
        return {"role": "user", "content": f"Observation: {said[1:]}"}
    return {"role": "tool", "content": said[1:]} if said.startswith("$") else {"role": "assistant", "content": said}


def rows(**conversations: list[Any]) -> list[dict[str, Any]]:
    """Rollouts by name, of the question q1. Suffix _neg: a failure."""
    made = []
    for sequence, (name, said) in enumerate(conversations.items()):
        row: dict[str, Any] = dict.fromkeys([*INDEX_SCHEMA, "tools"])
        row |= {"rollout_key": name, "task": "strategyqa", "question_id": "q1", "source": "", "teacher": "", "gold": "true"}
        row |= {"reward": not name.endswith("_neg"), "conversation": json.dumps([turn(each) for each in said]), "occurrence": 0}
        made.append({**row, "ingest_seq": sequence})
    return made


JUDGEMENTS = pl.DataFrame([("low", "m", 0.2, ""), ("high", "m", 0.5, "fine")], schema=JUDGEMENT_SCHEMA, orient="row")


QUESTIONS = [
    (
        "strategyqa",
        "q1",
        "train",
        "Is the sky above us blue today?",
        "true",
        ["Rayleigh scattering makes it blue.", "It is blue."],
        "h1",
    ),
    ("strategyqa", "q2", "test", "Is the sky above us BLUE, today", "true", [], "h2"),
    ("strategyqa", "q3", "gate", LONG, "true", [], "h3"),
]


def labelled(
    rollouts: list[dict[str, Any]], session: sql.Session, questions: list[tuple[Any, ...]], *scorers: str
) -> pl.DataFrame:
    """Rollouts with facts and labels, the session holding the model's tables."""
    frame = pl.DataFrame(rollouts, schema={**INDEX_SCHEMA, "conversation": pl.String, "tools": pl.String})
    load_conversations(session, frame, [RULE])
    make_model(session, [REGISTRY.model(name) for name in sql.MODEL_ORDER])
    outcomes = session.query("select rollout_key, style, answer, last_words from outcomes")
    asked = questions[0]
    known = frame.with_columns(
        question=pl.lit(asked[3]),
        facts=pl.lit(asked[5], pl.List(pl.String)),
        question_hash=pl.lit(asked[6]),
        truth="gold",
        rule=pl.lit("r"),
    )
    labeller = Labeller(scorers or ("recorded",), EMBEDDED, {}, JUDGEMENTS)
    return labeller.label(known.join(outcomes, on="rollout_key", maintain_order="left"))


def run(name: str, rollouts: list[dict[str, Any]], questions: list[tuple[Any, ...]] = QUESTIONS) -> pl.DataFrame:
    """A filter's verdicts on some rollouts."""
    filter_ = next(each for each in REGISTRY.filters if each.name == name)
    with sql.Session() as session:
        frame = labelled(rollouts, session, questions)
        if filter_.is_of_rows:
            load_row_tables(session, frame, JUDGEMENTS)
            return verdict_rows(filter_, answer(session, filter_, "verdicts"), frame)
        signatures = session.query("select rollout_key, text_hash, actions_hash from signatures")
        texts = session.query("select rollout_key, text from texts")
        sketches = sketch(texts["text"]).with_columns(texts["rollout_key"])
        places = sketches.select("rollout_key").with_row_index("at")
        pairs = find_pairs(frame.join(places, on="rollout_key", how="left", maintain_order="left"), sketches)
        asked = pl.DataFrame(questions, schema=QUESTION_SCHEMA, orient="row")
        held_out = asked.filter(pl.col("split") != "train")
        quotes = find_quotes(frame["rollout_key"], frame["conversation"], held_out["question_id"], held_out["question"])
        load_set_tables(session, frame, signatures=signatures, pairs=pairs, quotes=quotes, rule=RULE, questions=asked)
        return verdict_rows(filter_, answer(session, filter_, "verdicts"), frame)
