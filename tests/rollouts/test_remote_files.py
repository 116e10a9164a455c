"""Sources at a URL: listed, fetched once, left nowhere, and named when they cannot be had."""

import json
import os
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest

from negtraj_dagster.errors import RolloutFormatError, SettingsError
from negtraj_dagster.rollouts import remote_files
from negtraj_dagster.rollouts.read import read_landed_files
from negtraj_dagster.settings import RolloutSource, Settings
from negtraj_dagster.store import Published, Store
from tests.rollouts.test_read import line


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of traces of each kind."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/traces"
    return f"file://{tmp_path}/traces" if request.param == "file" else f"memory://{tmp_path}/traces"


def put(url: str, name: str, text: str) -> None:
    file_system, root = fsspec.core.url_to_fs(f"{url}/{name}")
    file_system.makedirs(root.rsplit("/", 1)[0], exist_ok=True)
    file_system.pipe_file(root, text.encode())


def read(settings: Settings, url: str, **source: Any) -> Published:
    own = RolloutSource(task="wordtraps", format=source.pop("format", "negtraj"), url=url, **source)
    return read_landed_files(Store(settings.home), settings.model_copy(update={"sources": {"own": own}}))


def count_fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    fetched: list[str] = []
    fetch = remote_files.RemoteFile.fetch

    def counted(remote: remote_files.RemoteFile) -> Path:
        fetched.append(remote.path.rsplit("/", 1)[-1])
        return fetch(remote)

    monkeypatch.setattr(remote_files.RemoteFile, "fetch", counted)
    return fetched


def test_a_source_at_a_url_is_read_and_only_what_is_new_is_fetched(
    url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(url, "a.jsonl", line("q1", reward=True) + line("q2"))
    put(url, "deep/b.jsonl", line("q3"))
    put(url, "notes.txt", "none")
    put(url, ".hidden.jsonl", line("q9"))
    put(url, "c.jsonl.bz2", "packed")
    fetched = count_fetches(monkeypatch)
    first = read(settings, url)
    index = pl.read_parquet(first.folder / "rollouts.parquet", glob=False)
    assert index["question_id"].to_list() == ["q1", "q2", "q3"]
    assert index["origin_file"].to_list() == ["wordtraps/negtraj/a.jsonl"] * 2 + ["wordtraps/negtraj/deep/b.jsonl"]
    assert sorted(fetched) == ["a.jsonl", "b.jsonl"]
    assert [entry["path"] for entry in first.details["unread"]] == ["wordtraps/negtraj/c.jsonl.bz2"]
    assert len(first.details["ignored"]) == 2
    assert not (settings.home / "cache" / "fetched").exists()
    again = read(settings, url)
    assert (again.version, again.work["files_read"], sorted(fetched)) == (first.version, 0, ["a.jsonl", "b.jsonl"])
    put(url, "deep/b.jsonl", line("q4"))
    second = read(settings, url)
    assert sorted(fetched) == ["a.jsonl", "b.jsonl", "b.jsonl"]
    assert (second.work["files_read"], second.work["records_read"], second.content["n_rollouts"]) == (1, 1, 3)


def test_a_pattern_holds_at_a_url_too(url: str, settings: Settings) -> None:
    put(url, "a.jsonl", line("q1"))
    put(url, "b.jsonl", line("q2"))
    assert read(settings, url, pattern="a*.jsonl").content["n_rollouts"] == 1


def test_an_outcome_beside_a_trajectory_is_fetched_with_it(tmp_path: Path, settings: Settings) -> None:
    url = f"memory://{tmp_path}/swe"
    history = [{"role": "user", "content": "Mend it."}, {"role": "assistant", "content": "Done."}]
    put(url, "a.traj", json.dumps({"history": history, "trajectory": [], "info": {}}))
    put(url, "a.report.json", json.dumps({"a": {"resolved": True}}))
    raw = read(settings, url, format="swe_agent")
    assert raw.details["n_files"] == 1
    assert pl.read_parquet(raw.folder / "rollouts.parquet", glob=False)["reward"].to_list() == [True]


def test_records_that_were_lost_are_fetched_again(tmp_path: Path, settings: Settings) -> None:
    url = f"memory://{tmp_path}/traces"
    put(url, "a.jsonl", line("q1"))
    first = read(settings, url)
    for path in (settings.home / "segments" / "rollouts").rglob("*.parquet"):
        os.remove(path)
    (settings.home / "arrivals.jsonl").write_text("")
    put(url, "b.jsonl", line("q2"))
    second = read(settings, url)
    assert second.content["n_rollouts"] == first.content["n_rollouts"] + 1


def test_a_file_that_changes_between_listing_and_reading_is_named(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{tmp_path}/traces"
    put(url, "a.jsonl", line("q1"))
    read(settings, url)
    fetch = remote_files.RemoteFile.fetch

    def change_and_fetch(remote: remote_files.RemoteFile) -> Path:
        put(url, "a.jsonl", line("q2"))
        return fetch(remote)

    monkeypatch.setattr(remote_files.RemoteFile, "fetch", change_and_fetch)
    with pytest.raises(RolloutFormatError, match="changed while it was read"):
        read(settings, url, format="openai")
    assert not (settings.home / "cache" / "fetched").exists()


@pytest.mark.parametrize("url", ["nosuch://x/y", "s3://no-such-bucket-of-anybody/x"])
def test_a_url_that_cannot_be_listed_is_named_with_the_remedy(
    settings: Settings, url: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("s3")
    with pytest.raises(SettingsError, match=r"cannot be read .*look at url in \[sources\]"):
        read(settings, url)


@pytest.mark.parametrize("place", [{}, {"path": "/x", "url": "s3://x"}])
def test_a_source_is_at_one_place(place: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either path, a folder, or url"):
        RolloutSource(task="t", format="openai", **place)  # type: ignore[arg-type]
