"""Names a line's champion: who holds the title keeps it until a candidate is better by the paired exact test.

`registry/<line>/champion.json` is the champion as others read it, with what the next comparison needs of it: which questions it
answered rightly, by which rules. Each change is appended to `registry/<line>/promotions.jsonl`.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.reports.stats import mcnemar_exact
from negtraj_dagster.schema import canonical_json
from negtraj_dagster.store import Built, Published, Store, read_json_lines

CHAMPION_VERSION = 3
SIGNIFICANCE = 0.05
"""A candidate takes the title below this two-sided p: the chance that as good a one would look better by so much.

Several candidates share it (Bonferroni): the more of them try, the more often one looks better by chance.
"""

N_TRIES = 20

Record = Mapping[str, Any]


class _TitleMovedError(Exception):
    """Another machine has decided meanwhile."""


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that may hold the title.

    Attributes:
        right: ids of the questions it answered rightly, by the strict rule; None where a version before this one kept none.
        suite: names the questions, and `rules` how they were asked and scored: others cannot be compared.
    """

    recipe: str
    checkpoint: str
    accuracy: float
    suite: str | None
    rules: str | None
    right: frozenset[str] | None

    @property
    def identity(self) -> list[str]:
        """What makes it this one."""
        return [self.recipe, self.checkpoint]


def crown_champion(store: Store, line: str, comparison: Published) -> Published:
    """The line's champion after a comparison. Controls, studies, contaminated arms and arms without a right answer cannot win.

    Args:
        store: where the comparison lies, and the registry.
        line: its name.
        comparison: the line's `recipe_comparison`.
    """
    with store.lock(f"registry-{line}"):
        for _ in range(N_TRIES):
            with suppress(_TitleMovedError):
                return _crown(store, line, comparison)
    raise StoreError(f"registry/{line}/champion.json: other machines changed it {N_TRIES} times meanwhile; run again")


def _crown(store: Store, line: str, comparison: Published) -> Published:
    alias = f"registry/{line}/champion.json"
    text = store.read_text(alias)
    present = json.loads(text) if text else None
    decided = present is not None and present.get("comparison") == comparison.version
    incumbent = None if present is None or comparison.is_empty else _incumbent(store, present, comparison)
    held_by = present["incumbent"] if present and decided else incumbent.identity if incumbent else None
    made_of = {"code": CHAMPION_VERSION, "recipe_comparison": comparison.version, "incumbent": held_by}

    def write(folder: Path) -> Built:
        if comparison.is_empty:
            return Built(content=comparison.content)
        candidates = read_candidates(store, comparison)
        if present and decided:  # the object is gone, the decision is not
            content = {name: present[name] for name in ("recipe", "checkpoint", "accuracy", "why")}
        else:
            content = choose_champion(candidates, incumbent)
        (folder / "champion.json").write_text(canonical_json(content))
        return Built(content=content, details={"n_candidates": len(candidates)}, work={"champions_chosen": 1})

    published = store.build(f"champion/{line}", made_of, write)
    if not published.is_empty:
        champions = [*read_candidates(store, comparison), *([incumbent] if incumbent else [])]
        decision = {"comparison": comparison.version, "incumbent": held_by}
        _promote(store, line, published.content, champions, decision, text)
    return published


def choose_champion(candidates: Sequence[Candidate], incumbent: Candidate | None) -> dict[str, Any]:
    """Who holds the title, and why; `no_data` where nobody can.

    Args:
        candidates: those of the comparison that may win.
        incumbent: who holds it now.
    """
    ranked = sorted(candidates, key=lambda candidate: (-candidate.accuracy, candidate.recipe))
    able = [candidate for candidate in ranked if candidate.accuracy > 0]
    if incumbent is None:
        if not ranked:
            return {"status": "no_data", "reason": "no uncontaminated candidate in this line"}
        if not able:
            names = ", ".join(candidate.recipe for candidate in ranked)
            return {
                "status": "no_data",
                "reason": f"no candidate answers any question rightly ({names}), so none is a champion",
            }
        is_tie = sum(candidate.accuracy == able[0].accuracy for candidate in able) > 1
        return _title(able[0], f"highest strict accuracy of {len(ranked)} candidates{', the first by name' if is_tie else ''}")
    challengers = [candidate for candidate in able if candidate.identity != incumbent.identity]
    if not challengers:
        return _title(incumbent, "it holds the title, and no other candidate answers a question rightly")
    # the more challengers, the likelier that one wins by chance: each has to be surer (Bonferroni)
    duels = [_duel(challenger, incumbent, SIGNIFICANCE / len(challengers)) for challenger in challengers]
    won = [duel for duel in duels if [duel["recipe"], duel["checkpoint"]] != incumbent.identity]
    return (won or duels)[0]


def _duel(challenger: Candidate, incumbent: Candidate, significance: float) -> dict[str, Any]:
    name = f"{challenger.recipe} ({challenger.checkpoint[:12]})"
    asked_alike = (challenger.suite, challenger.rules) == (incumbent.suite, incumbent.rules)
    if challenger.right is None or incumbent.right is None or not asked_alike:
        return _title(
            incumbent,
            f"it holds the title, and {name} cannot be compared with it: its answers to these questions by these rules are not "
            "known; delete champion.json in the line's registry folder to have the best candidate chosen anew",
        )
    n_challenger, n_incumbent = len(challenger.right - incumbent.right), len(incumbent.right - challenger.right)
    p_value = mcnemar_exact(n_challenger, n_incumbent)
    numbers = (
        f"{challenger.accuracy:.1%} against {incumbent.accuracy:.1%}, {n_challenger} questions that only {challenger.recipe} "
        f"answers rightly and {n_incumbent} that only the holder does, exact p {p_value:.2g}"
    )
    if n_challenger > n_incumbent and p_value < significance:
        return _title(
            challenger, f"better than {incumbent.recipe} ({incumbent.checkpoint[:12]}), which held the title: {numbers}"
        )
    return _title(incumbent, f"it holds the title, and {name} is not better at p < {significance:.2g}: {numbers}")


def _title(candidate: Candidate, why: str) -> dict[str, Any]:
    return {
        "recipe": candidate.recipe,
        "checkpoint": candidate.checkpoint,
        "accuracy": candidate.accuracy,
        "why": why,
    }


def read_candidates(store: Store, comparison: Published) -> list[Candidate]:
    """The arms of a comparison that may win."""
    arms = [arm for arm in comparison.content["arms"] if arm["role"] == "candidate" and not arm["contaminated"]]
    rows = read_json_lines(store.file(comparison.folder, "right.jsonl")) if arms else []
    right = {row["recipe"]: frozenset(row["right"]) for row in rows}
    return [
        Candidate(arm["recipe"], arm["checkpoint"], arm["accuracy"], arm["suite"], arm["rules"], right[arm["recipe"]])
        for arm in arms
    ]


def _incumbent(store: Store, present: Record, comparison: Published) -> Candidate | None:
    """Who holds the title, judged by this comparison where it takes part; None where it may not hold it any longer."""
    identity = [present["recipe"], present["checkpoint"]]
    if store.find(f"{present['recipe']}/checkpoint", present["checkpoint"]) is None:
        return None
    if any([arm["recipe"], arm["checkpoint"]] == identity for arm in comparison.content["arms"]):
        return next((candidate for candidate in read_candidates(store, comparison) if candidate.identity == identity), None)
    right = present.get("right")
    return Candidate(
        present["recipe"],
        present["checkpoint"],
        present["accuracy"],
        present.get("suite"),
        present.get("rules"),
        None if right is None else frozenset(right),
    )


def _promote(
    store: Store, line: str, chosen: Record, champions: Sequence[Candidate], decision: Record, present: str | None
) -> None:
    """Replace the alias in one step, then log who holds the title. What a run left out, the next adds."""
    alias, log = f"registry/{line}/champion.json", f"registry/{line}/promotions.jsonl"
    holder = next(
        (candidate for candidate in champions if candidate.identity == [chosen["recipe"], chosen["checkpoint"]]), None
    )
    # another machine may have promoted while this one compared: its champion was not among the candidates
    if store.read_text(alias) != present:
        raise _TitleMovedError
    earlier = json.loads(present) if present else None
    # a champion that this comparison did not ask keeps what it answered where it was last asked
    comparable = {name: earlier[name] for name in ("suite", "rules", "right") if earlier and name in earlier}
    if holder and holder.right is not None:
        comparable = {"suite": holder.suite, "rules": holder.rules, "right": sorted(holder.right)}
    previous = earlier and (earlier.get("previous") if _is_same(earlier, chosen) else _only_title(earlier))
    text = canonical_json({**chosen, **decision, **comparable, "previous": previous})

    def take_title(now: str | None) -> str:
        if now not in (present, text):
            raise _TitleMovedError
        return text

    if present != text:
        store.update_text(alias, take_title)
    # after the alias: a log that is a line short is completed by the next run, a line too many would stay
    store.update_text(log, lambda history: _log_title(history or "", json.loads(store.read_text(alias) or text)))


def _log_title(history: str, alias: Record) -> str:
    """The log of promotions with the title held now, and the one before it where another machine has yet to log that."""
    last = json.loads(history.splitlines()[-1])["champion"] if history.strip() else None
    if last and _is_same(last, alias):
        return history
    titles = [_only_title(alias)]
    if (previous := alias.get("previous")) and not (last and _is_same(last, previous)):
        titles.insert(0, previous)
    for title in titles:
        history += f"{canonical_json({'champion': title, 'previous': last})}\n"
        last = title
    return history


def _only_title(record: Record) -> Record:
    return {name: record[name] for name in ("recipe", "checkpoint", "accuracy", "why") if name in record}


def _is_same(a: Record, b: Record) -> bool:
    return (a["recipe"], a["checkpoint"]) == (b["recipe"], b["checkpoint"])
