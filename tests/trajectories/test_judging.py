"""What is judged again when rows, filters or the model change, and what the corpus keeps."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from negtraj_dagster.errors import StoreError
from negtraj_dagster.settings import Settings, WordtrapsSettings
from negtraj_dagster.store import Built, Store
from negtraj_dagster.tasks.question_sets import QUESTION_SCHEMA
from tests.support.sql_homes import corpus_of, land, lineage_of, scored_work
from tests.support.sql_rows import QUESTIONS, REGISTRY


def test_the_rejected_samples_have_no_columns_but_the_text_of_a_conversation(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", "nobody's")
    columns = pl.read_parquet(corpus_of(store, settings).folder / "rejected_samples.parquet").columns
    assert "conversation" in columns
    assert not {"tools", "tokenizer"} & set(columns)


def test_a_corpus_refuses_scores_that_were_made_of_other_rollouts(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", "q1")
    corpus_of(store, settings)
    land(settings, "b.jsonl", "q2")
    lineage = lineage_of(store, settings)
    lineage.raw_rollouts()
    with pytest.raises(StoreError, match="made from other rollouts"):
        lineage.trajectory_corpus("strategyqa")


def test_new_rows_are_judged_alone_and_an_edited_model_judges_all_again(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False)})
    land(settings, "a.jsonl", "q1", "q2", "q3")
    assert scored_work(store, settings)["judged_bad_format"] == 3
    land(settings, "b.jsonl", "q4")
    assert scored_work(store, settings)["judged_bad_format"] == 1
    mine = tmp_path / "sql" / "model" / "actions.sql"
    mine.parent.mkdir(parents=True)
    mine.write_text(
        REGISTRY.files["model"]["actions"].path.read_text().replace("as argument\nfrom steps", "as argument\nfrom  steps")
    )
    settings = settings.model_copy(update={"sql_dirs": (mine.parent.parent,)})
    assert not any(scored_work(store, settings).values())  # white space is no edit
    mine.write_text(mine.read_text().replace("action_type is not null", "action_type is not null and true"))
    work = scored_work(store, settings)
    assert (work["judged_unknown_action"], work["judged_bad_format"]) == (4, 0)


def test_a_filter_that_is_dropped_into_a_folder_is_judged_alone(store: Store, settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False)})
    land(settings, "a.jsonl", "q1", "q2", "q3")
    scored_work(store, settings)
    mine = tmp_path / "sql" / "filters" / "900_says_done.sql"
    mine.parent.mkdir(parents=True)
    mine.write_text(
        '/*\nname = "says_done"\nreason = "says done"\nscope = "row"\nseverity = "flag"\napplies_to = "both"\nstyle = "any"\n'
        "doc = \"d\"\n*/\nselect rollout_key, step, 'done' as detail from steps where contains(content, 'done')"
    )
    work = scored_work(store, settings.model_copy(update={"sql_dirs": (mine.parent.parent,)}))
    assert {name: n for name, n in work.items() if n} == {"judged_says_done": 3, "conversations_read": 3}


def test_rollouts_of_held_out_and_of_unknown_questions_are_dropped_with_a_reason(store: Store, settings: Settings) -> None:
    table = pl.DataFrame(QUESTIONS, schema=QUESTION_SCHEMA, orient="row")

    def write(folder: Path) -> Built:
        table.write_parquet(folder / "questions.parquet")
        return Built(content={"tasks": {"strategyqa": {"rows": "r", "asked": "a"}}})

    store.build("question_sets", {"made": "here"}, write)
    land(settings, "a.jsonl", "q1", "q2", "nobody's")
    lineage = lineage_of(store, settings)
    lineage.raw_rollouts()
    lineage.scored_trajectories()
    for profile in lineage.trajectory_corpus("strategyqa").details["profiles"].values():
        found = {row["filter"]: row["n_positive"] for row in profile["funnel"]}
        assert (found["unknown_question"], found["evaluation_question"]) == (1, 1)


@pytest.mark.parametrize("damage", ["flipped", "removed"])
def test_a_damaged_list_of_keys_is_asked_again_and_doubles_nothing(store: Store, settings: Settings, damage: str) -> None:
    settings = settings.model_copy(update={"wordtraps": WordtrapsSettings(enabled=False)})
    land(settings, "a.jsonl", "q1", "q2", "q3")
    corpus_of(store, settings)
    for path in (settings.home / "segments" / "asked").glob("*/keys.parquet"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        if damage == "removed":
            shutil.rmtree(path.parent)
    fresh = Store(settings.home)
    land(settings, "b.jsonl", "q4")
    assert scored_work(fresh, settings)["judged_bad_format"] == 4
    again = corpus_of(Store(settings.home), settings)
    for name in ("verdicts", "scores"):
        table = pl.read_parquet(again.folder / f"{name}.parquet")
        assert table.height == table.unique().height
    whole = settings.model_copy(update={"home": settings.home.with_name("whole")})
    shutil.copytree(settings.landing, whole.landing)
    assert again.version == corpus_of(Store(whole.home), whole).version
