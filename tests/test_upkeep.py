"""Planning, collecting garbage, tombstones and a shared copy: on a small deployment whose trainer counts."""

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest

from negtraj_dagster import cli
from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.lineage import Lineage
from negtraj_dagster.plan import Planned, plan_recipes
from negtraj_dagster.recipes import load_recipes
from negtraj_dagster.settings import load_settings
from negtraj_dagster.store import Store
from negtraj_dagster.upkeep import collect_garbage, verify_home
from tests.support import deployment as dep


def run(root: Path) -> dep.Ran:
    return dep.run(root, dep.counting_child)


def plan() -> dict[str, Planned]:
    settings = load_settings()
    recipes = [recipe for recipe in load_recipes(settings).values() if recipe.line == "tiny"]
    return {each.asset: each for each in plan_recipes(settings, recipes)}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def touch_three(root: Path) -> None:
    dep.write_lines(dep.landed(root)[0].with_name("late.jsonl"), [dep.rollout(n, 9) for n in range(3)])


@pytest.mark.parametrize("deployment", ["root", "built"], ids=["first run", "three new rollouts"])
def test_a_plan_foresees_what_the_run_then_does_and_changes_nothing(request: pytest.FixtureRequest, deployment: str) -> None:
    root: Path = request.getfixturevalue(deployment)
    if deployment == "built":
        touch_three(root)
    before = tree(root)
    planned = plan()
    assert tree(root) == before
    ran = run(root)
    assert [asset for asset, each in planned.items() if each.is_stale] == ran.rebuilt
    for asset, each in ran.published.items():
        work = {name: n for name, n in each.work.items() if n and name not in ("arms_compared", "champions_chosen")}
        assert planned[asset].work == work, asset


def test_a_plan_says_why(built: Path) -> None:
    (built / "recipes" / "tiny_nat.toml").write_text(dep.RECIPE.format(name="tiny_nat", seed=7))
    planned = plan()
    assert planned["tiny_nat/checkpoint"].why == ("training/seed",)
    assert planned["tiny_nat/evaluation_report"].why == ("waits for tiny_nat/checkpoint",)
    assert not planned["tiny_nat/tokenized_shards"].is_stale


def test_the_plan_command_ends_with_a_code_where_something_is_stale(root: Path) -> None:
    assert cli.main(["plan", "tiny_nat", "--check"]) == 3
    assert plan()["raw_rollouts"].why == ("never materialized here",)


def test_the_plan_command_prints_a_table(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "tiny_nat", "--check"]) == 0
    assert "0 of 11 assets are stale" in capsys.readouterr().out
    assert cli.main(["plan", "tiny_net"]) == 1
    assert "did you mean 'tiny_nat'" in capsys.readouterr().err


def test_garbage_is_named_first_and_dropped_when_asked(built: Path) -> None:
    for seed in range(1, 4):
        (built / "recipes" / "tiny_nat.toml").write_text(dep.RECIPE.format(name="tiny_nat", seed=seed))
        run(built)
    home = built / "home"
    named = collect_garbage(home, keep_last=2)
    checkpoints = sorted((home / "objects" / "tiny_nat" / "checkpoint").iterdir())
    assert len(checkpoints) == 4
    assert sum(name.startswith("objects/tiny_nat/checkpoint/") for name in named.dropped) <= 2
    assert collect_garbage(home, keep_last=2, delete=True).dropped == named.dropped
    assert collect_garbage(home, keep_last=2).dropped == {}
    assert verify_home(home).faults == []
    assert run(built).rebuilt == []


def test_the_champion_its_predecessor_and_the_anchor_outlive_their_turn(built: Path) -> None:
    home, versions = built / "home", []
    for seed in range(5):
        (built / "recipes" / "tiny_nat.toml").write_text(dep.RECIPE.format(name="tiny_nat", seed=seed))
        versions.append(run(built).published["tiny_nat/checkpoint"].version)
    registry = home / "registry" / "tiny"
    registry.mkdir(parents=True)
    chosen = {"recipe": "tiny_nat", "checkpoint": versions[0], "accuracy": 1.0, "why": ""}
    (registry / "champion.json").write_text(json.dumps(chosen))
    (registry / "promotions.jsonl").write_text(json.dumps({"champion": chosen, "previous": {"checkpoint": versions[1]}}) + "\n")
    (registry / "anchor.json").write_text(json.dumps({"checkpoint": versions[2]}))
    collect_garbage(home, keep_last=1, delete=True)
    store = Store(home)
    kept = [store.find("tiny_nat/checkpoint", version) is not None for version in versions]
    assert kept == [True, True, True, False, True]


def test_garbage_is_left_alone_while_a_run_is_at_work(built: Path) -> None:
    with Store(built / "home").in_use(), pytest.raises(StoreError, match="a run is at work"):
        collect_garbage(built / "home")


def test_a_warm_start_keeps_its_parent_until_its_own_inputs_change(built: Path) -> None:
    recipe = built / "recipes" / "tiny_warm.toml"
    recipe.write_text(dep.RECIPE.format(name="warm", seed=5).replace("steps = 4", 'steps = 4\nwarm_start = "tiny_nat"'))
    first = run(built)
    parent = first.published["tiny_nat/checkpoint"]
    child = first.published["tiny_warm/checkpoint"]
    assert child.made_of["warm_start"] == ["tiny_nat/checkpoint", parent.version]
    (built / "recipes" / "tiny_nat.toml").write_text(dep.RECIPE.format(name="tiny_nat", seed=8))  # another parent now
    second = run(built)
    assert "tiny_nat/checkpoint" in second.rebuilt
    assert "tiny_warm/checkpoint" not in second.rebuilt
    collect_garbage(built / "home", keep_last=1, delete=True)
    assert run(built).rebuilt == []
    touch_three(built)
    third = run(built).published["tiny_warm/checkpoint"]
    newest = Store(built / "home").require("tiny_nat/checkpoint")
    assert third.made_of["warm_start"] == ["tiny_nat/checkpoint", newest.version]
    assert newest.version != parent.version


def test_a_warm_start_from_a_recipe_that_is_not_there_is_refused(root: Path) -> None:
    text = dep.RECIPE.format(name="warm", seed=5).replace("steps = 4", 'steps = 4\nwarm_start = "tiny_net"')
    (root / "recipes" / "tiny_warm.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"warm_start = 'tiny_net': unknown recipe; did you mean 'tiny_nat'"):
        run(root)


def test_a_tombstone_keeps_its_rollouts_out_whatever_file_brings_them(built: Path, first_run: dep.FirstRun) -> None:
    first, root = first_run.ran, built
    home = root / "home"
    entry = {"field": "source", "value": "sample-1", "why": "asked to be forgotten"}
    (home / "tombstones.jsonl").write_text(json.dumps(entry) + "\n")
    ran = run(root)
    raw = ran.published["raw_rollouts"]
    assert raw.details["n_refused_by_tombstones"] == dep.N_QUESTIONS
    assert raw.content["n_rollouts"] == first.published["raw_rollouts"].content["n_rollouts"] - dep.N_QUESTIONS
    shutil.copy(dep.landed(root)[1], dep.landed(root)[1].with_name("again.jsonl"))
    again = run(root).published["raw_rollouts"]
    assert "sample-1" not in pl.read_parquet(again.folder / "rollouts.parquet")["source"].to_list()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not JSON"),
        ('{"field": "subject"}', "expected texts for field, value and why"),
        ('{"field": "subjekt", "value": "x", "why": "y"}', r"unknown field 'subjekt'; did you mean 'subject'\?"),
    ],
    ids=["json", "keys", "field"],
)
def test_a_tombstone_that_cannot_be_read_stops_the_run(root: Path, line: str, message: str) -> None:
    (root / "home" / "tombstones.jsonl").write_text(line)
    with pytest.raises(SettingsError, match=message):
        run(root)


def test_machines_that_share_a_copy_recompute_nothing_of_each_other(root: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared"
    settings = load_settings().model_copy(update={"store_url": url})
    recipe = load_recipes(settings)["tiny_nat"]

    def shards_on(home: Path) -> tuple[dict[str, int], str]:
        lineage = Lineage(Store(home, remote=url), settings.model_copy(update={"home": home}), dep.counting_child)
        assets = ("question_sets", "base_model/tiny", "raw_rollouts", "scored_trajectories", "trajectory_corpus/strategyqa")
        made = [lineage.build(asset) for asset in (*assets, "tiny_nat/training_selection", "tiny_nat/tokenized_shards")]
        return {name: n for each in made for name, n in each.work.items() if n}, made[-1].version

    work, version = shards_on(root / "home")
    assert work["rows_tokenized"] == dep.N_QUESTIONS * dep.N_SAMPLES
    shutil.copytree(root / "home" / "landing", root / "second" / "landing")
    assert shards_on(root / "second") == ({}, version)
    for home in (root / "second", tmp_path / "shared"):
        assert dep.rows_digest(home, recipe.name) == dep.rows_digest(root / "home", recipe.name)
    assert verify_home(root / "second").faults == []


def test_a_damaged_shared_copy_is_refused_by_name(tmp_path: Path) -> None:
    from negtraj_dagster.store import Built

    url = f"file://{tmp_path}/shared"

    def write(folder: Path) -> Built:
        (folder / "hello.txt").write_text("hello")
        return Built({"said": "hello"})

    made = Store(tmp_path / "one", remote=url).build("greeting", {"n": 1}, write)
    (tmp_path / "shared" / "objects" / "greeting" / made.key / "hello.txt").write_text("hallo")
    with pytest.raises(StoreError, match=r"greeting.*hello\.txt: bytes differ"):
        Store(tmp_path / "two", remote=url).build("greeting", {"n": 1}, write)


def test_a_hash_that_is_remembered_wrongly_is_found(built: Path) -> None:
    path = built / "home" / "cache" / "file_hashes.json"
    known = json.loads(path.read_text())
    name = next(name for name, entry in known.items() if name.endswith("part-0.jsonl"))
    status = Path(name).stat()
    stamp = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
    path.write_text(json.dumps({**known, name: {"stamp": stamp, "sha256": "0" * 64}}))
    (fault,) = verify_home(built / "home").faults
    assert name in fault.what
    verify_home(built / "home", repair=True)
    assert verify_home(built / "home").faults == []


@pytest.mark.parametrize("text", ["{", '{"file": "a"}\n', "[]\n"], ids=["cut", "key", "list"])
def test_arrivals_that_cannot_be_read_stop_the_run(root: Path, text: str) -> None:
    (root / "home" / "arrivals.jsonl").write_text(text)
    with pytest.raises(StoreError, match=r"arrivals\.jsonl: a line is not an arrival"):
        run(root)


def test_a_tombstone_takes_every_copy_when_one_names_the_subject(root: Path) -> None:
    row = dep.rollout(1, 9)
    folder = dep.landed(root)[0].parent
    dep.write_lines(folder / "x1.jsonl", [row])
    dep.write_lines(folder / "x2.jsonl", [{**row, "subject": "user-17"}])
    (root / "home" / "tombstones.jsonl").write_text(json.dumps({"field": "subject", "value": "user-17", "why": "asked"}))
    raw = run(root).published["raw_rollouts"]
    assert raw.details["n_refused_by_tombstones"] == 1
    assert "sample-9" not in pl.read_parquet(raw.folder / "rollouts.parquet")["source"].to_list()


def test_a_subject_that_a_later_file_tells_is_kept(root: Path) -> None:
    row = dep.rollout(1, 9)
    folder = dep.landed(root)[0].parent
    dep.write_lines(folder / "x1.jsonl", [row])
    dep.write_lines(folder / "x2.jsonl", [{**row, "subject": "user-17"}])
    raw = run(root).published["raw_rollouts"]
    rows = pl.read_parquet(raw.folder / "rollouts.parquet").filter(pl.col("source") == "sample-9")
    assert rows["subject"].to_list() == ["user-17"]


def test_a_plan_writes_nothing_to_the_shared_copy(root: Path, tmp_path: Path) -> None:
    with (root / "negtraj.toml").open("r+") as handle:
        text = handle.read()
        handle.seek(0)
        handle.write(f'store_url = "file://{tmp_path}/shared"\n{text}')
    plan()
    assert not (tmp_path / "shared").exists()
    run_with_store(root)
    before = tree(tmp_path / "shared")
    touch_three(root)
    assert plan()["tiny_nat/tokenized_shards"].work["rows_tokenized"] == 3
    assert tree(tmp_path / "shared") == before


def run_with_store(root: Path) -> dep.Ran:
    settings = load_settings()
    lineage = Lineage(Store(settings.home, remote=settings.store_url), settings, dep.counting_child)
    recipes = [recipe for recipe in lineage.recipes.values() if recipe.line == "tiny"]
    return dep.Ran({asset: lineage.build(asset) for asset in dep.keys_in_order(recipes)})


def test_a_home_that_is_shared_later_puts_what_it_already_has(built: Path, tmp_path: Path) -> None:
    text = (built / "negtraj.toml").read_text()
    (built / "negtraj.toml").write_text(f'store_url = "file://{tmp_path}/shared"\n{text}')
    assert run_with_store(built).rebuilt == []
    shutil.move(built / "home", built / "first")
    (built / "home").mkdir()
    shutil.copytree(built / "first" / "landing", built / "home" / "landing")
    assert run_with_store(built).rebuilt == []
    touch_three(built)
    assert run_with_store(built).count("rows_tokenized", "records_read") == 6


def test_a_champion_that_is_gone_is_no_parent_and_says_so(built: Path) -> None:
    warm = dep.RECIPE.format(name="warm", seed=5).replace("steps = 4", 'steps = 4\nwarm_start = "champion"')
    (built / "recipes" / "tiny_warm.toml").write_text(warm)
    settings = load_settings()
    lineage = Lineage(Store(settings.home), settings, dep.counting_child)
    title = {"recipe": "tiny_nat", "checkpoint": lineage.store.require("tiny_nat/checkpoint").version}
    lineage.store.write_text("registry/tiny/champion.json", json.dumps(title))
    shutil.rmtree(built / "home" / "objects" / "tiny_nat" / "checkpoint")
    for asset in ("tiny_warm/training_selection", "tiny_warm/tokenized_shards"):
        lineage.build(asset)
    with pytest.raises(StoreError, match=r"the champion of tiny, tiny_nat/checkpoint .* is gone"):
        lineage.build("tiny_warm/checkpoint")
    assert not (built / "home" / "pins").exists()


def test_a_plan_of_one_arm_says_what_the_comparison_waits_for(root: Path) -> None:
    (root / "recipes" / "tiny_two.toml").write_text(dep.RECIPE.format(name="two", seed=1))
    settings = load_settings()
    planned = {each.asset: each for each in plan_recipes(settings, [load_recipes(settings)["tiny_nat"]])}
    assert "tiny_two/evaluation_report" in planned["recipe_comparison/tiny"].why[0]


def test_a_trained_child_outlives_its_parent(built: Path) -> None:
    warm = dep.RECIPE.format(name="warm", seed=5).replace("steps = 4", 'steps = 4\nwarm_start = "tiny_nat"')
    (built / "recipes" / "tiny_warm.toml").write_text(warm)
    first = run(built)
    (built / "recipes" / "tiny_nat.toml").write_text(dep.RECIPE.format(name="tiny_nat", seed=9))
    run(built)
    shutil.rmtree(first.published["tiny_nat/checkpoint"].folder)
    assert verify_home(built / "home").faults == []
    assert run(built).rebuilt == []


def test_repair_waits_until_no_run_is_at_work(built: Path) -> None:
    with Store(built / "home").in_use(), pytest.raises(StoreError, match="a run is at work; repair it when"):
        verify_home(built / "home", repair=True)


def test_states_of_a_training_that_was_given_up_are_garbage(tmp_path: Path) -> None:
    """One of other settings was begun after it; the newest may still be gone on with."""
    place = tmp_path / "states" / "tiny_nat" / "checkpoint"
    for number, key in enumerate(("a" * 64, "b" * 64)):
        (place / key / "step-00000010").mkdir(parents=True)
        (place / key / "step-00000010" / "curve.jsonl").write_text("x")
        os.utime(place / key, (number, number))
    garbage = collect_garbage(tmp_path, delete=True)
    assert (garbage.dropped, garbage.n_kept) == ({f"states/tiny_nat/checkpoint/{'a' * 64}": 1}, 0)
    assert [path.name for path in place.iterdir()] == ["b" * 64]
