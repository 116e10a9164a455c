import json

import pytest

from negtraj_dagster.rollouts.records import iter_records, parse_text


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
        ('[{"a":1},{"a":', "on the array cannot be read"),
        ('[{"a":1}', "the array is not closed"),
        ('[{"a":1} {"a":2}]', "expected ',' or ']'"),
        ('[{"a":1}] tail', "text after the array's end"),
    ],
    ids=["cut-record", "cut-array", "no-comma", "tail"],
)
def test_a_broken_array_keeps_its_good_records_and_says_where_it_breaks(text: str, reason: str) -> None:
    found = read(text)
    assert found[0] == ("index 0", {"a": 1})
    assert reason in str(found[-1][1])


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
