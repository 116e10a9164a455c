import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from negtraj_dagster.rollouts import records
from negtraj_dagster.rollouts.records import iter_records, parse_proper_lines, parse_record, parse_text


def read(text: str | bytes) -> list[tuple[str, object]]:
    raw = text.encode() if isinstance(text, str) else text
    return [(record.place, record.value if record.value is not None else record.fault) for record in iter_records(raw)]


def test_json_lines_are_placed_by_line_and_blank_lines_are_nothing() -> None:
    assert read('{"a":1}\n\n{"a":2}\r\n') == [("line 1", {"a": 1}), ("line 3", {"a": 2})]


def test_an_array_is_placed_by_index() -> None:
    assert read('\n[{"a":1},\n {"a":2}]') == [("index 0", {"a": 1}), ("index 1", {"a": 2})]
    assert read("[]") == []


def test_a_byte_order_mark_is_skipped() -> None:
    assert read(b'\xef\xbb\xbf{"a":1}') == [("line 1", {"a": 1})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ('{"a":1} x', "text after the record"),
        ('{"a":NaN}', "NaN is not JSON"),
        ('{"a":Infinity}', "Infinity is not JSON"),
        ('{"a":1,"a":2}', "'a' stands twice"),
        ('{"a":"\\ud800"}', "lone surrogate"),
        ('{"a":[{"b":["\\udfff"]}]}', "lone surrogate"),
        ('{"a":1e999}', "a number too large"),
        ("[" * 20 + "1" + "]" * 20, "found list"),
        ("3", "found int"),
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"a":' + "9" * 5000 + "}", "digits"),
    ],
    ids=[
        "cut",
        "rest",
        "nan",
        "infinity",
        "twice",
        "surrogate",
        "nested-surrogate",
        "inf",
        "list",
        "number",
        "deep",
        "long-int",
    ],
)
def test_a_bad_line_is_rejected_by_reason_and_its_neighbours_survive(line: str, reason: str) -> None:
    found = read(f'{{"a":1}}\n{line}\n{{"a":3}}\n')
    assert found[0] == ("line 1", {"a": 1})
    assert found[2] == ("line 3", {"a": 3})
    assert found[1][0] == "line 2"
    assert reason in str(found[1][1])


def test_a_line_that_is_not_utf8_is_rejected_alone() -> None:
    assert [place for place, _ in read(b'{"a":1}\n{"a":"\xff"}\n{"a":3}')] == ["line 1", "line 2", "line 3"]
    assert "not UTF-8" in str(read(b'{"a":1}\n{"a":"\xff"}\n{"a":3}')[1][1])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"a":1},{"a":', "5 bytes from there to the end are not read"),
        ('[{"a":1}', "the array is not closed"),
        ('[{"a":1},', "the array is not closed"),
        ('[{"a":1}] tail', "4 bytes after the array's end"),
    ],
    ids=["cut-record", "cut-array", "cut-at-comma", "tail"],
)
def test_a_cut_array_keeps_its_good_records_and_says_what_is_not_read(text: str, reason: str) -> None:
    rows = read(text)
    assert rows[0] == ("index 0", {"a": 1})
    assert reason in str(rows[-1][1])
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"a":' + b"9" * 5000 + b"}", "digits"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a":1 "b":2}', "not JSON"),
        (b'{"a":tru}', "not JSON"),
        (b'{"a":"\x07"}', "not JSON"),
        (b"tru", "not JSON"),
        (b"", "no record at this place"),
    ],
    ids=["huge-integer", "not-utf8", "deep", "missing-comma", "misspelled", "control", "bare-word", "nothing"],
)
def test_a_record_that_cannot_be_read_costs_an_array_that_record_alone(record: bytes, reason: str) -> None:
    rows = read(b"[" + record + b"," + b",".join(b'{"n":%d}' % n for n in range(500)) + b"]")
    assert reason in str(rows[0][1])
    assert [value for _, value in rows[1:]] == [{"n": n} for n in range(500)]


def test_records_of_an_array_without_a_comma_between_them_are_both_read() -> None:
    assert read('[{"a":1} {"a":2},{"a":3}]') == [(f"index {n}", {"a": n + 1}) for n in range(3)]


def test_arrays_that_follow_each_other_are_read_as_one_file() -> None:
    assert read('[{"a":1}]\n[{"a":2}]') == [("index 0", {"a": 1}), ("index 1", {"a": 2})]


@pytest.mark.parametrize("indentation", ["", "  ", "\t"], ids=["none", "two", "tab"])
@pytest.mark.parametrize(
    "record",
    ['{"a":{"b":1}', '{"a":[1}}', '{"a":"x}', '{"a":"x\n y"}', '{"a":1}}'],
    ids=["open-brace", "wrong-bracket", "open-quote", "line-break-in-text", "brace-too-many"],
)
def test_reading_goes_on_at_the_next_record_s_line_where_brackets_do_not_fit(record: str, indentation: str) -> None:
    records = ['{"n":0}', record, *(f'{{"n":{n}}}' for n in range(1, 100))]
    rows = read("[\n" + ",\n".join(f"{indentation}{text}" for text in records) + "\n]")
    values = [value for _, value in rows if isinstance(value, dict) and "n" in value]
    faults = [value for _, value in rows if isinstance(value, str)]
    assert values == [{"n": n} for n in range(100)]
    assert len(faults) == 1
    assert "reading goes on at line" in faults[0]


@pytest.mark.parametrize(
    "record",
    ['{"n":0}', '{"a":{"b":1}', '{"a":[1}}', '{"a":"x}', '{"a":1}}'],
    ids=["good", "open-brace", "wrong-bracket", "open-quote", "brace-too-many"],
)
@pytest.mark.parametrize("n_before", [0, 1, 2])
def test_a_first_record_behind_the_arrays_bracket_hides_no_line_of_a_later_one(record: str, n_before: int) -> None:
    good = [f'{{"n":{n}}}' for n in range(1, 100)]
    texts = [*good[:n_before], record, *good[n_before:50], '{"a":[}', *good[50:]]
    rows = read("[" + ",\n".join(f" {text}" for text in texts) + "\n]\n")
    values = [value for _, value in rows if isinstance(value, dict)]
    assert [value for value in values if value.get("n")] == [{"n": n} for n in range(1, 100)]
    assert sum("reading goes on at line" in str(value) for _, value in rows) == (1 if record == '{"n":0}' else 2)


@pytest.mark.parametrize(
    "text",
    [
        '[{"a":[},{"messages":[\n{"n":1},\n{"n":2}\n]},{"messages":[\n{"n":1}]}]',
        '[{"a":[}, {\n "messages": [\n  {"n":1}\n ]\n}]',
        '[{"a":[\n  {"n":1},\n  {"n":2}]',
    ],
    ids=["in lists", "deeper than keys", "in the broken one"],
)
def test_objects_inside_of_records_are_never_taken_for_records(text: str) -> None:
    assert not [value for _, value in read(text) if isinstance(value, dict)]


def test_one_broken_record_does_not_make_reading_slow() -> None:
    """Every record behind it was copied with all that followed: the time grew with the square of their number."""

    def seconds(n_records: int) -> float:
        text = "[" + ",".join(f'{{"n":{n} tru}}' for n in range(n_records)) + "]"
        began = time.perf_counter()
        assert len(read(text)) == n_records
        return time.perf_counter() - began

    seconds(1_000)
    assert seconds(40_000) < 30 * seconds(4_000)  # of ten times as many; a hundred times where each is copied


def test_objects_that_begin_at_the_records_indentation_are_never_taken_for_records() -> None:
    text = json.dumps([{"n": 0}, {"list": [{"n": 1}]}, {"n": 2}], indent=0).replace('"list": [', '"list": [[')
    rows = read(text)
    assert rows[0] == ("index 0", {"n": 0})
    assert [value for _, value in rows[1:] if isinstance(value, dict)] == []
    assert "bytes from there to the end are not read" in str(rows[1][1])


@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_an_object_over_several_lines_is_one_record_that_is_refused_with_the_remedy(ending: str) -> None:
    text = json.dumps({"question_id": "q", "messages": [{"role": "assistant", "content": "x"}]}, indent=1) + "\n"
    rows = read((text + '{"a":1}\n' + text).replace("\n", ending))
    n_lines = text.count("\n")
    assert [place for place, _ in rows] == ["line 1", f"line {n_lines + 1}", f"line {n_lines + 2}"]
    assert rows[1][1] == {"a": 1}
    assert f"one object over lines 1 to {n_lines}; write it on one line" in str(rows[0][1])


def test_a_brace_alone_on_a_line_hides_no_record() -> None:
    assert [value for _, value in read('{\n{"a":1}\n{\n{"a":2}')][1::2] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        ("[{}]".encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PAR1", "Parquet"),
        ('{"a":1}'.encode("utf-32-le"), "NUL"),
    ],
    ids=["utf-16", "gzip", "parquet", "utf-32"],
)
def test_a_file_of_another_kind_is_one_line_of_quarantine(raw: bytes, fault: str) -> None:
    ((place, reason),) = read(raw * 3)
    assert place == "file"
    assert fault in str(reason)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1} SECRET',
        '[{"a":1}] SECRET',
        '[{"a":1},{"a":"SECRET]',
        '{"a":"SECRET","a":1}',
        '{"a":"SECRET\\ud800"}',
        "SECRET",
        '"SECRET"',
        '{"a":SECRET}',
    ],
)
def test_no_reason_quotes_what_a_record_holds(text: str) -> None:
    faults = [str(value) for _, value in read(text) if isinstance(value, str)]
    assert faults
    assert not any("SECRET" in fault for fault in faults)


def test_strings_with_line_separators_stay_in_one_record() -> None:
    text = json.dumps({"a": "x\u2028y\u0085z"}, ensure_ascii=False)
    assert read(text) == [("line 1", {"a": "x\u2028y\u0085z"})]


def test_json_text_inside_a_record_is_read_as_it_stands() -> None:
    assert parse_text(' [{"b": 1.0, "a": "é"}]\n') == [{"b": 1.0, "a": "é"}]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("{} x", "not JSON"),
        ("NaN", "NaN is not JSON"),
        ("1e999", "a number too large"),
        ('{"a":1,"a":2}', "'a' stands twice"),
        ('"\\ud800"', "lone surrogate"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    ],
    ids=["empty", "rest", "nan", "inf", "twice", "surrogate", "deep"],
)
def test_json_text_inside_a_record_is_refused_as_the_record_would_be(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_text(text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
SPELLINGS = st.one_of(
    st.tuples(JSON_VALUES, st.booleans()).map(lambda pair: json.dumps({"a": pair[0]}, ensure_ascii=pair[1])),
    st.text(alphabet='{}[]",:0123456789.eE+-aInfNtrue\\u d\n\t', max_size=40).map(lambda text: '{"a":' + text + "}"),
    st.from_regex(r'\{"a":-?(0|[1-9]\d{0,30})(\.\d{1,30})?([eE][+-]?\d{1,4})?\}', fullmatch=True),
)


@given(SPELLINGS)
@example('{"a":1e999}')
@example('{"a":-0}')
@example('{"a":-0.0}')
@example('{"a":1,"a":1}')
@example('{"a":"\\ud83d\\ude00"}')
@example('{"a":"\\ud83d"}')
@example('{"a":' + "9" * 4301 + "}")
@example('{"a":' + "9" * 309 + ".0}")
def test_the_quick_parser_gives_what_the_slow_one_gives(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    quick = parse_record(raw, "line 1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_parse_quickly", refuse)
        slow = parse_record(raw, "line 1")
    assert repr(quick) == repr(slow)


def refuse(_raw: bytes, *, is_proper: bool) -> object:
    del is_proper
    raise ValueError


GOOD_LINES = ['{"a":1}', '{"c":[{}]}\r', '{"b":"\u2028"}', "{}"]
BAD_LINES = ['{"a":1,"a":2}', '{"a":1e999}', '{"a":"\\ud800"}', '{"d":2} {"e":3}', "", " ", "{", "}", "[1]", '{"a":', '"b"}']
LINES = st.sampled_from([*GOOD_LINES, *BAD_LINES, ' {"f":4}'])


@given(st.lists(LINES, max_size=6).map("\n".join))
@example('{"a":1}\n{"a":2}')
@example('{"a":\n{"b":1}}')
@example('\ufeff{"a":1}\n{"a":2}')
@example('{"a":1}\n{"a":1,"a":2}')
def test_lines_that_are_read_at_once_are_read_as_one_by_one(text: str) -> None:
    objects = parse_proper_lines(text.encode())
    if objects is not None:
        assert [value for _, value in read(text)] == objects
    is_plain = len(text.split("\n")) > 1 and all(line in ('{"a":1}', '{"c":[{}]}\r') for line in text.split("\n"))
    assert objects is not None or not is_plain
