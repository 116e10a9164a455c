import json
from pathlib import Path

import polars as pl
import pytest

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts import read
from negtraj_dagster.rollouts.collect import land_teacher_rollouts
from negtraj_dagster.rollouts.landing import find_landed_files
from negtraj_dagster.rollouts.read import read_landed_files
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Published, Store


def line(question_id: str, text: str = "Action: finish[1]", **more: object) -> str:
    return json.dumps({"question_id": question_id, "messages": [{"role": "assistant", "content": text}], **more}) + "\n"


def land(settings: Settings, name: str, text: str, folder: str = "wordtraps/negtraj") -> Path:
    path = settings.landing / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_bad_records_go_to_quarantine_with_file_place_and_reason(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", line("q1") + "{bad\n" + line("q2") + '{"question_id": "q3"}\n')
    raw = read_landed_files(store, settings)
    quarantine = [json.loads(row) for row in (raw.folder / "quarantine.jsonl").read_text().splitlines()]
    assert raw.content["n_rollouts"] == 2
    assert [(row["file"], row["place"]) for row in quarantine] == [("wordtraps/negtraj/a.jsonl", f"line {n}") for n in (2, 4)]
    assert "not JSON" in quarantine[0]["reason"]
    assert "key 'messages' is missing" in quarantine[1]["reason"]


def test_a_second_run_reads_nothing(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", line("q1"))
    assert read_landed_files(store, settings).work == {"files_read": 1, "records_seen": 1, "records_read": 1}
    again = read_landed_files(store, settings)
    assert (again.reused, again.work) == (True, {"files_read": 0, "records_seen": 0, "records_read": 0})


def test_one_more_file_reads_that_file_alone(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", line("q1"))
    first = read_landed_files(store, settings)
    land(settings, "b.jsonl", line("q2"))
    second = read_landed_files(store, settings)
    assert second.work == {"files_read": 1, "records_seen": 1, "records_read": 1}
    assert second.version != first.version


def test_an_edit_of_whitespace_keeps_the_version(store: Store, settings: Settings) -> None:
    path = land(settings, "a.jsonl", line("q1"))
    first = read_landed_files(store, settings)
    path.write_text(path.read_text().replace(": ", ":  ", 1) + "\n\n")
    second = read_landed_files(store, settings)
    assert second.key != first.key
    assert second.version == first.version


def test_a_renamed_file_is_not_read_again(store: Store, settings: Settings) -> None:
    path = land(settings, "a.jsonl", line("q1"))
    first = read_landed_files(store, settings)
    path.rename(path.with_name("b.jsonl"))
    second = read_landed_files(store, settings)
    assert second.work["files_read"] == 0
    assert second.version == first.version


def question_ids(raw: Published) -> list[str]:
    return pl.read_parquet(raw.folder / "rollouts.parquet")["question_id"].to_list()


def test_what_lands_later_comes_later_whatever_its_name(store: Store, settings: Settings) -> None:
    path = land(settings, "m.jsonl", line("q1") + line("q2"))
    read_landed_files(store, settings)
    land(settings, "a.jsonl", line("q0"))
    assert question_ids(read_landed_files(store, settings)) == ["q1", "q2", "q0"]
    path.write_text(line("q1") + line("q3"))
    assert question_ids(read_landed_files(store, settings)) == ["q1", "q3", "q0"]
    path.rename(path.with_name("z.jsonl"))
    assert question_ids(read_landed_files(store, settings)) == ["q1", "q3", "q0"]


def test_a_late_label_changes_the_version_but_no_key(store: Store, settings: Settings) -> None:
    path = land(settings, "a.jsonl", line("q1"))
    first = read_landed_files(store, settings)
    path.write_text(line("q1", reward=True))
    second = read_landed_files(store, settings)
    keys = [pl.read_parquet(raw.folder / "rollouts.parquet")["rollout_key"].to_list() for raw in (first, second)]
    assert keys[0] == keys[1]
    assert first.version != second.version


def test_the_newest_file_that_gives_an_outcome_decides_it_and_conflicts_are_counted(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", line("q1", reward=False) + line("q2") + line("q3", reward=True))
    read_landed_files(store, settings)
    land(settings, "0-late.jsonl", line("q1", reward=True) + line("q2", reward=False) + line("q3"))
    raw = read_landed_files(store, settings)
    rows = pl.read_parquet(raw.folder / "rollouts.parquet").select("question_id", "reward").rows()
    assert rows == [("q1", True), ("q2", False), ("q3", True)]
    assert raw.details["n_label_conflicts"] == 1


def test_a_file_that_changes_while_it_is_read_is_not_taken(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = land(settings, "a.jsonl", line("q1"))
    found = find_landed_files(store, settings)
    path.write_text(line("q1") + line("q2"))
    monkeypatch.setattr("negtraj_dagster.rollouts.read.find_landed_files", lambda *_: found)
    with pytest.raises(RolloutFormatError, match="changed while it was read"):
        read_landed_files(store, settings)
    assert not (store.home / "segments").exists()


def test_hidden_files_are_listed_and_not_read(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", line("q1"))
    for place in (".DS_Store", ".trash/a.jsonl", "strategyqa/.b/c.jsonl"):
        (settings.landing / place).parent.mkdir(parents=True, exist_ok=True)
        (settings.landing / place).write_text("x")
    raw = read_landed_files(store, settings)
    assert raw.content["n_rollouts"] == 1
    assert {entry["path"] for entry in raw.details["ignored"]} == {".DS_Store", ".trash", "strategyqa/.b"}


def test_twins_in_one_file_are_two_rollouts_and_a_file_landed_twice_is_one(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", line("q1") * 2)
    land(settings, "b.jsonl", line("q1") * 2)
    assert read_landed_files(store, settings).content["n_rollouts"] == 2


def test_files_of_another_kind_are_listed_as_ignored(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", line("q1"))
    land(settings, "notes.txt", "hello")
    raw = read_landed_files(store, settings)
    assert [Path(entry["path"]).name for entry in raw.details["ignored"]] == ["notes.txt"]


@pytest.mark.parametrize(
    ("folder", "path", "message"),
    [
        ("wordtrap/negtraj", "wordtrap", "unknown task; did you mean 'wordtraps'?"),
        ("wordtraps/negtrja", "wordtraps/negtrja", "unknown rollout format; did you mean 'negtraj'?"),
        ("wordtraps", "wordtraps/a.jsonl", "files belong in landing/<task>/<format>/; move it there"),
    ],
    ids=["task", "format", "no-format"],
)
def test_a_wrong_folder_is_listed_with_the_remedy_and_stops_no_other(
    store: Store, settings: Settings, folder: str, path: str, message: str
) -> None:
    land(settings, "a.jsonl", line("q1"), folder)
    land(settings, "b.jsonl", line("q2"))
    raw = read_landed_files(store, settings)
    ((entry),) = raw.details["unread"]
    assert entry["path"] == path
    assert message.split(";")[-1] in entry["reason"]
    assert question_ids(raw) == ["q2"]


def test_the_teacher_lands_the_same_file_every_time_and_fails_more_than_it_succeeds(settings: Settings) -> None:
    path = land_teacher_rollouts(settings)
    assert path is not None
    before = path.read_text()
    path.unlink()
    assert land_teacher_rollouts(settings) == path
    assert path.read_text() == before
    rewards = [json.loads(row)["reward"] for row in before.splitlines()]
    assert len(rewards) == settings.wordtraps.n_train_questions
    assert 0.2 < sum(rewards) / len(rewards) < 0.45


def test_the_real_nat_files_give_1070_successes_and_1263_failures(store: Store, settings: Settings, nat_dir: Path) -> None:
    raw = read_landed_files(store, settings.model_copy(update={"nat_dir": nat_dir}))
    (counts,) = raw.details["per_task"]
    assert (counts["n_reward_true"], counts["n_reward_false"]) == (1070, 1263)
    assert raw.details["n_quarantined"] == 0


def test_bytes_of_an_array_that_nobody_can_read_are_counted(store: Store, settings: Settings) -> None:
    text = f'[{line("q1").strip()},{{"question_id":[}},{line("q2").strip()}]'
    land(settings, "a.json", text)
    raw = read_landed_files(store, settings)
    assert question_ids(raw) == ["q1"]
    assert raw.details["n_quarantined"] == 1
    assert raw.details["n_bytes"] == len(text)
    assert raw.details["n_unread_bytes"] == len(text) - text.index('{"question_id":[}')


MANY_IN_ONE = {
    "concat.jsonl": lambda text: text.replace("\n", ""),
    "wrapped.json": lambda text: json.dumps({"data": [json.loads(one) for one in text.splitlines()]}),
    "mixed.jsonl": lambda text: line("q0") + json.dumps([json.loads(one) for one in text.splitlines()]) + "\n",
}


@pytest.mark.parametrize("name", MANY_IN_ONE)
def test_a_line_that_holds_many_records_counts_by_its_bytes(name: str, store: Store, settings: Settings) -> None:
    land(settings, "good.jsonl", "".join(line(f"q{n}") for n in range(80)))
    text = MANY_IN_ONE[name]("".join(line(f"r{n}") for n in range(500)))
    land(settings, name, text)
    raw = read_landed_files(store, settings)
    assert raw.details["n_quarantined"] == 1
    assert raw.details["n_unread_bytes"] / raw.details["n_bytes"] > 0.8
    (reason,) = raw.details["quarantine_reasons"]
    assert "write one record a line" in reason or name == "wrapped.json"


def test_a_file_without_a_record_is_read_once(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl", "\n")
    land(settings, "b.jsonl", line("q1"))
    raw = read_landed_files(store, settings)
    assert [(file["file"], file["n_rollouts"]) for file in raw.details["files"]] == [
        ("wordtraps/negtraj/a.jsonl", 0),
        ("wordtraps/negtraj/b.jsonl", 1),
    ]
    land(settings, "c.jsonl", line("q2"))
    assert read_landed_files(store, settings).work["files_read"] == 1


def test_many_small_files_share_segments(store: Store, settings: Settings) -> None:
    for number in range(300):
        land(settings, f"{number:03}.jsonl", line(f"q{number}"))
    raw = read_landed_files(store, settings)
    assert question_ids(raw) == [f"q{number}" for number in range(300)]
    assert len(raw.refers) == 2


@pytest.mark.parametrize("n_kept", [1, 2, 3, 100])
def test_how_many_places_are_kept_as_tuples_changes_nothing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_kept: int
) -> None:
    land(settings, "a.jsonl", "\n" + line("q1") + "{bad\n" + line("q1") + line("q2") + line("q3"))
    land(settings, "b.jsonl", line("q3") + line("q4"))
    expected = read_landed_files(Store(tmp_path / "expected"), settings)
    monkeypatch.setattr(read, "BATCH_PLACES", n_kept)
    raw = read_landed_files(Store(tmp_path / "other"), settings)
    assert raw.version == expected.version
    assert raw.details == expected.details
    assert raw.details["files"][0]["blank_lines"] == 1
    for name in ("rollouts.parquet", "places.parquet", "quarantine.jsonl"):
        assert (raw.folder / name).read_bytes() == (expected.folder / name).read_bytes()


def test_a_file_whose_places_stand_twice_is_read_once(store: Store, settings: Settings) -> None:
    """As one does that was read again and told more of its layout; merged, it stands once."""
    for name in "ab":
        land(settings, f"{name}.jsonl", line(f"q-{name}"))
    read_landed_files(store, settings)
    land(settings, "c.jsonl", line("q-c"))
    read_landed_files(store, settings)
    file = find_landed_files(store, settings).files[0]
    cache = read.piece_cache(store, file.table)
    places = cache.rows().filter(pl.col("piece_key") == file.piece_key)
    cache.add(pl.Series([file.piece_key]), places.with_columns(layout=pl.lit('{"blank_lines": 1}')))
    assert cache.rows().height == 4
    land(settings, "d.jsonl", line("q-d"))
    assert read_landed_files(store, settings).content["n_rollouts"] == 4
    cache._merge(cache.segments())
    assert cache.rows()["piece_key"].is_unique().all()


def test_blank_lines_line_ends_and_marks_are_counted(settings: Settings) -> None:
    folder = settings.landing / "wordtraps" / "negtraj"
    folder.mkdir(parents=True)
    windows = "\ufeff" + line("q1").replace("\n", "\r\n") + "\r\n" + line("q2") + "\n\n"
    (folder / "a.jsonl").write_bytes(windows.encode())
    (folder / "b.jsonl").write_text(line("q3"))
    raw = read_landed_files(Store(settings.home), settings)
    a, b = raw.details["files"]
    assert (a["blank_lines"], a["crlf_lines"], a["byte_order_marks"], a["n_rollouts"]) == (3, 2, 1, 2)
    assert b.keys() & {"blank_lines", "crlf_lines", "byte_order_marks"} == set()
