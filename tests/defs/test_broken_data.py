"""Data that nothing should be trained on, up to the checkpoint, through Dagster: what cannot be right stops before training,
by a check or an error that says why and what to do; where there is nothing to work on it says `no_data`.

A spread runs in `make test`, all of them in `make test-all`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from negtraj_dagster.definitions import build_definitions
from negtraj_dagster.defs.console import check_text, failure_text
from negtraj_dagster.defs.resources import TrainerClient
from negtraj_dagster.store import Store
from tests.support import deployment as dep

Rows = list[dict[str, Any]]
CHECKPOINT = "tiny_nat/checkpoint"
N_QUESTIONS = 12


def rows(reward: Callable[[int], Any] = lambda n: n % 2 == 0, **changes: Any) -> Rows:
    """Rollouts that all differ, right where `reward` says so."""
    made = []
    for number in range(N_QUESTIONS):
        row = dep.rollout(number, number % 2)
        row["reward"] = reward(number)
        row["messages"][-1]["content"] = f"Thought: so it is.\nAction: finish[{'yes' if row['reward'] else 'no'}]"
        made.append({**row, **changes})
    return made


def lengthen(made: Rows, is_long: Callable[[dict[str, Any]], bool]) -> Rows:
    for row in made:
        if is_long(row):
            row["messages"][0]["content"] = "Thought: " + "stones and feathers " * 300 + row["messages"][0]["content"]
    return made


def say(made: Rows, text: str) -> Rows:
    """The agent says this in every turn."""
    for row in made:
        for message in row["messages"]:
            message["content"] = text if message["role"] == "assistant" else message["content"]
    return made


def land(root: Path, made: Rows) -> None:
    for path in dep.landed(root):
        path.unlink()
    dep.write_lines(root / "home" / "landing" / "strategyqa" / "negtraj" / "all.jsonl", made)


def land_text(root: Path, text: str) -> None:
    land(root, [])
    dep.landed(root)[0].write_text(text)


def empty_questions(root: Path, *names: str) -> None:
    for name in names:
        (root / "nat" / "strategyqa" / name).write_text("")


def without_test(root: Path) -> None:
    land(root, rows())
    empty_questions(root, "test_random_500.jsonl")


def without_train(root: Path) -> None:
    land(root, rows())
    empty_questions(root, "train.jsonl")


def without_questions(root: Path) -> None:
    land(root, rows())
    empty_questions(root, "train.jsonl", "test_random_500.jsonl")


def with_recipe(root: Path, old: str, new: str) -> None:
    land(root, rows())
    recipe = root / "recipes" / "tiny_nat.toml"
    recipe.write_text(recipe.read_text().replace(old, new))


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "failures alone": (lambda root: land(root, rows(lambda n: False)), "has_every_class"),
    "successes alone": (lambda root: land(root, rows(lambda n: True)), "has_every_class"),
    "one rollout": (lambda root: land(root, rows()[:1]), "has_every_class"),
    "no reward anywhere": (lambda root: land(root, rows(lambda n: None)), "is selected"),
    "one success and it is too long": (
        lambda root: land(root, lengthen(rows(lambda n: n == 0), lambda row: row["reward"])),
        "every_class_is_left",
    ),
    "successes too long": (lambda root: land(root, lengthen(rows(), lambda row: row["reward"])), "every_class_is_left"),
    "failures too long": (lambda root: land(root, lengthen(rows(), lambda row: not row["reward"])), "every_class_is_left"),
    "half of the successes too long": (
        lambda root: land(root, lengthen(rows(), lambda row: row["reward"] and int(row["question_id"][6:]) % 4 == 0)),
        "every_class_is_left",
    ),
    "everything too long": (lambda root: land(root, lengthen(rows(), lambda row: True)), "rows were rejected"),
    "no test question": (without_test, "suite_is_ready"),
    "no training question": (without_train, "is selected"),
    "no question at all": (without_questions, "is selected"),
    "questions of somebody else": (lambda root: land(root, rows(question_id="ticket-1")), "is selected"),
    "questions of the test": (
        lambda root: land(root, [{**row, "question_id": f"test-{n % dep.N_TEST}"} for n, row in enumerate(rows())]),
        "is selected",
    ),
    "agents say nothing": (lambda root: land(root, say(rows(), " ")), "rows were rejected"),
    "a quality that nobody has": (
        lambda root: with_recipe(root, "[selection]\n", "[selection]\nmin_quality = 1.0\n"),
        "has_every_class",
    ),
    "rows of eight tokens": (lambda root: with_recipe(root, "max_tokens = 2048", "max_tokens = 8"), "rows were rejected"),
}
WITHOUT_ROLLOUTS: dict[str, Callable[[Path], None]] = {
    "an empty folder": lambda root: [path.unlink() for path in dep.landed(root)] and None,
    "an empty file": lambda root: land_text(root, ""),
    "an empty array": lambda root: land_text(root, "[]"),
    "no line is JSON": lambda root: land_text(root, "stones\n" * 9),
    "no agent speaks": lambda root: land(root, rows(messages=[{"role": "user", "content": "stones"}])),
}
REMEDIES = {
    "has_every_class": "`negtraj list --task strategyqa` says what drops each",
    "every_class_is_left": "`negtraj show --recipe tiny_nat --rejected` lists the rejected rows",
    "suite_is_ready": "add questions to it, or name another split",
    "rows were rejected": "What mends them: ",
    "is selected": "Loosen the profile or the classes",
}
SPREAD = ("failures alone", "one success and it is too long", "no test question", "agents say nothing")


def run(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, list[str]]:
    """The whole line with a trainer that counts; whether it succeeded, and all that it said of failures."""
    for name, value in dep.environment(root).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(TrainerClient, "run", lambda self, context, *job: dep.counting_child(*job))
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions().resolve_job_def("line_tiny")
        outcome = job.execute_in_process(instance=instance, raise_on_error=False)
    said = []
    for event in outcome.all_events:
        if event.event_type_value == "STEP_FAILURE":
            said.append(failure_text(event) or "")
        elif event.event_type_value == "ASSET_CHECK_EVALUATION" and not event.asset_check_evaluation_data.passed:
            said.append(check_text(event.asset_check_evaluation_data))
    return outcome.success, said


@pytest.mark.parametrize("name", [name if name in SPREAD else pytest.param(name, marks=pytest.mark.slow) for name in BROKEN])
def test_nothing_is_trained_on_broken_data_and_the_reason_is_said(
    base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spoil, expected = BROKEN[name]
    root = dep.make_deployment(tmp_path / "d", base_model)
    spoil(root)
    is_success, said = run(root, monkeypatch)
    assert not is_success, said
    assert Store(root / "home").current(CHECKPOINT) is None
    blocking = [text for text in said if expected in text]
    assert blocking, said
    assert all(REMEDIES[expected] in text for text in blocking)


@pytest.mark.parametrize(
    "name", [name if name == "no line is JSON" else pytest.param(name, marks=pytest.mark.slow) for name in WITHOUT_ROLLOUTS]
)
def test_without_rollouts_a_run_says_no_data_and_trains_nothing(
    base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root = dep.make_deployment(tmp_path / "d", base_model)
    WITHOUT_ROLLOUTS[name](root)
    is_success, said = run(root, monkeypatch)
    assert is_success
    assert Store(root / "home").require(CHECKPOINT).is_empty
    assert any("few_quarantined" in text for text in said) == (name in ("no line is JSON", "no agent speaks"))


def test_data_that_is_whole_is_trained_on(base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = dep.make_deployment(tmp_path / "d", base_model)
    land(root, rows())
    assert run(root, monkeypatch)[0]
    assert Store(root / "home").current(CHECKPOINT) is not None
