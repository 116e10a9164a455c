"""The page `preview.html`: training rows with their trained stretches coloured by weight, and why rows were rejected.

Rollouts are untrusted: every text is made visible and escaped, and the page's policy forbids whatever is not a style.
"""

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence

from negtraj_dagster.pages import POLICY, html_table, page
from negtraj_dagster.printable import visible
from negtraj_dagster.shards.preview import Piece, RejectedRow, ShownRow
from negtraj_dagster.shards.remedies import remedy

N_DETAILS = 5
"""Rejected rows that are shown of a reason."""
CONTEXT_CHARS, TRAINED_CHARS, DETAIL_CHARS, ROW_BYTES = 1000, 2000, 240, 14_000
"""What a page of previews shows: a long text keeps its beginning and end, a row ends after so many bytes. Three rows of two
classes and their page stay below 200 kB, whatever the rollouts hold."""

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#222;--pale:#6b6b6b;--box:#f6f6f4;--line:#ddd;--one:#c9ebcf;--one-fg:#0c3d17;
--low:#f8e7a6;--low-fg:#493900;--high:#f3d0f1;--high-fg:#52104f;--pill:#e2e2dd;--pill-fg:#484848;--note:#fff6d9}
@media(prefers-color-scheme:dark){:root{--bg:#16181a;--fg:#e4e4e0;--pale:#9c9c98;--box:#1f2225;--line:#3a3e42;
--one:#1d4a2a;--one-fg:#c5f2cf;--low:#574708;--low-fg:#fbeab0;--high:#5a2458;--high-fg:#fbd9f9;--pill:#34393d;
--pill-fg:#b9bcbe;--note:#3a3313}}
body{background:var(--bg);color:var(--fg)}td,th{border-color:var(--line);vertical-align:top}
pre{background:var(--box);color:var(--pale);padding:.8rem 1rem;border-radius:.4rem;line-height:1.65;overflow-wrap:anywhere}
h2{margin-top:2.2rem}h3{margin:1.6rem 0 .2rem}.about{margin:.1rem 0;color:var(--pale);font-size:13px;overflow-wrap:anywhere}
code{font-size:.92em}.note,.cut{background:var(--note);color:var(--fg)}
.cut{font-style:italic;padding:0 .35em;border-radius:.25em}
.one,.low,.high{padding:.1em 0;border-radius:.2em;-webkit-box-decoration-break:clone;box-decoration-break:clone}
.one{background:var(--one);color:var(--one-fg)}.low{background:var(--low);color:var(--low-fg)}
.high{background:var(--high);color:var(--high-fg)}.one i::before,.low i::before,.high i::before{content:"\\21b5";opacity:.55}
.pill{background:var(--pill);color:var(--pill-fg);border-radius:.7em;padding:.05em .5em;font-size:.88em;white-space:nowrap}
.one .pill,.low .pill,.high .pill{background:none;color:inherit;border:1px solid;padding:0 .45em}
sup{font-weight:600;padding:0 .25em}.details td,.details th{text-align:left}.details td:first-child{white-space:nowrap}
.details td:last-child{overflow-wrap:anywhere}.legend span{margin-right:.5rem}
"""
HEAD = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style>'
LEGEND = (
    '<p class="legend"><span class="one">trained, weight 1</span> <span class="low">trained, below 1</span> '
    '<span class="high">trained, above 1</span> <span class="pill">control token</span> all else is context: read, not '
    "trained. A weight that is not 1 stands before its stretch; ↵ is a trained newline; \\x1b and its like are characters "
    "that are not shown as they are.</p>"
)


def preview_page(
    recipe: str,
    rows: Sequence[ShownRow],
    *,
    counts: Mapping[str, object],
    rejected: Mapping[str, int],
    samples: Sequence[RejectedRow],
) -> str:
    """What a recipe's shards look like.

    Args:
        recipe: its name.
        rows: the previews; long texts are cut, with a note.
        counts: numbers of the whole, by name.
        rejected: how many rows, by reason.
        samples: rejected rows, for their details: up to `N_DETAILS` of each reason are shown.
    """
    numbers = html_table([{"number": name, "value": value} for name, value in counts.items()])
    row_html = "".join(_row(row, is_cut=True) for row in rows)
    title = f"What {recipe} trains on"
    parts = [numbers, "<h2>Rejected rows</h2>", _rejected(rejected, samples)]
    return page(title, LEGEND, *parts, f"<h2>The first rows of each class ({len(rows)})</h2>", row_html, head=HEAD)


def rows_page(title: str, rows: Iterable[ShownRow], rejected: Sequence[RejectedRow]) -> str:
    """Some rows, whole, and some rejected ones."""
    counts: dict[str, int] = {}
    for rejected_row in rejected:
        counts[rejected_row.reason] = counts.get(rejected_row.reason, 0) + 1
    refused = f"<h2>Rejected</h2>{_rejected(counts, rejected)}" if rejected else ""
    return page(title, LEGEND, *(_row(row, is_cut=False) for row in rows), refused, head=HEAD)


def _row(row: ShownRow, *, is_cut: bool) -> str:
    share = f"{row.n_trained:,} of {row.n_tokens:,} tokens trained ({row.n_trained / max(row.n_tokens, 1):.1%})"
    facts = [f"recipe {row.recipe}", f"weight {row.weight:g} × {row.repeat} an epoch", share, f"template {row.template}"]
    about = "".join(f'<p class="about">{_text(line)}</p>' for line in (" · ".join(facts), row.cut) if line)
    keys = f"rollout <code>{_text(row.rollout_key)}</code><br>token row <code>{_text(row.token_key)}</code>"
    body = "".join(_within_budget(row) if is_cut else map(_stretch, _by_weight(row.pieces)))
    title = _text(f"{row.class_name} · {row.rollout_key[:12]}")
    return f'<section><h3>{title}</h3>{about}<p class="about">{keys}</p><pre>{body}</pre></section>'


def _within_budget(row: ShownRow) -> Iterator[str]:
    """The row's stretches, shortened, up to `ROW_BYTES`."""
    n_bytes = n_chars = 0
    for group in _by_weight(row.pieces):
        if n_bytes > ROW_BYTES:
            n_chars_left = sum(len(piece.text) for piece in row.pieces) - n_chars
            yield _note(f"{n_chars_left:,} characters more; negtraj show {row.token_key[:12]} shows them")
            return
        stretch = _stretch(group, limit=TRAINED_CHARS if group[0].weight else CONTEXT_CHARS)
        n_bytes += len(stretch.encode())
        n_chars += sum(len(piece.text) for piece in group)
        yield stretch


def _by_weight(row: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Runs of trained pieces of one weight; pieces of context one by one."""
    run: list[Piece] = []
    for piece in row:
        if run and (piece.weight != run[0].weight or not piece.weight):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _stretch(group: Sequence[Piece], limit: int | None = None) -> str:
    weight = group[0].weight
    body = "".join(_piece(piece, limit) for piece in group)
    if not weight:
        return body
    kind = "one" if weight == 1 else "low" if weight < 1 else "high"
    label = "" if weight == 1 else f"<sup>{weight:g}</sup>"
    return f'<span class="{kind}">{label}{body}</span>'


def _piece(piece: Piece, limit: int | None) -> str:
    if piece.is_control:
        return f'<span class="pill">{_text(piece.text)}</span>'
    text = visible(piece.text)
    if limit is None or len(text) <= limit:
        return _lines(text, piece.weight)
    head, tail = text[: limit * 2 // 3], text[-limit // 3 :]
    note = _note(f"{len(text) - len(head) - len(tail):,} characters are not shown here")
    return _lines(head, piece.weight) + note + _lines(tail, piece.weight)


def _lines(text: str, weight: float) -> str:
    escaped = html.escape(text, quote=False)
    return escaped.replace("\n", "<i></i>\n") if weight else escaped


def _note(text: str) -> str:
    return f'<span class="cut">… {html.escape(text)} …</span>'


def _text(text: str) -> str:
    return html.escape(visible(text))


def _rejected(counts: Mapping[str, int], samples: Sequence[RejectedRow]) -> str:
    if not counts:
        return "<p>none</p>"
    head = "<tr><th>reason</th><th>rows</th><th>found, for example</th><th>remedy</th></tr>"
    body = "".join(
        f"<tr><td><code>{_text(reason)}</code></td><td>{n:,}</td><td>{_details(reason, samples)}</td>"
        f"<td>{_text(remedy(reason))}</td></tr>"
        for reason, n in counts.items()
    )
    return f'<table class="details">{head}{body}</table>'


def _details(reason: str, samples: Sequence[RejectedRow]) -> str:
    of_reason = [sample for sample in samples if sample.reason == reason][:N_DETAILS]
    return "<br>".join(
        f"<code>{_text(sample.rollout_key[:12])}</code> {_text(_shortened(sample.detail))}" for sample in of_reason
    )


def _shortened(text: str) -> str:
    text = visible(text)
    return text if len(text) <= DETAIL_CHARS else f"{text[:DETAIL_CHARS]}…"
