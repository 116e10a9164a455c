"""The quality page's part about what differs from the run before."""

from collections.abc import Container, Mapping
from typing import Any

import polars as pl

from negtraj_dagster.errors import NegtrajError
from negtraj_dagster.store import Published, Store
from negtraj_dagster.trajectories.funnel import CLASSES
from negtraj_dagster.views.diff.compare import Changes, compare_objects
from negtraj_dagster.views.diff.text import label_change, why_changed
from negtraj_dagster.views.quality_page.browse import text
from negtraj_dagster.views.quality_page.cells import (
    count_cell,
    header_row,
    key_cell,
    more_note,
    rollout_link,
)

MAX_COUNTS = 40
MAX_CHANGES = 150


def compare_with(store: Store, corpus: Published, previous: Published | None, profile: str) -> Changes | str:
    """What differs from the object before, or why that cannot be said."""
    if previous is None:
        return "There is no earlier object to compare with."
    try:
        return compare_objects(store, previous, corpus, profile)
    except NegtrajError as error:
        return str(error)


def changes_section(changes: Changes | str, shown: Container[str]) -> str:
    """The part about what differs from the object before, or the sentence that says why there is none."""
    head = '<h2 id="changes">What changed since the last object</h2>'
    if isinstance(changes, str):
        return f'{head}<p class="note">{text(changes, 600)}</p>'
    about = f"<p>Object {key_cell(changes.before)} → {key_cell(changes.after)}, under the profile {text(changes.profile)}.</p>"
    edits = "".join(
        f"<li><code>{text(name)}</code>: {text(change)}</li>" for name, change in list(changes.filters.items())[:MAX_COUNTS]
    )
    about += f"<p>The profile itself differs:</p><ul>{edits}</ul>" if edits else ""
    if changes.rows.is_empty():
        return f"{head}{about}<p>No rollout differs.</p>"
    return f"{head}{about}{_change_counts(changes)}{_changed_rollouts(changes, shown)}"


def _change_counts(changes: Changes) -> str:
    largest = int(changes.counts.select(pl.max_horizontal(*CLASSES).max()).item())
    classes = [name for name in CLASSES if changes.counts[name].sum()]
    rows = "".join(
        f"<tr><td class=left>{text(row['change'])}{text(_arrival(row))}</td><td class=left>{text(row['cause'])}</td>"
        f"<td class=left><code>{text(row['filter'])}</code></td>"
        + "".join(count_cell(row[name], largest, name) for name in classes)
        + "</tr>"
        for row in changes.counts.head(MAX_COUNTS).to_dicts()
    )
    head = header_row(("what became of them", 1), ("cause", 1), ("filter", 1), *classes)
    return f'<h3>By cause</h3><div class="over"><table>{head}{rows}</table></div>{more_note(changes.counts.height, MAX_COUNTS)}'


def _arrival(row: Mapping[str, Any]) -> str:
    return f", {row['state_after']}" if row["change"] == "new" else ""


def _changed_rollouts(changes: Changes, shown: Container[str]) -> str:
    """Some of every cause, so that none is crowded out; those that are shown further down lead there."""
    by = ["change", "cause", "filter"]
    fair = changes.rows.with_columns(place=pl.int_range(pl.len()).over(by)).sort("place", *by, "ingest_seq").head(MAX_CHANGES)
    body = "".join(
        f"<tr><td class=left>{rollout_link(row['rollout_key'], shown)}</td>"
        f"<td class=left>{text(row['question_id'], 40)}</td>"
        f"<td class=left>{text(row['change'])}</td><td class=left>{text(label_change(row))}</td>"
        f'<td class="wide">{text(why_changed(row))}</td></tr>'
        for row in fair.sort(*by, "ingest_seq").to_dicts()
    )
    head = header_row(("rollout", 1), ("question", 1), ("change", 1), ("label", 1), ("why", 1))
    return (
        f"<h3>The rollouts</h3><details><summary>{min(changes.rows.height, MAX_CHANGES):,} of {changes.rows.height:,}, some of "
        f'every cause</summary><div class="over"><table>{head}{body}</table></div></details>'
        '<p class="pale"><code>negtraj diff</code> lists all.</p>'
    )
