"""trajtok's reader beside `rollouts/records.py`: the same places, the same records, the same verdicts.

Only the wording of faults is free. What is meant to differ is in `DIFFERENCES`, with the reason.
"""

import hashlib
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from negtraj_dagster import _trajtok  # noqa: TID251 - tests the compiled module itself
from negtraj_dagster.rollouts.records import iter_slices, parse_record

Row = tuple[str, bytes | None]
"""Place and, of a good record, its bytes."""

PIECES = [
    *(b"{}", b'{"a":1}', b'{"a": [1, -0, 0.5e3, true, null]}', b"[", b"]", b",", b" ", b"\n", b"\r\n", b"\t", b"\x0b", b"\x0c"),
    *(
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":{"b":1},"b":1}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b"Infinity",
        b"-",
        b"-I",
    ),
    *(
        b'{"a":"\\ud83d\\ude00"}',
        b'{"a":"\\ud83d"}',
        b'{"a":"\\ude00"}',
        b'{"a":"\\ud83d\\ud83d\\ude00"}',
        b'{"a":"\\ud83d\\u00"}',
    ),
    *(b'{"a":1e999}', b'{"a":-1e999}', b'{"a":1e-999}', b'{"a":1e308}', b'{"a":01}', b'{"a":1.}', b'{"a":.5}', b'{"a":+1}'),
    *(b'{"a":1e}', b"1.5", b"1.", b"nul", b"null", b"true", b'"text"', b'"', b"\\", b"{", b"}", b":", b"x", b'{"a":"\n"}'),
    *(b'{"a":"\\x"}', b'{"a":"\\u12g4"}', b'{"a":"\x7f\xc2\x80"}', b'{"":""}', b"{1:1}", b'{"a":1,}', b'{"a" :\t1 }', b'{"a"}'),
    *('{"é":"東京"}'.encode(), b'{"a":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9"}', b"\x00", b"\xef\xbb\xbf"),
]
NOT_UTF8 = [b"\xff", b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\x80"}', b'{"a":"\xf4\x90\x80\x80"}']

DIFFERENCES: dict[str, tuple[bytes, list[Row], list[Row]]] = {
    # Python's depth depends on its stack, and is a bit below 1000; here it is stated.
    "nesting beyond 512 levels": (
        b'{"a":' + b"[" * 600 + b"]" * 600 + b"}",
        [("line 1", b'{"a":' + b"[" * 600 + b"]" * 600 + b"}")],
        [("line 1", None)],
    ),
}


def _plain(raw: bytes) -> list[Row]:
    rows = []
    for part in iter_slices(raw):
        is_good = part.raw is not None and parse_record(part.raw, part.place).value is not None
        rows.append((part.place, part.raw if is_good else None))
    return rows


def _native(path: Path, batch_bytes: int = 8 << 20) -> list[Row]:
    rows = []
    for batch in _trajtok.read_records(path, batch_bytes=batch_bytes):
        for row in pa.record_batch(batch).to_pylist():
            assert (row["record"] is None) == (row["fault"] is not None)
            assert row["fault"] != ""
            if row["record"] is not None:
                assert row["record_sha256"] == hashlib.sha256(row["record"].encode()).digest()
            rows.append((row["place"], None if row["record"] is None else row["record"].encode()))
    return rows


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records") / "rollouts.jsonl"


@given(st.lists(st.sampled_from(PIECES + NOT_UTF8), max_size=12), st.integers(1, 64))
@example([b"\xef\xbb\xbf", b"\n", b"{}", b"\r\n", b"\x0b", b"\n", b'{"a":1}'], 1)
@settings(max_examples=300, deadline=None)
def test_lines_are_read_alike(path: Path, pieces: list[bytes], batch_bytes: int) -> None:
    raw = b"{}\n" + b"".join(pieces)
    path.write_bytes(raw)
    assert _native(path, batch_bytes) == _plain(raw)


@given(st.lists(st.sampled_from(PIECES + NOT_UTF8), max_size=12), st.booleans(), st.integers(1, 64))
@example([b'{"a":' + b"1" * 4301 + b"}", b"{}"], True, 64)
@example([b"{}", b",", b"{}", b"]", b"x"], False, 1)
@settings(max_examples=300, deadline=None)
def test_arrays_are_read_alike_up_to_what_is_broken(
    path: Path, pieces: list[bytes], with_commas: bool, batch_bytes: int
) -> None:
    raw = b"\xef\xbb\xbf [" + (b"," if with_commas else b"").join(pieces) + b"]"
    path.write_bytes(raw)
    native, plain = _native(path, batch_bytes), _plain(raw)
    n_good = next((n for n, (_, record) in enumerate(native) if record is None), len(native))
    assert plain[:n_good] == native[:n_good]
    assert len(plain) >= len(native) - 1  # the plain reader goes on where the native one ends


@given(st.binary(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_alike(path: Path, raw: bytes) -> None:
    path.write_bytes(b"{}\n" + raw)
    assert _native(path) == _plain(b"{}\n" + raw)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_is_meant_to_differ_does(path: Path, name: str) -> None:
    raw, plain, native = DIFFERENCES[name]
    path.write_bytes(raw)
    assert (_plain(raw), _native(path)) == (plain, native)


def test_a_record_beyond_the_limit_is_refused_without_its_bytes(path: Path) -> None:
    path.write_bytes(b'{}\n{"a":"' + b"x" * 100 + b'"}\n{}')
    batches = _trajtok.read_records(path, max_record_bytes=50)
    table = pl.concat([pl.DataFrame(batch) for batch in batches])
    assert table["place"].to_list() == ["line 1", "line 2", "line 3"]
    assert table["fault"].to_list() == [None, "record of 108 bytes; expected at most 50", None]
    assert table["record_sha256"].is_null().to_list() == [False, True, False]


def test_a_refused_record_still_has_a_digest(path: Path) -> None:
    path.write_bytes(b"[1]")
    (row,) = pa.record_batch(next(_trajtok.read_records(path))).to_pylist()
    assert row["record_sha256"] == hashlib.sha256(b"1").digest()
    assert row["fault"] == "found a number, expected an object"


def test_an_empty_file_has_no_batches(path: Path) -> None:
    path.write_bytes(b" \n\n")
    assert list(_trajtok.read_records(path)) == []


def test_many_batches_hold_every_record_once(path: Path) -> None:
    path.write_text("\n".join(json.dumps({"n": n}) for n in range(5000)))
    batches = [pl.DataFrame(batch) for batch in _trajtok.read_records(path, batch_bytes=1000)]
    assert len(batches) > 10
    assert [json.loads(record)["n"] for batch in batches for record in batch["record"]] == list(range(5000))


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(_trajtok.TrajtokError, match=r"nowhere\.jsonl: .*expected a file of JSON lines"):
        _trajtok.read_records(tmp_path / "nowhere.jsonl")
    with pytest.raises(_trajtok.TrajtokError, match="batch_bytes is 0"):
        _trajtok.read_records(tmp_path, batch_bytes=0)
    with pytest.raises(_trajtok.TrajtokError, match="directory"):
        next(_trajtok.read_records(tmp_path))
