"""Who holds a line's title: what the gate promotes, what a machine's faults leave behind, and how a title is given back."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster.checkpoints.build import pinned_parent
from negtraj_dagster.errors import StoreError
from negtraj_dagster.reports import champion
from negtraj_dagster.reports.answers import Respondent
from negtraj_dagster.reports.champion import Contender, Gate, crown_champion
from negtraj_dagster.reports.gate import GateRule
from negtraj_dagster.reports.registry import Registry
from negtraj_dagster.schema import Question, canonical_json
from negtraj_dagster.store import Built, Published, Store, read_json_lines
from negtraj_dagster.tasks import EMBEDDED

QUESTIONS = [Question("wordtraps", f"q{n:03}", "gate", f"What is {n} plus 0?", str(n)) for n in range(200)]
AGENT = {"template": "t", "max_turns": 2, "max_new_tokens_per_turn": 8, "batch_size": 4, "threads": 1}
BASE = "base"


class Evaluator:
    """In place of the child: a model answers rightly what it is said to.

    Attributes:
        right: numbers of the questions by model version.
        asked: model versions, each as often as it was asked.
        refuses: models whose first question the infrastructure ends.
    """

    def __init__(self) -> None:
        self.right: dict[str, set[int]] = {BASE: set()}
        self.asked: list[str] = []
        self.refuses: set[str] = set()

    def __call__(self, module: str, config_path: Path, ranks: int, threads: int) -> None:
        config = json.loads(config_path.read_text())
        model = config["model_version"]
        self.asked.append(model)
        rows = [self._row(model, job) for job in read_json_lines(Path(config["questions_path"]))]
        (Path(config["out_dir"]) / "answers-00000.jsonl").write_text("".join(f"{canonical_json(row)}\n" for row in rows))
        (Path(config["out_dir"]) / "result.json").write_text("{}")

    def _row(self, model: str, job: dict[str, Any]) -> dict[str, Any]:
        number = int(job["question_id"][1:])
        is_ended = model in self.refuses and number == 0
        counts = ("tool_calls", "tool_errors", "format_errors", "unknown_tools", "generated_tokens")
        return {
            **{name: job[name] for name in ("answer_key", "question_id", "trial", "turns")},
            "prediction": str(number) if number in self.right[model] else "-1",
            "status": "infrastructure" if is_ended else "finished",
            "n_assistant_turns": 1,
            **{f"n_{name}": 0 for name in counts},
        }


@pytest.fixture
def evaluator() -> Evaluator:
    return Evaluator()


def train(store: Store, evaluator: Evaluator, recipe: str, right: Iterable[int], seed: int = 0) -> Published:
    """A checkpoint that answers some questions rightly."""
    made = store.build(f"{recipe}/checkpoint", {"seed": seed}, lambda _: Built(content={"of": recipe, "seed": seed}))
    evaluator.right[made.version] = set(right)
    return made


def contender(trained: Published) -> Contender:
    return Contender(trained.asset.split("/")[0], trained.version, respondent(trained.version, trained.folder))


def respondent(version: str, folder: Path) -> Respondent:
    def prompt(question: Question) -> Any:
        return [{"role": "user", "content": question.question}]

    return Respondent(version, folder, EMBEDDED["wordtraps"], AGENT, (), prompt)


def crown(
    store: Store,
    evaluator: Evaluator,
    *challengers: Published,
    questions: list[Question] = QUESTIONS,
    barred: dict[str, str] | None = None,
    rule: GateRule | None = None,
) -> Published:
    def find(recipe: str, version: str) -> Contender | None:
        trained = store.find(f"{recipe}/checkpoint", version)
        return contender(trained) if trained else None

    gate = Gate(
        "l",
        [contender(trained) for trained in challengers],
        barred or {},
        find,
        respondent(BASE, store.home),
        questions,
        EMBEDDED["wordtraps"],
        rule or GateRule(),
    )
    return crown_champion(store, gate, evaluator)


def read(store: Store, name: str) -> dict[str, Any]:
    text = store.read_text(f"registry/l/{name}.json")
    assert text is not None
    return dict(json.loads(text))


def log(store: Store) -> list[list[Any]]:
    """Who had the title before and behind each change."""
    lines = (store.read_text("registry/l/promotions.jsonl") or "").splitlines()
    rows = [json.loads(line) for line in lines]
    return [[title and title["recipe"] for title in (row["previous"], row["champion"])] for row in rows]


def test_the_first_champion_beats_the_base_model_and_is_the_anchor(store: Store, evaluator: Evaluator) -> None:
    first = train(store, evaluator, "a", range(60))
    crowned = crown(store, evaluator, first)
    assert crowned.content["verdict"] == "promoted"
    assert crowned.work["questions_asked"] == 400
    assert read(store, "champion")["checkpoint"] == read(store, "anchor")["checkpoint"] == first.version
    assert pinned_parent(store, "b/checkpoint", {"any": 1}, "champion/l")["version"] == first.version


@pytest.mark.parametrize("right", [range(0), range(2)], ids=["always wrong", "1 percent"])
def test_one_that_is_no_better_than_the_base_model_is_no_champion(
    store: Store, evaluator: Evaluator, right: Iterable[int]
) -> None:
    crowned = crown(store, evaluator, train(store, evaluator, "a", right))
    assert crowned.is_empty
    assert "no champion: " in crowned.content["reason"]
    assert store.read_text("registry/l/champion.json") is None


def test_a_worse_checkpoint_takes_neither_title_nor_warm_start(store: Store, evaluator: Evaluator) -> None:
    first = train(store, evaluator, "a", range(105))
    crown(store, evaluator, first)
    stays = crown(store, evaluator, train(store, evaluator, "a", range(2), seed=1))
    assert (stays.content["checkpoint"], stays.content["verdict"]) == (first.version, "worse")
    assert log(store) == [[None, "a"]]
    assert pinned_parent(store, "b/checkpoint", {"any": 1}, "champion/l")["version"] == first.version


def test_a_better_checkpoint_takes_the_title_and_is_asked_once(store: Store, evaluator: Evaluator) -> None:
    first = train(store, evaluator, "a", range(50))
    crown(store, evaluator, first)
    second = train(store, evaluator, "b", range(100))
    crown(store, evaluator, second)
    assert read(store, "champion")["checkpoint"] == second.version
    assert read(store, "previous")["checkpoint"] == first.version
    assert read(store, "challenger") == {"recipe": "b", "checkpoint": second.version}
    assert read(store, "anchor")["checkpoint"] == first.version
    assert sorted(evaluator.asked) == sorted([BASE, first.version, second.version])


def test_a_tie_goes_to_the_challenger_and_an_unlike_equal_is_undecided(store: Store, evaluator: Evaluator) -> None:
    crown(store, evaluator, train(store, evaluator, "a", range(105)))
    undecided = crown(store, evaluator, train(store, evaluator, "b", range(95, 200)))
    assert (undecided.content["recipe"], undecided.content["verdict"]) == ("a", "undecided")
    assert "the title stays where it is" in undecided.content["why"]
    tie = crown(store, evaluator, train(store, evaluator, "c", range(105)))
    assert (tie.content["recipe"], tie.content["verdict"]) == ("c", "promoted")


def test_a_chain_of_small_losses_is_stopped_by_the_anchor(store: Store, evaluator: Evaluator) -> None:
    n_right = 150
    crown(store, evaluator, train(store, evaluator, "a", range(n_right)))
    for night in range(1, 11):
        crown(store, evaluator, train(store, evaluator, "a", range(n_right - 2 * night), seed=night))
    held = evaluator.right[read(store, "champion")["checkpoint"]]
    assert len(held) > n_right - 0.05 * len(QUESTIONS)
    assert read(store, "anchor")["checkpoint"] != read(store, "champion")["checkpoint"]


def test_a_gate_of_few_questions_decides_nothing_and_names_the_remedy(store: Store, evaluator: Evaluator) -> None:
    crowned = crown(store, evaluator, train(store, evaluator, "a", range(60)), questions=QUESTIONS[:99])
    assert crowned.is_empty
    assert "has 99 questions, at least 100 are needed" in crowned.content["reason"]
    assert evaluator.asked == []


def test_an_empty_gate_leaves_the_title(store: Store, evaluator: Evaluator) -> None:
    crown(store, evaluator, train(store, evaluator, "a", range(60)))
    stays = crown(store, evaluator, train(store, evaluator, "b", range(100)), questions=[])
    assert (stays.content["recipe"], stays.content["verdict"]) == ("a", "unchallenged")
    assert stays.content["accuracy"] == pytest.approx(0.3)


def test_nothing_is_decided_where_the_infrastructure_ended_an_episode(store: Store, evaluator: Evaluator) -> None:
    first, second = train(store, evaluator, "a", range(60)), train(store, evaluator, "b", range(100))
    crown(store, evaluator, first)
    evaluator.refuses.add(second.version)
    with pytest.raises(StoreError, match="1 of 200 episodes of b were ended by the machine or the server"):
        crown(store, evaluator, second)
    assert read(store, "champion")["checkpoint"] == first.version
    evaluator.refuses.clear()
    assert crown(store, evaluator, second).work["questions_asked"] == 1
    assert read(store, "champion")["checkpoint"] == second.version


def test_a_barred_candidate_is_named(store: Store, evaluator: Evaluator) -> None:
    crowned = crown(store, evaluator, barred={"b": "contaminated"})
    assert crowned.content["reason"] == "b may not win: contaminated"


def test_the_same_gate_again_decides_nothing_anew(store: Store, evaluator: Evaluator) -> None:
    crown(store, evaluator, train(store, evaluator, "a", range(50)))
    second = train(store, evaluator, "b", range(100))
    chosen = crown(store, evaluator, second)
    before = read(store, "champion")
    again = crown(store, evaluator, second)
    assert again.reused
    assert (again.version, read(store, "champion")) == (chosen.version, before)


def test_two_equals_do_not_swap_the_title_night_after_night(store: Store, evaluator: Evaluator) -> None:
    first, second = train(store, evaluator, "a", range(105)), train(store, evaluator, "b", range(105))
    crown(store, evaluator, first)
    assert crown(store, evaluator, first, second).content["recipe"] == "b"
    for seed in range(3):
        bad = train(store, evaluator, "c", range(20), seed=seed)
        stays = crown(store, evaluator, first, second, bad)
        assert stays.content["recipe"] == "b"
        assert "held the title before, and only a rollback brings it back" in stays.content["why"]
    assert log(store) == [[None, "a"], ["a", "b"]]


def test_a_decision_whose_object_is_gone_is_not_made_again(store: Store, evaluator: Evaluator) -> None:
    crown(store, evaluator, train(store, evaluator, "a", range(50)))
    second = train(store, evaluator, "b", range(100))
    chosen = crown(store, evaluator, second)
    (chosen.folder / "champion.json").unlink()
    again = crown(store, evaluator, second)
    assert (again.content["checkpoint"], again.content["verdict"]) == (second.version, "promoted")
    assert log(store) == [[None, "a"], ["a", "b"]]


def test_an_older_gate_that_comes_back_does_not_bring_its_champion_back(store: Store, evaluator: Evaluator) -> None:
    first, second = train(store, evaluator, "a", range(50)), train(store, evaluator, "b", range(100))
    crown(store, evaluator, first)
    crown(store, evaluator, second)
    crown(store, evaluator, first)
    assert read(store, "champion")["checkpoint"] == second.version


def test_a_title_given_by_a_run_that_ended_before_it_was_logged_is_logged_by_the_next(
    store: Store, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, evaluator, train(store, evaluator, "a", range(50)))
    update_text = store.update_text

    def end_before_the_log(name: str, change: Callable[[str | None], str]) -> None:
        if name.endswith("promotions.jsonl"):
            raise KeyboardInterrupt
        update_text(name, change)

    monkeypatch.setattr(store, "update_text", end_before_the_log)
    with pytest.raises(KeyboardInterrupt):
        crown(store, evaluator, train(store, evaluator, "b", range(100)))
    monkeypatch.undo()
    crown(store, evaluator, train(store, evaluator, "c", range(150)))
    assert log(store) == [[None, "a"], ["a", "b"], ["b", "c"]]


def test_a_title_that_another_machine_gave_meanwhile_is_the_next_holder(
    tmp_path: Path, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, judge_line = f"file://{tmp_path}/shared", champion.judge_line
    one, two = (Store(tmp_path / name, remote=url) for name in ("one", "two"))
    waiting = [two]

    def judge_late(*arguments: Any, **named: Any) -> Any:
        if waiting:  # while the first machine decides, the second has done so
            other = waiting.pop()
            crown(other, evaluator, train(other, evaluator, "b", range(105)))
        return judge_line(*arguments, **named)

    monkeypatch.setattr(champion, "judge_line", judge_late)
    crown(one, evaluator, train(one, evaluator, "a", range(100)))
    assert read(one, "champion") == read(two, "champion")
    assert (read(one, "champion")["recipe"], read(one, "champion")["incumbent"][0]) == ("b", "b")
    assert log(one) == [[None, "b"]]


def test_a_parent_that_another_machine_has_pinned_meanwhile_is_taken(
    tmp_path: Path, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/shared"
    one, two = (Store(tmp_path / name, remote=url) for name in ("one", "two"))
    first = pinned_parent(two, "a/checkpoint", {"n": 1}, "champion/l")
    crown(one, evaluator, train(one, evaluator, "a", range(100)))
    monkeypatch.setattr(one, "read_text", lambda name: None if name.startswith("pins/") else two.read_text(name))
    assert pinned_parent(one, "a/checkpoint", {"n": 1}, "champion/l") == first


def test_a_holder_whose_checkpoint_is_gone_is_replaced_by_one_that_beats_base_and_anchor(
    store: Store, evaluator: Evaluator
) -> None:
    first, second = train(store, evaluator, "a", range(50)), train(store, evaluator, "b", range(100))
    crown(store, evaluator, first)
    crown(store, evaluator, second)
    file = store.home / "registry" / "l" / "champion.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "checkpoint": "0" * 64, "decision": None}))
    third = train(store, evaluator, "c", range(60))
    crowned = crown(store, evaluator, third)
    assert read(store, "champion")["checkpoint"] == third.version
    assert "is gone from the store" in crowned.content["why"]


def test_an_anchor_whose_checkpoint_is_gone_stops_the_gate_and_names_its_file(store: Store, evaluator: Evaluator) -> None:
    crown(store, evaluator, train(store, evaluator, "a", range(50)))
    store.write_text("registry/l/anchor.json", json.dumps({"recipe": "a", "checkpoint": "0" * 64}))
    with pytest.raises(StoreError, match=r"registry/l/anchor\.json names a \(000000000000\), whose object is gone"):
        crown(store, evaluator, train(store, evaluator, "b", range(100)))


def test_a_registry_of_an_earlier_version_is_read_and_its_holder_is_the_anchor(store: Store, evaluator: Evaluator) -> None:
    first, second = train(store, evaluator, "a", range(50)), train(store, evaluator, "b", range(100))
    old = {"recipe": "a", "checkpoint": first.version, "accuracy": 0.25, "why": "highest strict accuracy", "comparison": "x"}
    store.write_text("registry/l/champion.json", canonical_json({**old, "incumbent": None, "previous": None}))
    crown(store, evaluator, second)
    assert read(store, "champion")["checkpoint"] == second.version
    assert read(store, "anchor") == {"recipe": "a", "checkpoint": first.version}


def test_a_rollback_gives_the_title_back_for_good(store: Store, evaluator: Evaluator) -> None:
    first, second = train(store, evaluator, "a", range(50)), train(store, evaluator, "b", range(100))
    crown(store, evaluator, first)
    crown(store, evaluator, second)
    content = Registry(store, "l").roll_back("it swears").content
    assert content["checkpoint"] == read(store, "champion")["checkpoint"] == first.version
    assert content["why"] == f"b ({second.version[:12]}) was rolled back: it swears"
    assert log(store) == [[None, "a"], ["a", "b"], ["b", "a"]]
    assert pinned_parent(store, "c/checkpoint", {"any": 1}, "champion/l")["version"] == first.version
    stays = crown(store, evaluator, second)
    assert (stays.content["recipe"], stays.content["verdict"]) == ("a", "unchallenged")
    assert "it was rolled back" in stays.content["why"]
    third = train(store, evaluator, "c", range(150))
    crown(store, evaluator, second, third)
    assert read(store, "champion")["checkpoint"] == third.version
    assert crown(store, evaluator, second).content["checkpoint"] == third.version


def test_what_was_rolled_back_stays_out_though_the_alias_is_deleted(store: Store, evaluator: Evaluator) -> None:
    first, second = train(store, evaluator, "a", range(50)), train(store, evaluator, "b", range(100))
    crown(store, evaluator, first)
    crown(store, evaluator, second)
    Registry(store, "l").roll_back("bad")
    (store.home / "registry" / "l" / "champion.json").unlink()
    assert crown(store, evaluator, second).is_empty


def test_a_rollback_that_waited_for_a_gate_rolls_back_nobody_else(
    store: Store, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, evaluator, train(store, evaluator, "a", range(50)))
    crown(store, evaluator, train(store, evaluator, "b", range(100)))
    lock = store.lock

    def lock_late(name: str) -> Any:  # a gate that held it gives the title to another
        monkeypatch.undo()
        crown(store, evaluator, train(store, evaluator, "c", range(150)))
        return lock(name)

    monkeypatch.setattr(store, "lock", lock_late)
    with pytest.raises(StoreError, match=r"the title moved while a gate was waited for, b \("):
        Registry(store, "l").roll_back("b is bad")
    assert read(store, "champion")["recipe"] == "c"
    assert "refused" not in (store.read_text("registry/l/promotions.jsonl") or "")


def test_neither_one_that_is_gone_nor_one_that_was_rolled_back_becomes_the_anchor(store: Store, evaluator: Evaluator) -> None:
    first, second = train(store, evaluator, "a", range(50)), train(store, evaluator, "b", range(100))
    old = {"recipe": "a", "checkpoint": "0" * 64, "accuracy": 0.25, "why": "", "incumbent": None, "previous": None}
    store.write_text("registry/l/champion.json", canonical_json(old))
    crown(store, evaluator, second)
    assert read(store, "anchor")["checkpoint"] == second.version
    (store.home / "registry" / "l" / "anchor.json").unlink()
    before = {**old, "checkpoint": first.version}
    store.write_text("registry/l/champion.json", canonical_json({**old, "checkpoint": second.version, "previous": before}))
    Registry(store, "l").roll_back("bad")
    assert read(store, "anchor")["checkpoint"] == first.version


def test_one_that_was_judged_is_not_judged_again_by_the_same_measure(store: Store, evaluator: Evaluator) -> None:
    first, second = train(store, evaluator, "a", range(105)), train(store, evaluator, "b", range(104))
    crown(store, evaluator, first, second)
    for n in range(3):
        stays = crown(store, evaluator, first, second, barred={"c": f"reason {n}"})
        assert (stays.content["recipe"], stays.content["verdict"]) == ("a", "unchallenged")
    assert crown(store, evaluator, first, second, rule=GateRule(margin=0.06)).content["recipe"] == "b"


def test_two_rollbacks_go_back_two_titles(store: Store, evaluator: Evaluator) -> None:
    for number, recipe in enumerate("abc"):
        crown(store, evaluator, train(store, evaluator, recipe, range(50 + 50 * number)))
    registry = Registry(store, "l")
    assert registry.roll_back("bad").content["recipe"] == "b"
    assert read(store, "previous")["recipe"] == "a"
    assert registry.roll_back("bad").content["recipe"] == "a"
    assert read(store, "previous") == {}
    with pytest.raises(StoreError, match="is the first champion, there is none before it"):
        registry.roll_back("bad")


def test_a_rollback_that_was_killed_before_it_was_logged_is_logged_by_the_next_gate(
    store: Store, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, evaluator, train(store, evaluator, "a", range(50)))
    second = train(store, evaluator, "b", range(100))
    crown(store, evaluator, second)
    monkeypatch.setattr(Registry, "follow", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Registry(store, "l").roll_back("bad")
    monkeypatch.undo()
    assert crown(store, evaluator, second).content["recipe"] == "a"
    assert log(store) == [[None, "a"], ["a", "b"], ["b", "a"]]


def test_a_line_without_a_champion_has_nothing_to_roll_back(store: Store) -> None:
    with pytest.raises(StoreError, match="no champion was named yet"):
        Registry(store, "l").roll_back("bad")
