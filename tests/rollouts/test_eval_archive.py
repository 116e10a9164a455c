"""Inspect's `.eval` archives: the rollouts of the same log as JSON, sample by sample; damage and bombs cost what they must."""

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster.rollouts import eval_archive
from negtraj_dagster.rollouts.arrays import Slice
from negtraj_dagster.rollouts.documents import iter_documents
from negtraj_dagster.rollouts.formats import FORMATS, Reading
from negtraj_dagster.settings import Settings
from negtraj_dagster.views.check import check_file
from tests.rollouts.test_packed import zstd
from tests.support.documents import read_document

EVAL = {"task": "sums", "model": "m"}


def deflate(raw: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(raw) + packer.flush()


def frames(raw: bytes) -> bytes:
    return zstd(raw[: len(raw) // 2]) + zstd(raw[len(raw) // 2 :])


PACKINGS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "stored": (0, bytes),
    "deflate": (8, deflate),
    "zstd": (93, zstd),
    "frames of zstd": (93, frames),
}


def zip_of(members: dict[str, bytes], packing: str = "zstd") -> bytes:
    method, pack = PACKINGS[packing]
    body, directory = b"", b""
    for name, raw in members.items():
        packed = pack(raw)
        fields = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 0, zlib.crc32(raw), len(packed), len(raw), len(name), 0)
        directory += b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name.encode()
        body += b"PK\3\4" + fields + name.encode() + packed
    counts = (0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + struct.pack("<HHHHIIH", *counts)


def sample(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": f"a{number}"}]
    return {"id": number, "epoch": 1, "messages": messages, "scores": {"match": {"value": "C"}}}


def members_of(*samples: dict[str, Any]) -> dict[str, bytes]:
    files = {f"samples/{each['id']}_epoch_1.json": json.dumps(each).encode() for each in samples}
    return {"_journal/start.json": b"{}", **files, "summaries.json": b"[]", "header.json": json.dumps({"eval": EVAL}).encode()}


def slices_of(folder: Path, raw: bytes) -> list[Slice]:
    path = folder / "log.eval"
    path.write_bytes(raw)
    return list(iter_documents(path, FORMATS["inspect"]))


def readings_of(slices: list[Slice]) -> list[Reading]:
    return [read_document(FORMATS["inspect"], "t", part.raw, part.place) for part in slices if part.raw is not None]


@pytest.mark.parametrize("packing", PACKINGS)
def test_an_archive_gives_what_the_log_gives_as_json(tmp_path: Path, packing: str) -> None:
    log = {"eval": EVAL, "samples": [sample(1), sample(2)]}
    parts = slices_of(tmp_path, zip_of(members_of(sample(1), sample(2)), packing))
    assert [part.place for part in parts] == ["sample 1", "sample 2"]
    rollouts = [rollout for reading in readings_of(parts) for rollout in reading]
    assert rollouts == read_document(FORMATS["inspect"], "t", json.dumps(log).encode(), "file")


def test_an_archive_is_recognised(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "log.eval"
    path.write_bytes(zip_of(members_of(sample(1), sample(2))))
    best = check_file(path, settings).best
    assert (best.name, best.n_read, best.n_refused, best.rewards[True]) == ("inspect", 2, 0, 2)


def test_a_run_that_did_not_end_is_read_by_its_journal(tmp_path: Path) -> None:
    members = members_of(sample(1))
    members["_journal/start.json"] = members.pop("header.json")
    assert len(readings_of(slices_of(tmp_path, zip_of(members)))) == 1


@pytest.mark.parametrize("packing", ["deflate", "zstd"])
def test_a_damaged_sample_costs_no_other(tmp_path: Path, packing: str) -> None:
    raw = zip_of(members_of(sample(1), sample(2)), packing)
    packed = PACKINGS[packing][1](json.dumps(sample(1)).encode())
    broken = raw.replace(packed, packed[: len(packed) // 2] + bytes(len(packed) - len(packed) // 2))
    first, second = slices_of(tmp_path, broken)
    assert (first.place, first.n_unread) == ("sample 1", len(packed))
    assert first.fault.startswith("its packing is damaged or cut")
    assert second.raw is not None


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", "no .eval archive that can be read"),
        (zip_of(members_of(sample(1)))[:-30], "no .eval archive that can be read"),
        (zip_of({"a.txt": b"x"}), "neither header.json nor"),
        (zip_of({"header.json": b"[1"}), "expected a log's header"),
        (zip_of({"header.json": b'{"version": 2}'}), "no object eval"),
        (zip_of(members_of()), "no samples/"),
    ],
    ids=["empty", "cut", "another zip", "a header that is no JSON", "a header without eval", "no samples"],
)
def test_what_is_no_log_is_refused(tmp_path: Path, raw: bytes, fault: str) -> None:
    (part,) = slices_of(tmp_path, raw)
    assert part.raw is None
    assert fault in part.fault


@pytest.mark.parametrize("packing", ["deflate", "zstd"])
def test_an_archive_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str) -> None:
    monkeypatch.setattr(eval_archive, "UNBOUNDED_BYTES", 1000)
    monkeypatch.setattr(eval_archive, "MAX_RATIO", 10)
    bomb = {"id": "bomb", "messages": [], "padding": " " * 5_000_000}
    parts = slices_of(tmp_path, zip_of({**members_of(), **members_of(sample(1), bomb, sample(2))}, packing))
    faults = {part.place: part.fault for part in parts if part.raw is None}
    assert sorted(faults) == ["sample 2", "sample 3"]
    assert all("unpacks to more than 10 times" in fault for fault in faults.values())


def test_a_sample_that_is_too_long_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_archive, "MAX_LINE_BYTES", 500)
    parts = slices_of(tmp_path, zip_of(members_of({**sample(1), "padding": " " * 600}, sample(2))))
    assert [part.raw is None for part in parts] == [True, False]
    assert "more than 500 bytes" in parts[0].fault


def test_a_byte_that_is_wrong_anywhere_stops_no_run(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "a.eval"
    whole = zip_of(members_of(sample(1)), "deflate")
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        slices = list(iter_documents(path, FORMATS["inspect"]))
        assert slices
        assert all(part.raw is not None or part.fault for part in slices)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_member_of_any_packing_costs_itself_alone(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.eval"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, raw in members_of(sample(1), sample(2)).items():
            archive.writestr(name, raw, zipfile.ZIP_STORED if name == "header.json" else method)
        place = archive.getinfo("samples/1_epoch_1.json").header_offset + 30 + len("samples/1_epoch_1.json") + 20
    damaged = bytearray(path.read_bytes())
    damaged[place : place + 12] = b"\xff" * 12
    path.write_bytes(damaged)
    slices = list(iter_documents(path, FORMATS["inspect"]))
    assert [part.raw is None for part in slices] == [True, False]
    assert "its packing is damaged or cut" in slices[0].fault
