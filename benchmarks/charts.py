"""Plain SVG files for the results: bars in groups, and curves. They follow the reader's light or dark scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #222 } .title { font-weight: 600; font-size: 14px }
.value, .tick { fill: #555 } .bar { fill: #9aa5b1 } .ours { fill: #2563eb } .axis { stroke: #888; fill: none }
.c0 { stroke: #2563eb } .c1 { stroke: #d97706 } .c2 { stroke: #059669 } .c3 { stroke: #db2777 } .c4 { stroke: #7c3aed }
.c5 { stroke: #0891b2 } .c6 { stroke: #65a30d } .c7 { stroke: #6b7280 } .curve { fill: none; stroke-width: 1.8 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .value, .tick { fill: #aaa } .ours { fill: #60a5fa } }
</style>"""

Bars = Sequence[tuple[str, float]]


def bars(title: str, groups: Sequence[tuple[str, Bars]], *, ours: str) -> str:
    """Groups of horizontal bars, each group on a scale of its own; names that start with ``ours`` stand out."""
    left, width, line = 190, 300, 20
    parts, y = [_text(8, 20, title, "title")], 34
    for heading, rows in groups:
        y += 14
        parts.append(_text(8, y, heading, "heading"))
        largest = max(value for _, value in rows)
        for name, value in rows:
            y += line
            style = "bar ours" if name.startswith(ours) else "bar"
            parts.append(_text(left - 8, y, name, "name", "end"))
            length = width * value / largest
            parts.append(f'<rect class="{style}" x="{left}" y="{y - 11}" width="{length:.1f}" height="14"/>')
            parts.append(_text(left + length + 6, y, f"{value:.4g}", "value"))
        y += 10
    return _document(left + width + 70, y + 8, title, parts)


def curves(title: str, x_label: str, y_label: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Curves over a common pair of axes, with a legend to the right. Curves without points are left out."""
    left, top, width, height = 56, 34, 430, 270
    drawn = {name: points for name, points in lines.items() if points}
    xs = [x for points in drawn.values() for x, _ in points] or [0.0, 1.0]
    ys = [y for points in drawn.values() for _, y in points] or [0.0, 1.0]
    low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)
    span_x, span_y = (high_x - low_x) or 1.0, (high_y - low_y) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return left + width * (x - low_x) / span_x, top + height * (1 - (y - low_y) / span_y)

    parts = [_text(8, 20, title, "title")]
    parts.append(f'<path class="axis" d="M{left} {top}V{top + height}H{left + width}"/>')
    for share in (0.0, 0.5, 1.0):
        x, y = place(low_x + share * span_x, low_y + share * span_y)
        parts.append(_text(x, top + height + 16, f"{low_x + share * span_x:.4g}", "tick", "middle"))
        parts.append(_text(left - 6, y + 4, f"{low_y + share * span_y:.4g}", "tick", "end"))
    parts.append(_text(left + width / 2, top + height + 34, x_label, "tick", "middle"))
    parts.append(_text(left + 6, top + 10, y_label, "tick"))
    for index, (name, points) in enumerate(drawn.items()):
        route = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
        dash = f' stroke-dasharray="{4 + 2 * (index // 8)} 3"' if index >= 8 else ""
        parts.append(f'<polyline class="curve c{index % 8}"{dash} points="{route}"/>')
        y = top + 14 + 18 * index
        parts.append(f'<path class="curve c{index % 8}"{dash} d="M{left + width + 16} {y - 4}h22"/>')
        parts.append(_text(left + width + 44, y, name, "name"))
    longest = max([len(name) for name in drawn] or [0])
    total = max(top + height + 48, top + 24 + 18 * len(drawn))
    return _document(left + width + 60 + 7 * longest, total, title, parts)


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _document(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'role="img" aria-label="{escape(title)}">{STYLE}\n{body}\n</svg>\n'
    )
