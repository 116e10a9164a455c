"""The quality page: one HTML file that shows what the filters make of a task's corpus, for people who choose filters and
thresholds.

It depends on the object before, so it is no part of any object: it lies in NEGTRAJ_HOME/quality/ and is written anew each time.
Its numbers are made in numbers.py, its charts in charts.py, its rollouts in browse.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from negtraj_dagster import sql
from negtraj_dagster.pages import page
from negtraj_dagster.store import Published, Store
from negtraj_dagster.views.diff.compare import Changes
from negtraj_dagster.views.diff.side import SHOWN_RUN_CHARS
from negtraj_dagster.views.quality_page.browse import Browser, text
from negtraj_dagster.views.quality_page.cells import (
    count_cell,
    header_row,
    label_chip,
    mean_text,
    more_note,
    share_cell,
    tile,
)
from negtraj_dagster.views.quality_page.changes import MAX_COUNTS, changes_section, compare_with
from negtraj_dagster.views.quality_page.charts import curves, histogram, overlap
from negtraj_dagster.views.quality_page.examples import accepted_examples, changed_examples, rejected_examples
from negtraj_dagster.views.quality_page.numbers import ProfileNumbers, Tables, profile_numbers, read_tables, score_bins
from negtraj_dagster.views.quality_page.style import HEAD

MAX_PAGE_BYTES = 20_000_000
"""Of the whole file, whatever the corpus holds."""
RESERVED_BYTES = 100_000
"""For what stands around the rollouts: headings, notes, lists of keys."""
MAX_PROFILES = 6
MAX_ROWS = 120
"""Of a table: filters, sources, changes."""
MAX_SCORES = 24
CUTS_SHOWN = (0, 0.5, 0.6, 0.7, 0.8, 0.9)


def write_quality_page(
    store: Store,
    raw: Published,
    corpus: Published,
    scored: Published,
    profiles: Mapping[str, sql.Profile],
    previous: Published | None,
) -> Path:
    """Write NEGTRAJ_HOME/quality/<task>.html in one step.

    Args:
        store: its home takes the page; conversations are read for the rollouts that are shown.
        raw: the `raw_rollouts` that the corpus was made from.
        corpus: the present `trajectory_corpus/<task>`.
        scored: the `scored_trajectories` that the corpus was made from.
        profiles: by name; the default one comes first.
        previous: an earlier object of the corpus to compare with, if there is one.

    Returns:
        The file, at most `MAX_PAGE_BYTES` long.
    """
    task = corpus.asset.rsplit("/", 1)[-1]
    name = f"quality/{task}.html"
    store.write_text(name, _page(store, task, raw, corpus, scored, profiles, previous))
    return store.home / name


def _page(
    store: Store,
    task: str,
    raw: Published,
    corpus: Published,
    scored: Published,
    profiles: Mapping[str, sql.Profile],
    previous: Published | None,
) -> str:
    title = f"Quality of {task}"
    if corpus.is_empty:
        return page(title, f'<p class="note">{text(corpus.content["reason"])}</p>', head=HEAD)
    first = sql.DEFAULT_PROFILE if sql.DEFAULT_PROFILE in profiles else next(iter(profiles), "")
    names = [first, *(name for name in profiles if name != first)] if first else []
    tables = read_tables(store, corpus, scored, profiles)
    profile_details = corpus.details["profiles"]
    numbers = [
        profile_numbers(tables, profiles[name], profile_details[name])
        for name in names[:MAX_PROFILES]
        if name in profile_details
    ]
    changes = compare_with(store, corpus, previous, first)
    is_shown: set[str] = set()
    groups = [
        *(changed_examples(changes, is_shown) if isinstance(changes, Changes) else []),
        *rejected_examples(tables, profiles, is_shown),
        *([accepted_examples(tables, first)] if first else []),
    ]
    parts = [
        _head(corpus, previous, tables, numbers),
        _overview(numbers, tables, len(profiles)),
        changes_section(changes, is_shown),
        *(_profile_section(profile, tables.classes) for profile in numbers),
        _scores_section(tables, first),
    ]
    n_bytes_used = sum(len(part.encode()) for part in parts) + len(page(title, head=HEAD).encode())
    n_bytes = MAX_PAGE_BYTES - RESERVED_BYTES - n_bytes_used
    browser = Browser(store, raw, corpus, tables, profiles=names[:MAX_PROFILES], n_bytes=n_bytes)
    html = page(title, *parts, browser.sections(groups), head=HEAD)
    assert len(html.encode()) <= MAX_PAGE_BYTES, "the page's parts outgrew their budget"
    return html


def _head(corpus: Published, previous: Published | None, tables: Tables, numbers: Sequence[ProfileNumbers]) -> str:
    """What the page is of, how many rollouts there are, and what is where."""
    counts = dict(tables.corpus["label"].value_counts().rows())
    tiles = [
        tile("", f"{tables.corpus.height:,}", "rollouts"),
        *(tile(name, f"{counts[name]:,}", name) for name in tables.classes),
    ]
    if numbers:
        tiles += [
            tile(name, f"{n:,}", f"{name}, accepted under {text(numbers[0].name)}") for name, n in numbers[0].n_kept.items()
        ]
    before = f", compared with {previous.key[:SHOWN_RUN_CHARS]}" if previous else ""
    links = [("overview", "Overview"), ("changes", "What changed since the last object")]
    links += [
        (f"p-{profile.name}", f"Profile {profile.name}: funnel, overlap, quality, threshold, sources") for profile in numbers
    ]
    links += [
        ("scores", "Scores"),
        ("changed", "Rollouts that changed"),
        ("rejected", "Rejected and flagged rollouts"),
        ("accepted", "Accepted rollouts"),
    ]
    link_items = "".join(f'<li><a href="#{text(place)}">{text(name)}</a></li>' for place, name in links)
    legend = "".join(f'<i class="{name}"></i>{name}' for name in tables.classes)
    return (
        f'<p class="pale">{text(corpus.asset)}, object <code>{corpus.key[:SHOWN_RUN_CHARS]}</code>{before}</p>'
        f'<div class="tiles">{"".join(tiles)}</div><nav aria-label="contents"><ul>{link_items}</ul></nav>'
        f'<p class="legend">In every chart:{legend}<i class="{tables.classes[0]} faint"></i>paler: dropped</p>'
    )


def _overview(numbers: Sequence[ProfileNumbers], tables: Tables, n_profiles: int) -> str:
    rows = []
    for profile in numbers:
        for name in tables.classes:
            n_all, n_kept = profile.n_rollouts[name], profile.n_kept[name]
            mean = profile.means.get(name)
            rows.append(
                f'<tr><td class=left><a href="#p-{text(profile.name)}">{text(profile.name)}</a></td>'
                f"<td class=left>{label_chip(name)}</td>"
                f"<td>{n_all:,}</td><td>{n_kept:,}</td>{share_cell(n_kept, n_all, name)}"
                f'<td>{mean_text(mean)}</td><td class="wide">{text(profile.doc)}</td></tr>'
            )
    rest_note = (
        f'<p class="pale">{n_profiles - len(numbers)} more profiles are not shown.</p>' if n_profiles > len(numbers) else ""
    )
    by_scorer = tables.corpus.group_by("scorer", "label").len("n").sort("scorer", "label", nulls_last=True)
    by = ", ".join(f"{text(label)} by {text(scorer)} {n:,}" for scorer, label, n in by_scorer.head(MAX_COUNTS).rows())
    head = header_row(("profile", 1), ("class", 1), "rollouts", "accepted", "share", "mean quality", ("what it is", 1))
    return (
        f'<h2 id="overview">Overview</h2><div class="over"><table>{head}{"".join(rows)}</table></div>{rest_note}'
        f"<p>Labels: {by}.</p>"
        '<p class="pale">Accepted counts the rollouts that survive: a duplicate is dropped only while an earlier twin '
        "survives. The funnel counts every hit. Mean quality is that of all rollouts of the class, dropped ones too.</p>"
    )


def _profile_section(each: ProfileNumbers, classes: Sequence[str]) -> str:
    parts = [
        f'<h2 id="p-{text(each.name)}">Profile {text(each.name)}</h2><p>{text(each.doc)}</p>',
        _funnel(each, classes),
        _overlap(each, classes),
        "<h3>Quality and threshold</h3>"
        '<p class="pale">Left: quality of all rollouts. Right: how many of the accepted ones a least quality keeps '
        "(<code>selection.min_quality</code>).</p>",
        '<div class="grid2"><div>',
        histogram(each.kept_bins, each.dropped_bins, width=530, what="quality by class", strip=92),
        "</div><div>",
        curves(
            _lines(each, classes), width=530, height=230, what="accepted rollouts by least quality", x_label="least quality"
        ),
        _cuts(each, classes),
        "</div></div>",
        _sources(each),
    ]
    return "".join(parts)


def _lines(each: ProfileNumbers, classes: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    return {name: [(cut, float(counts[name])) for cut, counts in each.cuts] for name in classes}


def _cuts(each: ProfileNumbers, classes: Sequence[str]) -> str:
    cuts_shown = [(cut, counts) for cut, counts in each.cuts if cut in CUTS_SHOWN]
    head = header_row(("least quality", 1), *(f"{cut:g}" for cut, _ in cuts_shown))
    rows = "".join(
        f"<tr><td class=left>{label_chip(name)}</td>{''.join(f'<td>{counts[name]:,}</td>' for _, counts in cuts_shown)}</tr>"
        for name in classes
    )
    return f'<div class="over"><table>{head}{rows}</table></div>'


def _funnel(each: ProfileNumbers, classes: Sequence[str]) -> str:
    funnel_rows = each.funnel[:MAX_ROWS]
    largest = max((row[f"n_{name}"] for row in funnel_rows for name in classes), default=0)
    hits = [f"{name} hit" for name in classes]
    alone_heads = [f"only this, {name[:3]}." for name in classes]
    left_heads = [f"{name} left" for name in classes]
    head = header_row(("filter", 1), ("effect", 1), *hits, *alone_heads, "not asked", *left_heads)
    body = "".join(_funnel_row(row, each, classes, largest) for row in funnel_rows)
    return (
        "<h3>Funnel</h3><p class=pale>Hit: rollouts the filter rejects or flags. Only this: those that no other filter drops. "
        "Not asked: rollouts of another class or style. Left: after this filter and all before it. Flags drop nothing, "
        f'they cost quality.</p><div class="over"><table>{head}{body}</table></div>{more_note(len(each.funnel), MAX_ROWS)}'
    )


def _funnel_row(row: Mapping[str, Any], each: ProfileNumbers, classes: Sequence[str], largest: int) -> str:
    is_flag = row["severity"] == "flag"
    cells = [count_cell(row[f"n_{name}"], largest, name) for name in classes]
    only_this = [0 if is_flag else row[f"n_{name}_only_this"] for name in classes]
    cells += [f'<td class="{"" if n else "zero"}">{f"{n:,}" if n or not is_flag else "–"}</td>' for n in only_this]
    n_away = row["n_not_applicable"]
    cells.append(f'<td class="{"" if n_away else "zero"}">{n_away:,}</td>')
    for name in classes:
        n_left = row[f"left_{name}"]
        cells.append('<td class="zero">–</td>' if is_flag else count_cell(n_left, each.n_rollouts[name], name))
    return (
        f'<tr class="{"flag" if is_flag else "drop"}"><td class="name"><code>{text(row["filter"], 60)}</code>'
        f'<span class="reason">{text(row["reason"], 120)}</span></td>'
        f"<td class=left>{text(row['severity'])}</td>{''.join(cells)}</tr>"
    )


def _overlap(each: ProfileNumbers, classes: Sequence[str]) -> str:
    head = "<h3>Which reasons come together</h3>"
    if not each.combinations:
        return f"{head}<p>No filter drops anything.</p>"
    other = f'<p class="pale">{each.n_other:,} rollouts have other combinations.</p>' if each.n_other else ""
    about = '<p class="pale">A row per combination of reasons to drop, most common first.</p>'
    chart = overlap(each.combinations, each.reasons, classes, what="combinations of reasons")
    return f'{head}{about}<div class="over">{chart}</div>{other}'


def _sources(each: ProfileNumbers) -> str:
    rows = "".join(
        f"<tr><td class=left>{text(row['source'], 80)}</td><td class=left>{label_chip(row['class'])}</td>"
        f"<td>{row['n_rollouts']:,}</td><td>{row['n_left']:,}</td>"
        f"{share_cell(row['n_left'], row['n_rollouts'], row['class'])}"
        f"<td>{mean_text(row['mean_quality'])}</td>"
        f'<td class="wide">{text(row["most_common"], 120)}</td></tr>'
        for row in each.sources[:MAX_ROWS]
    )
    head = header_row(("source", 1), ("class", 1), "rollouts", "left", "share", "mean quality", ("most common reasons", 1))
    return f'<h3>By source</h3><div class="over"><table>{head}{rows}</table></div>{more_note(len(each.sources), MAX_ROWS)}'


def _scores_section(tables: Tables, profile: str) -> str:
    names = sorted(tables.scores["score_name"].unique().to_list())
    charts = []
    for name in names[:MAX_SCORES]:
        accepted, dropped = score_bins(tables, name, profile)
        chart = histogram(accepted, dropped, width=530, what=f"{name} by class", strip=46)
        charts.append(f"<div><h3>{text(name)}</h3>{chart}</div>")
    about = (
        f"<p>A score is a number from 0 to 1, 1 the best. Pale: rollouts that {text(profile)} drops.</p>"
        if charts
        else "<p>none</p>"
    )
    return f'<h2 id="scores">Scores</h2>{about}<div class="grid2">{"".join(charts)}</div>{more_note(len(names), MAX_SCORES)}'
