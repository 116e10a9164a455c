"""What differs between two corpus objects, as text for a terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from negtraj_dagster.printable import visible
from negtraj_dagster.views.diff.compare import Cause, Changes
from negtraj_dagster.views.diff.side import SHOWN_RUN_CHARS

MAX_CELL_CHARS = 100


def diff_lines(changes: Changes, limit: int, table: Callable[[Sequence[Mapping[str, str]]], str]) -> Iterable[str]:
    """The changes as text for a terminal: the profile's, counts by cause, and the first rollouts with why.

    Args:
        changes: all of them.
        limit: rollouts to print.
        table: writes rows as aligned text.
    """
    yield f"{changes.before[:SHOWN_RUN_CHARS]} → {changes.after[:SHOWN_RUN_CHARS]}, profile {changes.profile}"
    yield from (f"  {name}: {_cell(text)}" for name, text in changes.filters.items())
    if changes.rows.is_empty():
        yield "no rollout differs"
        return
    yield ""
    yield table([{name: _cell(value) for name, value in row.items()} for row in changes.counts.to_dicts()])
    if limit:
        yield ""
        yield table([_told(row) for row in changes.rows.head(limit).to_dicts()])
    if changes.rows.height > limit:
        yield f"\n{changes.rows.height - limit} more rollouts: --limit {changes.rows.height} shows them"


def _told(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "rollout": row["rollout_key"][:SHOWN_RUN_CHARS],
        "change": row["change"],
        "label": label_change(row),
        "why": _cell(why_changed(row)),
    }


def label_change(row: Mapping[str, Any]) -> str:
    """`positive`, or `negative → positive (override)`."""
    before, after = row["label_before"], row["label_after"]
    if before is None or after is None or before == after:
        return str(after or before)
    return f"{before} → {after}" + (f" ({row['scorer_after']})" if row["scorer_after"] else "")


def why_changed(row: Mapping[str, Any]) -> str:
    """The cause of one change (`CHANGE_SCHEMA`) in a sentence: cause, filter with its versions, detail, other filters."""
    clauses = [row["cause"]]
    if row["filter"]:
        versions = ""
        if row["cause"] == Cause.EDITED:
            versions = f" ({row['version_before'][:8]} → {row['version_after'][:8]})"
        step = f", step {row['step']}" if row["step"] else ""
        clauses.append(f"{row['filter']}{versions}{step}")
    if row["detail"]:
        clauses.append(row["detail"])
    for word in ("came", "went"):
        if other_filters := [name for name in row[word].split(", ") if name not in ("", row["filter"])]:
            clauses.append(f"{word} too: {', '.join(other_filters)}")
    return ": ".join(clauses[:2]) + "".join(f"; {clause}" for clause in clauses[2:])


def _cell(value: object) -> str:
    text = visible(str(value)[: MAX_CELL_CHARS + 1]).replace("\n", "\\n").replace("\t", "\\t")
    return text if len(text) <= MAX_CELL_CHARS else f"{text[:MAX_CELL_CHARS]}…"
