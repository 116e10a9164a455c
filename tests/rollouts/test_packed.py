"""Files packed by gzip or zstd: the same rollouts as unpacked; damage, bombs and endless lines are told by file."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from negtraj_dagster.errors import RolloutFormatError
from negtraj_dagster.rollouts import packed
from negtraj_dagster.rollouts.landing import find_landed_files
from negtraj_dagster.rollouts.read import read_landed_files
from negtraj_dagster.settings import Settings
from negtraj_dagster.store import Published, Store
from tests.rollouts.test_read import land, line


def zstd(raw: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(raw)
    return bytes(sink.getvalue())


def members(raw: bytes) -> bytes:
    """As `cat a.gz b.gz` makes."""
    half = len(raw) // 2
    return gzip.compress(raw[:half]) + gzip.compress(raw[half:])


PACKINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": (".gz", gzip.compress),
    "members": (".gz", members),
    "zstd": (".zst", zstd),
}
LINES = "".join(line(f"q{n}", f"Action: finish[{n}]", reward=n % 2 == 0) for n in range(50))
ARRAY = json.dumps([json.loads(each) for each in LINES.splitlines()])


def land_packed(settings: Settings, name: str, raw: bytes) -> Path:
    path = land(settings, name, "")
    path.write_bytes(raw)
    return path


def rows_of(raw: Published) -> list[tuple[Any, ...]]:
    return pl.read_parquet(raw.folder / "rollouts.parquet").drop("origin_file").rows()


def quarantine_of(raw: Published) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (raw.folder / "quarantine.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("suffix", "text"), [(".jsonl", LINES), (".json", ARRAY)], ids=["lines", "array"])
@pytest.mark.parametrize("packing", sorted(PACKINGS))
def test_a_packed_file_gives_what_it_gives_unpacked(
    tmp_path: Path, settings: Settings, packing: str, suffix: str, text: str
) -> None:
    ending, pack = PACKINGS[packing]
    plain = settings.model_copy(update={"home": tmp_path / "plain"})
    land(plain, f"a{suffix}", text)
    land_packed(settings, f"a{suffix}{ending}", pack(text.encode()))
    found = [rows_of(read_landed_files(Store(each.home), each)) for each in (plain, settings)]
    assert len(found[0]) == 50
    assert found[0] == found[1]


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_what_stands_before_the_damage_is_read_and_the_rest_is_counted(
    store: Store, settings: Settings, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("negtraj_dagster.rollouts.documents.BUFFER_BYTES", 512)
    ending, pack = PACKINGS[packing]
    body = "".join(line(f"q{n}", f"Action: finish[{hash_text(n)}]") for n in range(4000)).encode()
    raw = pack(body)
    path = land_packed(settings, f"a.jsonl{ending}", raw[: len(raw) * 3 // 4])
    read = read_landed_files(store, settings)
    (entry,) = [each for each in quarantine_of(read) if each["place"] == "file"]
    assert "its packing is damaged or cut" in entry["reason"]
    assert "land it again" in entry["reason"]
    assert 100 < read.content["n_rollouts"] < 4000
    (summary,) = read.details["files"]
    assert summary["n_quarantined"] >= 1, path


def hash_text(number: int) -> str:
    """What does not pack well, so that the damage lies behind many records."""
    return packed.hashlib.sha256(str(number).encode()).hexdigest()


def test_a_name_that_promises_a_packing_that_is_not_there_is_told(store: Store, settings: Settings) -> None:
    land(settings, "a.jsonl.gz", LINES)
    read = read_landed_files(store, settings)
    (entry,) = quarantine_of(read)
    assert "its packing is damaged or cut (Not a gzipped file" in entry["reason"]


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_bomb_is_refused_and_stops_no_other_file(
    store: Store, settings: Settings, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "UNBOUNDED_BYTES", 1 << 20)
    ending, pack = PACKINGS[packing]
    land_packed(settings, f"a.jsonl{ending}", pack(b"\n" * (16 << 20)))
    land(settings, "b.jsonl", LINES)
    read = read_landed_files(store, settings)
    assert read.content["n_rollouts"] == 50
    (entry,) = quarantine_of(read)
    assert f"unpacks to more than {packed.MAX_RATIO} times its size" in entry["reason"]


@pytest.mark.parametrize(
    ("limit", "raw", "reason"),
    [
        ("MAX_LINE_BYTES", b"x" * 5000, "has a line of more than 1,000 bytes"),
        ("MAX_ARRAY_BYTES", ARRAY.encode(), "an array of"),
    ],
    ids=["line", "array"],
)
def test_what_would_fill_the_memory_is_refused(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch, limit: str, raw: bytes, reason: str
) -> None:
    monkeypatch.setattr(packed, limit, 1000)
    land_packed(settings, "a.json.gz", gzip.compress(raw))
    (entry,) = quarantine_of(read_landed_files(store, settings))
    assert reason in entry["reason"]


def test_what_the_machine_refuses_is_asked_again(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    land_packed(settings, "a.jsonl.gz", gzip.compress(LINES.encode()))
    find_landed_files(store, settings)

    class Refusing:
        def readinto(self, _: object) -> int:
            raise OSError(5, "Input/output error")

        def close(self) -> None:
            pass

    with monkeypatch.context() as patch:
        begin = packed._HashedFile.__init__

        def refuse(self: packed._HashedFile, path: Path) -> None:
            begin(self, path)
            self._raw.close()
            self._raw = Refusing()  # type: ignore[assignment]

        patch.setattr(packed._HashedFile, "__init__", refuse)
        with pytest.raises(RolloutFormatError, match=r"a\.jsonl\.gz: Input/output error; run again"):
            read_landed_files(store, settings)
    assert read_landed_files(store, settings).content["n_rollouts"] == 50


def test_a_packed_file_that_changes_while_it_is_read_is_not_taken(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = land_packed(settings, "a.jsonl.gz", gzip.compress(LINES.encode()))
    landed = find_landed_files(store, settings)
    path.write_bytes(gzip.compress((LINES + line("late")).encode()))
    monkeypatch.setattr("negtraj_dagster.rollouts.read.find_landed_files", lambda *_: landed)
    with pytest.raises(RolloutFormatError, match="changed while it was read"):
        read_landed_files(store, settings)
