"""The frame and the tables of the HTML pages that people read, and how untrusted text is made visible. Self-contained, no
script."""

import html
from collections.abc import Mapping, Sequence

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ddd;padding:.25rem .6rem;text-align:right}
td:first-child,th:first-child{text-align:left}pre{background:#f6f6f4;padding:.6rem;white-space:pre-wrap;font-size:13px}
.right{color:#2c6e31}.wrong{color:#a33}.note{background:#fff6d9;padding:.5rem .8rem}summary{cursor:pointer}
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Of pages that show rollouts: whatever is not a style is forbidden."""
META_POLICY = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'


def page(title: str, *body: str, head: str = "") -> str:
    """A whole HTML page; `head` is HTML for the end of its head."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style>{head}</head><body><h1>{html.escape(title)}</h1>{''.join(body)}</body></html>\n"
    )


def html_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as an HTML table; the first row names the columns."""
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row.values()) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
