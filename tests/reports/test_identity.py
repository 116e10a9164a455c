"""What an answer and a score are known by: what decides an answer asks anew, a scorer scores anew, all else does neither."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster.agent import tools
from negtraj_dagster.errors import QuestionSetError, StoreError
from negtraj_dagster.reports import answers, build
from negtraj_dagster.reports.answers import Respondent
from negtraj_dagster.reports.build import Suite
from negtraj_dagster.schema import Question, canonical_json
from negtraj_dagster.store import Built, Published, Store, read_json_lines
from negtraj_dagster.tasks import EMBEDDED

AGENT = {"template": "t", "max_turns": 2, "max_new_tokens_per_turn": 8, "batch_size": 4, "threads": 1, "temperature": 0.0}
TWO_HUNDRED = [Question("wordtraps", f"q{n:03}", "test", f"What is {n} plus 0?", str(n)) for n in range(200)]


class Evaluator:
    """In place of the child: answers every question with the first number it holds.

    Attributes:
        asked: ids of the questions, in order.
        refused: ids of those that the infrastructure ends.
        dies_after: so many answers are written, then the child dies.
    """

    def __init__(self, refused: Iterable[str] = (), dies_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.refused = set(refused)
        self.dies_after = dies_after

    def __call__(self, module: str, config_path: Path, ranks: int, threads: int) -> None:
        config = json.loads(config_path.read_text())
        out = Path(config["out_dir"])
        jobs = read_json_lines(Path(config["questions_path"]))[: self.dies_after]
        self.asked += [job["question_id"] for job in jobs]
        lines = [canonical_json(self._row(job)) for job in jobs]
        (out / f"answers-{len(list(out.iterdir())):05}.jsonl").write_text("".join(f"{line}\n" for line in lines))
        if self.dies_after is not None:
            raise KeyboardInterrupt
        (out / "result.json").write_text("{}")

    def _row(self, job: dict[str, Any]) -> dict[str, Any]:
        is_refused = job["question_id"] in self.refused
        number = next(word for word in job["turns"][-1]["content"].split() if word.isdigit())
        names = ("tool_calls", "tool_errors", "format_errors", "unknown_tools", "generated_tokens")
        return {
            **{name: job[name] for name in ("answer_key", "question_id", "trial")},
            "turns": [*job["turns"], {"role": "assistant", "content": f"Action: finish[{number}]"}],
            "prediction": None if is_refused else number,
            "status": "infrastructure" if is_refused else "finished",
            "n_assistant_turns": 1,
            **{f"n_{name}": 0 for name in names},
        }


def checkpoint(store: Store) -> Published:
    details = {"card": {"conditioning": "c", "chat_template": "t"}, "result": {}}
    return store.build("x/checkpoint", {}, lambda folder: Built(content={}, details=details))


def respondent(trained: Published, **changes: Any) -> Respondent:
    made = Respondent(
        trained.version,
        trained.folder,
        EMBEDDED["wordtraps"],
        AGENT,
        (),
        lambda question: [{"role": "user", "content": question.question}],
    )
    return replace(made, **changes)


def report(
    store: Store,
    evaluator: Evaluator,
    questions: list[Question] = TWO_HUNDRED,
    trials: int = 1,
    trained_on: list[str] | None = None,
    **changes: Any,
) -> Published:
    trained = checkpoint(store)
    return build.build_report(
        store,
        "x",
        checkpoint=trained,
        respondent=respondent(trained, **changes),
        suite=Suite(questions, trials),
        prompt_identity="c",
        task=EMBEDDED["wordtraps"],
        run_child=evaluator,
        trained_on=trained_on,
    )


def asked(store: Store, *arguments: Any, **changes: Any) -> int:
    """How many questions another report of this store asks."""
    evaluator = Evaluator()
    published = report(store, evaluator, *arguments, **changes)
    assert published.work.get("questions_asked", 0) == len(evaluator.asked)
    return len(evaluator.asked)


def test_the_same_evaluation_is_not_played_again(store: Store) -> None:
    assert asked(store) == 200
    assert report(store, Evaluator()).reused


def test_ten_new_questions_of_two_hundred_are_ten_that_are_asked(store: Store) -> None:
    assert asked(store, TWO_HUNDRED[:190]) == 190
    trained = checkpoint(store)
    assert answers.count_unasked(store, respondent(trained), TWO_HUNDRED) == 10
    evaluator = Evaluator()
    published = report(store, evaluator)
    assert evaluator.asked == [question.question_id for question in TWO_HUNDRED[190:]]
    assert published.content["metrics"]["n_strict"] == 200
    assert published.work == {"questions_asked": 10, "answers_scored": 200}


def test_a_suite_without_questions_is_no_suite_that_was_answered_wrongly(store: Store) -> None:
    with pytest.raises(QuestionSetError, match="has no questions in the split that is asked for"):
        report(store, Evaluator(), [])


def test_another_scorer_asks_nothing_and_scores_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(store)
    monkeypatch.setattr(EMBEDDED["wordtraps"], "version", 99)
    published = report(store, Evaluator())
    assert published.work == {"questions_asked": 0, "answers_scored": 200}


def test_another_right_answer_asks_nothing_and_scores_anew(store: Store) -> None:
    asked(store)
    mended = [replace(question, answer="7") for question in TWO_HUNDRED]
    published = report(store, Evaluator(), mended)
    assert published.work["questions_asked"] == 0
    assert published.content["metrics"]["n_strict"] == 1


def test_a_tool_that_answers_otherwise_asks_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(store)
    monkeypatch.setitem(tools.TOOL_VERSIONS, "calculator", 99)
    assert asked(store) == 200


@pytest.mark.parametrize(
    ("changes", "n_asked"),
    [
        ({"max_turns": 3}, 200),
        ({"max_new_tokens_per_turn": 9}, 200),
        ({"template": "t", "temperature": 0.5}, 200),
        ({"batch_size": 1}, 0),
        ({"threads": 2}, 0),
    ],
    ids=["turns", "tokens", "temperature", "batch", "threads"],
)
def test_limits_decide_answers_and_the_machine_does_not(store: Store, changes: dict[str, Any], n_asked: int) -> None:
    asked(store)
    assert asked(store, agent={**AGENT, **changes}) == n_asked


def test_the_batch_counts_where_sums_depend_on_it(store: Store) -> None:
    assert asked(store, sums_depend_on_batch=True) == 200
    assert asked(store, sums_depend_on_batch=True, agent={**AGENT, "threads": 2}) == 0
    assert asked(store, sums_depend_on_batch=True, agent={**AGENT, "batch_size": 1}) == 200


@pytest.mark.parametrize(("tool_names", "n_asked"), [(("calculator",), 0), (("search",), 200)])
def test_passages_count_where_they_are_searched(
    store: Store, monkeypatch: pytest.MonkeyPatch, tool_names: tuple[str, ...], n_asked: int
) -> None:
    monkeypatch.setattr(EMBEDDED["wordtraps"], "tools", tool_names)
    asked(store, passages=["a fact"])
    assert asked(store, passages=["another fact"]) == n_asked


def test_another_prompt_asks_all(store: Store) -> None:
    asked(store)
    assert asked(store, prompt=lambda question: [{"role": "user", "content": f"Well: {question.question}"}]) == 200


@pytest.mark.parametrize(("name", "value"), [("terminal_action", "answer"), ("style", "native"), ("tools", ("calculator",))])
def test_what_a_task_says_of_its_agent_asks_all(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    asked(store)
    monkeypatch.setattr(EMBEDDED["wordtraps"], name, value, raising=False)
    assert asked(store) == 200


def test_decoding_asks_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(store)
    monkeypatch.setattr(answers, "DECODING", {"do_sample": False, "num_beams": 2})
    assert asked(store) == 200


def test_more_trials_ask_the_further_ones(store: Store) -> None:
    assert asked(store, trials=2) == 400
    assert asked(store, trials=3) == 200


def test_reports_of_other_recipes_share_answers(store: Store) -> None:
    trained = checkpoint(store)
    first = answers.ask(store, respondent(trained), TWO_HUNDRED, Evaluator())
    again = answers.ask(store, respondent(trained), TWO_HUNDRED, Evaluator())
    assert (first.n_asked, again.n_asked) == (200, 0)
    assert again.rows == first.rows


def test_a_killed_evaluators_answers_are_taken_over(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        report(store, Evaluator(dies_after=150))
    evaluator = Evaluator()
    assert report(store, evaluator).content["metrics"]["n_strict"] == 200
    assert evaluator.asked == [question.question_id for question in TWO_HUNDRED[150:]]
    assert not list((store.home / answers.ASKING).rglob("*.jsonl"))


def test_a_line_that_cannot_be_read_is_asked_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    trained = checkpoint(store)
    folder = store.home / answers.ASKING / respondent(trained).table
    folder.mkdir(parents=True)
    (folder / "answers-00000.jsonl").write_text('{"answer_key": ')
    assert answers.ask(store, respondent(trained), TWO_HUNDRED, Evaluator()).n_asked == 200
    assert "its questions are asked again" in caplog.text


def test_what_the_infrastructure_ended_is_neither_right_nor_wrong_and_is_asked_again(store: Store) -> None:
    metrics = report(store, Evaluator(refused=["q003", "q004"])).content["metrics"]
    assert (metrics["n"], metrics["n_strict"], metrics["n_infrastructure"]) == (198, 198, 2)
    assert metrics["error_classes"] == {"right": 198, "infrastructure": 2}
    evaluator = Evaluator()
    published = report(store, evaluator)
    assert evaluator.asked == ["q003", "q004"]
    assert published.content["metrics"]["n"] == 200
    assert report(store, Evaluator()).reused


def test_a_contaminated_report_says_how_the_other_questions_went(store: Store) -> None:
    wrong = [replace(question, answer="7") for question in TWO_HUNDRED[:100]]
    ids = [question.question_id for question in wrong]
    content = report(store, Evaluator(), [*wrong, *TWO_HUNDRED[100:]], trained_on=ids).content
    assert content["metrics"]["accuracy_strict"] == pytest.approx(0.505)
    assert (content["clean"]["n"], content["clean"]["accuracy_strict"]) == (100, 1.0)


def test_the_evaluator_is_told_no_right_answer(store: Store) -> None:
    texts: list[str] = []

    class Spy(Evaluator):
        def __call__(self, module: str, config_path: Path, ranks: int, threads: int) -> None:
            config = json.loads(config_path.read_text())
            texts.extend(Path(config[name]).read_text() for name in ("questions_path", "passages_path"))
            super().__call__(module, config_path, ranks, threads)

    secret = replace(TWO_HUNDRED[0], answer="31337")
    report(store, Spy(), [secret])
    assert "What is 0 plus 0?" in texts[0]
    assert "31337" not in "".join(texts)


def test_a_damaged_checkpoint_is_asked_nothing(store: Store) -> None:
    def write(folder: Path) -> Built:
        (folder / "weights").write_bytes(b"whole")
        return Built(content={})

    trained = store.build("y/checkpoint", {}, write)
    asked_of = respondent(trained, checkpoint=trained.folder)
    answers.ask(store, asked_of, TWO_HUNDRED[:1], Evaluator())
    (trained.folder / "weights").write_bytes(b"other")
    evaluator = Evaluator()
    with pytest.raises(StoreError, match="bytes differ"):
        answers.ask(Store(store.home), asked_of, TWO_HUNDRED, evaluator)
    assert evaluator.asked == []
    assert answers.ask(Store(store.home), asked_of, TWO_HUNDRED[:1], evaluator).n_asked == 0


def test_every_tool_has_a_version() -> None:
    assert set(tools.TOOL_VERSIONS) == {*tools.TOOLS, "search"}
