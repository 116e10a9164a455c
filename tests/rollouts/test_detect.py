"""Files whose format nobody named: found where one reads them, refused by name where two read them differently."""

import json
from typing import Any

import polars as pl
import pytest

from negtraj_dagster.rollouts import detect
from negtraj_dagster.rollouts.detect import detect_format
from negtraj_dagster.rollouts.read import read_landed_files
from negtraj_dagster.settings import Settings, TaskSettings
from negtraj_dagster.store import Published, Store
from tests.conftest import SAMPLE_DATA
from tests.rollouts.formats.test_real_samples import EXPECTED

CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "resolved": True}
SHAREGPT = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
PI = [
    {"type": "session", "id": "s"},
    {"type": "message", "id": "1", "message": {"role": "user", "content": "q"}},
    {"type": "message", "id": "2", "parentId": "1", "message": {"role": "assistant", "content": "a"}},
]


READ_IN_TWO_WAYS = ("agentinstruct_agentgym/agentgym_readme_example.json",)
"""An acknowledged instruction is context to one format, and an untrained turn of the agent to another."""


def lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def read(settings: Settings, files: dict[str, str]) -> Published:
    folder = settings.landing / "repairs" / "auto"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    task = TaskSettings(kind="recorded", score="recorded")
    return read_landed_files(Store(settings.home), settings.model_copy(update={"tasks": {"repairs": task}}))


def test_files_of_several_formats_in_one_folder_are_read_each_by_its_own(settings: Settings) -> None:
    raw = read(settings, {"a.jsonl": lines(CHAT, CHAT), "b.json": json.dumps([SHAREGPT]), "c.jsonl": lines(*PI)})
    found = {file["file"]: (file["format"], file["n_rollouts"], file["confidence"]) for file in raw.details["files"]}
    assert found == {
        "repairs/openai/a.jsonl": ("openai", 2, 1.0),
        "repairs/llamafactory/b.json": ("llamafactory", 1, 1.0),
        "repairs/session_trace/c.jsonl": ("session_trace", 1, 1.0),
    }
    index = pl.read_parquet(raw.folder / "rollouts.parquet", glob=False)
    assert index["reward"].sum() == 2  # the format that knows the outcome, of those that find the same turns


def test_a_file_that_two_formats_read_differently_is_refused_by_both_names(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = lines(CHAT).replace('"a"', '"other"')
    trials: list[Any] = []
    take = detect._Trial.take

    def take_otherwise(trial: Any, reading: Any) -> None:
        take(trial, reading)
        trials.append(trial)
        if trial.format.name == "llamafactory":
            trial.turns = [wrong]

    monkeypatch.setattr(detect._Trial, "take", take_otherwise)
    raw = read(settings, {"a.jsonl": lines(CHAT)})
    (entry,) = raw.details["unread"]
    assert entry["path"] == "repairs/auto/a.jsonl"
    assert "read by openai (100%) and llamafactory (100%), which find other turns" in entry["reason"]
    assert "folder, or a source, that names the format" in entry["reason"]


def test_a_file_that_no_format_reads_is_refused_with_the_nearest(settings: Settings) -> None:
    raw = read(settings, {"a.jsonl": lines(CHAT, {"rows": 1}), "b.jsonl": lines({"rows": 1})})
    reasons = [entry["reason"] for entry in raw.details["unread"]]
    assert reasons[0].startswith("no format reads 90% of its first 2 documents; openai reads 50%; `negtraj check` says why")
    assert reasons[1].startswith("no format reads 90% of its first 1 documents; `negtraj check` says why")
    assert raw.content["n_rollouts"] == 0


def test_a_format_is_found_once_for_a_files_bytes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(settings, {"a.jsonl": lines(CHAT)})

    def refuse(*_arguments: object) -> None:
        raise AssertionError("looked again")

    monkeypatch.setattr("negtraj_dagster.rollouts.file_hashes.detect_format", refuse)
    assert read(settings, {}).version == first.version


@pytest.mark.parametrize("place", EXPECTED)
def test_the_format_of_a_real_sample_is_found(place: str) -> None:
    path = SAMPLE_DATA / "formats" / place
    if not path.is_file():
        pytest.skip("no sample data")
    name, n_read, n_refused = EXPECTED[place]
    detected = detect_format(path)
    if place in READ_IN_TWO_WAYS:
        assert (detected.format, "which find other turns in it" in detected.reason) == ("", True)
    elif n_read and n_refused < n_read:
        assert detected.format == name
