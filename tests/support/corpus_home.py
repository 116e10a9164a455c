"""A tmp home whose corpus is built through the stages: own questions, own rollouts, own SQL files, overrides."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.launch import run_child
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.store import Published, Store

TASK = "strategyqa"
FILTER = """/*
name = "says_word"
reason = "says a word"
scope = "row"
severity = "{severity}"
applies_to = "{applies_to}"
style = "any"
doc = "The agent says the word. Example: the word alone is caught."

[params]
word = {{ type = "VARCHAR", default = "{word}" }}
*/
select
    rollout_key,
    step,
    'says ' || $word as detail
from steps
where contains(content, $word)
order by rollout_key, step
"""


def episode(number: int, *said: str, reward: bool = True, source: str = "a", question: str | None = None) -> dict[str, Any]:
    """A rollout on question `number`; texts that start with `>` are what the agent saw."""
    turns = [
        {"role": "user", "content": text[1:]} if text[0] == ">" else {"role": "assistant", "content": text} for text in said
    ]
    return {"question_id": question or f"train-{number}", "source": source, "reward": reward, "messages": turns}


def solved(number: int, word: str = "stones", *, source: str = "a", reward: bool = True) -> dict[str, Any]:
    """A rollout that no shipped filter drops; right where its number is even."""
    answer = "yes" if (number % 2 == 0) == reward else "no"
    return episode(
        number,
        f"Thought: I look up {word}, case {number} of {source}.\nAction: search[{word} {number} {source}]",
        f">Observation: {word} of case {number} {source}",
        f"Thought: {word} of case {number} {source} settle it.\nAction: finish[{answer}]",
        source=source,
        reward=reward,
    )


@dataclass
class CorpusHome:
    """A deployment under `root`; `words` are the questions beyond the first ten, held out ones by id `test-…`."""

    root: Path
    sql_dirs: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in (self.landing, self.questions):
            folder.mkdir(parents=True, exist_ok=True)
        self.ask([])
        (self.questions / "none_positive.json").write_text("[]")

    @property
    def home(self) -> Path:
        """NEGTRAJ_HOME."""
        return self.root / "home"

    @property
    def landing(self) -> Path:
        """Where rollouts land."""
        return self.home / "landing" / TASK / "negtraj"

    @property
    def questions(self) -> Path:
        """Where question files lie."""
        return self.root / "nat" / TASK

    @property
    def store(self) -> Store:
        """The home's."""
        return Store(self.home)

    def ask(self, held_out: list[str]) -> None:
        """Ten training questions, and test questions of these words."""
        train = [
            {"id": f"train-{n}", "question": f"Would pebble {n} outweigh feather {n}?", "answer": n % 2 == 0} for n in range(10)
        ]
        test = [{"id": f"test-{n}", "question": text, "answer": True} for n, text in enumerate(["May a cat bark?", *held_out])]
        for name, rows in (("train.jsonl", train), ("test_random_500.jsonl", test)):
            (self.questions / name).write_text("".join(json.dumps({**row, "facts": []}) + "\n" for row in rows))

    def land(self, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> None:
        """A landed file."""
        (self.landing / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def filter(self, word: str, *, severity: str = "drop", applies_to: str = "both") -> None:
        """Give the deployment the filter `says_word`, or edit it."""
        folder = self.root / "sql"
        (folder / "filters").mkdir(parents=True, exist_ok=True)
        text = FILTER.format(word=word, severity=severity, applies_to=applies_to)
        (folder / "filters" / "900_says_word.sql").write_text(text)
        self.sql_dirs = [folder]

    def override(self, *lines: str) -> None:
        """What people say: `key,field,value,by,why`."""
        (self.home / "overrides.csv").write_text("\n".join(["key,field,value,by,why", *lines]) + "\n")

    def lineage(self) -> Lineage:
        """The deployment's."""
        sizes = WordtrapsSettings(enabled=False)
        settings = Settings(home=self.home, nat_dir=self.root / "nat", wordtraps=sizes, sql_dirs=tuple(self.sql_dirs))
        return Lineage(self.store, settings, run_child)

    def build(self) -> Published:
        """The corpus as it is now."""
        lineage = self.lineage()
        for asset in ("question_sets", "raw_rollouts", "scored_trajectories"):
            lineage.build(asset)
        return lineage.trajectory_corpus(TASK)

    def profiles(self) -> dict[str, sql.Profile]:
        """The deployment's quality profiles."""
        return sql.load_profiles(self.lineage().scoring.registry)

    def keys(self, corpus: Published) -> list[str]:
        """Rollout keys in order of arrival."""
        return pl.read_parquet(corpus.folder / "corpus.parquet").sort("ingest_seq")["rollout_key"].to_list()
