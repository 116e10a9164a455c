"""A corpus of seven short rollouts, brought through the stages in a home of its own."""

import atexit
import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster.launch import run_child
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.schema import Question
from negtraj_dagster.settings import Settings, SqlSettings, WordtrapsSettings
from negtraj_dagster.store import Built, Store
from negtraj_dagster.tasks.question_sets import QUESTION_SCHEMA

QUESTIONS = (
    Question("strategyqa", "q1", "train", "Can a swan outweigh a sparrow?", "true", ("Swans weigh ten kilograms.",)),
    Question("strategyqa", "q2", "train", "Would a stone float in a well?", "false"),
    Question("strategyqa", "q3", "test", "Is a ladder taller than a thimble?", "true"),
)
SEARCH = "Thought: I look up what birds weigh before I say anything about it.\nAction: search[swan weight]"
FINISH = "Thought: swans are heavier by far than sparrows.\nAction: finish[Yes]"
HOSTILE = "Thought: \x1b[2J\u202egone\nAction: search[a]\nAction: search[b]"
TALK: dict[str, tuple[str, bool | None, list[str]]] = {
    "good": ("q1", True, [SEARCH, ">a swan weighs ten kilograms", FINISH]),
    "twin": ("q1", True, [SEARCH, ">a swan weighs ten kilograms", FINISH]),
    "hostile": ("q1", False, [HOSTILE, ">\x1b]0;owned\x07 nothing", "Thought: so not.\nAction: finish[No]"]),
    "unfinished": (
        "q2",
        False,
        [SEARCH, ">wells hold water", "Thought: stones are heavy, I look again.\nAction: search[stone]"],
    ),
    "kept": ("q2", False, ["Thought: a stone is lighter than the water of a well.\nAction: search[stone density]"]),
    "relabelled": ("q2", False, ["Thought: stones sink because they are dense.\nAction: finish[No]"]),
    "unlabelled": ("q2", None, ["Thought: nobody ever told me how heavy stones are.\nAction: finish[Maybe]"]),
}
"""Name, which is the source -> question, reward, what the agent says; what starts with `>` is an observation."""


def small_settings(home: Path, *, deadline_s: float = 60.0, **more: Any) -> Settings:
    return Settings(home=home, wordtraps=WordtrapsSettings(enabled=False), sql=SqlSettings(deadline_s=deadline_s), **more)


def land_talk(settings: Settings, name: str = "a.jsonl", *sources: str) -> None:
    """Land these rollouts (all, by default) in a file, and a line that cannot be read."""
    folder = settings.landing / "strategyqa" / "negtraj"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for source in sources or TALK:
        question, reward, said = TALK[source]
        messages = [
            {"role": "user", "content": f"Observation: {text[1:]}"}
            if text[0] == ">"
            else {"role": "assistant", "content": text}
            for text in said
        ]
        row = {"question_id": question, "messages": messages, "source": source, "pred": "x"}
        rows.append(row if reward is None else {**row, "reward": reward})
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"question_id": 7}]))


def small_lineage(store: Store, settings: Settings) -> Lineage:
    lineage = Lineage(store, settings, run_child)
    rows = [(q.task, q.question_id, q.split, q.question, q.answer, list(q.facts), q.question_hash) for q in QUESTIONS]
    table = pl.DataFrame(rows, schema=QUESTION_SCHEMA, orient="row")

    def write(folder: Path) -> Built:
        table.write_parquet(folder / "questions.parquet")
        return Built(content={"tasks": {"strategyqa": {"rows": "r", "asked": "a"}}})

    store.build("question_sets", {"made": "here"}, write)
    return lineage


def keys_by_source(lineage: Lineage) -> dict[str, str]:
    """Rollout keys by the rollouts' names."""
    raw = lineage.raw_rollouts()
    rows = pl.read_parquet(raw.folder / "rollouts.parquet", glob=False).select("source", "rollout_key")
    return dict(rows.rows())


def decide(settings: Settings, keys: dict[str, str]) -> None:
    """A person keeps one rollout against a filter and gives another its label."""
    lines = ["key,field,value,by,why", f"{keys['kept']},keep,no_finish,ann,its search is a lesson"]
    lines.append(f"{keys['relabelled']},label,positive,bob,No is right")
    (settings.home / "overrides.csv").write_text("\n".join(lines) + "\n")


def build_small(store: Store, settings: Settings) -> tuple[Lineage, dict[str, str]]:
    """Everything up to the selection of `strategyqa_nat`, with a person's decisions: built once, then copied."""
    if settings != small_settings(settings.home) or any(settings.home.glob("*")):
        return _build_small(store, settings)
    shutil.copytree(_built_once(), settings.home, dirs_exist_ok=True)
    lineage = small_lineage(store, settings)
    return lineage, keys_by_source(lineage)


@cache
def _built_once() -> Path:
    home = Path(tempfile.mkdtemp(prefix="small-corpus-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    _build_small(Store(home), small_settings(home))
    return home


def _build_small(store: Store, settings: Settings) -> tuple[Lineage, dict[str, str]]:
    land_talk(settings)
    lineage = small_lineage(store, settings)
    keys = keys_by_source(lineage)
    decide(settings, keys)
    lineage.scored_trajectories()
    lineage.trajectory_corpus("strategyqa")
    lineage.training_selection(lineage.recipes["strategyqa_nat"])
    return lineage, keys
