"""What each kind of change recomputes, and that the result is what a build from nothing gives, byte by byte.

The fast run replaces trainer and evaluator by functions of what those read; the slow one (`make test-all`) trains with
DeepSpeed and plays the episodes. `pytest tests/test_incremental.py -s` prints the table.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster import paths
from tests.support import deployment as dep
from tests.support.deployment import N_QUESTIONS, N_SAMPLES, N_TEST, RECIPE, Ran

N_ROWS = N_QUESTIONS * N_SAMPLES
N_TOUCHED = N_ROWS // 100
N_NEAR, N_NEAR_LABELLED = N_TOUCHED * (1 + N_SAMPLES), N_TOUCHED * N_SAMPLES
STEPS = 4
DATA = ("raw_rollouts", "scored_trajectories", "trajectory_corpus/strategyqa")
ARM = tuple(f"tiny_nat/{stage}" for stage in ("training_selection", "tokenized_shards", "checkpoint", "evaluation_report"))
LINE = ("recipe_comparison/tiny", "champion/tiny")


def nothing(root: Path) -> None:
    pass


def new_rollouts(root: Path) -> None:
    path = dep.landed(root)[0].with_name("late.jsonl")
    dep.write_lines(path, [dep.rollout(number, N_SAMPLES) for number in range(N_TOUCHED)])


def whitespace(root: Path) -> None:
    path = dep.landed(root)[1]
    lines = path.read_text().split("\n")
    path.write_text("\n\n".join([lines[0].replace('{"', '{  "', 1), *lines[1:]]))


def filter_parameter(root: Path) -> None:
    path = paths.PACKAGE_ROOT / "sql" / "filters" / "040_missing_thought.sql"
    text = path.read_text()
    assert "default = 0.5" in text
    path.write_text(text.replace("default = 0.5", "default = 0.6"))


def new_recipe(root: Path) -> None:
    (root / "recipes" / "tiny_twin.toml").write_text(RECIPE.format(name="another seed", seed=1))


def tokenizer(root: Path) -> None:
    path = root / "model" / "tokenizer.json"
    document = json.loads(path.read_text())
    vocabulary = document["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(document))


def evaluation_question(root: Path) -> None:
    path = root / "nat" / "strategyqa" / "test_random_500.jsonl"
    rows = dep.read_lines(path)
    rows[0]["question"] = "Might river zero freeze after all?"
    dep.write_lines(path, rows)


def late_labels(root: Path) -> None:
    path = dep.landed(root)[-1]
    rows = dep.read_lines(path)
    for row in rows[-N_TOUCHED:]:
        row["reward"] = not row["reward"]
    dep.write_lines(path, rows)


def rename(root: Path) -> None:
    path = dep.landed(root)[0]
    path.rename(path.with_name("zz-renamed.jsonl"))


Expected = dict[str, Any]
NONE: Expected = {"rebuilt": (), "read": 0, "judged": 0, "conditioned": 0, "tokenized": 0, "steps": 0, "questions": 0}
RETRAINED: Expected = {"steps": STEPS, "questions": N_TEST}
CASES: dict[str, tuple[Callable[[Path], None], Expected]] = {
    "(a) no change": (nothing, NONE),
    "(b) 1 % new rollouts": (
        new_rollouts,
        # judged: the rows, and whether the older ones of their questions read like them
        {"read": N_TOUCHED, "judged": N_NEAR, "conditioned": N_TOUCHED, "tokenized": N_TOUCHED, **RETRAINED}
        | {"rebuilt": (*DATA, *ARM, *LINE)},
    ),
    "(c) whitespace in a landed file": (whitespace, NONE | {"rebuilt": ("raw_rollouts",), "read": 1}),
    "(d) one filter's parameter": (
        filter_parameter,
        # every row under that one filter; it says the same of all of them, so the versions stand and nothing follows
        NONE | {"rebuilt": DATA[1:], "judged": N_ROWS},
    ),
    "(e) a recipe that shares its texts": (
        new_recipe,
        NONE | RETRAINED | {"rebuilt": (*(each.replace("tiny_nat", "tiny_twin") for each in ARM), *LINE)},
    ),
    "(f) a changed tokenizer": (
        tokenizer,
        # the base model is another one, and asked, too
        NONE
        | RETRAINED
        | {"conditioned": N_ROWS, "tokenized": N_ROWS, "questions": 2 * N_TEST}
        | {"rebuilt": ("base_model/tiny", *ARM[1:], *LINE)},
    ),
    "(g) a changed evaluation question": (
        evaluation_question,
        # decontamination compares every row with the new set; the checkpoint and the base model stand and are asked this one
        NONE | {"judged": N_ROWS, "questions": 2} | {"rebuilt": ("question_sets", DATA[2], *ARM[:2], ARM[3], LINE[0])},
    ),
    "(i) late labels on 1 %": (
        late_labels,
        {"read": N_TOUCHED, "judged": N_NEAR_LABELLED, "conditioned": N_TOUCHED, "tokenized": N_TOUCHED, **RETRAINED}
        | {"rebuilt": (*DATA, *ARM, *LINE)},
    ),
    "(j) a renamed landed file": (rename, NONE | {"rebuilt": ("raw_rollouts",)}),
}
COLUMNS = ("read", "judged", "conditioned", "tokenized", "steps", "questions")


def counts(ran: Ran) -> Expected:
    return {
        "rebuilt": tuple(ran.rebuilt),
        "read": ran.count("records_read"),
        "judged": max(ran.judged().values(), default=0),
        "conditioned": ran.count("rows_conditioned"),
        "tokenized": ran.count("rows_tokenized"),
        "steps": ran.count("steps_trained"),
        "questions": ran.count("questions_asked"),
    }


@pytest.fixture
def own_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of sql/ and recipes/ that a case may edit."""
    for name in ("sql", "recipes"):
        shutil.copytree(paths.PACKAGE_ROOT / name, tmp_path / "shipped" / name)
    monkeypatch.setattr(paths, "PACKAGE_ROOT", tmp_path / "shipped")


@pytest.fixture(scope="module")
def really_trained(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dep.FirstRun:
    """A deployment whose first run trained with DeepSpeed and played its episodes."""
    return dep.run_first(tmp_path_factory.mktemp("trained"), base_model, dep.real_child)


@pytest.fixture(params=["first_run", pytest.param("really_trained", marks=pytest.mark.slow)], ids=["counting", "real"])
def deployed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dep.RunChild]:
    """A deployment as its first run left it, and the trainer it ran with."""
    first: dep.FirstRun = request.getfixturevalue(request.param)
    first.put_back()
    dep.see(monkeypatch, first.root)
    return first.root, first.child


ROWS: list[str] = []


def without_title(made: dict[str, Any]) -> dict[str, Any]:
    """All but who holds the title: that is history, as arrivals and pins are, and a build from nothing has none."""
    return {asset: value for asset, value in made.items() if not asset.startswith("champion/")}


@pytest.mark.usefixtures("own_sql")
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_change_recomputes_what_it_touches_and_ends_where_a_build_from_nothing_ends(
    name: str, deployed: tuple[Path, dep.RunChild], tmp_path: Path
) -> None:
    (root, child), (change, expected) = deployed, CASES[name]
    change(root)
    ran = dep.run(root, child)
    found = without_title(dep.fingerprints(root, ran))
    anew = dep.run(dep.from_nothing(root, tmp_path / "anew"), child)
    nothing_reused = without_title(dep.fingerprints(tmp_path / "anew", anew))
    # a local base model's key holds its path, its version does not
    is_equal = found == nothing_reused
    show(name, ran, expected, is_equal)
    assert sorted(counts(ran)["rebuilt"]) == sorted(expected["rebuilt"])
    assert counts(ran) | {"rebuilt": ()} == expected | {"rebuilt": ()}
    assert found == nothing_reused
    assert counts(anew)["steps"] >= STEPS


def show(name: str, ran: Ran, expected: Expected, is_equal: bool) -> None:
    """One line of the table: found/expected, rebuilt assets, equality."""
    found = counts(ran)
    if not ROWS:
        print("\n" + f"{'change':36}" + "".join(f"{column:>14}" for column in COLUMNS) + "  assets made anew  as from nothing")
    ROWS.append(name)
    cells = "".join(f"{f'{found[column]} / {expected[column]}':>14}" for column in COLUMNS)
    rebuilt = f"{len(found['rebuilt'])} / {len(expected['rebuilt'])} of {len(ran.published)}"
    print(f"{name:36}{cells}  {rebuilt:>16}  {'equal' if is_equal else 'DIFFERENT'}")


def test_a_rewritten_program_recomputes_nothing(deployed: tuple[Path, dep.RunChild], tmp_path: Path) -> None:
    """(h): every module without its comments and lines, every SQL file reformatted, in a process of its own."""
    root, child = deployed
    before = {asset: each.version for asset, each in dep.run(root, child).published.items()}
    ran = dep.run_refactored(root, tmp_path / "code")
    assert ran["rebuilt"] == []
    assert ran["versions"] == before
    assert not any(n for work in ran["work"].values() for n in work.values())
    print(f"{'(h) a code-only refactor':36}{'0 rows, 0 steps, 0 questions':>30}  0 of {len(before)}")


def test_any_split_of_the_same_arrivals_ends_alike(deployed: tuple[Path, dep.RunChild], tmp_path: Path) -> None:
    root, child = deployed
    whole = without_title(dep.fingerprints(root, dep.run(root, child)))
    files = dep.landed(root)
    anew = dep.from_nothing(root, tmp_path / "anew")
    (anew / "home" / "arrivals.jsonl").unlink()
    late = [anew / "home" / "landing" / "strategyqa" / "negtraj" / path.name for path in files[2:]]
    held = tmp_path / "held"
    held.mkdir()
    for path in late:
        path.rename(held / path.name)
    dep.run(anew, child)
    for path in late:
        (held / path.name).rename(path)
    assert without_title(dep.fingerprints(anew, dep.run(anew, child))) == whole


def test_a_moved_home_and_a_lost_dagster_home_recompute_nothing(
    deployed: tuple[Path, dep.RunChild], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, child = deployed
    (root / "home" / "dagster").mkdir(exist_ok=True)
    shutil.rmtree(root / "home" / "dagster")
    before = {asset: each.version for asset, each in dep.run(root, child).published.items()}
    moved = tmp_path / "elsewhere with spaces"
    shutil.move(root / "home", moved)
    environment = {**dep.environment(root), "NEGTRAJ_HOME": str(moved)}
    monkeypatch.setattr(dep, "environment", lambda _: environment)
    ran = dep.run(root, child)
    assert ran.rebuilt == []
    assert {asset: each.version for asset, each in ran.published.items()} == before
    assert not any(n for each in ran.published.values() for n in each.work.values())
    shutil.move(moved, root / "home")
