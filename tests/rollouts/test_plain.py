"""Plain records: what trajtok reads of them is what the formats' own readers read, secrets and recorded questions included."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negtraj_dagster import _trajtok  # noqa: TID251 - tests the compiled module itself
from negtraj_dagster.rollouts import plain
from negtraj_dagster.rollouts.arrays import Slice
from negtraj_dagster.rollouts.documents import SIDECAR, FileDocument, parse_document
from negtraj_dagster.rollouts.formats import FORMATS, adp, llamafactory, openai
from negtraj_dagster.rollouts.landing import LandedFile
from negtraj_dagster.rollouts.read import _asked, _read_document, _row
from negtraj_dagster.rollouts.redact import NAME, Redactor, _gather
from negtraj_dagster.rollouts.secret_scan import find_secrets
from negtraj_dagster.schema import Rollout
from tests.conftest import SAMPLE_DATA
from tests.support.random_records import JSON, KEYS, RECORDS, TEXTS

N_FAST, N_SLOW = 1_500, 170_000
REDACTOR = Redactor(b"k" * 32)


def slowly(file: LandedFile, raw: bytes, redactor: Redactor | None) -> Any:
    """What the format's own reader reads: one rollout's columns, or why there is none, or how many rollouts."""
    reading, counts, _ = _read_document(file, Slice("line 1", raw), redactor)
    reading = [_asked(rollout) for rollout in reading] if file.has_recorded_questions else reading
    if counts or len(reading) != 1 or not isinstance(reading[0], Rollout):
        return [str(rollout) for rollout in reading], counts
    return _row(reading[0])


def landed(layout: str, *, is_recorded: bool = False) -> LandedFile:
    return LandedFile("t", layout, Path("a"), "a", "", 0, has_recorded_questions=is_recorded)


def check_alike(layout: str, raw: bytes, *, is_recorded: bool, is_redacted: bool) -> bool:
    """Whether the record is plain; if it is, both read it alike."""
    file, redactor = landed(layout, is_recorded=is_recorded), REDACTOR if is_redacted else None
    (seen,) = plain.look_through([(file, Slice("line 1", raw))], redactor)
    if seen.plain is not None:
        assert repr(seen.plain) == repr(slowly(file, raw, redactor))  # 0.0 and -0.0 are equal
    if seen.is_clean:
        quickly, thoroughly = (_read_document(file, Slice("line 1", raw), redactor, is_clean=clean) for clean in (True, False))
        assert repr(quickly) == repr(thoroughly)  # errors are equal to themselves alone
    return seen.plain is not None


@pytest.mark.parametrize("layout", RECORDS)
@settings(max_examples=N_FAST // 3, deadline=None)
@given(st.data())
def test_a_plain_record_is_read_as_its_formats_reader_reads_it(layout: str, data: st.DataObject) -> None:
    record, more = data.draw(RECORDS[layout])
    raw = json.dumps({**record, **more}, ensure_ascii=data.draw(st.booleans())).encode()
    check_alike(layout, raw, is_recorded=data.draw(st.booleans()), is_redacted=data.draw(st.booleans()))


@pytest.mark.slow
@pytest.mark.parametrize("layout", RECORDS)
@settings(max_examples=N_SLOW, deadline=None)
@given(st.data())
def test_a_plain_record_is_read_as_its_formats_reader_reads_it_at_length(layout: str, data: st.DataObject) -> None:
    record, more = data.draw(RECORDS[layout])
    raw = json.dumps({**record, **more}, ensure_ascii=data.draw(st.booleans())).encode()
    check_alike(layout, raw, is_recorded=data.draw(st.booleans()), is_redacted=data.draw(st.booleans()))


@pytest.mark.parametrize("layout", RECORDS)
@settings(max_examples=N_FAST // 3, deadline=None)
@given(st.data())
def test_the_texts_that_are_scanned_are_those_that_redaction_gathers(layout: str, data: st.DataObject) -> None:
    record, more = data.draw(RECORDS[layout])
    raw = json.dumps({**record, **more}).encode()
    texts = texts_of(raw, is_file=False)
    assert texts in (None, gathered({**record, **more}))


def texts_of(raw: bytes, *, is_file: bool) -> str | None:
    ((plain_rollout, texts),) = _trajtok.read_plain(
        [raw], layout="", task="t", has_recorded_questions=False, is_redacted=True, is_file=is_file
    )
    assert plain_rollout is None
    return texts


def gathered(value: Any) -> str | None:
    """The texts that are scanned; None where a value is secret by its name."""
    texts: list[str] = []
    named: list[str] = []
    _gather(value, "", texts, named)
    return None if named else "\n".join(texts)


@settings(max_examples=N_FAST // 3, deadline=None)
@given(
    st.lists(st.dictionaries(KEYS | TEXTS, JSON, max_size=3), min_size=1, max_size=3), st.sampled_from(["[", "\n", "\r\n\n"])
)
def test_the_texts_of_a_file_are_those_that_redaction_gathers(objects: list[dict[str, Any]], between: str) -> None:
    lines = [json.dumps(value) for value in objects]
    raw = f"[{','.join(lines)}]" if between == "[" else between.join(lines)
    document = parse_document(FORMATS["otel_genai"], raw.encode(), "file")
    texts = texts_of(raw.encode(), is_file=True)
    if texts is not None:
        assert isinstance(document, FileDocument)
        assert document.objects == objects
        assert not document.faults
        assert texts == gathered({"objects": document.objects, "beside": document.beside})


@pytest.mark.parametrize("beside", [b"", b"{}"])
def test_a_file_that_has_another_beside_it_is_not_looked_through(beside: bytes) -> None:
    raw = b'{"a": "b"}' + (SIDECAR + beside if beside else b"")
    assert texts_of(raw, is_file=True) == (None if beside else "objects\na\nb\nbeside")


@settings(max_examples=N_FAST, deadline=None)
@given(
    st.sampled_from(["", "x", "max_", "my-", "openai", "db ", "API_", "proxy-"]),
    st.from_regex(NAME, fullmatch=False) | st.sampled_from(["key", "tokens", "n_keys", "token", "Secret", "connectionString"]),
)
def test_every_telling_name_makes_a_document_one_to_look_at(before: str, name: str) -> None:
    key = before + name
    if NAME.search(key):
        assert texts_of(json.dumps({key: "x"}).encode(), is_file=False) is None
        assert texts_of(json.dumps({"name": key, "value": "x"}).encode(), is_file=False) is None


def test_words_that_are_like_telling_names_are_none() -> None:
    for key in ("max_tokens", "llm.token_count.prompt", "key", "monkey", "tokenizer", "passed", "keyword"):
        assert texts_of(json.dumps({key: "x", "value": [{"key": key, "value": "y"}]}).encode(), is_file=False) is not None


PLAIN = {
    "nat": {"id": "q", "conversations": [{"role": "assistant", "content": "a", "loss": True}], "info": {"reward": True}},
    "negtraj": {"question_id": "q", "messages": [{"role": "assistant", "content": "a"}], "reward": False},
    "openai": {
        "messages": [{"role": "user", "content": "how?"}, {"role": "assistant", "content": "so"}],
        "resolved": True,
        "instance_id": "i",
        "metadata": {"b": [1.5, None], "a": "a"},
    },
    "adp": {
        "id": "i",
        "content": [
            {"class_": "text_observation", "content": "a", "source": "user"},
            {"class_": "code_action", "content": "ls", "language": "bash", "description": "so"},
            {"class_": "text_observation", "content": "x", "source": "environment"},
        ],
        "details": {"b": 1, "a": []},
    },
    "llamafactory": {
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "gpt", "value": "so"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "x"},
            {"from": "gpt", "value": "y", "loss": False},
        ],
        "system": "s",
        "kto_tag": True,
    },
}


@pytest.mark.parametrize("layout", PLAIN)
@pytest.mark.parametrize("is_redacted", [True, False])
def test_what_is_plain_is_read_plainly(layout: str, is_redacted: bool) -> None:
    raw = json.dumps(PLAIN[layout]).encode()
    assert check_alike(layout, raw, is_recorded=False, is_redacted=is_redacted)
    assert check_alike("openai", json.dumps(PLAIN["openai"]).encode(), is_recorded=True, is_redacted=is_redacted)


@pytest.mark.parametrize("layout", PLAIN)
def test_a_secret_anywhere_makes_a_record_one_to_look_at(layout: str) -> None:
    token = "ghp_" + "a1B2" * 9
    assert find_secrets(token)
    for said in (token, json.dumps({"x": [token]}), f"[{token}"):
        raw = json.dumps(PLAIN[layout]).replace('"a"', json.dumps(said)).replace('"so"', json.dumps(said)).encode()
        assert not check_alike(layout, raw, is_recorded=False, is_redacted=True)
        assert check_alike(layout, raw, is_recorded=False, is_redacted=False)
    for key in ("password", "api_key", "Token", "auth_token", "apiKey", "\u212aey", "connection_string"):
        raw = json.dumps({**PLAIN[layout], key: "x"}).encode()
        assert not check_alike(layout, raw, is_recorded=False, is_redacted=True)


@pytest.mark.parametrize(
    ("layout", "record"),
    [
        ("adp", '{"content": [{"class_": "message_action", "content": "x"}], "details": {"a": %s}}'),
        ("adp", '{"content": [{"class_": "api_action", "function": "f", "kwargs": {"a": %s}}]}'),
        ("openai", '{"messages": [{"role": "assistant", "content": "x"}], "score": %s}'),
        ("llamafactory", r'{"messages": [{"role": "tool_call", "content": "{\"name\":\"f\",\"arguments\":{\"a\":%s}}"}]}'),
        ("negtraj", '{"question_id": "q", "messages": [{"role": "assistant", "content": "x"}], "tools": [{"a": %s}]}'),
    ],
)
@pytest.mark.parametrize(
    "number", ["-0", "-0.0", "0", "1e0", "-1", "9223372036854775808", "1E-7", "5e-324", "0.1", "100000000000000000000.0"]
)
def test_numbers_are_spelled_as_the_readers_spell_them(layout: str, record: str, number: str) -> None:
    is_plain = check_alike(layout, (record % number).encode(), is_recorded=False, is_redacted=False)
    assert is_plain or number not in ("0", "-1", "0.1")


@pytest.mark.parametrize(
    ("layout", "keys"),
    [("openai", openai.KEYS), ("adp", adp.KEYS), ("llamafactory", llamafactory.KEYS)],
    ids=["openai", "adp", "llamafactory"],
)
def test_both_readers_know_the_same_keys(layout: str, keys: set[str]) -> None:
    for key in keys | {"images", "more"}:
        for value in ("x", None, [], {"a": 1}):
            record = PLAIN[layout] if key in PLAIN[layout] else {**PLAIN[layout], key: value}
            check_alike(layout, json.dumps(record).encode(), is_recorded=False, is_redacted=False)
    for key in adp.ITEM_KEYS | {"more"}:
        items = [{**item, key: "x"} if key not in item else item for item in PLAIN["adp"]["content"]]
        check_alike("adp", json.dumps({"content": items}).encode(), is_recorded=False, is_redacted=False)


def test_a_misspelled_key_is_looked_at() -> None:
    for key, is_plain in (("rewards", False), ("resolvd", False), ("metadata", True), ("uuid", True)):
        raw = json.dumps({**PLAIN["openai"], key: 1}).encode()
        assert check_alike("openai", raw, is_recorded=False, is_redacted=True) == is_plain, key


def test_other_formats_and_mapped_sources_have_no_plain_records() -> None:
    raw = json.dumps(PLAIN["nat"]).encode()
    assert plain.look_through([(landed("atif"), Slice("line 1", raw))], None) == [plain.Seen(None, is_clean=False)]
    assert plain.look_through([(landed("atif"), Slice("line 1", raw))], REDACTOR) == [plain.Seen(None, is_clean=True)]
    assert plain.look_through([], None) == []


def test_most_of_the_real_rollouts_are_plain() -> None:
    folder = SAMPLE_DATA / "nat" / "strategyqa"
    if not folder.is_dir():
        pytest.skip("the real NAT files are not at hand")
    records = [row for path in sorted(folder.glob("strategyqa_gpt*.json")) for row in json.loads(path.read_text())]
    is_plain = [check_alike("nat", json.dumps(row).encode(), is_recorded=False, is_redacted=True) for row in records[::7]]
    assert sum(is_plain) > 0.95 * len(is_plain)
