"""Homes with a few landed rollouts, scored and gathered by the stages, and SQL files of a user."""

import json
from pathlib import Path

from negtraj_dagster.launch import run_child
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Published, Store
from tests.support.sql_rows import FINISH


def land(settings: Settings, name: str, *question_ids: str) -> None:
    folder = settings.landing / "strategyqa" / "negtraj"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"question_id": q, "messages": [{"role": "assistant", "content": FINISH}], "reward": True} for q in question_ids]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def lineage_of(store: Store, settings: Settings) -> Lineage:
    return Lineage(store, settings, run_child)


def corpus_of(store: Store, settings: Settings) -> Published:
    lineage = lineage_of(store, settings)
    for asset in ("question_sets", "raw_rollouts", "scored_trajectories"):
        lineage.build(asset)
    return lineage.trajectory_corpus("strategyqa")


def scored_work(store: Store, settings: Settings) -> dict[str, int]:
    lineage = lineage_of(store, settings)
    for asset in ("question_sets", "raw_rollouts"):
        lineage.build(asset)
    return lineage.scored_trajectories().work


def filter_file(folder: Path, body: str, *, scope: str = "row", name: str = "mine", number: int = 900) -> Path:
    path = folder / "sql" / "filters" / f"{number}_{name}.sql"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = f'name = "{name}"\nreason = "{name}"\nscope = "{scope}"\nseverity = "drop"\napplies_to = "both"\n'
    header += 'style = "any"\ndoc = "d"\n'
    path.write_text(f"/*\n{header}*/\n{body}")
    return path.parent.parent


def land_many(settings: Settings, n_rows: int) -> None:
    folder = settings.landing / "strategyqa" / "negtraj"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n_rows):
        said = f"Thought: {'so ' * (number % 17)}it is {number}.\nAction: finish[Yes]"
        row = {"question_id": f"q{number // 2}", "messages": [{"role": "assistant", "content": said}], "reward": True}
        (folder / f"n{number:03}.jsonl").write_text(json.dumps(row) + "\n")
