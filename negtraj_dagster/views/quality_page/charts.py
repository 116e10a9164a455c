"""Inline SVG for the quality page: bars, histograms, overlaps, curves. Colours come from the page's style, by class name.

Every class has a colour and is named beside it, so that nothing is told by colour alone. Names of filters, scores and classes
are ours; whatever a rollout holds does not belong here.
"""

import html
from collections.abc import Mapping, Sequence

LABEL_CHARS = 26
STRIP_HEIGHT = 64
"""Pixels of one class's histogram."""
ROW_HEIGHT = 22


def bar(value: float, largest: float, kind: str) -> str:
    """A bar for a table's cell; never invisible where there is something."""
    width = 0.0 if not value else max(100 * value / max(largest, 1), 1.0)
    return (
        f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="10"/><rect class="{kind}" width="{width:.2f}" height="10"/></svg>'
    )


def histogram(
    kept: Mapping[str, Sequence[int]], dropped: Mapping[str, Sequence[int]], *, width: int, what: str, strip: int = STRIP_HEIGHT
) -> str:
    """Histograms over 0..1, one strip a class, all of one scale: kept rollouts solid, dropped ones pale on top of them.

    Args:
        kept: counts by bin, by class.
        dropped: the same of rollouts that are not kept.
        width: pixels.
        what: is counted, for readers who hear the page.
        strip: height of a strip in pixels.
    """
    left, right, gap, foot = 74, 10, 16, 34
    inner = width - left - right
    largest = max((n_above + two for name in kept for n_above, two in zip(kept[name], dropped[name], strict=True)), default=0)
    parts = []
    for place, name in enumerate(kept):
        base = (place + 1) * (strip + gap)
        n_bins = len(kept[name])
        step = inner / n_bins
        n_kept, n_dropped = sum(kept[name]), sum(dropped[name])
        parts.append(_text(left - 8, base - strip + 12, name, f"end key {name}"))
        parts.append(_text(left - 8, base - strip + 27, f"{n_kept + n_dropped:,}", "end pale"))
        parts.append(f'<line class="axis" x1="{left}" x2="{left + inner}" y1="{base}" y2="{base}"/>')
        for number, (n_above, two) in enumerate(zip(kept[name], dropped[name], strict=True)):
            low, high = (strip * n_rollouts / max(largest, 1) for n_rollouts in (n_above, n_above + two))
            x, bar_width = left + number * step + 0.75, step - 1.5
            tooltip = f"{number / n_bins:.2f} to {(number + 1) / n_bins:.2f}: {n_above:,} kept, {two:,} dropped"
            shapes = _rect(x, base - low, bar_width, low, name) + _rect(x, base - high, bar_width, high - low, f"{name} faint")
            parts.append(f"<g><title>{name}, {tooltip}</title>{shapes}</g>" if n_above + two else "")
        if place == 0:
            parts.append(_text(left + inner, base - strip - 3, f"highest bar: {largest:,}", "end pale"))
    height = len(kept) * (strip + gap)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + inner * tick
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{height}" y2="{height + 4}"/>')
        parts.append(_text(x, height + 17, f"{tick:g}", "middle pale"))
    return _svg(width, height + foot - 10, what, "".join(parts))


def overlap(
    rows: Sequence[tuple[Sequence[str], Mapping[str, int]]], names: Sequence[str], classes: Sequence[str], *, what: str
) -> str:
    """Which reasons come together: a row per combination, a dot per reason, bars by class.

    Args:
        rows: the reasons of each combination, and its rollouts by class; most first.
        names: all reasons, in the columns' order.
        classes: in the bars' order.
        what: for readers who hear the page.
    """
    column, number, bars, left = 26, 74, 330, 12
    head = 30 + round(4.9 * min(max(map(len, names), default=0), LABEL_CHARS))
    overhang = round(5.4 * min(len(names[-1]), LABEL_CHARS)) if names else 0
    dots_end = left + column * len(names)
    start = dots_end + max(number * len(classes) + 24, overhang - 40)
    width = start + bars + 12
    largest = max((sum(counts.values()) for _, counts in rows), default=1)
    parts = []
    for place, name in enumerate(names):
        x = left + column * (place + 0.5)
        short_name = html.escape(name if len(name) <= LABEL_CHARS else f"{name[: LABEL_CHARS - 1]}…")
        parts.append(f'<text class="label" transform="translate({x + 3:.1f},{head - 10}) rotate(-42)">{short_name}</text>')
    columns = {name: start - 12 - number * (len(classes) - 1 - place) for place, name in enumerate(classes)}
    parts += [_text(x, head - 8, name, f"end key {name}") for name, x in columns.items()]
    for place, (reasons, counts) in enumerate(rows):
        y = head + place * ROW_HEIGHT
        middle = y + ROW_HEIGHT / 2
        if place % 2 == 0:
            parts.append(_rect(0, y, width, ROW_HEIGHT, "stripe"))
        places = [row for row, name in enumerate(names) if name in reasons]
        dots = [(left + column * (row + 0.5), row in places) for row in range(len(names))]
        parts += [f'<circle class="{"dot" if on else "hole"}" cx="{x:.1f}" cy="{middle}" r="5"/>' for x, on in dots]
        if len(places) > 1:
            x1, x2 = (left + column * (row + 0.5) for row in (places[0], places[-1]))
            parts.append(f'<line class="link" x1="{x1:.1f}" x2="{x2:.1f}" y1="{middle}" y2="{middle}"/>')
        x = float(start)
        tooltip = ", ".join(f"{counts[name]:,} {name}" for name in classes if counts.get(name))
        shapes = []
        for name in classes:
            length = bars * counts.get(name, 0) / max(largest, 1)
            shapes.append(_rect(x, y + 4, length, ROW_HEIGHT - 8, name))
            x += length
        title = html.escape(f"{', '.join(reasons)}: {tooltip}")
        parts.append(f"<g><title>{title}</title>{''.join(shapes)}</g>")
        for name, right in columns.items():
            n_mine = counts.get(name, 0)
            parts.append(_text(right, middle + 4, f"{n_mine:,}", "end" if n_mine else "end pale"))
    return _svg(width, head + len(rows) * ROW_HEIGHT + 6, what, "".join(parts))


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], *, width: int, height: int, what: str, x_label: str) -> str:
    """Falling counts over 0..1, a line a class, with the number at its left end.

    Args:
        lines: points (x, y) by class, x rising.
        width: pixels.
        height: pixels.
        what: for readers who hear the page.
        x_label: under the axis.
    """
    left, right, top, foot = 58, 84, 12, 42
    inner, tall = width - left - right, height - top - foot
    largest = max((y for line in lines.values() for _, y in line), default=0) or 1
    parts = []
    for tick in _ticks(largest):
        y = top + tall * (1 - tick / largest)
        parts.append(f'<line class="grid" x1="{left}" x2="{left + inner}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 8, y + 4, f"{tick:,}", "end pale"))
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_text(left + inner * share, height - foot + 18, f"{share:g}", "middle pale"))
    parts.append(_text(left + inner / 2, height - 6, x_label, "middle pale"))
    parts.append(f'<line class="axis" x1="{left}" x2="{left + inner}" y1="{top + tall}" y2="{top + tall}"/>')
    labels: list[float] = []
    for place, (name, line) in enumerate(lines.items()):
        points = " ".join(f"{left + inner * x:.1f},{top + tall * (1 - y / largest):.1f}" for x, y in line)
        dash = (f' stroke-dasharray="{dashes}"' for dashes in ("none", "7 3", "2 3"))
        parts.append(f'<polyline class="line {name}"{list(dash)[place % 3]} points="{points}"><title>{name}</title></polyline>')
        middle = next((x for x, y in line if y <= line[0][1] / 2), 1.0) if line else 1.0
        y = top + tall / 2 if not line else top + tall * (1 - line[0][1] / 2 / largest)
        while any(abs(y - other) < 15 for other in labels):
            y += 15
        labels.append(y)
        parts.append(_text(left + inner * middle + 8, y + 2, name, f"key {name}"))
    return _svg(width, height, what, "".join(parts))


def _ticks(largest: float) -> list[int]:
    sizes = (size * int(f"1{'0' * power}") for power in range(12) for size in (1, 2, 5))
    step = next(size for size in sizes if largest / size <= 5)
    return list(range(0, int(largest) + 1, step))


def _svg(width: float, height: float, what: str, body: str) -> str:
    title = html.escape(what)
    return (
        f'<svg class="chart" role="img" aria-label="{title}" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">{body}</svg>'
    )


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    if width <= 0 or height <= 0:
        return ""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'
