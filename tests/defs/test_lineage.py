"""The whole lineage on a tiny setting, through Dagster itself, with real DeepSpeed and real generation."""

import json
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from negtraj_dagster.definitions import build_definitions
from negtraj_dagster.settings import load_settings
from negtraj_dagster.store import Store
from tests.support.tiny_line import Deployment, tell


@pytest.fixture(scope="module")
def home(clean: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The line as its first run left it; the module's tests run on it in order."""
    return clean.copy(tmp_path_factory.mktemp("lineage") / "home").home


@pytest.fixture(autouse=True)
def _deployment(home: Path, _own_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEGTRAJ_HOME", str(home))
    monkeypatch.setenv("NEGTRAJ_RECIPES", str(home / "recipes"))


def materialize(job: str = "line_tiny") -> tuple[Counter[str], dict[str, str]]:
    """Run a job; the work it did, and every asset's data version."""
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = build_definitions().resolve_job_def(job).execute_in_process(instance=instance)
    assert outcome.success
    return tell(outcome.get_asset_materialization_events())


def store() -> Store:
    return Store(load_settings().home)


def test_the_first_run_makes_everything_and_the_second_nothing(clean: Deployment) -> None:
    assert clean.work["steps_trained"] == 12
    assert clean.work["questions_asked"] == 12
    assert clean.work["rows_tokenized"] > 60
    second_work, second = materialize()
    assert second_work.total() == 0
    assert second == clean.versions


def test_the_engine_was_deepspeeds_at_the_stage_asked_for() -> None:
    result = store().require("tiny_nat/checkpoint").details["result"]
    assert (result["engine"], result["zero_stage"], result["steps"]) == ("DeepSpeedEngine", 2, 6)


def test_the_untagged_arm_trains_other_rows_than_the_tagged_one_on_the_same_rollouts() -> None:
    nat, nut = (store().require(f"tiny_{name}/tokenized_shards") for name in ("nat", "nut"))
    selections = [store().require(f"tiny_{name}/training_selection") for name in ("nat", "nut")]
    assert selections[0].content == selections[1].content
    assert nat.content["index"] != nut.content["index"]


def test_the_control_cannot_become_champion_nor_can_a_candidate_that_is_always_wrong() -> None:
    arms = {arm["recipe"]: arm for arm in store().require("recipe_comparison/tiny").content["arms"]}
    champion, alias = store().require("champion/tiny"), store().home / "registry" / "tiny" / "champion.json"
    assert arms["tiny_nut"]["role"] == "control"
    if arms["tiny_nat"]["accuracy"] == 0:  # six steps teach a model nothing
        assert champion.is_empty
        assert "no candidate answers any question rightly (tiny_nat)" in champion.content["reason"]
        assert not alias.exists()
    else:
        assert json.loads(alias.read_text())["checkpoint"] == store().require("tiny_nat/checkpoint").version


def test_new_rollouts_tokenize_only_themselves_and_leave_a_full_selection_alone() -> None:
    landing = store().home / "landing" / "wordtraps" / "negtraj"
    (teacher,) = landing.glob("teacher-*.jsonl")
    lines = teacher.read_text().splitlines()
    copies = [json.loads(line) for line in lines[:3]]
    for row in copies:
        row["source"] = "another teacher"
    (landing / "aa-late.jsonl").write_text("".join(json.dumps(row) + "\n" for row in copies))
    work, _ = materialize()
    assert work["records_read"] == 3
    assert work["judged_no_finish"] == 3
    assert work["rows_tokenized"] == 0
    assert work["steps_trained"] == 0
    (landing / "aa-late.jsonl").unlink()


def test_a_recipe_without_data_succeeds_and_says_no_data() -> None:
    work, _ = materialize("line_strategyqa")
    assert work["steps_trained"] == 0
    report = store().require("strategyqa_nat/evaluation_report")
    assert report.content["status"] == "no_data"
    assert "no rollouts of task strategyqa" in report.content["reason"]
