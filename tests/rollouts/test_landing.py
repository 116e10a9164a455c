"""What lies in a landing folder is read, in quarantine, or listed by name; as an unprivileged user, too."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.rollouts.landing import find_landed_files
from negtraj_dagster.rollouts.read import read_landed_files
from negtraj_dagster.rollouts.walk import list_folder, matches
from negtraj_dagster.settings import RolloutSource, Settings
from negtraj_dagster.store import Store

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def open_root() -> Iterator[Path]:
    """A folder that everyone may enter: pytest's own are the user's alone."""
    root = Path(tempfile.mkdtemp(prefix="negtraj-landing-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    root.chmod(0o777)
    yield root
    for folder, _, _ in os.walk(root):
        os.chmod(folder, 0o700)
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("seeds", [range(22), pytest.param(range(22, 142), marks=pytest.mark.slow)], ids=["spread", "all"])
def test_what_landed_is_read_or_in_quarantine_or_listed(seeds: range, open_root: Path) -> None:
    command = [sys.executable, "-m", "tests.support.landing_trees", str(open_root), *map(str, seeds)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.stdout == f"{len(seeds)} trees\n", done.stderr


def test_a_link_to_a_folder_does_not_rename_what_is_read_without_it(store: Store, settings: Settings) -> None:
    folder = settings.landing / "wordtraps" / "negtraj"
    (folder / "z").mkdir(parents=True)
    (folder / "z" / "a.jsonl").write_text("{}")
    (folder / "a").symlink_to("z")
    landed = find_landed_files(store, settings)
    assert [file.name for file in landed.files] == ["z/a.jsonl"]
    assert landed.ignored == [{"path": "wordtraps/negtraj/a", "reason": "leads to z, which is read there"}]


@pytest.mark.parametrize(
    "name", ["a.JSONL", "a.Json", "a.jsonl.bz2", "a.ndjson", "a.json.xz", "a.Parquet", "a.arrow", "\udcffa.jsonl.xz"]
)
def test_a_file_that_may_hold_rollouts_in_another_spelling_or_packing_needs_a_look(
    name: str, store: Store, settings: Settings
) -> None:
    folder = settings.landing / "wordtraps" / "negtraj"
    folder.mkdir(parents=True)
    (folder / name).touch()
    (entry,) = find_landed_files(store, settings).unread
    assert "rename it" in entry["reason"]


def test_a_landing_folder_that_leads_nowhere_needs_a_look_and_one_that_is_not_there_does_not(
    store: Store, settings: Settings
) -> None:
    assert find_landed_files(store, settings).unread == []
    settings.landing.parent.mkdir(parents=True, exist_ok=True)
    settings.landing.symlink_to("unmounted")
    assert [entry["path"] for entry in find_landed_files(store, settings).unread] == ["."]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*_positive.json", {"a_positive.json"}),
        ("**/*.json", {"a_positive.json", "x/b.json", "x/y/c.json"}),
        ("x/*", {"x/b.json"}),
        ("**/y/*", {"x/y/c.json"}),
        ("x?b.json", set()),
    ],
)
def test_a_pattern_fits_what_glob_finds(pattern: str, names: set[str], tmp_path: Path) -> None:
    every = {"a_positive.json", "x/b.json", "x/y/c.json", "d.txt"}
    for name in every:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert {name for name in every if matches(name, pattern)} == names
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob(pattern) if path.is_file()} == names


@pytest.mark.parametrize(
    ("pattern", "unread", "unlisted"),
    [
        ("mine.jsonl", [], []),
        ("deep/*.jsonl", [], ["deep"]),
        ("**/*.jsonl", [], ["deep", "gone"]),
        ("*", ["a.ndjson", "gone", "pipe"], []),
        ("**/*", ["a.ndjson", "gone", "pipe"], ["deep"]),
    ],
)
def test_what_a_sources_pattern_does_not_ask_for_is_no_fault(
    store: Store,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
    unread: list[str],
    unlisted: list[str],
) -> None:
    """A file in a folder that others use, too: their pipes and folders keep no run from being green."""
    folder = tmp_path / "shared"
    (folder / "deep").mkdir(parents=True)
    (folder / "mine.jsonl").touch()
    (folder / "a.ndjson").touch()
    (folder / "gone").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    listed: list[str] = []

    def list_unless_deep(path: Path) -> list[os.DirEntry[str]]:
        listed.append(path.name)
        if path.name == "deep":
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr("negtraj_dagster.rollouts.walk.list_folder", list_unless_deep)
    source = RolloutSource(task="wordtraps", format="negtraj", path=folder, pattern=pattern)
    landed = find_landed_files(store, settings.model_copy(update={"sources": {"mine": source}}))
    places = sorted(entry["path"].removeprefix("wordtraps/negtraj/") for entry in landed.unread)
    assert places == sorted({*unread, *unlisted})
    assert ("deep" in listed) == bool(unlisted)
    assert [file.name for file in landed.files] == (["mine.jsonl"] if matches("mine.jsonl", pattern) else [])


def test_question_files_alone_suffice_and_a_folder_without_them_is_refused(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "nat" / "strategyqa").mkdir(parents=True)
    (tmp_path / "nat" / "strategyqa" / "train.jsonl").write_text("")
    assert find_landed_files(store, settings.model_copy(update={"nat_dir": tmp_path / "nat"})).files == []
    with pytest.raises(SettingsError, match=r"NEGTRAJ_NAT_DIR = .*no folder strategyqa in it; point it at"):
        find_landed_files(store, settings.model_copy(update={"nat_dir": tmp_path / "elsewhere"}))


def test_a_file_s_name_in_quarantine_is_nothing_that_a_terminal_obeys(store: Store, settings: Settings) -> None:
    folder = settings.landing / "wordtraps" / "negtraj"
    folder.mkdir(parents=True)
    (folder / "a\x9b2J\x1b.jsonl").write_text("{}\n")
    raw = read_landed_files(store, settings)
    text = (raw.folder / "quarantine.jsonl").read_text()
    assert json.loads(text)["file"].startswith("wordtraps/negtraj/a")
    assert not {"\x9b", "\x1b"} & {*text, *json.loads(text)["file"]}
