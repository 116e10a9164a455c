"""Names a line's champion: a challenger takes the title only where the gate proves it no worse than who holds it.

All are asked the questions of the split `gate`, which nothing else reads: the challenger, who holds the title, and a fixed
anchor (the line's first champion), so that a chain of small losses is stopped. Test questions are read by reports alone.

In `registry/<line>/`: `champion.json`, the title as others read it; `previous.json` and `challenger.json`, who held it before
and who was judged last; `anchor.json`; `promotions.jsonl`, a line for each change of the title.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from negtraj_dagster.errors import StoreError
from negtraj_dagster.launch import RunChild
from negtraj_dagster.reports.answers import Respondent, ask, asked_digest
from negtraj_dagster.reports.build import Suite, why_unjudged
from negtraj_dagster.reports.gate import Contestant, GateRule, Verdict, judge_line
from negtraj_dagster.reports.metrics import score_rows
from negtraj_dagster.reports.registry import Registry, TitleMovedError, only_title
from negtraj_dagster.schema import Question, canonical_json, digest_json
from negtraj_dagster.store import Built, Published, Store
from negtraj_dagster.tasks import Task

CHAMPION_VERSION = 4
N_TRIES = 20


@dataclass(frozen=True)
class Contender:
    """A checkpoint that wants the title, or holds it.

    Attributes:
        respondent: how it is asked, all of a line by the same rules.
    """

    recipe: str
    checkpoint: str
    respondent: Respondent

    @property
    def identity(self) -> list[str]:
        """What makes it this one."""
        return [self.recipe, self.checkpoint]


@dataclass(frozen=True)
class Gate:
    """What a line's title is decided by.

    Attributes:
        challengers: the line's candidates that may win: present, not empty, not contaminated.
        barred: why each of the line's other candidates may not, by recipe.
        find: the contender of a recipe's checkpoint by its version; None where its object is gone.
        base: the base model, untrained: the first champion has to be better.
        questions: of the split `gate`.
    """

    line: str
    challengers: Sequence[Contender]
    barred: Mapping[str, str]
    find: Callable[[str, str], Contender | None]
    base: Respondent | None
    questions: Sequence[Question]
    task: Task
    rule: GateRule

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides but the title's holder, the anchor and what was rolled back."""
        return {
            "code": CHAMPION_VERSION,
            "challengers": {
                contender.recipe: asked_digest(contender.respondent, self.questions) for contender in self.challengers
            },
            "barred": dict(self.barred),
            "base": self.base and asked_digest(self.base, self.questions),
            "questions": Suite(self.questions).digest,
            "scorer": self.task.version,
            "rule": asdict(self.rule),
        }

    @property
    def measure(self) -> str:
        """Names what a verdict is made by, whoever is judged."""
        return digest_json([Suite(self.questions).digest, self.task.version, asdict(self.rule)])


def crown_champion(store: Store, gate: Gate, run_child: RunChild) -> Published:
    """The line's champion after the gate; who is asked, and by whom the title is held, is in the object's content.

    Args:
        store: where checkpoints lie, and the registry.
        gate: what decides.
        run_child: starts the evaluator.

    Raises:
        StoreError: the infrastructure ended episodes of the gate, or other machines kept changing the title.
    """
    with store.lock(f"registry-{gate.line}"):
        for _ in range(N_TRIES):
            with suppress(TitleMovedError):
                return _crown(store, gate, run_child)
    raise StoreError(f"registry/{gate.line}/champion.json: other machines changed it {N_TRIES} times meanwhile; run again")


def _crown(store: Store, gate: Gate, run_child: RunChild) -> Published:
    registry = Registry(store, gate.line)
    text = registry.read("champion")
    present = json.loads(text) if text else None
    decision = digest_json(gate.identity)
    is_decided = present is not None and present.get("decision") == decision
    if present is not None and is_decided:
        context = present["context"]
    else:
        is_alike = present is not None and present.get("measure") == gate.measure
        context = {
            "incumbent": [present["recipe"], present["checkpoint"]] if present else None,
            "anchor": _identity(registry.read("anchor")),
            "refused": registry.refused(),
            "held": registry.held(),
            "judged": sorted(present["judged"]) if present and is_alike else [],
        }
    made_of = {**gate.identity, **context}

    def write(folder: Path) -> Built:
        if present and is_decided:  # the object is gone, the decision is not
            content, players = only_title(present), _Players(store, gate, run_child)
        else:
            content, players = _decide(store, gate, present, context, run_child)
        (folder / "champion.json").write_text(canonical_json(content), encoding="utf-8")
        work = {"champions_chosen": 1, "questions_asked": players.n_asked}
        return Built(content=content, work=work, caches=tuple(sorted(players.segments)))

    published = store.build(f"champion/{gate.line}", made_of, write)
    if not published.is_empty:
        kept = ("incumbent", "anchor", "refused")
        record = {name: context[name] for name in kept} | {"context": context, "decision": decision, "measure": gate.measure}
        # a checkpoint that was judged beside or against the holder is not judged against it again by the same measure
        is_new_holder = [published.content["recipe"], published.content["checkpoint"]] != context["incumbent"]
        judged = {contender.checkpoint for contender in gate.challengers} | set(() if is_new_holder else context["judged"])
        record["judged"] = sorted(judged - {published.content["checkpoint"]})
        registry.promote(published.content, record, text)
    return published


def _barred_versions(context: Mapping[str, Any]) -> dict[str, str]:
    """By version why a checkpoint may not win."""
    reasons = dict.fromkeys(context["judged"], "it was judged against who holds the title before, on the same questions")
    reasons |= dict.fromkeys(context["held"], "it held the title before, and only a rollback brings it back")
    return reasons | dict.fromkeys(context["refused"], "it was rolled back")


def _identity(alias: str | None) -> list[str] | None:
    title = json.loads(alias or "null")
    return [title["recipe"], title["checkpoint"]] if title else None


def _decide(
    store: Store,
    gate: Gate,
    title: Mapping[str, Any] | None,
    context: Mapping[str, Any],
    run_child: RunChild,
) -> tuple[dict[str, Any], "_Players"]:
    """The content of the champion's object, and who was asked for it.

    A checkpoint takes the title once: of two that are equally good each would be promoted over the other, night after night.
    """
    players, out, anchor = _Players(store, gate, run_child), _barred_versions(context), context["anchor"]
    incumbent = [title["recipe"], title["checkpoint"]] if title else None
    holder = gate.find(*incumbent) if incumbent else None
    notes = [f"{recipe} may not win: {why}" for recipe, why in gate.barred.items()]
    if incumbent and holder is None:
        notes.append(f"{_name(incumbent)}, which held the title, is gone from the store: it is held by nobody")
    title = title if holder else None
    new = [contender for contender in gate.challengers if incumbent is None or contender.identity != incumbent]
    notes += [f"{_name(c.identity)} may not win: {out[c.checkpoint]}" for c in new if c.checkpoint in out]
    new = [contender for contender in new if contender.checkpoint not in out]
    if not new:
        return _without_challenger(title, notes), players
    if len(gate.questions) < gate.rule.min_questions:
        notes.append(
            f"the split gate of {gate.task.name} has {len(gate.questions)} questions, at least {gate.rule.min_questions} are "
            "needed to tell a difference: give it more (held_out.gate of the task, n_gate_questions of wordtraps)"
        )
        return _without_challenger(title, notes), players
    fixed = gate.find(*anchor) if anchor else None
    if anchor and fixed is None:
        raise StoreError(
            f"registry/{gate.line}/anchor.json names {_name(anchor)}, whose object is gone: without it nothing stops a "
            'chain of small losses. Name another checkpoint in that file ({"recipe": …, "checkpoint": …}), or delete the file '
            "to take who holds the title"
        )
    verdicts = judge_line(
        [players.contestant(contender) for contender in new],
        incumbent=players.contestant(holder) if holder else None,
        anchor=players.contestant(anchored) if (anchored := fixed or holder) else None,
        base=players.untrained(),
        rule=gate.rule,
    )
    return _content(verdicts, new, title, notes), players


def _without_challenger(title: Mapping[str, Any] | None, notes: Sequence[str]) -> dict[str, Any]:
    why = "; ".join(notes) or "there is no other candidate"
    if title is None:
        return {"status": "no_data", "reason": why}
    return {**only_title(title), "verdict": "unchallenged", "why": why}


def _name(identity: Sequence[str]) -> str:
    return f"{identity[0]} ({identity[1][:12]})"


def why_barred(task: Task, checkpoint: Published) -> str | None:
    """Why a candidate's checkpoint may not win; None where it may."""
    if why := why_unjudged(task):
        return why
    if checkpoint.is_empty:
        return str(checkpoint.content["reason"])
    if checkpoint.details["card"].get("n_contaminated", 0):
        return "some of its training rollouts asked evaluation questions"
    return None


class _Players:
    """The contenders of one decision, each asked once."""

    def __init__(self, store: Store, gate: Gate, run_child: RunChild) -> None:
        self._store, self._gate, self._run_child = store, gate, run_child
        self._asked: dict[str, list[dict[str, Any]]] = {}
        self.n_asked = 0
        self.segments: set[str] = set()

    def contestant(self, contender: Contender) -> Contestant:
        """A contender with its answers."""
        return self._contestant(contender.recipe, contender.checkpoint, contender.respondent)

    def untrained(self) -> Contestant | None:
        """The base model with its answers."""
        base = self._gate.base
        return None if base is None else self._contestant("base_model", base.version, base)

    def _contestant(self, recipe: str, version: str, respondent: Respondent) -> Contestant:
        if respondent.table not in self._asked:
            answers = ask(self._store, respondent, self._gate.questions, self._run_child)
            self.n_asked += answers.n_asked
            self.segments |= set(answers.segments)
            if answers.unanswered:
                raise StoreError(
                    f"the gate of {self._gate.line}: {len(answers.unanswered)} of {len(answers.rows)} episodes of {recipe} "
                    "were ended by the machine or the server, so nothing is decided and the title stays; run again: the others "
                    "are kept"
                )
            self._asked[respondent.table] = score_rows(answers.rows, self._gate.questions, self._gate.task)
        rows = self._asked[respondent.table]

        def ids(is_one: Callable[[Mapping[str, Any]], object]) -> frozenset[str]:
            return frozenset(row["question_id"] for row in rows if is_one(row))

        return Contestant(
            recipe,
            version,
            suite=Suite(self._gate.questions).digest,
            rules=digest_json(respondent.rules_of_any_client),
            asked=ids(lambda row: True),
            right=ids(lambda row: row["strict"]),
            format_errors=ids(lambda row: row["n_format_errors"]),
            tool_errors=ids(lambda row: row["n_tool_errors"] or row["n_unknown_tools"]),
            unfinished=ids(lambda row: row["status"] != "finished"),
        )


def _content(
    verdicts: Sequence[Verdict], new: Sequence[Contender], title: Mapping[str, Any] | None, notes: Sequence[str]
) -> dict[str, Any]:
    best = verdicts[0]
    challenger = next(contender for contender in new if contender.identity == list(best.challenger.identity))
    judged = {
        "challenger": challenger.identity,
        "gate": [_verdict_row(verdict) for verdict in verdicts],
        "notes": list(notes),
    }
    why = " ".join([best.why, *notes])
    if best.decision == "promoted":
        accuracy = best.challenger.accuracy
        return {**judged, "recipe": challenger.recipe, "checkpoint": challenger.checkpoint, "accuracy": accuracy} | {
            "verdict": best.decision,
            "why": why,
        }
    if title is None:
        return {"status": "no_data", "reason": f"no champion: {why}", **judged}
    return {**only_title(title), **judged, "verdict": best.decision, "why": why}


def _verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A challenger's verdict as an object holds it: who it was, what was said, and each comparison."""
    return {
        "challenger": list(verdict.challenger.identity),
        "accuracy": verdict.challenger.accuracy,
        "decision": verdict.decision,
        "blocked_by": list(verdict.blocked_by),
        "power": verdict.power,
        "why": verdict.why,
        "comparisons": [{**asdict(comparison), "guards": dict(comparison.guards)} for comparison in verdict.comparisons],
    }
