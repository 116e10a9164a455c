import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOAD = """
import sys
import negtraj_dagster.definitions
heavy = [name for name in ("torch", "transformers", "deepspeed", "peft") if name in sys.modules]
print("heavy:", heavy)
"""
LIBRARIES = "import dagster, duckdb, polars, pyarrow, pyarrow.parquet"
"""Without them there is no code location; the two are timed in turns, for machines differ."""


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **env}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def seconds_of(code: str) -> float:
    """Processor time of a program: what a loaded machine makes of it is not the code's doing."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(sys.executable, "-c", code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_code_location_loads_without_torch_in_less_than_twice_its_libraries_time() -> None:
    done = run(sys.executable, "-c", LOAD)  # which compiles byte code, too
    assert done.stdout.strip() == "heavy: []", done.stderr
    seconds = [(seconds_of(LOAD), seconds_of(LIBRARIES)) for _ in range(4)]
    ours, theirs = map(min, zip(*seconds, strict=True))
    assert ours < 2 * theirs


def test_an_unknown_key_in_a_recipe_stops_the_code_location_with_file_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "wordtraps_nat"\n[training]\nlearning_rate = 1\n')
    done = run(sys.executable, "-c", LOAD, NEGTRAJ_RECIPES=str(tmp_path))
    assert done.returncode != 0
    assert f"{tmp_path / 'mine.toml'}" in done.stderr
    assert "unknown key 'training.learning_rate'" in done.stderr


def test_the_lineage_has_the_promised_assets() -> None:
    from negtraj_dagster.definitions import build_definitions

    keys = {key.to_user_string() for key in build_definitions().resolve_asset_graph().get_all_asset_keys()}
    trunk = {"question_sets", "raw_rollouts", "scored_trajectories", "base_model/wordtraps", "base_model/bytes"}
    trunk |= {"trajectory_corpus/wordtraps", "trajectory_corpus/strategyqa", "champion/wordtraps"}
    trunk |= {"recipe_comparison/wordtraps", "recipe_comparison/strategyqa", "study/wordtraps_effect"}
    recipes = ("wordtraps_vanilla", "wordtraps_nut", "wordtraps_nat", "strategyqa_nat")
    stages = ("training_selection", "tokenized_shards", "checkpoint", "evaluation_report")
    assert keys == trunk | {f"{recipe}/{stage}" for recipe in recipes for stage in stages}


def test_every_asset_check_job_and_schedule_has_a_description() -> None:
    from negtraj_dagster.definitions import build_definitions

    definitions = build_definitions()
    graph = definitions.resolve_asset_graph()
    assert all(graph.get(key).description for key in graph.get_all_asset_keys())
    assert all(job.description for job in definitions.jobs or ())
    assert all(schedule.description for schedule in definitions.schedules or ())


def test_no_training_asset_has_a_retry_policy_so_terminate_means_terminate() -> None:
    from negtraj_dagster.definitions import build_definitions

    for asset in build_definitions().assets or ():
        if asset.key.path[-1] in ("checkpoint", "evaluation_report"):  # type: ignore[union-attr]
            assert asset.op.retry_policy is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("edited", "stale"),
    [
        ("[training]\nlr = 0.001\n", "checkpoint"),
        ("[selection]\nmax_positives = 81\n", "training_selection"),
        ("[shards]\nmax_tokens = 128\n", "tokenized_shards"),
        ("[evaluation]\nmax_questions = 3\n", "evaluation_report"),
    ],
    ids=["training", "selection", "shards", "evaluation"],
)
def test_an_edited_slice_changes_the_code_version_of_its_own_asset_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: str, stale: str
) -> None:
    from negtraj_dagster.definitions import build_definitions

    def versions() -> dict[str, str | None]:
        graph = build_definitions().resolve_asset_graph()
        return {key.to_user_string(): graph.get(key).code_version for key in graph.get_all_asset_keys()}

    before = versions()
    recipe = (ROOT / "recipes" / "wordtraps_nat.toml").read_text()
    (tmp_path / "wordtraps_nat.toml").write_text(recipe + edited)
    monkeypatch.setenv("NEGTRAJ_RECIPES", str(tmp_path))
    after = versions()
    assert {key for key in after if after[key] != before[key]} == {f"wordtraps_nat/{stale}", "study/wordtraps_effect"}
