"""Machines with one `store_url`: two that write at once lose nothing, on S3's protocol and on a shared file system."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from negtraj_dagster.errors import StoreError
from negtraj_dagster.rollouts.landing import ARRIVALS, LandedFile, in_order_of_arrival
from negtraj_dagster.store import Built, Store
from negtraj_dagster.store.pointers import N_HISTORY
from negtraj_dagster.store.remote import N_KEPT, Remote, Version

WRITER = """
import json, sys, time
from pathlib import Path
from negtraj_dagster.rollouts.landing import in_order_of_arrival
from negtraj_dagster.store import Store
from tests.test_shared_store import landed, write_hello
home, url, name, n_rounds, start = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), Path(sys.argv[5])
store, keys = Store(home, remote=url), []
(start / name).touch()
while len(list(start.iterdir())) < 2:
    time.sleep(0.005)
for number in range(n_rounds):
    in_order_of_arrival(store, [landed(f"{name}-{number}.jsonl")])  # alone: what is lost must not come back by itself
    keys.append(store.build("greeting", {"writer": name, "number": number}, write_hello).key)
print(json.dumps(keys))
"""


def landed(name: str) -> LandedFile:
    return LandedFile("wordtraps", "negtraj", Path(name), name, hashlib.sha256(name.encode()).hexdigest(), 1)


def write_hello(folder: Path) -> Built:
    (folder / "hello.txt").write_text("hello")
    return Built(content={"text": "hello"})


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A shared store of each kind."""
    if request.param == "s3":
        return str(request.getfixturevalue("s3"))
    return f"file://{tmp_path}/shared" if request.param == "file" else f"memory://{tmp_path}"


@pytest.mark.parametrize("n_rounds", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["file", "s3"])
def test_two_machines_that_write_at_once_lose_nothing_and_agree_on_the_order(
    kind: str, n_rounds: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("s3") if kind == "s3" else f"file://{tmp_path}/shared"
    start = tmp_path / "start"
    start.mkdir()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / name), url, name, str(n_rounds), str(start)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for name in ("one", "two")
    ]
    keys = [json.loads(writer.communicate(timeout=300)[0]) for writer in writers]
    stores = [Store(tmp_path / name, remote=url) for name in ("one", "two")]
    lines = (stores[0].read_text(ARRIVALS) or "").splitlines()
    assert len(lines) == 2 * n_rounds
    names = [f"{name}-{number}.jsonl" for number in range(n_rounds) for name in ("one", "two")]
    orders = [[file.name for file in in_order_of_arrival(store, [landed(name) for name in names])] for store in stores]
    assert sorted(orders[0]) == sorted(names)
    assert orders[0] == orders[1]
    assert orders[0] == [json.loads(line)["file"].rpartition("/")[2] for line in lines]
    for name in ("one", "two"):
        assert [file for file in orders[0] if file.startswith(name)] == [f"{name}-{number}.jsonl" for number in range(n_rounds)]
    history = stores[0].history("greeting")
    assert history == stores[1].history("greeting")
    assert set(history) <= {key for own in keys for key in own}
    assert len(history) == len(set(history)) == min(2 * n_rounds, N_HISTORY)


def test_the_second_of_two_writers_is_refused_and_nothing_changes(url: str) -> None:
    one, two = Remote(url), Remote(url)
    present = one.read("current/a.json")
    assert present == Version(0, None)
    assert one.replace("current/a.json", "one", present)
    assert not two.replace("current/a.json", "two", present)
    assert two.read("current/a.json") == Version(1, "one")
    assert two.replace("current/a.json", "two", Version(1, "one"))
    assert one.read("current/a.json") == Version(2, "two")


def test_a_text_that_an_earlier_version_left_in_one_file_is_read_and_goes_on(tmp_path: Path) -> None:
    entry = json.dumps({"file": "wordtraps/negtraj/a.jsonl", "piece": "1"})
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / ARRIVALS).write_text(f"{entry}\n")
    store = Store(tmp_path / "home", remote=f"file://{tmp_path}/shared")
    in_order_of_arrival(store, [landed("b.jsonl")])
    assert [json.loads(line)["file"][-7:] for line in (store.read_text(ARRIVALS) or "").splitlines()] == ["a.jsonl", "b.jsonl"]


def test_what_a_home_saw_before_it_shared_a_store_joins_the_list(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared"
    in_order_of_arrival(Store(tmp_path / "own"), [landed("z.jsonl"), landed("b.jsonl")])
    in_order_of_arrival(Store(tmp_path / "other", remote=url), [landed("a.jsonl")])
    joined = Store(tmp_path / "own", remote=url)
    in_order_of_arrival(joined, [landed("0.jsonl")])
    lines = (joined.read_text(ARRIVALS) or "").splitlines()
    assert [json.loads(line)["file"].rpartition("/")[2] for line in lines] == ["a.jsonl", "z.jsonl", "b.jsonl", "0.jsonl"]


@pytest.mark.parametrize("n_later", [N_KEPT - 1, N_KEPT + 5])
def test_old_versions_are_dropped_and_writers_that_slept_meanwhile_are_refused(url: str, n_later: int) -> None:
    remote = Remote(url)
    slept = [remote.read("pins/a.json")]
    for number in range(2 + n_later):
        assert remote.replace("pins/a.json", str(number), remote.read("pins/a.json"))
        slept.append(remote.read("pins/a.json"))
    assert slept[0] == Version(0, None)
    for present in slept[:-1]:  # none of them makes room for the next one
        assert not remote.replace("pins/a.json", "late", present), present
    assert remote.read("pins/a.json") == Version(2 + n_later, str(1 + n_later))
    assert len(remote._numbers("pins/a.json")) == min(N_KEPT, 2 + n_later)


@pytest.mark.parametrize("folder", ["x[ab]y", "x*y?", "a b", "ü", "{a,b}"])
@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_a_url_with_odd_characters_is_written_to_as_it_stands(protocol: str, folder: str, tmp_path: Path) -> None:
    url = f"{protocol}://{tmp_path}/{folder}"
    built = Store(tmp_path / "one", remote=url).build("greeting", {"n": 1}, write_hello)
    other = Store(tmp_path / "two", remote=url)
    current = other.current("greeting")
    assert current is not None
    assert current.key == built.key
    assert (other.load("greeting", built.key).folder / "hello.txt").read_text() == "hello"


def test_on_s3_an_object_is_one_request_that_writes(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    call = S3FileSystem._call_s3

    async def record(self: S3FileSystem, method: str, *arguments: object, **options: object) -> object:
        calls.append(method)
        return await call(self, method, *arguments, **options)

    monkeypatch.setattr(S3FileSystem, "_call_s3", record)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.txt", "MANIFEST.json"):
        (folder / name).write_text("x")
    Remote(s3).put(folder, "objects/a/1")
    assert [name for name in calls if name.startswith(("put", "copy", "delete", "create"))] == ["put_object", "put_object"]


def test_a_store_that_cannot_be_reached_is_named_with_the_remedy(tmp_path: Path, s3: str) -> None:
    store = Store(tmp_path / "home", remote="s3://no-such-bucket/negtraj")
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/negtraj.*cannot be reached.*store_url") as caught:
        store.build("greeting", {"n": 1}, write_hello)
    assert "NEGTRAJ_HOME" not in str(caught.value)


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A file system that has no hard links."""

    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("without_links", [errno.EPERM, errno.ENOTSUP, errno.EMLINK], indirect=True, ids=errno.errorcode.get)
@pytest.mark.usefixtures("without_links")
def test_a_file_system_without_hard_links_is_shared_all_the_same(tmp_path: Path) -> None:
    one, two = (Remote(f"file://{tmp_path}/shared") for _ in range(2))
    assert one.replace("pins/a.json", "", Version(0, None))
    assert not two.replace("pins/a.json", "two", Version(0, None))
    assert two.read("pins/a.json") == Version(1, "")
    assert two.replace("pins/a.json", "two", Version(1, ""))
    assert one.read("pins/a.json") == Version(2, "two")
    assert sorted(path.name[-1] for path in (tmp_path / "shared/versions/pins/a.json").iterdir()) == ["1", "2"]


def test_any_other_refusal_of_a_link_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreError, match="is full"):
        Remote(f"file://{tmp_path}/shared").replace("pins/a.json", "one", Version(0, None))
    assert not [path for path in (tmp_path / "shared").rglob("*") if path.is_file()]


def test_a_name_without_content_is_waited_for_and_then_taken_for_a_killed_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote(f"file://{tmp_path}/shared")
    assert remote.replace("pins/a.json", "one", Version(0, None))
    unfilled = tmp_path / "shared/versions/pins/a.json/000000000002"
    unfilled.touch()
    filler = threading.Timer(0.2, unfilled.write_text, ("two",))
    filler.start()
    assert remote.read("pins/a.json") == Version(2, "two")
    filler.join()
    unfilled.write_text("")
    monkeypatch.setattr("negtraj_dagster.store.remote.CREATING_S", 0.2)
    assert remote.read("pins/a.json") == Version(2, "one")
    assert remote.replace("pins/a.json", "three", Version(2, "one"))
    assert remote.read("pins/a.json") == Version(3, "three")


@pytest.mark.parametrize("without_links", [errno.EPERM], indirect=True)
@pytest.mark.usefixtures("without_links")
def test_a_writer_that_was_taken_for_a_killed_one_merges_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote(f"file://{tmp_path}/shared")
    assert remote.replace("pins/a.json", "one", Version(0, None))
    move = os.replace

    def late(source: Path, target: Path) -> None:
        target.with_name("000000000003").write_text("three")
        move(source, target)

    monkeypatch.setattr(os, "replace", late)
    assert not remote.replace("pins/a.json", "two", Version(1, "one"))
