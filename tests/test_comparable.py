"""The form in which texts are compared: what a reader takes for the same is the same, and nothing else is."""

import json
import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negtraj_dagster import _trajtok  # noqa: TID251 - compares words with those of the compiled module
from negtraj_dagster.comparable import extract_words, join_words, read_json_texts, separate_words
from negtraj_dagster.trajectories.signatures import find_pairs, find_quotes, sketch

QUESTION = "Is the café in Zürich open on the first day of the year?"
CHINESE = "请问北京的故宫博物院每年的第一天是否对外开放"
JAPANESE = "東京のガラス博物館は毎年の最初の日に開いていますか"
THAI = "พิพิธภัณฑ์ในกรุงเทพเปิดให้เข้าชมในวันแรกของปีหรือไม่"
HIDDEN = {
    "decomposed": (QUESTION, unicodedata.normalize("NFD", QUESTION)),
    "full width": (QUESTION, "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in QUESTION)),
    "soft hyphens": (QUESTION, "\u00ad".join(QUESTION)),
    "zero-width spaces": (QUESTION, "\u200b".join(QUESTION)),
    "joiners and marks of direction": (QUESTION, QUESTION.replace("a", "a\u2060\u200e\ufeff")),
    "other spaces": (QUESTION, QUESTION.replace(" ", "\u00a0")),
    "upper case": ("Wie groß ist die Straße?", "WIE GROSS IST DIE STRASSE?"),
    "final sigma": ("ο οδυσσεύς", "Ο ΟΔΥΣΣΕΎΣ"),
    "ligatures": ("the final office", "the \ufb01nal o\ufb03ce"),
    "half width": (JAPANESE, JAPANESE.replace("ガラス", "ｶﾞﾗｽ")),
    "letters as JSON escapes": (QUESTION, json.dumps(QUESTION)),
    "spaces of HTML": (QUESTION, QUESTION.replace(" ", "&nbsp;")),
    "spaces of an address": (QUESTION, QUESTION.replace(" ", "%20")),
    "letters as HTML numbers": (QUESTION, "".join(f"&#{ord(letter)};" for letter in QUESTION)),
    "letters as HTML names": (QUESTION, QUESTION.replace("é", "&eacute;").replace("ü", "&uuml;")),
    "Hangul fillers": (QUESTION, QUESTION.replace(" ", "\u3164")),
    "a letter beyond the first plane as an escape": ("𐐀 is a letter", json.dumps("𐐨 is a letter")),
}


def words(text: str) -> list[str]:
    return extract_words(pl.Series([text]))[0].to_list()


@pytest.mark.parametrize(("plain", "hidden"), HIDDEN.values(), ids=HIDDEN)
def test_texts_that_read_alike_have_the_same_words(plain: str, hidden: str) -> None:
    assert words(hidden) == words(plain)
    assert plain != hidden


@pytest.mark.parametrize(
    ("text", "other"),
    [("resume", "résumé"), ("a cat", "a cot"), ("co op", "coop"), ("中国", "国中"), ("हिन्दी", "हिदी")],
    ids=["an accent", "a letter", "a space", "an order", "a mark"],
)
def test_texts_that_read_differently_have_other_words(text: str, other: str) -> None:
    assert words(text) != words(other)


def test_each_character_is_a_word_where_a_script_has_no_spaces() -> None:
    assert words("Python是語言, ครับ ガー!") == ["python", "是", "語", "言", "ค", "รั", "บ", "ガ", "ー"]


def test_a_word_keeps_its_marks() -> None:
    assert words("हिन्दी में, naïve 3½ __x__") == ["हिन्दी", "में", "naïve", "31", "2", "x"]


@given(st.text())
def test_the_form_of_a_form_is_itself(text: str) -> None:
    once = join_words(pl.Series([text], dtype=pl.String))
    assert join_words(once).to_list() == once.to_list()


@given(st.text(), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_no_normal_form_changes_the_words(text: str, form: str) -> None:
    visible = text.replace("\\", "")
    assert words(unicodedata.normalize(form, visible)) == words(visible)  # type: ignore[arg-type]


@given(st.text(st.characters(max_codepoint=127)))
def test_trajtok_takes_the_same_words_of_plain_texts(text: str) -> None:
    texts = pl.Series([text, "é", None], dtype=pl.String)
    shingles = [pl.DataFrame(_trajtok.ngrams(prepare(texts), n_words=2)) for prepare in (separate_words, join_words)]
    assert shingles[0].equals(shingles[1])


def test_nulls_stay_nulls() -> None:
    assert join_words(pl.Series([None, "É", ""], dtype=pl.String)).to_list() == [None, "é", ""]


@pytest.mark.parametrize("question", [QUESTION, CHINESE, JAPANESE, THAI], ids=["latin", "chinese", "japanese", "thai"])
@pytest.mark.parametrize(
    "hide", [str, "\u200b".join, "\u00ad".join, lambda text: unicodedata.normalize("NFD", text), json.dumps]
)
def test_a_quoted_question_is_found_in_the_texts_of_a_conversation(question: str, hide: object) -> None:
    turns = [{"role": "user", "content": f"Observation: 問 {hide(question)} 答"}, {"role": "assistant", "content": "1"}]  # type: ignore[operator]
    texts = read_json_texts(pl.Series([json.dumps(turns, ensure_ascii=False), json.dumps(turns[1:])]))
    hits = find_quotes(["quotes", "speaks"], texts, pl.Series(["q"]), pl.Series([question]))
    assert hits.filter(pl.col("n_shared") == pl.col("n_ngrams"))["rollout_key"].to_list() == ["quotes"]


SAID = {
    "chinese": (CHINESE * 2, "我先搜索故宫博物院的开放时间然后根据结果回答这个问题"),
    "japanese": (JAPANESE * 2, "まず開館時間を検索してから結果に基づいて質問に答えます"),
    "thai": (THAI * 2, "ฉันจะค้นหาเวลาทำการก่อนแล้วจึงตอบคำถามตามผลลัพธ์ที่ได้"),
}


@pytest.mark.parametrize(("said", "other"), SAID.values(), ids=SAID)
def test_near_duplicates_are_found_in_scripts_without_spaces(said: str, other: str) -> None:
    texts = pl.Series([said, f"{said}了", other])
    rows = pl.DataFrame({"rollout_key": ["a", "b", "c"], "question_id": ["q"] * 3, "at": [2, 0, 1]})
    pairs = find_pairs(rows, sketch(texts.gather([1, 2, 0]))).filter("is_earlier")
    assert pairs.select("rollout_key", "other_key").rows() == [("b", "a")]
    assert pairs["similarity"][0] > 0.8
