"""Which rollouts flipped between two corpora, and by whose doing."""

import json
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster import cli
from negtraj_dagster.errors import SettingsError, StoreError
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.views.diff.compare import Cause, Change, Changes, compare_objects
from negtraj_dagster.views.diff.runs import diff_runs, find_run
from negtraj_dagster.views.diff.text import why_changed
from tests.support.corpus_home import TASK, CorpusHome, episode, solved

ASSET = f"trajectory_corpus/{TASK}"


@pytest.fixture
def corpus_home(tmp_path: Path) -> CorpusHome:
    return CorpusHome(tmp_path)


def changes(home: CorpusHome, before: Published, profile: str = "strict") -> Changes:
    return compare_objects(home.store, before, home.build(), profile)


def only_row(found: Changes) -> dict[str, Any]:
    assert found.rows.height == 1, found.rows
    return found.rows.to_dicts()[0]


def test_the_same_corpus_has_no_changes(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0), solved(1, reward=False)])
    found = changes(corpus_home, corpus_home.build())
    assert found.rows.is_empty()
    assert found.counts.is_empty()
    assert not found.filters


def test_an_edited_filter_is_named_with_its_versions_step_and_detail(corpus_home: CorpusHome) -> None:
    corpus_home.filter("gold")
    corpus_home.land([solved(0), solved(2, "silver")])
    before = corpus_home.build()
    corpus_home.filter("silver")
    found = changes(corpus_home, before)
    row = only_row(found)
    assert (row["change"], row["cause"], row["filter"], row["step"], row["detail"]) == (
        Change.REJECTED, Cause.EDITED, "says_word", 1, "says silver",
    )  # fmt: skip
    assert row["version_before"] != row["version_after"]
    assert row["came"] == "says_word"
    assert found.filters["says_word"].startswith("edited (word 'gold' → 'silver'), version ")
    assert row["version_after"][:8] in why_changed(row)


def test_an_edit_that_lets_a_rollout_through_names_what_it_was_rejected_for(corpus_home: CorpusHome) -> None:
    corpus_home.filter("silver")
    corpus_home.land([solved(0), solved(2, "silver")])
    before = corpus_home.build()
    corpus_home.filter("gold")
    row = only_row(changes(corpus_home, before))
    assert (row["change"], row["cause"], row["detail"], row["went"]) == (
        Change.ACCEPTED, Cause.EDITED, "says silver", "says_word",
    )  # fmt: skip


def test_a_filter_that_is_added_or_taken_out_is_told_from_an_edited_one(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0, "silver")])
    without = corpus_home.build()
    corpus_home.filter("silver")
    assert only_row(changes(corpus_home, without))["cause"] == Cause.ADDED
    with_it = corpus_home.store.require(ASSET)
    corpus_home.sql_dirs = []
    found = changes(corpus_home, with_it)
    assert only_row(found)["cause"] == Cause.REMOVED
    assert found.filters == {"says_word": "taken out"}


def test_a_filter_that_flags_now_is_told_from_an_edited_one(corpus_home: CorpusHome) -> None:
    corpus_home.filter("silver")
    corpus_home.land([solved(0, "silver")])
    before = corpus_home.build()
    corpus_home.filter("silver", severity="flag")
    found = changes(corpus_home, before)
    assert only_row(found)["cause"] == Cause.SEVERITY
    assert found.filters == {"says_word": "drop → flag"}


def test_a_profile_without_the_filter_sees_no_change(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0, "silver")])
    before = corpus_home.build()
    corpus_home.filter("silver")
    assert changes(corpus_home, before, "paper").rows.is_empty()


@pytest.mark.parametrize(
    ("field", "value", "change", "cause", "withdrawn"),
    [
        ("drop", "yes", Change.REJECTED, Cause.PERSON, Change.ACCEPTED),
        ("label", "negative", Change.LABEL, Cause.PERSON, Change.LABEL),
    ],
)
def test_a_persons_word_is_a_cause_and_so_is_taking_it_back(
    corpus_home: CorpusHome, field: str, value: str, change: Change, cause: Cause, withdrawn: Change
) -> None:
    corpus_home.land([solved(0, "salt"), solved(2)])
    before = corpus_home.build()
    key = corpus_home.keys(before)[1]
    corpus_home.override(f"{key},{field},{value},ann,it guessed")
    row = next(row for row in changes(corpus_home, before).rows.to_dicts() if row["rollout_key"] == key)
    assert row["cause"] == cause
    if field == "drop":
        assert (row["change"], row["filter"], row["detail"]) == (change, "override", "by ann: it guessed")
    else:
        assert (row["label_before"], row["label_after"], row["scorer_after"]) == ("positive", "negative", "override")
    decided = corpus_home.store.require(ASSET)
    corpus_home.override()
    row = next(row for row in changes(corpus_home, decided).rows.to_dicts() if row["rollout_key"] == key)
    assert row["cause"] == Cause.WITHDRAWN


def test_a_verdict_that_a_person_set_aside_says_who_and_why(corpus_home: CorpusHome) -> None:
    corpus_home.filter("silver")
    corpus_home.land([solved(0, "silver"), solved(2)])
    before = corpus_home.build()
    corpus_home.override(f"{corpus_home.keys(before)[0]},keep,says_word,ann,reads well")
    row = only_row(changes(corpus_home, before))
    assert (row["change"], row["cause"], row["filter"]) == (Change.ACCEPTED, Cause.PERSON, "says_word")
    assert row["detail"] == "says silver; overruled by ann: reads well"
    kept = corpus_home.store.require(ASSET)
    corpus_home.override()
    assert only_row(changes(corpus_home, kept))["cause"] == Cause.WITHDRAWN


def test_a_label_that_changes_is_why_a_filter_of_one_class_applies_now(corpus_home: CorpusHome) -> None:
    corpus_home.filter("silver", applies_to="negative")
    corpus_home.land([solved(0, "silver")])
    before = corpus_home.build()
    corpus_home.override(f"{corpus_home.keys(before)[0]},label,negative,ann,wrong")
    row = next(iter(changes(corpus_home, before).rows.to_dicts()))
    assert row["change"] == Change.REJECTED
    assert row["cause"] == Cause.PERSON
    assert (row["label_before"], row["label_after"]) == ("positive", "negative")


def test_dropping_the_first_of_twins_lets_the_second_in(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0), {**solved(0), "source": "b"}])
    before = corpus_home.build()
    first, second = corpus_home.keys(before)
    corpus_home.override(f"{first},drop,yes,ann,off topic")
    rows = {row["rollout_key"]: row for row in changes(corpus_home, before).rows.to_dicts()}
    assert (rows[first]["change"], rows[first]["cause"]) == (Change.REJECTED, Cause.PERSON)
    assert (rows[second]["change"], rows[second]["cause"]) == (Change.ACCEPTED, Cause.TWIN)
    assert first[:12] in rows[second]["detail"]


def test_a_new_evaluation_question_is_something_the_filter_reads(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0), solved(3, reward=False)])
    before = corpus_home.build()
    corpus_home.ask(["Would pebble 3 outweigh feather 3?"])
    row = only_row(changes(corpus_home, before))
    assert (row["change"], row["cause"], row["filter"]) == (Change.REJECTED, Cause.READ, "decontaminate")


def test_rollouts_come_and_go(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0), solved(2)])
    before = corpus_home.build()
    corpus_home.land([solved(0), solved(4), episode(6, "Thought: hm.", reward=False)])
    rows = changes(corpus_home, before).rows.to_dicts()
    assert [(row["change"], row["state_before"], row["state_after"]) for row in rows] == [
        ("new", "absent", "accepted"),
        ("new", "absent", "rejected"),
        ("gone", "accepted", "absent"),
    ]
    assert rows[2]["question_id"] == "train-2"


def test_counts_say_how_many_of_each_class(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0, "silver"), solved(2, "silver"), solved(1, "silver", reward=False), solved(3)])
    before = corpus_home.build()
    corpus_home.filter("silver")
    counts = changes(corpus_home, before).counts.to_dicts()
    assert [(row["cause"], row["filter"], row["positive"], row["negative"], row["n_rollouts"]) for row in counts] == [
        (Cause.ADDED, "says_word", 2, 1, 3)
    ]


def test_an_object_of_an_older_layout_is_named(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0)])
    present = corpus_home.build()
    store = corpus_home.store

    def older(folder: Path) -> Built:
        (folder / "corpus.parquet").write_bytes((present.folder / "corpus.parquet").read_bytes())
        return Built(content={"n_rollouts": 1}, details={"funnel": [], "mean_quality_positive": 0.5})

    old = store.build(ASSET, {"code": 1}, older)
    with pytest.raises(StoreError, match=rf"run {old.key[:12]} of {ASSET} was made under an older layout .*materialize"):
        compare_objects(store, old, present, "strict")


def test_an_empty_corpus_can_be_compared(corpus_home: CorpusHome) -> None:
    before = corpus_home.build()
    assert before.is_empty
    corpus_home.land([solved(0)])
    assert only_row(changes(corpus_home, before))["change"] == Change.NEW


def test_an_unknown_profile_is_an_error_that_names_those_there_are(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0)])
    before = corpus_home.build()
    with pytest.raises(SettingsError, match=r"knows no profile 'strikt'; did you mean 'strict'\?; known: paper, strict"):
        compare_objects(corpus_home.store, before, before, "strikt")


HISTORY = ["ab" * 32, "cd" * 32, "ab" * 31 + "ff"]


@pytest.mark.parametrize(
    ("run", "place"),
    [("current", 0), ("previous", 1), ("CDCDCD", 1), ("cd" * 32, 1)],
    ids=["current", "previous", "begin", "whole"],
)
def test_a_run_is_named_by_a_word_or_by_its_beginning(run: str, place: int) -> None:
    assert find_run(HISTORY, run, ASSET) == HISTORY[place]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("ababab", r"begins 2 runs .*ababab.*give more digits"),
        ("eeeeee", r"no run that begins with 'eeeeee'; there are: abababababab \(current\), cdcdcdcdcdcd \(previous\)"),
        ("abab", "at least 6 digits"),
        ("lately", "expected current, previous, or at least 6 digits"),
    ],
    ids=["ambiguous", "unknown", "short", "a word"],
)
def test_a_run_that_is_not_found_is_an_error_that_names_those_there_are(run: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        find_run(HISTORY, run, ASSET)


def test_there_is_no_previous_run_at_first() -> None:
    with pytest.raises(SettingsError, match=r"has no previous run; there are: abababababab \(current\)"):
        find_run(HISTORY[:1], "previous", ASSET)


def test_the_command_prints_counts_and_rollouts(
    corpus_home: CorpusHome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus_home.filter("gold")
    corpus_home.land([solved(0, "silver\x1b[31m"), solved(2, "silver\x1b[31m"), solved(4)])
    before = corpus_home.build()
    corpus_home.filter(r"\u001b[31m")
    after = corpus_home.build()
    monkeypatch.setenv("NEGTRAJ_HOME", str(corpus_home.home))
    files = sorted(path for path in corpus_home.home.rglob("*") if path.is_file())
    assert cli.main(["diff", "previous", after.key[:8], "--limit", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{before.key[:12]} → {after.key[:12]}, profile strict\n")
    assert "accepted → rejected  filter edited  says_word  rejected     2 " in said
    assert r"says \x1b[31m" in said
    assert "1 more rollouts: --limit 2 shows them" in said
    assert "\x1b" not in said
    assert files == sorted(path for path in corpus_home.home.rglob("*") if path.is_file()), "it only reads"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["current", "current", "--task", "strategy"], "no corpus of task 'strategy'; did you mean 'strategyqa'?"),
        (["current", "current", "--profile", "x"], "knows no profile 'x'; known: paper, strict"),
        (["current", "ffffff"], "no run that begins with 'ffffff'; there are: "),
    ],
    ids=["task", "profile", "run"],
)
def test_the_command_says_what_there_is(
    arguments: list[str],
    said: str,
    corpus_home: CorpusHome,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus_home.land([solved(0)])
    corpus_home.build()
    monkeypatch.setenv("NEGTRAJ_HOME", str(corpus_home.home))
    assert cli.main(["diff", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_a_run_that_gc_dropped_is_said_to_be_gone(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0)])
    before = corpus_home.build()
    corpus_home.land([solved(0), solved(2)])
    corpus_home.build()
    before.folder.rename(corpus_home.root / "away")
    with pytest.raises(SettingsError, match=rf"run {before.key[:12]} of {ASSET} is no longer here"):
        diff_runs(corpus_home.store, ("previous", "current"))


def test_without_any_corpus_the_remedy_is_told(store: Store) -> None:
    with pytest.raises(SettingsError, match="no trajectory_corpus has been materialized"):
        diff_runs(store, ("previous", "current"))


def test_what_a_profile_did_is_recorded_as_json(corpus_home: CorpusHome) -> None:
    corpus_home.land([solved(0)])
    acting = corpus_home.build().details["profiles"]["paper"]["acting"]
    assert [(each["filter"], each["severity"]) for each in acting] == [("empty_trajectory", "drop")]
    assert json.loads(json.dumps(acting)) == acting
