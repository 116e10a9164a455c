"""States of a training: whole or absent, a damaged one found and passed over, old ones dropped."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster.checkpoints.states import (
    State,
    StatePlace,
    begin_state,
    forget_states,
    newest_state,
    publish_state,
    unfinished_folder,
)
from negtraj_dagster.store import MANIFEST

MADE_OF = {"code": 3, "tokenized_shards": "s", "training/ranks": 2, "training/threads": 1, "training/lr": 0.1}
MADE_BY = {"ranks": 2, "zero_stage": 2, "dtype": "fp32"}


@pytest.fixture
def place(tmp_path: Path) -> StatePlace:
    return StatePlace.of(tmp_path, "mine/checkpoint", MADE_OF, every_steps=10, keep_last=3)


def save(place: StatePlace, step: int) -> Path:
    begin_state(place, step)
    engine = unfinished_folder(place, step) / "engine"
    engine.mkdir()
    for rank in range(2):
        (engine / f"rank_{rank}.pt").write_bytes(bytes(1000) + f"rank {rank} step {step}".encode())
    return publish_state(place, step, [{"step": number, "loss": 1.0} for number in range(1, step + 1)], MADE_BY)


def test_the_newest_state_is_found_with_its_curve(place: StatePlace) -> None:
    assert newest_state(place) is None
    save(place, 10)
    newest = save(place, 20)
    state = newest_state(place)
    assert state == State(newest, 20, {"step": 20, **MADE_BY})
    assert [record["step"] for record in state.curve()] == list(range(1, 21))


def test_only_the_last_few_are_kept(place: StatePlace) -> None:
    for step in (10, 20, 30, 40, 50):
        save(place, step)
    assert sorted(path.name for path in place.folder.iterdir()) == ["step-00000030", "step-00000040", "step-00000050"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def swap(folder: Path) -> None:
    first, second = folder / "engine" / "rank_0.pt", folder / "engine" / "rank_1.pt"
    (folder / "x").write_bytes(first.read_bytes())
    first.write_bytes(second.read_bytes())
    (folder / "x").replace(second)


def of_another_training(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace("mine/checkpoint", "other/checkpoint"))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "one flipped bit": (lambda folder: flip(folder / "engine" / "rank_1.pt"), "rank_1.pt: bytes differ"),
    "a cut file": (lambda folder: (folder / "engine" / "rank_0.pt").write_bytes(b"short"), "rank_0.pt: 5 bytes"),
    "an empty file": (lambda folder: (folder / "curve.jsonl").write_bytes(b""), "curve.jsonl: 0 bytes"),
    "a missing file": (lambda folder: (folder / "engine" / "rank_1.pt").unlink(), "rank_1.pt: missing"),
    "one file too many": (lambda folder: (folder / "engine" / "rank_2.pt").write_bytes(b"x"), "rank_2.pt: not in the manifest"),
    "ranks changed about": (swap, "rank_0.pt: bytes differ"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "no MANIFEST.json"),
    "half a manifest": (
        lambda folder: (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:200]),
        "not readable as JSON",
    ),
    "an altered manifest": (of_another_training, "its seal does not fit"),
    "another step's": (
        lambda folder: (shutil.rmtree(folder), shutil.copytree(folder.parent / "step-00000010", folder)),
        "holds step 10",
    ),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_state_is_named_and_an_older_one_is_gone_on_from(
    place: StatePlace, damage: Callable[[Path], Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(place, 10)
    damage(save(place, 20))
    state = newest_state(place)
    assert state is not None
    assert state.step == 10
    assert "step-00000020 is damaged" in caplog.text
    assert said in caplog.text


def test_a_damaged_state_gives_way_to_the_next_attempts(place: StatePlace) -> None:
    (save(place, 20) / "curve.jsonl").unlink()
    save(place, 20)
    state = newest_state(place)
    assert state is not None
    assert len(state.curve()) == 20


def test_what_a_save_that_was_cut_off_left_is_no_state_and_is_cleared(place: StatePlace) -> None:
    save(place, 10)
    begin_state(place, 20)
    (unfinished_folder(place, 20) / "engine").mkdir()
    state = newest_state(place)
    assert state is not None
    assert state.step == 10
    save(place, 20)
    assert [path.name for path in place.folder.glob(".*")] == []


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [({"training/ranks": 1, "training/threads": 9}, True), ({"training/lr": 0.2}, False), ({"tokenized_shards": "t"}, False)],
)
def test_a_training_goes_on_with_other_ranks_and_not_with_other_rows_or_settings(
    tmp_path: Path, place: StatePlace, changes: dict[str, Any], is_same: bool
) -> None:
    other = StatePlace.of(tmp_path, "mine/checkpoint", {**MADE_OF, **changes}, every_steps=10, keep_last=3)
    assert (other == place) == is_same


def test_a_place_travels_in_a_config_file(place: StatePlace) -> None:
    assert StatePlace.from_json(json.loads(json.dumps(place.to_json()))) == place


@pytest.mark.parametrize("n_damaged", [1, 2])
def test_a_state_is_kept_though_newer_ones_are_there_that_are_damaged(place: StatePlace, n_damaged: int) -> None:
    """Training began anew, or from an older state, behind which they lie."""
    for number in range(n_damaged):
        (save(replace(place, keep_last=9), 20 + 10 * number) / "curve.jsonl").unlink()
    saved = save(replace(place, keep_last=1), 5)
    state = newest_state(place)
    assert state is not None
    assert state.folder == saved
    assert [path.name for path in place.folder.iterdir()] == ["step-00000005"]


def test_states_of_a_training_that_ended_are_dropped(place: StatePlace) -> None:
    save(place, 10)
    forget_states(place)
    assert newest_state(place) is None
    assert not place.folder.exists()
