"""Cells, chips and notes of the quality page."""

from collections.abc import Container

from negtraj_dagster.trajectories.funnel import CLASSES
from negtraj_dagster.views.diff.side import SHOWN_RUN_CHARS
from negtraj_dagster.views.quality_page.browse import anchor, text
from negtraj_dagster.views.quality_page.charts import bar


def tile(kind: str, number: str, what: str) -> str:
    """A large number with what it counts."""
    return f'<div class="tile {kind}"><b>{number}</b><span>{what}</span></div>'


def header_row(*names: str | tuple[str, int]) -> str:
    """A table's head; a pair is a name over so many columns."""
    cells = "".join(
        f"<th>{text(name)}</th>" if isinstance(name, str) else f'<th class="left">{text(name[0])}</th>' for name in names
    )
    return f"<tr>{cells}</tr>"


def share_cell(part: int, whole: int, kind: str) -> str:
    """A share as bar and number."""
    percentage = f"{part / whole:.1%}" if whole else "–"
    return f'<td class="bars">{bar(part, whole, kind)}<span>{percentage}</span></td>'


def mean_text(value: float | None) -> str:
    """A mean with two digits, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def label_chip(label: str) -> str:
    """A class as a coloured chip."""
    return f'<span class="chip {label if label in CLASSES else ""}">{text(label)}</span>'


def more_note(n_all: int, n_shown: int) -> str:
    """That there are more than are shown."""
    return f'<p class="pale">{n_all - n_shown:,} more are not shown.</p>' if n_all > n_shown else ""


def key_cell(key: str) -> str:
    """The beginning of a key."""
    return f"<code>{text(key[:SHOWN_RUN_CHARS])}</code>"


def count_cell(number: int, largest: int, kind: str) -> str:
    """A number with a bar that compares it with the largest."""
    if not number:
        return '<td class="zero">0</td>'
    return f'<td class="bars">{bar(number, largest, kind)}<span>{number:,}</span></td>'


def rollout_link(key: str, shown: Container[str]) -> str:
    """A rollout's key, as a link where the page shows it."""
    code = f"<code>{text(key[:12])}</code>"
    return f'<a href="#{anchor(key)}">{code}</a>' if key in shown else code
