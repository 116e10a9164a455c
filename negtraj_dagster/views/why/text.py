"""Writes what was decided about a rollout as lines for a terminal. Rollouts are untrusted: nothing of them moves the cursor."""

from collections.abc import Iterator, Mapping
from typing import Any

from negtraj_dagster.printable import text_table, visible
from negtraj_dagster.views.why.explain import Explained, FilterOutcome, Hit, Twin

MAX_TWINS = 8
NAME_CHARS = 28
MARK = ">>"
"""Stands before the turns that a filter hit."""


def explained_lines(explained: Explained) -> Iterator[str]:
    """Where it came from, its label, every filter in funnel order, scores, twins, selections, and the conversation."""
    for line in _lines(explained):
        yield visible(line)


def _lines(explained: Explained) -> Iterator[str]:
    yield from (f"note: {note}" for note in explained.notes)
    yield from _origin(explained)
    yield from _label(explained)
    yield ""
    yield "Filters, in funnel order"
    for filter_verdict in explained.filters:
        yield from _filter(filter_verdict, [profile.name for profile in explained.profiles])
    yield ""
    yield "Profiles"
    for profile in explained.profiles:
        quality = "no quality yet" if profile.quality is None else f"quality {profile.quality:.3f}"
        outcome = {None: "no corpus yet", "": "survives"}.get(profile.why_dropped, f"dropped: {profile.why_dropped}")
        yield f"  {profile.name:<{NAME_CHARS}}{quality}; {outcome}"
    yield ""
    yield "Scores"
    for score in explained.scores:
        score_text = f"none: {score.why}" if score.score is None else f"{score.score:.3f}"
        yield f"  {score.name:<{NAME_CHARS}}{score_text}  ({_weights(score.weights)})"
    yield from _twins(explained)
    yield ""
    yield "Selections"
    for selection in explained.selections:
        score_text = f"selected, {selection.repeat} times an epoch" if selection.is_selected else "not selected"
        score_text += f": {selection.why_not}" if selection.why_not else ""
        yield f"  {selection.recipe:<{NAME_CHARS}}{score_text} (profile {selection.profile})"
    if not explained.selections:
        yield "  no recipe is about this task and profile"
    yield ""
    yield from _conversation(explained)


def _origin(explained: Explained) -> Iterator[str]:
    rollout, question = explained.rollout, explained.question
    yield f"Rollout {rollout['rollout_key']}"
    yield from _fields(
        {
            "from": f"{rollout['origin_file']}, {rollout['origin_place']}; number {rollout['ingest_seq']} in order of arrival",
            "task": rollout["task"],
            "source": rollout["source"],
            "teacher": rollout["teacher"],
            "subject": rollout["subject"],
            "session": rollout["session"],
            "licence": rollout["licence"],
            "url": rollout["origin_url"],
            "question": f"{rollout['question_id']}: " + (question["question"] if question else "in no question set"),
            "split": question and question["split"],
            "answer": question and f"{question['answer']} is right",
        }
    )


def _label(explained: Explained) -> Iterator[str]:
    label = explained.label
    if label is None:
        yield from _fields({"label": "none yet"})
        return
    by = f" by {label['by']}: {label['why']}" if label["by"] else ""
    says = {name: _truth(label[name]) for name in ("recorded", "task_strict", "task_lenient")}
    valid = {True: " (of the kind asked for)", False: " (not of the kind asked for)", None: ""}[label["is_valid_answer"]]
    yield from _fields(
        {
            "label": f"{label['label']}, from scorer {label['scorer']} (version {label['scorer_version']}){by}",
            "scorers": ", ".join(f"{name} {verdict}" for name, verdict in says.items()),
            "said": "no answer" if label["answer"] is None else f"{label['answer']}{valid}",
            "record": f"pred {explained.rollout['pred']!r}, gold {explained.rollout['gold']!r}",
            "style": label["style"],
        }
    )
    for judge, score, note in explained.judgements:
        yield from _fields({"judgement": f"{judge} {score:g}: {note}"})


def _truth(value: bool | None) -> str:
    return {True: "success", False: "failure", None: "does not know"}[value]


def _fields(fields: Mapping[str, Any]) -> Iterator[str]:
    for name, value in fields.items():
        if value not in (None, ""):
            yield f"  {name:<12}" + str(value).replace("\n", "\n" + " " * 14)


def _filter(outcome: FilterOutcome, profiles: list[str]) -> Iterator[str]:
    head = f"  {outcome.number or '---':<4}{outcome.name:<{NAME_CHARS}}"
    if outcome.state in ("passed", "not applicable", "not judged"):
        yield head + outcome.state + (f": {outcome.why}" if outcome.why else "")
        return
    effects = ", ".join(f"{name}: {outcome.effects.get(name, 'not in use')}" for name in profiles)
    if outcome.state == "overruled":
        effects = "acts under no profile"
    yield f"{head}{outcome.state.upper()}  {outcome.reason}  ({effects})" + (f"; {outcome.why}" if outcome.why else "")
    for hit in outcome.hits:
        yield "      " + _hit(hit).replace("\n", " ")


def _hit(hit: Hit) -> str:
    where = f"step {hit.step}" if hit.step is not None else "whole rollout"
    twin = f" (earlier twin {hit.earlier_key[:12]})" if hit.earlier_key else ""
    return f"{where}: {hit.detail}{twin}"


def _weights(weights: Mapping[str, float]) -> str:
    if len(set(weights.values())) == 1:
        return f"weight {next(iter(weights.values())):g}"
    return ", ".join(f"weight {weight:g} under {name}" for name, weight in weights.items())


def _twins(explained: Explained) -> Iterator[str]:
    if not explained.twins:
        return
    earlier = [twin for twin in explained.twins if twin.is_earlier]
    later = [twin for twin in explained.twins if not twin.is_earlier]
    yield ""
    yield f"Resembles {len(earlier)} earlier and {len(later)} later rollouts"
    twins = [*earlier[:MAX_TWINS], *later[:MAX_TWINS]]
    rows = [_twin_row(twin, str(explained.rollout["question_id"])) for twin in twins]
    yield from (f"  {line}" for line in text_table(rows).split("\n"))
    if len(twins) < len(explained.twins):
        yield f"  and {len(explained.twins) - len(twins)} more: the view pairs of the catalogue has them"


def _twin_row(twin: Twin, question_id: str) -> dict[str, str]:
    return {
        "rollout": twin.key[:12],
        "arrived": "earlier" if twin.is_earlier else "later",
        "similarity": f"{twin.similarity:.2f}",
        "label": twin.label,
        "source": visible(twin.source).replace("\n", " "),
        "question": "the same" if twin.question_id == question_id else "another",
    }


def _conversation(explained: Explained) -> Iterator[str]:
    marks: dict[int, list[str]] = {}
    for filter_verdict in explained.filters:
        for hit in filter_verdict.hits:
            if hit.step is not None and (text := f"{filter_verdict.name}: {hit.detail}") not in marks.setdefault(hit.step, []):
                marks[hit.step].append(text)
    yield f"Conversation, {len(explained.turns)} turns"
    step = 0
    for turn in explained.turns:
        is_step = turn["role"] == "assistant"
        step += is_step
        step_marks = marks.get(step, []) if is_step else []
        yield ""
        yield f"{MARK if step_marks else '  '} {turn['role']}" + (f", step {step}" if is_step else "")
        for text in step_marks:
            yield f"   ^ {text}".replace("\n", " ")
        for part in _parts(turn):
            yield from (f"     {line}" for line in part.split("\n"))


def _parts(turn: Mapping[str, Any]) -> Iterator[str]:
    if turn.get("reasoning"):
        yield f"(reasoning) {turn['reasoning']}"
    if turn.get("content"):
        yield turn["content"]
    for call in turn.get("tool_calls") or ():
        yield f"(calls) {call['name']} {call['arguments']}"
