"""`negtraj init-task`: the rule that tells the recorded outcomes, prompts held out of every kind, several files as one task."""

import glob
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster import cli, exit_codes
from negtraj_dagster.rollouts.documents import read_parsed
from negtraj_dagster.rollouts.formats import FORMATS
from negtraj_dagster.settings import Settings, load_settings
from negtraj_dagster.tasks.declared import draw_split
from negtraj_dagster.views.check import check_file
from negtraj_dagster.views.format_reading import FormatReading
from negtraj_dagster.views.proposed_task import SHARES, ProposedTask

CALL = {"id": "c", "type": "function", "function": {"name": "submit", "arguments": '{"answer": "12"}'}}
SAID = {"right": "12", "wrong": "13", "long": "It is twelve (12), I think; but who knows."}


def record(number: int, answer: str, *, reward: object, gold: object = "12", **more: object) -> dict[str, Any]:
    turns = [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "reward": reward, "gold": gold, **more}


def propose(records: Sequence[dict[str, Any]], settings: Settings, base_model: str = "bytes") -> ProposedTask:
    reading = FormatReading("openai")
    for number, document in enumerate(records, 1):
        reading.take(f"line {number}", read_parsed(FORMATS["openai"], "task", document, None))
    assert (reading.n_read, reading.faults) == (len(records), {})
    return ProposedTask("own", reading, base_model, settings)


def right_and_wrong(n: int) -> list[dict[str, Any]]:
    return [record(at, SAID["wrong" if at % 2 else "right"], reward=not at % 2) for at in range(n)]


def test_a_rule_that_tells_the_recorded_outcomes_is_taken(settings: Settings) -> None:
    proposed = propose(right_and_wrong(200), settings)
    assert proposed.rule == (
        "number",
        "how an answer is compared with the right one; it tells 200 of 200 of the recorded outcomes",
    )
    assert "recorded" not in "".join(proposed.warnings())


@pytest.mark.parametrize(
    "records",
    [
        [record(at, SAID["right"], reward=bool(at % 2)) for at in range(200)],
        [record(at, SAID["wrong"], reward=True) for at in range(200)],
        [record(at, f"{at} reasons", reward=True, gold="as the rubric says") for at in range(200)],
    ],
    ids=["right and wrong by something else", "a judge that forgives", "a rubric"],
)
def test_where_no_rule_tells_the_recorded_outcomes_these_alone_count(settings: Settings, records: list[dict[str, Any]]) -> None:
    proposed = propose(records, settings)
    assert proposed.rule[0] == "recorded"
    assert re.search(r" (0|100) of 200", proposed.rule[1])
    assert proposed.held_out == {"gate": 0.0, "test": 0.0}
    assert any("nothing is evaluated here" in warning for warning in proposed.warnings())


def test_failures_alone_do_not_hide_that_successes_are_not_told(settings: Settings) -> None:
    """Of 95 failures and 5 successes, a rule that calls everything wrong tells 95 %."""
    records = [record(at, SAID["wrong"], reward=at >= 95) for at in range(100)]
    assert propose(records, settings).rule[0] == "recorded"


@pytest.mark.parametrize(
    ("ending", "terminal"),
    [
        ({"content": "", "tool_calls": [CALL]}, "submit"),
        ({"content": "", "tool_calls": [{"id": "s", "type": "function", "function": {"name": "save"}}, CALL]}, "submit"),
        ({"content": "Thought: so\nAction: finish[12]"}, "finish"),
        ({"content": "Thought: so\nAction 3: answer[12]\n"}, "answer"),
        ({"content": "12"}, None),
    ],
    ids=["a call", "the last of two calls", "ReAct", "another word, numbered", "words"],
)
def test_the_answer_is_read_where_the_run_reads_it(settings: Settings, ending: dict[str, Any], terminal: str | None) -> None:
    records = [record(at, "", reward=True) for at in range(100)]
    for each in records:
        each["messages"][-1] |= ending
    proposed = propose(records, settings)
    assert proposed.terminal_action == terminal
    assert proposed.rule[0] == "number"
    assert "100 of 100" in proposed.rule[1]


def test_one_rollout_that_quotes_an_action_does_not_make_the_others_speak_so(settings: Settings) -> None:
    records = [*right_and_wrong(99), record(99, "It says:\nAction: look[x]", reward=False)]
    proposed = propose(records, settings)
    assert (proposed.style, proposed.terminal_action, proposed.rule[0]) == ("native", None, "number")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([(SAID["long"], True)] * 100, "number 0 of 0"),
        ([(SAID["right"], True)] * 2 + [(SAID["long"], True)] * 98, "number 2 of 2"),
        ([(SAID["wrong"], False)] * 50 + [(SAID["long"], True)] * 50, "number 50 of 50"),
        ([(SAID["wrong"], False)] * 100, "number 100 of 100"),
    ],
    ids=["none can be read", "two can", "no success can", "no success is there"],
)
def test_a_rule_that_could_not_show_itself_is_not_taken(settings: Settings, answers: list[tuple[str, bool]], said: str) -> None:
    proposed = propose([record(at, answer, reward=reward) for at, (answer, reward) in enumerate(answers)], settings)
    assert proposed.rule[0] == "recorded"
    assert said in proposed.rule[1]


def test_without_outcomes_the_rule_is_that_of_the_right_answers(settings: Settings) -> None:
    proposed = propose([record(at, SAID["right"], reward=None) for at in range(100)], settings)
    assert proposed.rule == ("number", "how an answer is compared with the right one; no outcome is recorded to try it on")


def test_scores_count_beside_rewards(settings: Settings) -> None:
    records = [record(at, SAID["right"], reward=None, score=1.0) for at in range(98)]
    records += [record(at, SAID["wrong"], reward=False) for at in range(98, 100)]
    proposed = propose(records, settings)
    assert "98 of 98" not in proposed.rule[1]
    assert "100 of 100" in proposed.rule[1]
    assert "min_score = 0.5" in proposed.task()


def test_a_record_without_a_prompt_is_told_and_leaves_the_others_their_prompts(settings: Settings) -> None:
    records = right_and_wrong(100)
    del records[0]["messages"][0]
    proposed = propose(records, settings)
    assert 'kind = "recorded"' in proposed.task()
    assert any("1 of 100 rollouts have no user turn" in warning for warning in proposed.warnings())


@pytest.mark.parametrize("gold", ["[" * 20_000, "[" * 3000 + "]" * 3000], ids=["open", "closed"])
def test_a_right_answer_that_is_nested_without_end_stops_nothing(settings: Settings, gold: str) -> None:
    assert propose([record(at, "x", reward=True, gold=gold) for at in range(3)], settings).rule[0] == "recorded"


@pytest.mark.parametrize("n", [4, 8, 12, 20, 40, 400])
def test_what_is_held_out_leaves_every_outcome_to_train_or_nothing_is(settings: Settings, n: int) -> None:
    proposed = propose(right_and_wrong(n), settings)
    splits = [draw_split(group, proposed.held_out) for group in proposed.reading.outcomes_by_group]
    if proposed.rule[0] == "recorded":
        assert set(splits) == {"train"}
        assert f"too few prompts ({n}, those of a group counted once) to hold some out" in "".join(proposed.warnings())
        return
    trained = {
        outcome
        for split, outcomes in zip(splits, proposed.reading.outcomes_by_group.values(), strict=True)
        for outcome in outcomes
        if split == "train"
    }
    assert (set(splits), trained) == ({"train", "gate", "test"}, {True, False})
    assert f"of {n} prompts {splits.count('gate')} and {splits.count('test')}" in proposed.task()
    assert ("too few to tell" in "".join(proposed.warnings())) == (splits.count("test") < 30)


def test_many_prompts_are_held_out_by_the_shares_that_settings_have_by_default(settings: Settings) -> None:
    assert propose(right_and_wrong(400), settings).held_out == SHARES[0]


def test_prompts_of_one_group_count_once(settings: Settings) -> None:
    records = [{**each, "group": "one"} for each in right_and_wrong(400)]
    assert "too few prompts (1, " in "".join(propose(records, settings).warnings())


@pytest.mark.parametrize(("reward", "said"), [(True, "own_nat stops before training"), (False, "both recipes stop before")])
def test_a_class_that_nobody_recorded_is_told_before_anything_runs(settings: Settings, reward: bool, said: str) -> None:
    records = [record(at, SAID["right" if reward else "wrong"], reward=reward) for at in range(100)]
    assert said in "".join(propose(records, settings).warnings())


def test_long_rows_of_the_toy_are_trained_for_fewer_steps(settings: Settings) -> None:
    (_, vanilla), _ = propose([record(at, "a " * 3000, reward=True) for at in range(9)], settings).recipes()
    recipe = tomllib.loads(vanilla)
    assert (recipe["training"]["steps"], recipe["shards"]["max_tokens"]) == (12, 8192)


def test_several_files_are_one_task_and_a_source_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEGTRAJ_HOME", str(tmp_path / "home"))
    records = right_and_wrong(300)
    paths = [tmp_path / "a.jsonl", tmp_path / "b.json"]
    paths[0].write_text("".join(json.dumps(each) + "\n" for each in records[:200]))
    paths[1].write_text(json.dumps(records[200:]))
    assert cli.main(["init-task", "own", "--from", *map(str, paths)]) == exit_codes.SUCCESS
    printed = capsys.readouterr().out
    assert f"{paths[1]}: 100 rollouts are read as openai, 0 refused" in printed
    settings = load_settings()
    assert {name: source.pattern for name, source in settings.sources.items()} == {"own": "a.jsonl", "own_2": "b.json"}
    assert "of 300 prompts" in (tmp_path / "home" / "tasks" / "own.toml").read_text()
    assert cli.main(["init-task", "other", "--from", str(paths[0]), str(tmp_path / "gone.json")]) == exit_codes.FAILED
    assert not (tmp_path / "home" / "tasks" / "other.toml").exists()


def test_what_two_files_hold_is_what_one_file_of_both_holds(tmp_path: Path, settings: Settings) -> None:
    records = [*right_and_wrong(40), {"messages": []}, {"messages": [{"role": "user", "content": 1}]}]
    whole, *parts = [tmp_path / f"{name}.jsonl" for name in ("whole", "a", "b")]
    for path, some in ((whole, records), (parts[0], records[:15]), (parts[1], records[15:])):
        path.write_text("".join(json.dumps(each) + "\n" for each in some))
    first, second = (check_file(path, settings).best for path in parts)
    first.add(second)
    expected = check_file(whole, settings).best
    assert {kind: count for kind, (_, _, count) in first.faults.items()} == {
        kind: count for kind, (_, _, count) in expected.faults.items()
    }
    assert {**vars(first), "faults": None} == {**vars(expected), "faults": None}


HOSTILE = 'sub\x7f\x9b\u202e\x1b[31m"mit\n'


def test_what_a_terminal_would_obey_is_escaped_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEGTRAJ_HOME", str(tmp_path / "home"))
    call = {"id": "c", "type": "function", "function": {"name": HOSTILE, "arguments": "{}"}}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    path = tmp_path / 'a\x1b[31m"\u202e.jsonl'
    path.write_text(json.dumps({"messages": turns, "reward": True}))
    assert cli.main(["init-task", "own", "--from", str(path)]) == exit_codes.SUCCESS
    assert cli.main(["check", str(path)]) == exit_codes.SUCCESS
    settings = load_settings()
    assert settings.tasks["own"].terminal_action == HOSTILE
    assert glob.glob(settings.sources["own"].pattern, root_dir=tmp_path) == [path.name]
    written = "".join(file.read_text() for file in (tmp_path / "home").rglob("*.toml"))
    for text in (capsys.readouterr().out, written):
        assert [char for char in text if not char.isprintable() and char != "\n"] == []
