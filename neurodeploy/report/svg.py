"""Inline SVG for the pages: bars, stacked bars, the break-even chart. No script, no fonts, no colours of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from neurodeploy.report import numbers

WIDTH, HEIGHT = 380, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 8, 26, 40
COLOURS = 12
"""Parts that the style sheet has colours for; the next one has the first again."""
SMALLEST_GAP = 15.0
"""Between two labels at the right edge, in units of the chart."""


def bar(share: float, style: str = "") -> Markup:
    """A horizontal bar that fills ``share`` (0 to 1) of its cell; decoration beside a number in text."""
    width = 100 * min(max(share, 0.0), 1.0)
    return Markup(
        '<svg class="bar {}" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        '<rect class="track" width="100" height="10"/><rect class="fill" width="{:.2f}" height="10"/></svg>'
    ).format(style, width)


def stack(shares: Sequence[float]) -> Markup:
    """A bar in parts, one class ``part-N`` each; the shares add up to 1 at most."""
    left, parts = 0.0, []
    for place, share in enumerate(shares):
        width = 100 * max(share, 0.0)
        rect = Markup('<rect class="part-{}" x="{:.3f}" width="{:.3f}" height="10"/>')
        parts.append(rect.format(place % COLOURS, left, width))
        left += width
    return Markup(
        '<svg class="bar stack" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        '<rect class="track" width="100" height="10"/>{}</svg>'
    ).format(Markup("").join(parts))


def break_even(
    lines: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
    rate: float,
    images: Sequence[tuple[float, float]] = (),
) -> Markup:
    """Energy against spike rate at the prices of one profile: the network's line, its operating point, the baselines.

    Args:
        lines: Entries ``against`` of the verdict for one profile. Baselines far above the others are left out.
        labels: Label of every baseline by key.
        rate: Mean spike rate that the network runs at.
        images: (rate, energy in pJ) of every image: the spread round the operating point.
    """
    if not lines or rate <= 0:
        return Markup("")
    snn = float(lines[0]["snn_pj"])
    shown = [line for line in lines if line["baseline_pj"] <= 4 * max(snn, _dense(lines))]
    fixed = float(lines[0]["fixed_pj"])
    crossings = [line["break_even_rate"] for line in shown if line["break_even_rate"]]
    far = min(1.0, max([2 * rate, *(1.15 * value for value in crossings if value <= 1), *(at for at, _ in images)]))
    costs = [*(line["baseline_pj"] for line in shown), *(cost for _, cost in images)]
    top = 1.1 * max(fixed + (snn - fixed) * far / rate, snn, *costs)
    parts = [_axes(far, top)]
    ends: list[tuple[float, str, str]] = []
    for line in shown:
        height = _y(line["baseline_pj"], top)
        parts.append(_line(LEFT, height, WIDTH - RIGHT, height, "ann"))
        ends.append((height, labels[line["baseline"]], "ann"))
    end = fixed + (snn - fixed) * far / rate
    parts += [_text(LEFT + 8, height, text, style) for height, text, style in _spread_labels(ends)]
    parts.append(_line(LEFT, _y(fixed, top), WIDTH - RIGHT, _y(end, top), "snn"))
    spread = '<g><title>{}</title><circle class="spread" cx="{:.1f}" cy="{:.1f}" r="3"/></g>'
    for at, cost in images if len(images) > 1 else ():
        said = f"one image: {numbers.percent(at)}, {numbers.energy(cost)}"
        parts.append(Markup(spread).format(said, _x(at, far), _y(cost, top)))
    point = '<circle class="point" cx="{:.1f}" cy="{:.1f}" r="5"/>'
    parts.append(Markup(point).format(_x(rate, far), _y(snn, top)))
    here = f"this network: {numbers.percent(rate)}, {numbers.energy(snn)}"
    parts.append(_text(WIDTH - RIGHT, 12, here, "here"))
    words = "; ".join(str(line["words"]).rstrip(".") for line in shown)
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}" focusable="false">{}</svg>'
    ).format(WIDTH, HEIGHT, f"Energy against spike rate. {words}.", Markup("").join(parts))


def _dense(lines: Sequence[Mapping[str, Any]]) -> float:
    return next((float(line["baseline_pj"]) for line in lines if line["baseline"] == "ann_dense"), 0.0)


def _axes(far: float, top: float, said: Callable[[float], str] = numbers.energy) -> Markup:
    parts = [
        _line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"),
        _line(LEFT, TOP, LEFT, HEIGHT - BOTTOM, "axis"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "mean spike rate", "middle"),
    ]
    for part in (0.0, 0.5, 1.0):
        parts.append(_text(_x(part * far, far), HEIGHT - BOTTOM + 16, numbers.percent(part * far), _anchor(part)))
        parts.append(_text(LEFT - 6, _y(part * top, top) + 4, said(part * top) if part else "0", "end"))
        parts.append(_line(LEFT - 4, _y(part * top, top), LEFT, _y(part * top, top), "axis"))
    return Markup("").join(parts)


def _anchor(part: float) -> str:
    return "end" if part == 1.0 else "middle"


def _spread_labels(ends: Sequence[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Labels just above their lines, pushed apart where lines lie close."""
    placed: list[tuple[float, str, str]] = []
    below = HEIGHT - BOTTOM - 4.0 + SMALLEST_GAP
    for height, text, style in sorted(ends, reverse=True):
        place = min(height - 5, below - SMALLEST_GAP)
        placed.append((place, text, style))
        below = place
    return placed


def _x(rate: float, far: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * rate / far


def _y(energy: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * energy / top


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    shape = '<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
    return Markup(shape).format(style, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, style: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(style, x, y, escape(text))


def break_even_of_several(courses: Sequence[Mapping[str, Any]], against: str) -> Markup:
    """Energy in times of a baseline's against spike rate, a line a network; at 1 both cost the same.

    Args:
        courses: ``model, style, rate, ratio, fixed, images, words`` of each: ``ratio`` at its ``rate``, ``fixed``
            without a spike, ``images`` its (rate, ratio) image by image.
        against: What they are compared with, in words.
    """
    points = [(one["rate"], one["ratio"]) for one in courses] + [at for one in courses for at in one["images"]]
    evens = [one["break_even"] for one in courses if one["break_even"] and one["break_even"] <= 1]
    most = max(at for at, _ in points)
    far = min(1.0, max(1.25 * most, *(1.1 * even for even in evens if even <= 4 * most), 1e-6))
    ends = [one["fixed"] + (one["ratio"] - one["fixed"]) * far / one["rate"] for one in courses]
    top = 1.1 * max(1.0, *ends, *(ratio for _, ratio in points))
    parts = [_axes(far, top, numbers.ratio), _line(LEFT, _y(1, top), WIDTH - RIGHT, _y(1, top), "ann")]
    for one, end in zip(courses, ends, strict=True):
        title = f"{one['model']}: {numbers.percent(one['rate'])}, {numbers.ratio(one['ratio'])}"
        line = _line(LEFT, _y(one["fixed"], top), WIDTH - RIGHT, _y(end, top), f"snn line-{one['style']}")
        parts.append(_titled(title, line))
        for at, ratio in one["images"]:
            said = f"{one['model']}, one image: {numbers.percent(at)}, {numbers.ratio(ratio)}"
            parts.append(_titled(said, _dot(at, ratio, far, top, f"spread part-{one['style']}", 3)))
        parts.append(_titled(title, _dot(one["rate"], one["ratio"], far, top, f"point part-{one['style']}", 5)))
    parts.append(_text(LEFT + 8, _y(1, top) - 5, "both cost the same", "ann"))
    words = "; ".join(
        f"{one['model']} {numbers.ratio(one['ratio'])} at {numbers.percent(one['rate'])}" for one in courses
    )
    label = f"Energy in times of that of {against}, against spike rate: {words}."
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}" focusable="false">{}</svg>'
    ).format(WIDTH, HEIGHT, label, Markup("").join(parts))


def _titled(title: str, shape: Markup) -> Markup:
    return Markup("<g><title>{}</title>{}</g>").format(title, shape)


def _dot(rate: float, height: float, far: float, top: float, style: str, radius: int) -> Markup:
    circle = '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>'
    return Markup(circle).format(style, _x(rate, far), _y(height, top), radius)
