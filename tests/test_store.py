import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from negtraj_dagster.errors import StoreError
from negtraj_dagster.store import MANIFEST, Built, Store


def write_hello(folder: Path) -> Built:
    (folder / "hello.txt").write_text("hello")
    return Built(content={"said": "hello"}, work={"words_said": 1})


def test_an_object_is_built_once_and_then_reused(store: Store) -> None:
    first = store.build("greeting", {"n": 1}, write_hello)
    second = store.build("greeting", {"n": 1}, write_hello)
    assert (first.reused, first.work) == (False, {"words_said": 1})
    assert (second.reused, second.work) == (True, {"words_said": 0})
    assert first.version == second.version


def test_equal_content_under_another_key_has_the_same_version(store: Store) -> None:
    assert store.build("greeting", {"n": 1}, write_hello).version == store.build("greeting", {"n": 2}, write_hello).version


def test_going_back_to_an_earlier_key_makes_it_current_again(store: Store) -> None:
    first, second, _ = (store.build("greeting", {"n": n}, write_hello) for n in (1, 2, 1))
    current = store.current("greeting")
    assert current is not None
    assert current.key == first.key != second.key


def test_a_writer_that_fails_publishes_nothing(store: Store) -> None:
    def fail(folder: Path) -> Built:
        (folder / "half.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.build("greeting", {"n": 1}, fail)
    assert store.current("greeting") is None
    assert not list((store.home / "tmp").iterdir())


def test_what_a_killed_process_left_is_swept_and_a_live_folder_is_not(store: Store) -> None:
    dead = store.home / "tmp" / "dead"
    dead.mkdir(parents=True)
    dead.with_suffix(".lock").touch()
    with store.scratch() as live, store.scratch():
        assert live.is_dir()
        assert not dead.exists()


def test_two_runs_of_one_key_make_it_once(store: Store) -> None:
    made = []

    def write(folder: Path) -> Built:
        made.append(folder)
        time.sleep(0.2)
        return write_hello(folder)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: store.build("greeting", {"n": 1}, write), range(2))
    assert len(made) == 1
    assert sorted((first.reused, second.reused)) == [False, True]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "hello.txt").write_text("hellO"), "bytes differ"),
        (lambda folder: (folder / "hello.txt").write_text("hell"), "4 bytes"),
        (lambda folder: (folder / "hello.txt").unlink(), "missing"),
        (lambda folder: (folder / "stray.txt").write_text("x"), "not in the manifest"),
    ],
    ids=["flipped", "truncated", "missing", "stray"],
)
def test_a_damaged_object_is_refused_by_name(store: Store, damage, named: str) -> None:
    folder = store.build("greeting", {"n": 1}, write_hello).folder
    damage(folder)
    with pytest.raises(StoreError, match=named) as caught:
        store.verify(folder)
    assert str(folder) in str(caught.value)


def test_a_manifest_whose_version_does_not_fit_its_content_is_refused(store: Store) -> None:
    folder = store.build("greeting", {"n": 1}, write_hello).folder
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["content"]["said"] = "goodbye"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="was altered, its seal"):
        store.current("greeting")


def test_asking_for_what_was_never_made_says_what_to_run(store: Store) -> None:
    with pytest.raises(StoreError, match="dagster asset materialize"):
        store.require("greeting")


def test_a_publication_flushes_every_file_then_the_folder_then_the_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SIGKILL proves no flush, and tests may run in memory: what a power cut needs is counted here."""
    events: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        events.append(("flush", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        events.append(("rename", f"{self} {target}"))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)

    def write(folder: Path) -> Built:
        (folder / "deep").mkdir()
        for name in ("a.txt", "deep/b.txt"):
            (folder / name).write_text(name)
        return Built({"n": 1})

    published = store.build("greeting", {"n": 1}, write)
    (moved,) = [place for place, (kind, what) in enumerate(events) if kind == "rename" and what.endswith(str(published.folder))]
    made_in = events[moved][1].split()[0]
    before = [what for kind, what in events[:moved] if kind == "flush"]
    for name in ("a.txt", "deep/b.txt", MANIFEST, "deep", ""):
        assert before.count(str(Path(made_in) / name)) == 1, f"{name or 'the folder'} is flushed before the rename"
    assert events[moved + 1] == ("flush", str(published.folder.parent)), "and its name after it, before anything points to it"
    pointer = store.home / "current"
    assert ("flush", str(pointer)) in events[moved + 2 :]
