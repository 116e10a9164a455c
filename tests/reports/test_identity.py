"""What an evaluation is known by: whatever decides an episode or its score asks anew, whatever does not, does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster.agent import tools
from negtraj_dagster.reports import build
from negtraj_dagster.schema import Question
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tasks import EMBEDDED

QUESTION = Question("wordtraps", "q", "test", "What is 1 plus 1?", "2")
AGENT = {"template": "t", "max_turns": 2, "max_new_tokens_per_turn": 8, "batch_size": 4, "threads": 1}


def checkpoint(store: Store, dtype: str = "fp32") -> Published:
    details = {"card": {"conditioning": "c", "chat_template": "t"}, "result": {"dtype": dtype}}
    return store.build("x/checkpoint", {"dtype": dtype}, lambda folder: Built(content={"dtype": dtype}, details=details))


def report(store: Store, trained: Published, **changes: Any) -> Published:
    def play(module: str, config: Path, ranks: int, threads: int) -> None:
        out = Path(json.loads(config.read_text())["out_dir"])
        numbers = {"n": 1, "accuracy_strict": 1.0, "accuracy_strict_low": 0.0, "accuracy_strict_high": 1.0}
        (out / "metrics.json").write_text(json.dumps(numbers))
        (out / "result.json").write_text("{}")
        (out / "episodes.jsonl").write_text("")

    arguments: dict[str, Any] = {
        "checkpoint": trained,
        "task": EMBEDDED["wordtraps"],
        "questions": [QUESTION],
        "passages": ["a fact"],
        "prompt": lambda question: [{"role": "user", "content": question.question}],
        "prompt_identity": "c",
        "agent": AGENT,
        "run_child": play,
    }
    return build.build_report(store, "x", **{**arguments, **changes})


@pytest.fixture(autouse=True)
def _plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "report_page", lambda *_, **__: "page")


def test_the_same_evaluation_is_not_played_again(store: Store) -> None:
    trained = checkpoint(store)
    assert not report(store, trained).reused
    assert report(store, trained).reused


@pytest.mark.parametrize(
    "changes",
    [
        {"passages": ["another fact"]},
        {"questions": [QUESTION, Question("wordtraps", "r", "test", "What is 2 plus 2?", "4")]},
        {"agent": {**AGENT, "max_turns": 3}},
        {"agent": {**AGENT, "max_new_tokens_per_turn": 9}},
    ],
    ids=["search corpus", "questions", "turns", "tokens"],
)
def test_what_a_run_is_given_is_part_of_it(store: Store, changes: dict[str, Any]) -> None:
    trained = checkpoint(store)
    report(store, trained)
    assert not report(store, trained, **changes).reused


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [({"max_turns": 3}, False), ({"max_new_tokens_per_turn": 9}, False), ({"batch_size": 1}, True), ({"threads": 2}, True)],
    ids=["turns", "tokens", "batch", "threads"],
)
def test_arms_with_other_limits_are_asked_by_other_rules(store: Store, changes: dict[str, int], is_same: bool) -> None:
    trained = checkpoint(store)
    rules = report(store, trained).content["rules"]
    assert (report(store, trained, agent={**AGENT, **changes}).content["rules"] == rules) is is_same


@pytest.mark.parametrize(
    ("name", "value"),
    [("version", 99), ("terminal_action", "answer"), ("style", "native"), ("tools", ("calculator",))],
)
def test_what_a_task_says_is_part_of_it(store: Store, monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    trained = checkpoint(store)
    report(store, trained)
    monkeypatch.setattr(EMBEDDED["wordtraps"], name, value, raising=False)
    assert not report(store, trained).reused


def test_a_tool_that_answers_otherwise_is_another_evaluation(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = checkpoint(store)
    report(store, trained)
    monkeypatch.setitem(tools.TOOL_VERSIONS, "calculator", 99)
    assert not report(store, trained).reused


def test_decoding_is_part_of_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = checkpoint(store)
    report(store, trained)
    monkeypatch.setattr(build, "DECODING", {"do_sample": False, "num_beams": 2})
    assert not report(store, trained).reused


@pytest.mark.parametrize(("dtype", "is_same"), [("fp32", True), ("bf16", False)])
def test_the_batch_counts_where_sums_depend_on_it(store: Store, dtype: str, is_same: bool) -> None:
    trained = checkpoint(store, dtype)
    report(store, trained)
    assert report(store, trained, agent={**AGENT, "batch_size": 1}).reused is is_same
    assert report(store, trained, agent={**AGENT, "batch_size": 4, "threads": 2}).reused


def test_every_tool_has_a_version() -> None:
    assert set(tools.TOOL_VERSIONS) == {*tools.TOOLS, "search"}
