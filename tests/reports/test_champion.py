"""Who holds a line's title: the first by accuracy, then whoever is better than the holder by the paired exact test."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from negtraj_dagster.checkpoints.build import pinned_parent
from negtraj_dagster.reports import champion
from negtraj_dagster.reports.champion import Candidate, choose_champion, crown_champion
from negtraj_dagster.schema import canonical_json
from negtraj_dagster.store import Built, Published, Store

QUESTIONS = [f"q{i:03}" for i in range(200)]


def candidate(recipe: str, right: Iterable[int] | None, *, suite: str = "s", rules: str = "r", n_right: int = 0) -> Candidate:
    ids = None if right is None else frozenset(QUESTIONS[i] for i in right)
    n = n_right if ids is None else len(ids)
    return Candidate(recipe, f"checkpoint of {recipe}", n / len(QUESTIONS), suite, rules, ids)


HOLDER = candidate("holder", range(105))


def test_without_a_holder_the_most_accurate_candidate_wins():
    chosen = choose_champion([candidate("a", range(3)), candidate("b", range(5))], None)
    assert (chosen["recipe"], chosen["why"]) == ("b", "highest strict accuracy of 2 candidates")


def test_a_first_title_between_equals_goes_by_name_and_says_so():
    chosen = choose_champion([candidate("b", range(5)), candidate("a", range(5, 10))], None)
    assert chosen["recipe"] == "a"
    assert chosen["why"].endswith("the first by name")


@pytest.mark.parametrize("candidates", [[], [candidate("a", [])]], ids=["none", "one that is always wrong"])
def test_nobody_is_a_champion_without_a_right_answer(candidates):
    chosen = choose_champion(candidates, None)
    assert chosen["status"] == "no_data"
    assert "no " in chosen["reason"]


STAYS = {
    "one at 1 percent": candidate("worse", range(2)),
    "a tie": candidate("a tie", range(95, 200)),
    "one that is better by 5 questions, all of them new": candidate("better by 5", range(110)),
    "one that is better by chance": candidate("by chance", range(20, 135)),
    "one without a right answer": candidate("wrong", []),
    "other questions": candidate("other suite", range(200), suite="t"),
    "other rules": candidate("other rules", range(200), rules="q"),
    "answers that nobody kept": candidate("unknown", None, n_right=200),
}


@pytest.mark.parametrize("challenger", STAYS.values(), ids=STAYS.keys())
def test_the_holder_stays_and_the_reason_is_told(challenger):
    chosen = choose_champion([challenger], HOLDER)
    assert chosen["recipe"] == "holder"
    assert chosen["accuracy"] == HOLDER.accuracy
    assert "it holds the title" in chosen["why"]


def test_six_questions_more_and_none_lost_are_enough():
    chosen = choose_champion([candidate("better", range(111))], HOLDER)
    assert chosen["recipe"] == "better"
    assert "better than holder" in chosen["why"]
    assert "exact p 0.031" in chosen["why"]


def test_a_holder_whose_answers_are_not_known_stays_and_names_the_remedy():
    chosen = choose_champion([candidate("better", range(200))], candidate("holder", None, n_right=3))
    assert chosen["recipe"] == "holder"
    assert "delete champion.json" in chosen["why"]


def checkpoint(store: Store, recipe: str, seed: int = 0) -> Published:
    return store.build(f"{recipe}/checkpoint", {"seed": seed}, lambda _: Built(content={"of": recipe, "seed": seed}))


def compare(store: Store, *arms: tuple[Published, Iterable[int]], contaminated: tuple[str, ...] = ()) -> Published:
    def write(folder: Path) -> Built:
        rows = []
        with (folder / "right.jsonl").open("w") as file:
            for trained, right in arms:
                recipe, ids = trained.asset.split("/")[0], [QUESTIONS[i] for i in right]
                file.write(f"{canonical_json({'recipe': recipe, 'right': ids})}\n")
                row = {"recipe": recipe, "checkpoint": trained.version, "accuracy": len(ids) / len(QUESTIONS)}
                rows.append({**row, "role": "candidate", "contaminated": recipe in contaminated, "suite": "s", "rules": "r"})
        return Built(content={"arms": rows})

    made_of = {"arms": [[trained.version, list(right)] for trained, right in arms], "contaminated": contaminated}
    return store.build("recipe_comparison/l", made_of, write)


def test_a_title_that_another_machine_gave_meanwhile_is_the_next_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, choose = f"file://{tmp_path}/shared", champion.choose_champion
    one, two = (Store(tmp_path / name, remote=url) for name in ("one", "two"))
    stores = {"": (two, ("b", range(105, 200)))}

    def choose_late(candidates: list[Candidate], incumbent: Candidate | None) -> Any:
        if stores:  # while the first machine decides, the second has done so
            store, (recipe, right) = stores.pop("")
            crown_champion(store, "l", compare(store, (checkpoint(store, recipe), right)))
        return choose(candidates, incumbent)

    monkeypatch.setattr(champion, "choose_champion", choose_late)
    crown_champion(one, "l", compare(one, (checkpoint(one, "a"), range(100))))
    assert alias(one) == alias(two)
    assert (alias(one)["recipe"], alias(one)["incumbent"][0]) == ("b", "b")
    assert n_promotions(one) == 1


def test_a_parent_that_another_machine_has_pinned_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"file://{tmp_path}/shared"
    one, two = (Store(tmp_path / name, remote=url) for name in ("one", "two"))
    first = pinned_parent(two, "a/checkpoint", {"n": 1}, "champion/l")
    crown_champion(one, "l", compare(one, (checkpoint(one, "a"), range(100))))
    monkeypatch.setattr(one, "read_text", lambda name: None if name.startswith("pins/") else two.read_text(name))
    assert pinned_parent(one, "a/checkpoint", {"n": 1}, "champion/l") == first


def alias(store: Store) -> dict[str, Any]:
    text = store.read_text("registry/l/champion.json")
    assert text is not None
    return dict(json.loads(text))


def n_promotions(store: Store) -> int:
    return len((store.read_text("registry/l/promotions.jsonl") or "").splitlines())


def test_a_retrained_worse_checkpoint_takes_neither_title_nor_warm_start(store: Store):
    first = checkpoint(store, "a")
    crown_champion(store, "l", compare(store, (first, range(105))))
    second = checkpoint(store, "a", seed=1)
    stays = crown_champion(store, "l", compare(store, (second, range(2))))
    assert stays.content["checkpoint"] == alias(store)["checkpoint"] == first.version
    assert n_promotions(store) == 1
    assert pinned_parent(store, "b/checkpoint", {"any": 1}, "champion/l")["version"] == first.version


def test_a_better_checkpoint_takes_the_title_and_the_next_one_is_held_to_it(store: Store):
    crown_champion(store, "l", compare(store, (checkpoint(store, "a"), range(50))))
    second = checkpoint(store, "a", seed=1)
    crown_champion(store, "l", compare(store, (second, range(100))))
    third = checkpoint(store, "b")
    crown_champion(store, "l", compare(store, (third, range(98))))
    assert alias(store)["checkpoint"] == second.version
    assert n_promotions(store) == 2


def test_of_several_challengers_the_first_that_is_better_wins_though_a_more_accurate_one_is_not():
    lucky, better = candidate("lucky", range(45, 165)), candidate("better", range(115))
    assert choose_champion([lucky], HOLDER)["recipe"] == "holder"
    assert choose_champion([lucky, better], HOLDER)["recipe"] == "better"


def test_several_challengers_share_the_chance_that_one_looks_better():
    challengers = [candidate("better", range(111)), candidate("equal", range(105))]
    assert choose_champion(challengers[:1], HOLDER)["recipe"] == "better"
    chosen = choose_champion(challengers, HOLDER)
    assert chosen["recipe"] == "holder"
    assert "not better at p < 0.025" in chosen["why"]


def test_a_title_given_by_a_run_that_ended_before_it_was_logged_is_logged_by_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    crown_champion(store, "l", compare(store, (checkpoint(store, "a"), range(50))))
    update_text = store.update_text

    def end_before_the_log(name: str, change: Callable[[str | None], str]) -> None:
        if name.endswith("promotions.jsonl"):
            raise KeyboardInterrupt
        update_text(name, change)

    monkeypatch.setattr(store, "update_text", end_before_the_log)
    second, third = checkpoint(store, "b"), checkpoint(store, "c")
    with pytest.raises(KeyboardInterrupt):
        crown_champion(store, "l", compare(store, (second, range(100))))
    monkeypatch.undo()
    crown_champion(store, "l", compare(store, (third, range(150))))
    lines = [json.loads(line) for line in (store.read_text("registry/l/promotions.jsonl") or "").splitlines()]
    told = [[title and title["recipe"] for title in (line["previous"], line["champion"])] for line in lines]
    assert told == [[None, "a"], ["a", "b"], ["b", "c"]]


def test_the_same_comparison_again_decides_nothing_anew(store: Store):
    first, second = checkpoint(store, "a"), checkpoint(store, "b")
    crown_champion(store, "l", compare(store, (first, range(50))))
    comparison = compare(store, (first, range(50)), (second, range(100)))
    chosen = crown_champion(store, "l", comparison)
    before = alias(store)
    again = crown_champion(store, "l", comparison)
    assert again.reused
    assert (again.version, alias(store)) == (chosen.version, before)


def test_an_older_comparison_that_comes_back_does_not_bring_its_champion_back(store: Store):
    first, second = checkpoint(store, "a"), checkpoint(store, "b")
    older = compare(store, (first, range(50)))
    crown_champion(store, "l", older)
    crown_champion(store, "l", compare(store, (second, range(100))))
    crown_champion(store, "l", older)
    assert alias(store)["checkpoint"] == second.version


def test_a_holder_that_is_found_to_be_contaminated_loses_the_title(store: Store):
    first, second = checkpoint(store, "a"), checkpoint(store, "b")
    crown_champion(store, "l", compare(store, (first, range(50))))
    crown_champion(store, "l", compare(store, (first, range(50)), (second, range(10)), contaminated=("a",)))
    assert alias(store)["checkpoint"] == second.version


def test_a_holder_whose_checkpoint_is_gone_is_replaced(store: Store):
    crown_champion(store, "l", compare(store, (checkpoint(store, "a"), range(50))))
    registry = store.home / "registry" / "l" / "champion.json"
    registry.write_text(json.dumps({**json.loads(registry.read_text()), "checkpoint": "0" * 64}))
    second = checkpoint(store, "b")
    crown_champion(store, "l", compare(store, (second, range(10))))
    assert alias(store)["checkpoint"] == second.version


def test_a_registry_of_an_earlier_version_is_read(store: Store):
    first, second = checkpoint(store, "a"), checkpoint(store, "b")
    old = {"recipe": "a", "checkpoint": first.version, "accuracy": 0.25, "why": "highest strict accuracy of 1 candidates"}
    store.write_text("registry/l/champion.json", canonical_json(old))
    crown_champion(store, "l", compare(store, (second, range(100))))
    assert alias(store)["checkpoint"] == first.version
    assert "delete champion.json" in alias(store)["why"]
    crown_champion(store, "l", compare(store, (first, range(50)), (second, range(100))))
    assert alias(store)["checkpoint"] == second.version
