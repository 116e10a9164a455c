"""Draws plain SVG charts: lines over steps, bars with intervals. No dependency, no script, fit for a page or a UI pane."""

import html
import math
from collections.abc import Mapping, Sequence

COLOURS = ("#2f6f9f", "#c4623a", "#5a8f4f", "#8a5aa8", "#a8893a", "#4f8f8f")
WIDTH, HEIGHT = 620, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 40


def line_plot(series: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, y_label: str) -> str:
    """Lines over a shared axis that starts at zero."""
    points = [point for line in series.values() for point in line]
    x_max, y_max = (_round_up(max((point[axis] for point in points), default=1) or 1) for axis in (0, 1))
    parts = [_axes(y_max, y_label), _text(WIDTH / 2, HEIGHT - 8, x_label, "middle")]
    parts += [_text(_x(share, 1), HEIGHT - 24, f"{x_max * share:g}", "middle") for share in (0, 0.25, 0.5, 0.75, 1)]
    for colour, (name, line) in zip(COLOURS, series.items(), strict=False):
        path = " ".join(f"{_x(x, x_max):.1f},{_y(y, y_max):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(series) > 1:
            parts.append(_text(WIDTH - RIGHT, TOP + 14 * (1 + list(series).index(name)), name, "end", colour))
    return _svg(parts)


def interval_plot(series: Mapping[str, Sequence[tuple[float, float, float]]], *, x_label: str, y_label: str) -> str:
    """Lines of shares with a whisker of one standard error each way: (x, share, standard error)."""
    points = [point for line in series.values() for point in line]
    x_max = _round_up(max((point[0] for point in points), default=1) or 1)
    y_max = min(1.0, _round_up(max((y + error for _, y, error in points), default=1) or 1))
    parts = [_axes(y_max, y_label), _text(WIDTH / 2, HEIGHT - 8, x_label, "middle")]
    parts += [_text(_x(share, 1), HEIGHT - 24, f"{x_max * share:g}", "middle") for share in (0, 0.25, 0.5, 0.75, 1)]
    for number, (colour, (name, line)) in enumerate(zip(COLOURS, series.items(), strict=False)):
        path = " ".join(f"{_x(x, x_max):.1f},{_y(y, y_max):.1f}" for x, y, _ in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for x, y, error in line:
            middle, top, bottom = _x(x, x_max), _y(y + error, y_max), _y(max(y - error, 0), y_max)
            parts.append(f'<circle cx="{middle:.1f}" cy="{_y(y, y_max):.1f}" r="3" fill="{colour}"/>')
            parts.append(f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{colour}"/>')
        parts.append(_text(LEFT + 12, TOP + 14 * (1 + number), name, "start", colour))
    return _svg(parts)


def bar_plot(bars: Sequence[tuple[str, float, float, float]], *, y_label: str) -> str:
    """Bars with intervals: (name, value, low, high)."""
    y_max = min(1.0, _round_up(max((high for *_, high in bars), default=1) or 1))
    step = (WIDTH - LEFT - RIGHT) / max(len(bars), 1)
    parts = [_axes(y_max, y_label)]
    for position, (name, value, low, high) in enumerate(bars):
        middle = LEFT + step * (position + 0.5)
        width, top = min(step * 0.5, 90), _y(value, y_max)
        colour = COLOURS[position % len(COLOURS)]
        parts.append(
            f'<rect x="{middle - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{HEIGHT - BOTTOM - top:.1f}" fill="{colour}" fill-opacity="0.75"/>'
        )
        parts.append(
            f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{_y(low, y_max):.1f}" y2="{_y(high, y_max):.1f}" '
            f'stroke="#222" stroke-width="1.5"/>'
        )
        parts.append(_text(middle, HEIGHT - 22, name, "middle"))
        parts.append(_text(middle + 6, top - 4, f"{value:.1%}", "start"))
    return _svg(parts)


def _round_up(value: float) -> float:
    """The next number whose quarter is easy to read."""
    scale = 10 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(scale * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if scale * step >= value * 0.9999)


def _svg(parts: Sequence[str]) -> str:
    body = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>{body}</svg>'
    )


def _axes(y_max: float, y_label: str) -> str:
    lines = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _y(y_max * share, y_max)
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        lines.append(_text(LEFT - 6, y + 4, f"{y_max * share:.3g}", "end"))
    lines.append(_text(LEFT, TOP - 4, y_label, "start"))
    return "".join(lines)


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(text)}</text>'


def _x(value: float, largest: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * value / largest


def _y(value: float, largest: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * min(value / largest, 1)
