"""Single rollouts as HTML, for the quality page: what is known of one, its verdicts, and its conversation with marked steps.

Rollouts are untrusted and may be of any length: every text is cut, made visible and escaped, in this order.
"""

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster.conversations import iter_conversations, read_index
from negtraj_dagster.printable import visible
from negtraj_dagster.store import Published, Store
from negtraj_dagster.views.quality_page.examples import Examples, short_why
from negtraj_dagster.views.quality_page.numbers import Tables

ROLLOUT_BYTES, MAX_ROLLOUT_BYTES = 24_000, 80_000
"""So long is a shown conversation; after that only `MAX_MARKED` of its marked turns are shown, up to the second number."""
TURN_CHARS, REASONING_CHARS, CALL_CHARS = 4000, 2000, 600
CELL_CHARS = 240
MAX_MARKED = 6
MAX_VERDICTS = 20
MAX_CALLS = 8
SECTIONS = (
    ("changed", "Rollouts that changed", "Some of every kind of change since the last object. A click opens one."),
    (
        "rejected",
        "Rejected and flagged rollouts",
        "Some of every filter and class, those that no other filter drops first; the step that was found is marked.",
    ),
    ("accepted", "Accepted rollouts", "What is left to train on."),
)
TEXT_CHUNK_BYTES = 48_000_000
"""Conversation text in memory at a time."""


@dataclass(frozen=True)
class ShownRollout:
    """One rollout with all that the page says of it.

    Attributes:
        facts: what is known, by name; values are untrusted.
        fates: (profile, why it is dropped or "", quality).
        verdicts: filter, severity, step, detail, and whether it acts under any profile.
        scores: by name.
    """

    key: str
    label: str
    headline: str
    facts: Mapping[str, str]
    fates: Sequence[tuple[str, str, float | None]]
    verdicts: Sequence[Mapping[str, Any]]
    scores: Mapping[str, float] = field(default_factory=dict)


def text(value: object, limit: int = CELL_CHARS) -> str:
    """Any text as HTML, at most 6 × `limit` bytes."""
    return html.escape(shortened(str(value), limit))


def shortened(value: str, limit: int) -> str:
    """A text's beginning, made visible."""
    beginning = visible(value[: limit + 1])
    return beginning if len(beginning) <= limit else f"{beginning[:limit]}…"


def anchor(key: str) -> str:
    """Where a rollout is on the page."""
    return f"r-{''.join(char for char in key if char.isalnum())[:20]}"


def rollout_html(shown: ShownRollout, conversation: str) -> str:
    """A rollout, closed until it is clicked.

    Args:
        shown: what is known of it.
        conversation: JSON text of its turns.
    """
    chips = "".join(_fate(*fate) for fate in shown.fates)
    summary = (
        f'<summary><span class="chip {shown.label}">{text(shown.label)}</span> <code>{text(shown.key[:12])}</code> '
        f"{text(shown.headline, 150)} {chips}</summary>"
    )
    facts = "".join(f"<dt>{text(name)}</dt><dd>{text(value, 600)}</dd>" for name, value in shown.facts.items() if value)
    scores = "".join(f"<dt>{text(name)}</dt><dd>{score:.3f}</dd>" for name, score in shown.scores.items())
    marks: dict[int, list[Mapping[str, Any]]] = {}
    for verdict in shown.verdicts:
        if verdict["step"]:
            marks.setdefault(verdict["step"], []).append(verdict)
    return (
        f'<details class="rollout">{summary}<div class="inside" id="{anchor(shown.key)}">'
        f'<div class="facts"><dl>{facts}</dl><dl class="scores">{scores}</dl></div>'
        f"{_verdicts(shown.verdicts)}{''.join(_turns(conversation, marks))}</div></details>"
    )


def _fate(profile: str, why: str, quality: float | None) -> str:
    fate = f"{profile}: {why or 'accepted'}" + ("" if quality is None else f" · {quality:.2f}")
    return f'<span class="fate {"out" if why else "in"}">{"✕" if why else "✓"} {text(fate, 90)}</span>'


def _verdicts(verdicts: Sequence[Mapping[str, Any]]) -> str:
    if not verdicts:
        return '<p class="pale">No filter hits it.</p>'
    rows = "".join(
        f"<tr><td><code>{text(verdict['filter'])}</code></td><td>{text(verdict['severity'])}</td>"
        f'<td>{verdict["step"] or ""}</td><td class="wide">{text(verdict["detail"] or verdict["reason"], 500)}</td></tr>'
        for verdict in verdicts[:MAX_VERDICTS]
    )
    rest_note = f'<p class="pale">{len(verdicts) - MAX_VERDICTS:,} more</p>' if len(verdicts) > MAX_VERDICTS else ""
    return f"<table class=verdicts><tr><th>filter</th><th>effect</th><th>step</th><th>detail</th></tr>{rows}</table>{rest_note}"


def _turns(conversation: str, marks: Mapping[int, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """The turns, up to `ROLLOUT_BYTES`; after that the marked ones."""
    turns = json.loads(conversation)
    if not turns:
        yield '<p class="pale">The rollout has no turn.</p>'
    n_bytes = step = n_skipped = n_marked = 0
    for turn in turns:
        is_agent = turn["role"] == "assistant"
        step += is_agent
        is_marked = is_agent and step in marks
        if n_bytes > ROLLOUT_BYTES and not (is_marked and n_marked < MAX_MARKED and n_bytes < MAX_ROLLOUT_BYTES):
            n_skipped += 1
            continue
        if n_skipped:
            yield _note(n_skipped)
            n_skipped = 0
        n_marked += is_marked and n_bytes > ROLLOUT_BYTES
        turn_html = _turn(turn, step if is_agent else 0, marks.get(step, ()) if is_agent else ())
        n_bytes += len(turn_html.encode())
        yield turn_html
    if n_skipped:
        yield _note(n_skipped)


def _turn(turn: Mapping[str, Any], step: int, marks: Sequence[Mapping[str, Any]]) -> str:
    """One turn; `step` counts the agent's, 0 for others."""
    who = f"agent · step {step}" if step else text(f"{turn['role']} {turn.get('name') or ''}".strip(), 60)
    parts = []
    if reasoning := turn.get("reasoning"):
        parts.append(f'<pre class="reasoning">{_cut(str(reasoning), REASONING_CHARS)}</pre>')
    if turn.get("content") or not (turn.get("tool_calls") or reasoning):
        parts.append(f"<pre>{_cut(str(turn.get('content') or ''), TURN_CHARS)}</pre>")
    calls = turn.get("tool_calls") or []
    parts += [
        f'<pre class="call">{text(call["name"], 80)}({_cut(str(call["arguments"]), CALL_CHARS)})</pre>'
        for call in calls[:MAX_CALLS]
    ]
    if len(calls) > MAX_CALLS:
        parts.append(f'<p class="cut">… {len(calls) - MAX_CALLS:,} more calls …</p>')
    marked = "".join(
        f'<span class="mark">▸ {text(call["filter"], 60)}: {text(call["detail"] or call["reason"])}</span>'
        for call in marks[:MAX_MARKED]
    )
    kind = "agent" if step else "other"
    return f'<div class="turn {kind}{" marked" if marks else ""}"><div class="who">{who}{marked}</div>{"".join(parts)}</div>'


def _cut(said: str, limit: int) -> str:
    """A turn's text; a long one keeps its beginning and end."""
    if len(said) <= limit and len(shown := visible(said)) <= limit:
        return html.escape(shown, quote=False)
    head, tail = said[: limit * 2 // 3], said[-limit // 3 :] if len(said) > limit else ""
    first, last = visible(head)[: limit * 2 // 3], visible(tail)[-limit // 3 :]
    note = f'<span class="cut">… cut: {len(said):,} characters in all …</span>'
    return html.escape(first, quote=False) + note + html.escape(last, quote=False)


def _note(n_turns: int) -> str:
    return f'<p class="cut">… {n_turns:,} turns are not shown here …</p>'


class Browser:
    """Rollouts by reason, each shown once, as many as the page has room for.

    Args:
        store: holds conversations and questions.
        raw: the `raw_rollouts` that the corpus was made from.
        corpus: its object.
        tables: its tables.
        profiles: whose say on a rollout is shown.
        n_bytes: room for rollouts.
    """

    def __init__(
        self, store: Store, raw: Published, corpus: Published, tables: Tables, *, profiles: Sequence[str], n_bytes: int
    ) -> None:
        self.store, self.raw, self.corpus, self.tables = store, raw, corpus, tables
        self.profiles, self.left = profiles, n_bytes
        self.done: set[str] = set()

    def sections(self, groups: Sequence[Examples]) -> str:
        """The page's last sections: rollouts that changed, rejected and flagged ones, accepted ones."""
        keys = list(dict.fromkeys(key for group in groups for label in group.keys.values() for key in label))
        rollouts = self._rollouts(keys)
        parts = []
        for name, title, about in SECTIONS:
            body = "".join(self._group(examples, rollouts) for examples in groups if examples.section == name)
            parts.append(f'<h2 id="{name}">{title}</h2><p class="pale">{about}</p>{body or "<p>none</p>"}')
        return "".join(parts)

    def _group(self, group: Examples, made: Mapping[str, str]) -> str:
        group_keys = [key for keys in group.keys.values() for key in keys]
        counts = ", ".join(f"{n:,} {text(name)}" for name, n in group.n_hit.items())
        head = f"<h3>{text(group.title, 90)}</h3><p>{text(group.about)}: {counts}; {len(group_keys)} shown.</p>"
        head = head if self._pays(head) else ""
        return head + "".join(self._one(key, made) for key in group_keys)

    def _one(self, key: str, made: Mapping[str, str]) -> str:
        if key in self.done:
            link = f'<p class="pale"><a href="#{anchor(key)}">{text(key[:12])}</a> is shown above.</p>'
            return link if self._pays(link) else ""
        if key not in made or not self._pays(made[key]):
            note = f'<p class="cut">{text(key[:12])} is left out: the page is full.</p>'
            return note if self._pays(note) else ""
        self.done.add(key)
        return made[key]

    def _pays(self, part: str) -> bool:
        n_bytes = len(part.encode())
        if n_bytes > self.left:
            return False
        self.left -= n_bytes
        return True

    def _rollouts(self, keys: Sequence[str]) -> dict[str, str]:
        """HTML of rollouts by key; conversations are read a few at a time, and none when there is no room left."""
        key_rows = pl.DataFrame({"rollout_key": list(keys)}, schema={"rollout_key": pl.String})
        rows = key_rows.join(self.tables.corpus, on="rollout_key", how="inner", maintain_order="left")
        index = read_index(self.store, self.raw).select("rollout_key", "reward", "pred", "gold", "origin_file", "origin_place")
        rows = rows.join(index, on="rollout_key", how="left", maintain_order="left")
        rows = rows.join(self._questions(), on=["question_id", "question_hash"], how="left", maintain_order="left")
        rows_by_key = {row["rollout_key"]: row for row in rows.to_dicts()}
        verdicts, fates = (
            _by_key(frame.join(key_rows, on="rollout_key", how="semi")) for frame in (self._told(), self.tables.fates)
        )
        scores = _by_key(self.tables.scores.join(key_rows, on="rollout_key", how="semi").sort("score_name"))
        html_by_key: dict[str, str] = {}
        n_bytes = 0
        for texts in iter_conversations(self.store, self.raw, rows["base_key"], max_bytes=TEXT_CHUNK_BYTES):
            if n_bytes > self.left:
                break
            spoken = dict(texts.select("base_key", "conversation").rows())
            for key, row in rows_by_key.items():
                if row["base_key"] in spoken:
                    shown_rollout = self._shown(row, verdicts.get(key, []), fates.get(key, []), scores.get(key, []))
                    html_by_key[key] = rollout_html(shown_rollout, spoken[row["base_key"]])
                    n_bytes += len(html_by_key[key].encode())
        return html_by_key

    def _told(self) -> pl.DataFrame:
        """Verdicts, one a filter and step, whatever the variant."""
        return self.tables.verdicts.unique(["rollout_key", "filter", "step", "detail"], keep="first", maintain_order=True)

    def _questions(self) -> pl.DataFrame:
        """Texts of the questions as they are now; none for a question that has changed since, for its hash has, too."""
        columns = ("question_id", "question_hash", "question")
        published = self.store.current("question_sets")
        if published is None or published.is_empty:
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        table = pl.read_parquet(self.store.file(published.folder, "questions.parquet"), glob=False)
        task_questions = table.filter(pl.col("task") == self.corpus.asset.rsplit("/", 1)[-1]).select(columns)
        return task_questions.unique(["question_id", "question_hash"], keep="first")

    def _shown(
        self,
        row: Mapping[str, Any],
        verdicts: Sequence[Mapping[str, Any]],
        fates: Iterable[Mapping[str, Any]],
        scores: Iterable[Mapping[str, Any]],
    ) -> ShownRollout:
        by = f"{row['scorer'] or 'nobody'}{' (' + row['by'] + ': ' + (row['why'] or '') + ')' if row['by'] else ''}"
        says = {name: row[name] for name in ("recorded", "task_strict", "task_lenient", "is_valid_answer")}
        facts = {
            "key": row["rollout_key"],
            "question": row["question"] or "its text is not at hand",
            "question id": f"{row['question_id']} ({row['split'] or 'in no question set'})",
            "label": f"{row['label']}, by {by}",
            "scorers say": ", ".join(f"{name} {json.dumps(value)}" for name, value in says.items() if value is not None),
            "answer": "none" if row["answer"] is None else row["answer"],
            "recorded": ", ".join(f"{name} {row[name]}" for name in ("pred", "gold") if row[name] is not None),
            "source": f"{row['source']} {row['teacher']}".strip(),
            "style": row["style"] or "",
            "landed in": f"{Path(row['origin_file'] or '').name}, {row['origin_place']}",
        }
        fate_of = {fate["profile"]: (fate["why"], fate["quality"]) for fate in fates}
        return ShownRollout(
            key=row["rollout_key"],
            label=row["label"],
            headline=row["question"] or row["question_id"],
            facts=facts,
            fates=[(name, short_why(fate_of[name][0]), fate_of[name][1]) for name in self.profiles if name in fate_of],
            verdicts=verdicts,
            scores={fate["score_name"]: fate["score"] for fate in scores},
        )


def _by_key(rows: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    by_key: dict[str, list[dict[str, Any]]] = {}
    for row in rows.iter_rows(named=True):
        by_key.setdefault(row["rollout_key"], []).append(row)
    return by_key
