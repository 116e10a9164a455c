"""What a killed run and damaged files do to a home: nothing incomplete is seen, nothing acknowledged is lost, all is named.

`make test` kills a few times; `make test-all` 201 times (docs/faults.md has the figures).
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from negtraj_dagster.errors import StoreError
from negtraj_dagster.store import MANIFEST, load_manifest
from negtraj_dagster.upkeep import verify_home
from tests.support import deployment as dep
from tests.support.killable_run import NEVER, Kill, Outcome, run_until_killed


def places_to_die(rng: random.Random, n_kills: int, n_places: dict[str, int]) -> list[list[Kill]]:
    """Runs from nothing, each with three places at which it and its continuations are killed: renames anywhere.

    Every second run is killed between two chunks first; how many renames it has left then is not known.
    """
    runs: list[list[Kill]] = []
    for number in range(n_kills // 3):
        if number % 2:
            early = n_places["rename"] // 4
            chunk = rng.randint(1, n_places["chunk"] - 1)
            runs.append([("chunk", chunk), ("rename", rng.randint(1, early)), ("rename", rng.randint(1, early))])
        else:
            first, second, third = sorted(rng.sample(range(1, n_places["rename"] - 2), 3))
            runs.append([("rename", first), ("rename", second - first), ("rename", third - second)])
    return runs


@pytest.mark.parametrize("n_kills", [12, pytest.param(201, marks=pytest.mark.slow)])
def test_a_run_killed_anywhere_leaves_nothing_incomplete_and_loses_nothing(
    root: Path, n_kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    home, n_incomplete, n_lost, n_killed, n_acknowledged = root / "home", 0, 0, 0, 0

    def build_all(kill: Kill) -> Outcome:
        return run_until_killed(kill, os.environ, root / "report.jsonl")

    undisturbed = build_all(NEVER)
    n_places = undisturbed.n_places
    assert n_places is not None
    assert n_places["chunk"] > 1
    for kills in places_to_die(random.Random(n_kills), n_kills, n_places):
        wipe(home)
        promised: list[tuple[str, str, str]] = []
        for kill in kills:  # a killed run is continued by the next
            outcome = build_all(kill)
            promised += outcome.acknowledged
            n_killed += outcome.n_places is None
            n_incomplete += len(verify_home(home).faults)
            n_lost += sum(not holds(home, *named) for named in promised)
        n_acknowledged += len(promised)
    last = build_all(NEVER)
    assert last.n_places is not None
    versions = {asset: version for asset, _, version in undisturbed.acknowledged}
    n_unlike = sum(versions[asset] != version for asset, _, version in last.acknowledged)
    left = [path.name for path in (home / "tmp").iterdir()] if (home / "tmp").is_dir() else []
    with capsys.disabled():
        print(
            f"\n{n_killed} kills of {n_kills} at one of {n_places['rename']} renames or {n_places['chunk']} chunks, "
            f"{n_acknowledged} objects acknowledged: {n_incomplete} incomplete visible, {n_lost} lost, "
            f"{n_unlike} of {len(last.acknowledged)} assets unlike one never killed"
        )
    assert n_killed == n_kills
    assert (n_incomplete, n_lost, n_unlike, left) == (0, 0, 0, [])


def wipe(home: Path) -> None:
    """Back to what landed."""
    for name in ("objects", "segments", "current", "pins", "registry"):
        shutil.rmtree(home / name, ignore_errors=True)


def holds(home: Path, asset: str, key: str, version: str) -> bool:
    """Whether an acknowledged object is still there as it was acknowledged."""
    try:
        return bool(load_manifest(home / "objects" / asset / key, asset, key)["version"] == version)
    except StoreError:
        return False


def flip_a_bit(path: Path, _: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def truncate(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def remove(path: Path, _: Path) -> None:
    path.unlink()


def swap(path: Path, other: Path) -> None:
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def age(path: Path, _: Path) -> None:
    """The manifest of an older store."""
    manifest = json.loads((path.parent / MANIFEST).read_text())
    (path.parent / MANIFEST).write_text(json.dumps({**manifest, "store_version": 1}))


def empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def duplicate(path: Path, _: Path) -> None:
    """The whole folder once more, under a key that is not its own."""
    shutil.copytree(path.parent, path.parent.with_name("0" * 64))


def take_over(path: Path, other: Path) -> None:
    """Another object's folder under this one's name."""
    shutil.rmtree(path.parent)
    shutil.copytree(other.parent, path.parent)


DAMAGE: dict[str, Callable[[Path, Path], None]] = {
    "flipped bit": flip_a_bit,
    "truncation": truncate,
    "missing": remove,
    "swapped": swap,
    "stale version": age,
    "empty": empty,
    "duplicate": duplicate,
    "wrong owner of a name": take_over,
}
PLACES = {
    "shards": ("objects/tiny_nat/tokenized_shards/*/index.parquet", "objects/tiny_nat/training_selection/*/selection.parquet"),
    "tokens": ("segments/tokens/*/*/rows.arrow", "segments/verdicts/no_finish/*/*/rows.parquet"),
    "records": ("segments/rollouts/*/*/rows.parquet", "segments/verdicts/no_finish/*/*/rows.parquet"),
    "conversations": ("segments/rollouts/*/*/conversations.parquet", "segments/verdicts/no_finish/*/*/rows.parquet"),
    "pieces": ("segments/pieces/rollouts/*/*/rows.parquet", "segments/verdicts/no_finish/*/*/rows.parquet"),
    "verdicts": ("segments/verdicts/bad_format/*/*/rows.parquet", "segments/asked/*/keys.parquet"),
    "asked": ("segments/asked/*/keys.parquet", "segments/verdicts/no_finish/*/*/rows.parquet"),
}


EVERY_PLACE = [pytest.param(name, marks=pytest.mark.slow) if name in ("asked", "pieces") else name for name in sorted(PLACES)]
"""Lists of keys and pieces are damaged in `make test-all` only: they heal by the code that the others go through."""


@pytest.fixture
def damaged(built: Path, kind: str, place: str) -> tuple[Path, str]:
    """A built deployment with one damage, and the name by which it has to be found."""
    target, other = (next(iter(sorted((built / "home").glob(pattern)))) for pattern in PLACES[place])
    DAMAGE[kind](target, other)
    name = target.parent.relative_to(built / "home").as_posix()
    return built, f"{name.rsplit('/', 1)[0]}/{'0' * 64}" if kind == "duplicate" else name


@pytest.mark.parametrize("place", EVERY_PLACE)
@pytest.mark.parametrize("kind", sorted(DAMAGE))
def test_damage_is_found_by_name_and_repaired(damaged: tuple[Path, str], first_run: dep.FirstRun) -> None:
    (root, name), made = damaged, first_run.fingerprints
    home = root / "home"
    assert name in {fault.name for fault in verify_home(home).faults}
    assert verify_home(home, repair=True).repaired
    assert dep.fingerprints(root, dep.run(root, dep.counting_child)) == made
    assert verify_home(home).faults == []


@pytest.mark.parametrize("place", EVERY_PLACE)
@pytest.mark.parametrize("kind", sorted(DAMAGE))
def test_a_run_over_damage_ends_right_or_refuses_by_name(damaged: tuple[Path, str], first_run: dep.FirstRun) -> None:
    """Something new makes the run read what was damaged: it is repaired on the way, or the run stops and names it."""
    (root, name), made = damaged, first_run.fingerprints
    (root / "recipes" / "tiny_twin.toml").write_text(dep.RECIPE.format(name="twin", seed=1))
    for asset in ("tiny_nat/checkpoint", "scored_trajectories", "raw_rollouts"):
        shutil.rmtree(root / "home" / "objects" / asset)
    shutil.rmtree(root / "home" / "segments" / "verdicts" / "tool_error")  # so that conversations are read
    refusal, found = None, made
    try:
        found = dep.fingerprints(root, dep.run(root, dep.counting_child))
    except StoreError as error:
        refusal = str(error)
    if refusal is not None:
        assert name in refusal
        assert "negtraj verify --repair" in refusal
    unlike = {asset for asset, value in made.items() if found[asset] != value}
    assert unlike <= {"recipe_comparison/tiny", "champion/tiny"}  # they have one more arm


TABLES = ("asked", "conditioned", "facts", "pieces", "quotes", "rollouts", "scores", "sketches", "tokens", "verdicts")


@pytest.mark.parametrize(
    "table", [table if table in ("facts", "sketches") else pytest.param(table, marks=pytest.mark.slow) for table in TABLES]
)
def test_a_row_cache_that_is_gone_is_made_again_where_a_stage_needs_it(
    built: Path, first_run: dep.FirstRun, table: str
) -> None:
    """Whoever cleared it: what stands above the cache is asked for anew, what stands below is as it was."""
    shutil.rmtree(built / "home" / "segments" / table)
    for asset in ("trajectory_corpus", "tiny_nat/training_selection", "tiny_nat/tokenized_shards"):
        shutil.rmtree(built / "home" / "objects" / asset)
    assert dep.fingerprints(built, dep.run(built, dep.counting_child)) == first_run.fingerprints
