"""The quality page: what it says, that it holds nothing but text of hostile rollouts, and that it stays small."""

import re
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from negtraj_dagster.printable import visible
from negtraj_dagster.store import Built, Published
from negtraj_dagster.views.quality_page import browse, page
from negtraj_dagster.views.quality_page.browse import ROLLOUT_BYTES, ShownRollout, anchor, rollout_html
from negtraj_dagster.views.quality_page.numbers import profile_numbers, read_tables
from negtraj_dagster.views.quality_page.page import MAX_PAGE_BYTES, write_quality_page
from tests.support.corpus_home import TASK, CorpusHome, episode, solved

ASSET = f"trajectory_corpus/{TASK}"
ALLOWED_TAGS = {
    *re.findall(r"\w+", "html head meta title style body h1 h2 h3 p div nav ul li a b i span code table tr th td dl dt dd pre"),
    *re.findall(r"\w+", "details summary svg g rect line circle polyline text"),
}
HOSTILE = "</pre></details><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\u202egnirts\x00\u2028{{ }}'\"&lt;"


class _Page(HTMLParser):
    """Tags, attributes, ids and links of a page, and whether every element is closed."""

    VOID = ("meta",)

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [str(value) for name, value in attrs if name == "id"]
        self.links += [str(value) for name, value in attrs if name == "href"]
        if tag not in self.VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


@pytest.fixture
def corpus_home(tmp_path: Path) -> CorpusHome:
    return CorpusHome(tmp_path)


def write(home: CorpusHome, previous: Published | None = None) -> str:
    store = home.store
    raw, corpus, scored = (store.require(name) for name in ("raw_rollouts", ASSET, "scored_trajectories"))
    path = write_quality_page(store, raw, corpus, scored, home.profiles(), previous)
    assert path == home.home / "quality" / f"{TASK}.html"
    assert path.stat().st_size <= MAX_PAGE_BYTES
    return path.read_text(encoding="utf-8")


def check_harmless(text: str) -> _Page:
    """The page parses, holds only elements of ours, loads nothing, and no character acts."""
    found = _Page(text)
    assert found.open == []
    assert found.tags <= ALLOWED_TAGS
    assert not [name for name in found.attributes if name.startswith("on") or name in ("src", "style", "srcset")]
    assert len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links} <= set(found.ids), "links lead to places on the page only"
    assert "default-src 'none'" in text
    assert visible(text) == text
    return found


def test_the_page_says_what_the_filters_did(corpus_home: CorpusHome) -> None:
    corpus_home.filter("silver")
    corpus_home.land([solved(0, "silver"), solved(2), solved(4, "salt"), solved(1, reward=False), episode(6, reward=False)])
    corpus_home.build()
    text = write(corpus_home)
    found = check_harmless(text)
    said = " ".join(found.said)
    for heading in ("Overview", "Profile strict", "Profile paper", "Funnel", "Which reasons come together", "Scores"):
        assert f">{heading}</h" in text
    assert "There is no earlier object to compare with." in said
    assert "empty_trajectory (drop)" in said
    assert "No filter hits it." in said
    assert "Would pebble 0 outweigh feather 0?" in said
    assert "positive, by recorded" in said
    assert text.count('class="turn agent marked"') == 2, "both steps that say it"
    assert "▸ says_word: says silver" in said


def test_numbers_count_survivors_by_quality_reason_and_source(corpus_home: CorpusHome) -> None:
    corpus_home.filter("silver")
    twin = {**solved(2, "silver"), "source": "b"}
    corpus_home.land([solved(0), solved(2, "silver"), twin, solved(1, reward=False), episode(6, reward=False)])
    corpus = corpus_home.build()
    store = corpus_home.store
    profile = corpus_home.profiles()["strict"]
    tables = read_tables(store, corpus, store.require("scored_trajectories"), {"strict": profile})
    numbers = profile_numbers(tables, profile, corpus.details["profiles"]["strict"])
    assert numbers.n_rollouts == {"positive": 3, "negative": 2}
    assert numbers.n_kept == {"positive": 1, "negative": 1}
    assert numbers.cuts[0] == (0.0, numbers.n_kept)
    assert all(
        one[name] >= other[name] for (_, one), (_, other) in zip(numbers.cuts, numbers.cuts[1:], strict=False) for name in one
    )
    assert {name: sum(counts) for name, counts in numbers.kept_bins.items()} == numbers.n_kept
    assert sum(map(sum, numbers.dropped_bins.values())) == 3
    assert (("says_word",), {"positive": 1, "negative": 0}) in numbers.combinations
    assert (("exact_duplicate", "near_duplicate", "says_word"), {"positive": 1, "negative": 0}) in numbers.combinations
    assert numbers.n_other == 0


def test_what_flipped_is_told_with_its_cause_and_can_be_opened(corpus_home: CorpusHome) -> None:
    corpus_home.filter("gold")
    corpus_home.land([solved(0, "silver"), solved(2)])
    before = corpus_home.build()
    corpus_home.filter("silver")
    corpus = corpus_home.build()
    text = write(corpus_home, before)
    said = " ".join(check_harmless(text).said)
    assert "edited (word 'gold' → 'silver')" in said
    assert "accepted → rejected" in said
    key = corpus_home.keys(corpus)[0]
    assert f'<td class=left><a href="#{anchor(key)}"><code>{key[:12]}' in text


def test_an_object_before_of_an_older_layout_is_said_to_be_so(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0)])
    corpus_home.build()
    old = corpus_home.store.build("trajectory_corpus/other", {"code": 1}, lambda _: Built(content={"n_rollouts": 1}))
    assert "was made under an older layout" in write(corpus_home, old)


def test_an_empty_corpus_has_a_page_that_says_why(corpus_home: CorpusHome) -> None:
    corpus_home.build()
    text = write(corpus_home)
    check_harmless(text)
    assert "no rollouts of task strategyqa have landed" in text


def test_the_same_corpus_gives_the_same_bytes(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0), solved(1, reward=False), episode(6, reward=False)])
    corpus_home.build()
    assert write(corpus_home) == write(corpus_home)


def test_conversations_are_read_for_the_rollouts_that_are_shown_only(
    corpus_home: CorpusHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus_home.land([solved(n % 10, f"word{n}", source=str(n)) for n in range(60)])
    corpus = corpus_home.build()
    asked: list[int] = []
    read = browse.iter_conversations

    def counting(store, raw, base_keys: pl.Series, *, max_bytes: int):  # type: ignore[no-untyped-def]
        asked.append(base_keys.n_unique())
        return read(store, raw, base_keys, max_bytes=max_bytes)

    monkeypatch.setattr(browse, "iter_conversations", counting)
    text = write(corpus_home)
    assert corpus.content["n_rollouts"] == 60
    assert asked == [text.count('<details class="rollout">')]
    assert asked[0] < 30


def hostile_rows(n: int) -> list[dict[str, object]]:
    """Rollouts that try to break out of the page, and to fill it."""
    rows = []
    for number in range(n):
        turns: list[dict[str, object]] = [
            {
                "role": "assistant",
                "content": f"Thought: {HOSTILE * 50}\nAction: calculate[{HOSTILE}]",
                "reasoning": HOSTILE * 100,
            },
            {"role": "user", "content": "\U000e0041\x00<" * 30_000},
            *({"role": ("assistant", "user")[step % 2], "content": f"{HOSTILE} {step} {number}"} for step in range(600)),
            {"role": "assistant", "content": f"Action: finish[{HOSTILE}{number}]"},
        ]
        source = HOSTILE.replace("\x00", "") + str(number)
        rows.append({"question_id": f"train-{number % 10}", "source": source, "reward": number % 3 > 0, "messages": turns})
    return rows


def test_hostile_rollouts_are_text_and_nothing_else(corpus_home: CorpusHome) -> None:
    corpus_home.land(hostile_rows(12))
    before = corpus_home.build()
    corpus_home.land(hostile_rows(14))
    corpus = corpus_home.build()
    assert corpus.content["n_rollouts"] == 14
    text = write(corpus_home, before)
    found = check_harmless(text)
    said = " ".join(found.said)
    assert "<script>alert(1)</script>" in said, "shown as text"
    assert r"\x1b[31m\u202egnirts\x00" in said
    assert "turns are not shown here" in said
    assert "cut: " in said


def test_a_full_page_ends_with_a_note_and_not_with_more_bytes(corpus_home: CorpusHome, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus_home.land(hostile_rows(30))
    corpus_home.build()
    whole = len(write(corpus_home).encode())
    limit = whole // 3
    monkeypatch.setattr(page, "MAX_PAGE_BYTES", limit)
    monkeypatch.setattr(page, "RESERVED_BYTES", 20_000)
    text = write(corpus_home)
    assert len(text.encode()) <= limit
    assert "is left out: the page is full" in text
    check_harmless(text)


def test_a_long_rollout_keeps_its_marked_steps() -> None:
    turns = [f'{{"role":"assistant","content":"{"x" * 900} turn {n}"}}' for n in range(1, 401)]
    verdict = {"filter": "bad_format", "severity": "drop", "reason": "r", "detail": "here", "step": 390}
    shown = ShownRollout("ab" * 32, "positive", "q", {}, (), [verdict])
    made = rollout_html(shown, f"[{','.join(turns)}]")
    assert len(made.encode()) < 2 * ROLLOUT_BYTES
    assert "turn 390" in made
    assert "turn 389" not in made
    assert re.findall(r"… (\d+) turns are not shown here", made) == [str(n) for n in (389 - made.count("step ") + 1, 10)]


def test_the_real_rollouts_give_a_small_page(tmp_path: Path, nat_dir: Path) -> None:
    home = CorpusHome(tmp_path)
    (home.root / "nat").rename(home.root / "own")
    (home.root / "nat").symlink_to(nat_dir)
    home.build()
    text = write(home)
    check_harmless(text)
    assert len(text) < 1_500_000
    assert "2,333" in text
