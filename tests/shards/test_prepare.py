"""From a file of conversations to packed token rows: nothing is lost, the rows are `encode`'s, the bins hold every row once."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from negtraj_dagster import _trajtok
from tests.reference.small_tokenizers import KINDS


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> _trajtok.Tokenizer:
    """A small byte-level tokenizer; rows of at most 60 tokens."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    KINDS["smollm"]().save(str(path))
    return _trajtok.Tokenizer(path, template="chatml", max_tokens=60)


def _read(path: Path) -> list[dict[str, Any]]:
    with pa.ipc.open_file(str(path)) as reader:
        return reader.read_all().to_pylist()


def _conversation(content: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": content}]}


def _with_weights(conversation: dict[str, Any]) -> str:
    turns = [{**turn, "weight": float(turn["role"] == "assistant")} for turn in conversation["messages"]]
    return json.dumps({"messages": turns})


@pytest.mark.parametrize("n_threads", [1, 2])
def test_rows_are_those_of_encode_and_every_row_is_in_one_bin(
    tmp_path: Path, tokenizer: _trajtok.Tokenizer, n_threads: int
) -> None:
    conversations = [_conversation("the cat " * (index % 6) + str(index)) for index in range(50)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(each) + "\n" for each in conversations))
    counts = _trajtok.prepare(source, tmp_path / "out", tokenizer, 128, n_threads=n_threads)
    rows = _read(tmp_path / "out" / "rows.arrow")
    encoded = tokenizer.encode([f"line {n}" for n in range(1, 51)], [_with_weights(each) for each in conversations])
    assert rows == pa.record_batch(encoded).to_pylist()
    bins = [each["rows"] for each in _read(tmp_path / "out" / "bins.arrow")]
    assert sorted(row for each in bins for row in each) == list(range(50))
    assert all(sum(rows[row]["n_tokens"] for row in each) <= 128 for each in bins)
    assert bins == _trajtok.pack([row["n_tokens"] for row in rows], 128)
    assert counts == {
        "n_records": 50,
        "n_rows": 50,
        "n_rejected": 0,
        "n_tokens": sum(row["n_tokens"] for row in rows),
        "n_trained": sum(row["n_trained"] for row in rows),
        "n_cut": 0,
        "n_straddling": 0,
        "n_bins": len(bins),
    }


def test_what_is_no_row_is_named_by_place_and_reason(tmp_path: Path, tokenizer: _trajtok.Tokenizer) -> None:
    long, user = _conversation("word " * 100), {"messages": [{"role": "user", "content": "q"}]}
    lines = [json.dumps(_conversation("fine")), "{", json.dumps(long), json.dumps(user), '{"messages": 3}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    counts = _trajtok.prepare(tmp_path / "rows.jsonl", tmp_path / "out", tokenizer, 60)
    assert (counts["n_records"], counts["n_rows"], counts["n_rejected"]) == (5, 1, 4)
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [(row["place"], row["reason"]) for row in rejected] == [
        ("line 2", "invalid_conversation"),
        ("line 3", "over_length"),
        ("line 4", "nothing_trained"),
        ("line 5", "invalid_conversation"),
    ]
    assert all(row["detail"] for row in rejected)


def test_a_json_array_and_other_names_of_the_same_things_are_read(tmp_path: Path, tokenizer: _trajtok.Tokenizer) -> None:
    turns = [
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "a", "loss": True},
        {"from": "gpt", "value": "b", "loss": False},
    ]
    (tmp_path / "rows.json").write_text(json.dumps([{"conversations": turns}]))
    _trajtok.prepare(tmp_path / "rows.json", tmp_path / "out", tokenizer, 60)
    (row,) = _read(tmp_path / "out" / "rows.arrow")
    assert (row["token_key"], len(row["span_start"]), row["span_weight"]) == ("index 0", 1, [1.0])


def test_a_run_that_fails_leaves_the_earlier_files(tmp_path: Path, tokenizer: _trajtok.Tokenizer) -> None:
    source, out, a_folder = tmp_path / "rows.jsonl", tmp_path / "out", tmp_path / "a-folder"
    a_folder.mkdir()
    source.write_text(json.dumps(_conversation("fine")))
    _trajtok.prepare(source, out, tokenizer, 60)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(_trajtok.TrajtokError, match=r"a-folder, byte 0: Is a directory"):
        _trajtok.prepare(a_folder, out, tokenizer, 60)
    assert {path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith(".")} == before


def test_a_capacity_below_the_longest_row_is_refused_before_anything_is_read(
    tmp_path: Path, tokenizer: _trajtok.Tokenizer
) -> None:
    for capacity in (59, 0, -1):
        with pytest.raises(_trajtok.PackError, match=f"capacity is {capacity}"):
            _trajtok.prepare(tmp_path / "missing.jsonl", tmp_path / "out", tokenizer, capacity)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("n_threads", [0, -1])
def test_no_threads_and_no_file_are_refused(tmp_path: Path, tokenizer: _trajtok.Tokenizer, n_threads: int) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("")
    with pytest.raises((_trajtok.TrajtokError, OverflowError)):
        _trajtok.prepare(source, tmp_path / "out", tokenizer, 60, n_threads=n_threads)
    with pytest.raises(_trajtok.TrajtokError, match=r"missing\.jsonl"):
        _trajtok.prepare(tmp_path / "missing.jsonl", tmp_path / "out", tokenizer, 60)
