"""The quality page: one HTML file that shows what the filters make of a task's corpus, for people who choose filters and
thresholds.

It depends on the object before, so it is no part of any object: it lies in NEGTRAJ_HOME/quality/ and is written anew each time.
Its numbers are made in report.py, its charts in charts.py, its rollouts in browse.py.
"""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from negtraj_dagster import sql
from negtraj_dagster.errors import NegtrajError
from negtraj_dagster.pages import POLICY, page
from negtraj_dagster.store import Published, Store
from negtraj_dagster.trajectories.browse import Browser, anchor, text
from negtraj_dagster.trajectories.changes import (
    DEFAULT_PROFILE,
    SHOWN_RUN_CHARS,
    Changes,
    compare_objects,
    label_change,
    why_changed,
)
from negtraj_dagster.trajectories.charts import bar, curves, histogram, overlap
from negtraj_dagster.trajectories.funnel import CLASSES
from negtraj_dagster.trajectories.report import (
    ProfileNumbers,
    Tables,
    accepted_examples,
    changed_examples,
    profile_numbers,
    read_tables,
    rejected_examples,
    score_bins,
)

MAX_PAGE_BYTES = 20_000_000
"""Of the whole file, whatever the corpus holds."""
RESERVED_BYTES = 100_000
"""For what stands around the rollouts: headings, notes, lists of keys."""
MAX_PROFILES = 6
MAX_ROWS = 120
"""Of a table: filters, sources, changes."""
MAX_SCORES = 24
MAX_COUNTS = 40
MAX_CHANGES = 150
CUTS_SHOWN = (0, 0.5, 0.6, 0.7, 0.8, 0.9)

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1f2328;--pale:#646a72;--box:#f5f6f7;--line:#d9dce0;--positive:#0072b2;
--negative:#d55e00;--unknown:#7a6fa6;--track:#eceef0;--mark:#fff0c2;--mark-line:#c98a00;--chip:#fff;--link:#0059b3}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e3e5e8;--pale:#9aa1a9;--box:#1c2024;--line:#363c43;
--positive:#56b4e9;--negative:#f0a04b;--unknown:#b3a6e0;--track:#262b30;--mark:#3b3112;--mark-line:#e6b422;--chip:#14171a;
--link:#7cc4ff}}
body{background:var(--bg);color:var(--fg);max-width:70rem;margin:1.5rem auto 6rem}a{color:var(--link)}
h2{margin:3rem 0 .4rem;padding-top:.6rem;border-top:2px solid var(--line)}h3{margin:2rem 0 .3rem}h4{margin:1.3rem 0 .3rem}
table{font-variant-numeric:tabular-nums;font-size:13.5px}td,th{border:0;border-bottom:1px solid var(--line);
padding:.28rem .55rem;vertical-align:top}th{font-weight:600;color:var(--pale);font-size:12px}.over{overflow-x:auto}
td.name,td.left,th.left{text-align:left}td.left{white-space:nowrap}td.wide{text-align:left;overflow-wrap:anywhere}td.zero,.pale{color:var(--pale)}
tr.flag td.name code{font-style:italic}.reason{color:var(--pale);font-size:12.5px;display:block}
nav{background:var(--box);border-radius:.5rem;padding:.7rem 1.1rem;margin:1rem 0;columns:2}nav ul{margin:0;padding-left:1.1rem}
nav li{break-inside:avoid}
.tiles{display:flex;flex-wrap:wrap;gap:.7rem;margin:1rem 0}.tile{background:var(--box);border-radius:.5rem;padding:.6rem 1rem;
min-width:8rem}.tile b{display:block;font-size:1.55rem;line-height:1.2;font-variant-numeric:tabular-nums}
.tile span{color:var(--pale);font-size:12.5px}.tile.positive b{color:var(--positive)}.tile.negative b{color:var(--negative)}
.tile.unknown b{color:var(--unknown)}
svg text{font:12px system-ui,sans-serif;fill:var(--fg)}svg .pale{fill:var(--pale)}svg .end{text-anchor:end}
svg .middle{text-anchor:middle}svg .key{font-weight:600}.chart{max-width:100%;height:auto;display:block;margin:.6rem 0}
rect.positive,text.positive{fill:var(--positive)}rect.negative,text.negative{fill:var(--negative)}
rect.unknown,text.unknown{fill:var(--unknown)}rect.faint{opacity:.33}rect.track{fill:var(--track)}rect.stripe{fill:var(--box)}
.axis{stroke:var(--pale)}.grid{stroke:var(--line)}.dot{fill:var(--fg)}.hole{fill:var(--track)}.link{stroke:var(--fg);stroke-width:2}
.line{fill:none;stroke-width:2.4}.line.positive{stroke:var(--positive)}.line.negative{stroke:var(--negative)}
.line.unknown{stroke:var(--unknown)}svg.bar{width:64px;height:9px;vertical-align:middle;margin-right:.3rem}
td.bars{white-space:nowrap}td.bars span{display:inline-block;min-width:3.1em}table.verdicts th{text-align:left}
table.verdicts td{text-align:left}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(26rem,1fr));gap:1rem 1.6rem}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:.15em;margin:0 .3em 0 .9em;vertical-align:-.05em}
.legend i.positive{background:var(--positive)}.legend i.negative{background:var(--negative)}
.legend i.unknown{background:var(--unknown)}.legend i.faint{opacity:.33}
.chip{border:1.5px solid;border-radius:.8em;padding:0 .55em;font-size:12px;font-weight:600}
.chip.positive{color:var(--positive)}.chip.negative{color:var(--negative)}.chip.unknown{color:var(--unknown)}
.fate{color:var(--pale);font-size:12px;background:var(--box);border-radius:.3em;padding:.05em .45em;margin-left:.3em;
white-space:nowrap}
details.rollout{border:1px solid var(--line);border-radius:.45rem;margin:.35rem 0}summary{padding:.35rem .7rem;
overflow-wrap:anywhere}details[open]>summary{border-bottom:1px solid var(--line)}.inside{padding:.5rem .9rem .9rem}
.facts{display:grid;grid-template-columns:minmax(0,3fr) minmax(9rem,1fr);gap:1rem}dl{display:grid;
grid-template-columns:max-content minmax(0,1fr);gap:.1rem .9rem;margin:.2rem 0;font-size:13px;align-content:start}
dt{color:var(--pale)}dd{margin:0;overflow-wrap:anywhere}
.turn{border-left:3px solid var(--line);padding:.1rem 0 .1rem .8rem;margin:.55rem 0}.turn.agent{border-color:var(--pale)}
.turn.marked{border-color:var(--mark-line);border-left-width:6px;background:var(--mark)}
.who{font-size:12px;color:var(--pale);font-weight:600}
.mark{color:var(--fg);margin-left:.8em;font-weight:600;overflow-wrap:anywhere}
.turn pre{background:none;margin:.1rem 0;padding:.1rem 0;overflow:hidden;overflow-wrap:anywhere}
.turn.other pre{color:var(--pale)}pre.reasoning{font-style:italic;color:var(--pale)}pre.call::before{content:"⚙ "}
.cut{font-style:italic;color:var(--pale)}.note{background:var(--mark);color:var(--fg);border-radius:.4rem}
@media(max-width:800px){nav{columns:1}.grid2{grid-template-columns:1fr}.facts{grid-template-columns:1fr}}
"""
HEAD = (
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style>'
)


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
    first = DEFAULT_PROFILE if DEFAULT_PROFILE in profiles else next(iter(profiles), "")
    names = [first, *(name for name in profiles if name != first)] if first else []
    tables = read_tables(store, corpus, scored, profiles)
    told = corpus.details["profiles"]
    numbers = [profile_numbers(tables, profiles[name], told[name]) for name in names[:MAX_PROFILES] if name in told]
    changes = _compare(store, corpus, previous, first)
    is_shown: set[str] = set()
    groups = [
        *(changed_examples(changes, is_shown) if isinstance(changes, Changes) else []),
        *rejected_examples(tables, profiles, is_shown),
        *([accepted_examples(tables, first)] if first else []),
    ]
    parts = [
        _head(corpus, previous, tables, numbers),
        _overview(numbers, tables, len(profiles)),
        _changes_section(changes, is_shown),
        *(_profile_section(each, tables.classes) for each in numbers),
        _scores_section(tables, first),
    ]
    used = sum(len(part.encode()) for part in parts) + len(page(title, head=HEAD).encode())
    n_bytes = MAX_PAGE_BYTES - RESERVED_BYTES - used
    browser = Browser(store, raw, corpus, tables, profiles=names[:MAX_PROFILES], n_bytes=n_bytes)
    made = page(title, *parts, browser.sections(groups), head=HEAD)
    assert len(made.encode()) <= MAX_PAGE_BYTES, "the page's parts outgrew their budget"
    return made


def _head(corpus: Published, previous: Published | None, tables: Tables, numbers: Sequence[ProfileNumbers]) -> str:
    """What the page is of, how many rollouts there are, and what is where."""
    counts = dict(tables.corpus["label"].value_counts().rows())
    tiles = [
        _tile("", f"{tables.corpus.height:,}", "rollouts"),
        *(_tile(name, f"{counts[name]:,}", name) for name in tables.classes),
    ]
    if numbers:
        tiles += [
            _tile(name, f"{n:,}", f"{name}, accepted under {text(numbers[0].name)}") for name, n in numbers[0].n_kept.items()
        ]
    before = f", compared with {previous.key[:SHOWN_RUN_CHARS]}" if previous else ""
    links = [("overview", "Overview"), ("changes", "What changed since the last object")]
    links += [(f"p-{each.name}", f"Profile {each.name}: funnel, overlap, quality, threshold, sources") for each in numbers]
    links += [
        ("scores", "Scores"),
        ("changed", "Rollouts that changed"),
        ("rejected", "Rejected and flagged rollouts"),
        ("accepted", "Accepted rollouts"),
    ]
    listed = "".join(f'<li><a href="#{text(place)}">{text(name)}</a></li>' for place, name in links)
    legend = "".join(f'<i class="{name}"></i>{name}' for name in tables.classes)
    return (
        f'<p class="pale">{text(corpus.asset)}, object <code>{corpus.key[:SHOWN_RUN_CHARS]}</code>{before}</p>'
        f'<div class="tiles">{"".join(tiles)}</div><nav aria-label="contents"><ul>{listed}</ul></nav>'
        f'<p class="legend">In every chart:{legend}<i class="{tables.classes[0]} faint"></i>paler: dropped</p>'
    )


def _tile(kind: str, number: str, what: str) -> str:
    return f'<div class="tile {kind}"><b>{number}</b><span>{what}</span></div>'


def _overview(numbers: Sequence[ProfileNumbers], tables: Tables, n_profiles: int) -> str:
    rows = []
    for each in numbers:
        for name in tables.classes:
            n_all, n_kept = each.n_rollouts[name], each.n_kept[name]
            mean = each.means.get(name)
            rows.append(
                f'<tr><td class=left><a href="#p-{text(each.name)}">{text(each.name)}</a></td>'
                f"<td class=left>{_chip(name)}</td>"
                f"<td>{n_all:,}</td><td>{n_kept:,}</td>{_share_cell(n_kept, n_all, name)}"
                f'<td>{_mean(mean)}</td><td class="wide">{text(each.doc)}</td></tr>'
            )
    more = f'<p class="pale">{n_profiles - len(numbers)} more profiles are not shown.</p>' if n_profiles > len(numbers) else ""
    given = tables.corpus.group_by("scorer", "label").len("n").sort("scorer", "label", nulls_last=True)
    by = ", ".join(f"{text(label)} by {text(scorer)} {n:,}" for scorer, label, n in given.head(MAX_COUNTS).rows())
    head = _header(("profile", 1), ("class", 1), "rollouts", "accepted", "share", "mean quality", ("what it is", 1))
    return (
        f'<h2 id="overview">Overview</h2><div class="over"><table>{head}{"".join(rows)}</table></div>{more}'
        f"<p>Labels: {by}.</p>"
        '<p class="pale">Accepted counts the rollouts that survive: a duplicate is dropped only while an earlier twin '
        "survives. The funnel counts every hit. Mean quality is that of all rollouts of the class, dropped ones too.</p>"
    )


def _header(*names: str | tuple[str, int]) -> str:
    cells = "".join(
        f"<th>{text(name)}</th>" if isinstance(name, str) else f'<th class="left">{text(name[0])}</th>' for name in names
    )
    return f"<tr>{cells}</tr>"


def _share_cell(part: int, whole: int, kind: str) -> str:
    told = f"{part / whole:.1%}" if whole else "–"
    return f'<td class="bars">{bar(part, whole, kind)}<span>{told}</span></td>'


def _mean(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _chip(label: str) -> str:
    return f'<span class="chip {label if label in CLASSES else ""}">{text(label)}</span>'


def _compare(store: Store, corpus: Published, previous: Published | None, profile: str) -> Changes | str:
    """What differs from the object before, or why that cannot be said."""
    if previous is None:
        return "There is no earlier object to compare with."
    try:
        return compare_objects(store, previous, corpus, profile)
    except NegtrajError as error:
        return str(error)


def _changes_section(changes: Changes | str, shown: Container[str]) -> str:
    head = '<h2 id="changes">What changed since the last object</h2>'
    if isinstance(changes, str):
        return f'{head}<p class="note">{text(changes, 600)}</p>'
    about = f"<p>Object {_key(changes.before)} → {_key(changes.after)}, under the profile {text(changes.profile)}.</p>"
    edits = "".join(
        f"<li><code>{text(name)}</code>: {text(what)}</li>" for name, what in list(changes.filters.items())[:MAX_COUNTS]
    )
    about += f"<p>The profile itself differs:</p><ul>{edits}</ul>" if edits else ""
    if changes.rows.is_empty():
        return f"{head}{about}<p>No rollout differs.</p>"
    return f"{head}{about}{_change_counts(changes)}{_changed_rollouts(changes, shown)}"


def _key(key: str) -> str:
    return f"<code>{text(key[:SHOWN_RUN_CHARS])}</code>"


def _change_counts(changes: Changes) -> str:
    largest = int(changes.counts.select(pl.max_horizontal(*CLASSES).max()).item())
    classes = [name for name in CLASSES if changes.counts[name].sum()]
    rows = "".join(
        f"<tr><td class=left>{text(row['change'])}{text(_arrival(row))}</td><td class=left>{text(row['cause'])}</td>"
        f"<td class=left><code>{text(row['filter'])}</code></td>"
        + "".join(_count_cell(row[name], largest, name) for name in classes)
        + "</tr>"
        for row in changes.counts.head(MAX_COUNTS).to_dicts()
    )
    head = _header(("what became of them", 1), ("cause", 1), ("filter", 1), *classes)
    return f'<h3>By cause</h3><div class="over"><table>{head}{rows}</table></div>{_more(changes.counts.height, MAX_COUNTS)}'


def _arrival(row: Mapping[str, Any]) -> str:
    return f", {row['state_after']}" if row["change"] == "new" else ""


def _count_cell(number: int, largest: int, kind: str) -> str:
    if not number:
        return '<td class="zero">0</td>'
    return f'<td class="bars">{bar(number, largest, kind)}<span>{number:,}</span></td>'


def _changed_rollouts(changes: Changes, shown: Container[str]) -> str:
    """Some of every cause, so that none is crowded out; those that are shown further down lead there."""
    by = ["change", "cause", "filter"]
    fair = changes.rows.with_columns(place=pl.int_range(pl.len()).over(by)).sort("place", *by, "ingest_seq").head(MAX_CHANGES)
    body = "".join(
        f"<tr><td class=left>{_named(row['rollout_key'], shown)}</td>"
        f"<td class=left>{text(row['question_id'], 40)}</td>"
        f"<td class=left>{text(row['change'])}</td><td class=left>{text(label_change(row))}</td>"
        f'<td class="wide">{text(why_changed(row))}</td></tr>'
        for row in fair.sort(*by, "ingest_seq").to_dicts()
    )
    head = _header(("rollout", 1), ("question", 1), ("change", 1), ("label", 1), ("why", 1))
    return (
        f"<h3>The rollouts</h3><details><summary>{min(changes.rows.height, MAX_CHANGES):,} of {changes.rows.height:,}, some of "
        f'every cause</summary><div class="over"><table>{head}{body}</table></div></details>'
        '<p class="pale"><code>negtraj diff</code> lists all.</p>'
    )


def _named(key: str, shown: Container[str]) -> str:
    code = f"<code>{text(key[:12])}</code>"
    return f'<a href="#{anchor(key)}">{code}</a>' if key in shown else code


def _more(n_all: int, n_shown: int) -> str:
    return f'<p class="pale">{n_all - n_shown:,} more are not shown.</p>' if n_all > n_shown else ""


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
    chosen = [(cut, counts) for cut, counts in each.cuts if cut in CUTS_SHOWN]
    head = _header(("least quality", 1), *(f"{cut:g}" for cut, _ in chosen))
    rows = "".join(
        f"<tr><td class=left>{_chip(name)}</td>{''.join(f'<td>{counts[name]:,}</td>' for _, counts in chosen)}</tr>"
        for name in classes
    )
    return f'<div class="over"><table>{head}{rows}</table></div>'


def _funnel(each: ProfileNumbers, classes: Sequence[str]) -> str:
    shown = each.funnel[:MAX_ROWS]
    largest = max((row[f"n_{name}"] for row in shown for name in classes), default=0)
    hits = [f"{name} hit" for name in classes]
    alone = [f"only this, {name[:3]}." for name in classes]
    left = [f"{name} left" for name in classes]
    head = _header(("filter", 1), ("effect", 1), *hits, *alone, "not asked", *left)
    body = "".join(_funnel_row(row, each, classes, largest) for row in shown)
    return (
        "<h3>Funnel</h3><p class=pale>Hit: rollouts the filter rejects or flags. Only this: those that no other filter drops. "
        "Not asked: rollouts of another class or style. Left: after this filter and all before it. Flags drop nothing, "
        f'they cost quality.</p><div class="over"><table>{head}{body}</table></div>{_more(len(each.funnel), MAX_ROWS)}'
    )


def _funnel_row(row: Mapping[str, Any], each: ProfileNumbers, classes: Sequence[str], largest: int) -> str:
    is_flag = row["severity"] == "flag"
    cells = [_count_cell(row[f"n_{name}"], largest, name) for name in classes]
    alone = [0 if is_flag else row[f"n_{name}_only_this"] for name in classes]
    cells += [f'<td class="{"" if n else "zero"}">{f"{n:,}" if n or not is_flag else "–"}</td>' for n in alone]
    n_away = row["n_not_applicable"]
    cells.append(f'<td class="{"" if n_away else "zero"}">{n_away:,}</td>')
    for name in classes:
        n_left = row[f"left_{name}"]
        cells.append('<td class="zero">–</td>' if is_flag else _count_cell(n_left, each.n_rollouts[name], name))
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
        f"<tr><td class=left>{text(row['source'], 80)}</td><td class=left>{_chip(row['class'])}</td>"
        f"<td>{row['n_rollouts']:,}</td><td>{row['n_left']:,}</td>"
        f"{_share_cell(row['n_left'], row['n_rollouts'], row['class'])}"
        f"<td>{_mean(row['mean_quality'])}</td>"
        f'<td class="wide">{text(row["most_common"], 120)}</td></tr>'
        for row in each.sources[:MAX_ROWS]
    )
    head = _header(("source", 1), ("class", 1), "rollouts", "left", "share", "mean quality", ("most common reasons", 1))
    return f'<h3>By source</h3><div class="over"><table>{head}{rows}</table></div>{_more(len(each.sources), MAX_ROWS)}'


def _scores_section(tables: Tables, profile: str) -> str:
    names = sorted(tables.scores["score_name"].unique().to_list())
    charts = []
    for name in names[:MAX_SCORES]:
        kept, dropped = score_bins(tables, name, profile)
        chart = histogram(kept, dropped, width=530, what=f"{name} by class", strip=46)
        charts.append(f"<div><h3>{text(name)}</h3>{chart}</div>")
    about = (
        f"<p>A score is a number from 0 to 1, 1 the best. Pale: rollouts that {text(profile)} drops.</p>"
        if charts
        else "<p>none</p>"
    )
    return f'<h2 id="scores">Scores</h2>{about}<div class="grid2">{"".join(charts)}</div>{_more(len(names), MAX_SCORES)}'
