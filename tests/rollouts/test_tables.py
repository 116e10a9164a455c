"""Parquet tables as people publish them: nested messages or JSON text, columns of other names, read by settings alone."""

import csv
import datetime
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from negtraj_dagster.errors import SettingsError
from negtraj_dagster.rollouts.documents import TABLE_BYTES, TABLE_ROWS, rows_at_a_time
from negtraj_dagster.rollouts.mapping import ColumnMap, parse_outcome
from negtraj_dagster.rollouts.read import read_landed_files
from negtraj_dagster.settings import RolloutSource, Settings, TaskSettings
from negtraj_dagster.store import Published, Store

COLUMNS = {"messages": "trajectory", "group": "meta.repo", "reward": "resolved"}


def row(number: int) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "run", "arguments": '{"a": 1}'}}
    parameters = {"type": "object", "properties": {f"only_{number}": {"type": "string"}}}
    return {
        "trajectory": [
            {"role": "system", "content": "s", "tool_calls": None, "tool_call_id": None},
            {"role": "user", "content": f"q {number}", "tool_calls": None, "tool_call_id": None},
            {"role": "assistant", "content": None, "tool_calls": [call], "tool_call_id": None},
            {"role": "tool", "content": "x", "tool_calls": None, "tool_call_id": "c"},
            {"role": "assistant", "content": "done", "tool_calls": None, "tool_call_id": None},
        ],
        "tools": [{"type": "function", "function": {"name": "run", "parameters": parameters}}],
        "meta": {"repo": f"r{number}"},
        "resolved": number % 2 == 0,
        "created": datetime.datetime(2026, 1, 1 + number, tzinfo=datetime.UTC),
        "rating": number / 10,
    }


def read(settings: Settings, folder: Path, rows: list[dict[str, Any]], **source: Any) -> Published:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    own = RolloutSource(task="repairs", format="openai", path=folder, **source)
    task = TaskSettings(kind="recorded", score="recorded")
    settings = settings.model_copy(update={"sources": {"own": own}, "tasks": {"repairs": task}})
    return read_landed_files(Store(settings.home), settings)


def rollouts(raw: Published) -> pl.DataFrame:
    return pl.read_parquet(raw.folder / "rollouts.parquet", glob=False)


@pytest.mark.parametrize("is_text", [False, True], ids=["nested", "JSON text"])
def test_a_published_table_is_read_by_a_mapping_of_its_columns(tmp_path: Path, settings: Settings, is_text: bool) -> None:
    rows = [row(number) for number in range(4)]
    for each in rows if is_text else ():
        each["trajectory"] = json.dumps(each["trajectory"])
        each["tools"] = json.dumps(each["tools"])
    raw = read(settings, tmp_path / "t", rows, columns=COLUMNS)
    found = rollouts(raw)
    assert raw.details["n_quarantined"] == 0
    assert found["reward"].to_list() == [True, False, True, False]
    assert found["question_group"].to_list() == ["r0", "r1", "r2", "r3"]
    assert found["origin_place"].to_list() == [f"row {number}" for number in range(4)]
    texts = pl.concat(
        [pl.read_parquet(path, glob=False) for path in (settings.home / "segments").rglob("conversations.parquet")]
    )
    (tools,) = texts.filter(pl.col("prompt").str.contains("q 0"))["tools"]
    assert "null" not in tools  # a table gives every schema the parameters of all others
    assert set(json.loads(tools)[0]["function"]["parameters"]["properties"]) == {"only_0"}
    assert '"created":"2026-01-01 00:00:00+00:00"' in texts.filter(pl.col("prompt").str.contains("q 0"))["extra"][0]


def test_a_rule_on_a_column_is_the_outcome_and_another_rule_reads_again(tmp_path: Path, settings: Settings) -> None:
    rows = [row(number) for number in range(4)]
    columns = {"messages": "trajectory"}
    first = read(settings, tmp_path / "t", rows, columns=columns, outcome="rating >= 0.2")
    assert rollouts(first)["reward"].to_list() == [False, False, True, True]
    again = read(settings, tmp_path / "t", rows, columns=columns, outcome="rating >= 0.2")
    assert again.work["records_read"] == 0
    other = read(settings, tmp_path / "t", rows, columns=columns, outcome="meta.repo == r1")
    assert rollouts(other)["reward"].to_list() == [False, True, False, False]


def test_a_csv_file_is_read_by_its_columns_and_a_torn_row_is_named(tmp_path: Path, settings: Settings) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["turns", "ok", "rating", "instance_id"])
        for number in range(3):
            messages = [{"role": "user", "content": f"q\n{number}"}, {"role": "assistant", "content": "a, b"}]
            writer.writerow([json.dumps(messages, indent=1), number == 1, number / 2, f"00{number}"])
        writer.writerow(["torn"])
    columns = {"messages": "turns", "reward": "ok", "score": "rating"}
    own = RolloutSource(task="repairs", format="openai", path=folder, columns=columns)
    task = TaskSettings(kind="recorded", score="recorded")
    settings = settings.model_copy(update={"sources": {"own": own}, "tasks": {"repairs": task}})
    raw = read_landed_files(Store(settings.home), settings)
    found = rollouts(raw)
    assert found["reward"].to_list() == [False, True, False]
    assert found["score"].to_list() == [0.0, 0.5, 1.0]
    assert found["question_group"].to_list() == ["000", "001", "002"]
    assert raw.details["quarantine_reasons"] == {"other than 4 cells, as the first line has; quote the text": 1}


def test_a_damaged_table_is_named_and_stops_nothing(tmp_path: Path, settings: Settings) -> None:
    raw = read(settings, tmp_path / "t", [row(0)], columns=COLUMNS)
    path = tmp_path / "t" / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    (tmp_path / "t" / "b.jsonl").write_text(json.dumps({"messages": row(1)["trajectory"]}) + "\n")
    own = RolloutSource(task="repairs", format="openai", path=tmp_path / "t")
    task = TaskSettings(kind="recorded", score="recorded")
    settings = settings.model_copy(update={"sources": {"own": own}, "tasks": {"repairs": task}})
    damaged = read_landed_files(Store(settings.home), settings)
    assert (raw.content["n_rollouts"], damaged.content["n_rollouts"]) == (1, 1)
    (reason,) = damaged.details["quarantine_reasons"]
    assert "no Parquet file that can be read" in reason


@pytest.mark.parametrize("rule", ["score", "score > high", ">= 1", "score ~ 1"])
def test_a_rule_that_is_none_is_refused_with_an_example(rule: str) -> None:
    with pytest.raises(SettingsError, match=r"outcome = "):
        parse_outcome(rule)


def test_a_mapping_takes_what_stands_inside_of_objects_and_leaves_the_rest() -> None:
    mapping = ColumnMap((("group", "meta.repo"), ("messages", "turns")), "status == 'ok'")
    record = {"turns": [1], "meta": {"repo": "r", "k": 1}, "status": "ok", "other": 2}
    assert mapping.apply(record) == {
        "messages": [1],
        "meta": {"repo": "r", "k": 1},
        "status": "ok",
        "other": 2,
        "group": "r",
        "reward": True,
    }
    assert ColumnMap(outcome="gone >= 1").apply({"a": 1})["reward"] is None


def test_what_a_source_names_and_no_record_has_fails_the_check_of_landing(tmp_path: Path, settings: Settings) -> None:
    rows = [row(number) for number in range(3)]
    raw = read(settings, tmp_path / "t", rows, columns={**COLUMNS, "score": "raiting"}, outcome="sucess == true")
    assert raw.details["absent"] == [{"task": "repairs", "format": "openai", "absent": ["raiting", "sucess"]}]
    again = read(settings, tmp_path / "t", rows, columns={**COLUMNS, "score": "raiting"}, outcome="sucess == true")
    assert (again.work["records_read"], again.details["absent"]) == (0, raw.details["absent"])
    mended = read(settings, tmp_path / "t", rows, columns={**COLUMNS, "score": "rating"})
    assert mended.details["absent"] == []


def test_a_column_that_some_records_have_is_no_fault(tmp_path: Path, settings: Settings) -> None:
    rows = [row(0), {**row(1), "rating": None}]
    raw = read(settings, tmp_path / "t", rows, columns={**COLUMNS, "score": "rating"})
    assert (raw.details["absent"], rollouts(raw)["score"].to_list()) == ([], [0.0, None])


def test_dots_lead_into_json_text_of_an_object(tmp_path: Path, settings: Settings) -> None:
    rows = [{"input": json.dumps({"messages": row(0)["trajectory"]}), "resolved": True}]
    raw = read(settings, tmp_path / "t", rows, columns={"messages": "input.messages"})
    assert rollouts(raw)["reward"].to_list() == [True]


def test_a_csv_file_with_a_column_twice_is_refused_by_name(tmp_path: Path, settings: Settings) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    (folder / "a.csv").write_text("messages,ok,ok\n[],1,0\n")
    own = RolloutSource(task="repairs", format="openai", path=folder)
    task = TaskSettings(kind="recorded", score="recorded")
    settings = settings.model_copy(update={"sources": {"own": own}, "tasks": {"repairs": task}})
    raw = read_landed_files(Store(settings.home), settings)
    assert raw.details["quarantine_reasons"] == {"columns ['ok'] stand twice in the first line; rename one of each": 1}
    assert raw.details["n_unread_bytes"] == (folder / "a.csv").stat().st_size


def test_rows_of_a_table_are_decoded_few_at_a_time_where_they_are_large(tmp_path: Path) -> None:
    sizes = {"small": 100, "large": 4_000_000}
    n_rows = {}
    for name, size in sizes.items():
        path = tmp_path / f"{name}.parquet"
        random_texts = [random.Random(number).randbytes(size // 2).hex() for number in range(4)]
        pq.write_table(pa.table({"text": random_texts}), path)
        n_rows[name] = rows_at_a_time(pq.read_metadata(path))
    assert n_rows["small"] == TABLE_ROWS
    assert n_rows["large"] <= TABLE_BYTES / sizes["large"] * 2
    assert n_rows["large"] < TABLE_ROWS


def test_a_session_is_judged_by_a_rule_on_what_it_holds(tmp_path: Path, settings: Settings) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    for number, score in enumerate((0.9, 0.2)):
        lines = [
            {"type": "session", "id": f"s{number}", "rating": score},
            {"type": "message", "id": "1", "message": {"role": "user", "content": "q"}},
            {"type": "message", "id": "2", "parentId": "1", "message": {"role": "assistant", "content": "a"}},
        ]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in lines))
    own = RolloutSource(task="repairs", format="session_trace", path=folder, outcome="header.rating >= 0.5")
    task = TaskSettings(kind="recorded", score="recorded")
    settings = settings.model_copy(update={"sources": {"own": own}, "tasks": {"repairs": task}})
    raw = read_landed_files(Store(settings.home), settings)
    assert raw.details["absent"] == []
    assert rollouts(raw).sort("session")["reward"].to_list() == [True, False]
