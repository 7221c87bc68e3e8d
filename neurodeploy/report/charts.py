"""More inline SVG for the pages: histograms, tornado bars, placement maps; and heat maps as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from neurodeploy.report import numbers
from neurodeploy.report.png import png_uri
from neurodeploy.report.svg import COLOURS

CHIPS_SHOWN = 12
CORES_A_ROW = 16
CELL = 9
_DARK, _MIDDLE, _LIGHT = (18, 22, 28), (14, 124, 134), (252, 233, 170)
"""Ends and middle of the scale of a heat map: dark for no spike, light for the highest rate."""


def heat_map(values: Sequence[Sequence[float]]) -> str:
    """A table of rates as a picture, one pixel a value, the highest one lightest; a data URI."""
    table = np.asarray(values, np.float64)
    top = float(table.max(initial=0.0))
    share = table / top if top > 0 else np.zeros_like(table)
    low, middle, high = (np.asarray(colour, np.float64)[:, None, None] / 255 for colour in (_DARK, _MIDDLE, _LIGHT))
    lower, upper = np.clip(2 * share, 0, 1), np.clip(2 * share - 1, 0, 1)
    return png_uri(low + (middle - low) * lower + (high - middle) * upper)


def highest(values: Sequence[Sequence[float]]) -> float:
    """The largest value of a table."""
    return max((value for row in values for value in row), default=0.0)


def histogram(membrane: Mapping[str, Any], name: str) -> Markup:
    """Membranes just before they may spike; heights are square roots of counts, thresholds are upright lines."""
    edges, counts, thresholds = membrane["edges"], membrane["counts"], membrane["thresholds"]
    width, height, foot = 300, 110, 16
    span, top = edges[-1] - edges[0], sqrt(max(counts, default=0) or 1)
    parts = []
    for left, right, count in zip(edges, edges[1:], counts, strict=False):
        if not count:
            continue
        tall = (height - foot - 6) * sqrt(count) / top
        bar = '<g><title>{}</title><rect class="fill" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/></g>'
        words = f"{left:,.0f} to {right:,.0f}: {count:,} neurons and steps"
        parts.append(
            Markup(bar).format(words, (left - edges[0]) / span * width, height - foot - tall, width / len(counts), tall)
        )
    for place, threshold in enumerate(thresholds):
        at = (threshold - edges[0]) / span * width
        line = '<g><title>{}</title><line class="ann" x1="{:.1f}" x2="{:.1f}" y1="2" y2="{}"/></g>'
        parts.append(Markup(line).format(f"threshold {place + 1}: {threshold:,}", at, at, height - foot))
    for value, anchor, at in ((edges[0], "start", 0), (0, "middle", width / 2), (edges[-1], "end", width)):
        text = '<text class="tick" text-anchor="{}" x="{:.0f}" y="{}">{}</text>'
        parts.append(Markup(text).format(anchor, at, height - 3, f"{value:,.0f}"))
    said = f"Membranes of {name}: {sum(counts):,} neurons and steps, {len(thresholds)} thresholds."
    return Markup(
        '<svg class="chart hist" viewBox="0 0 {} {}" role="img" aria-label="{}" focusable="false">{}</svg>'
    ).format(width, height, said, Markup("").join(parts))


def swing(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Markup:
    """One bar of a tornado: from the sum at the low end of a constant to that at its high end, the mark at the sum."""
    low, high = min(one["low_pj"] for one in rows), max(one["high_pj"] for one in rows)
    span = (high - low) or 1.0
    at = [100 * (row[key] - low) / span for key in ("low_pj", "base_pj", "high_pj")]
    return Markup(
        '<svg class="bar swing {}" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"'
        ' focusable="false"><rect class="track" width="100" height="10"/>'
        '<rect class="fill" x="{:.2f}" width="{:.2f}" height="10"/>'
        '<rect class="mark" x="{:.2f}" width="0.8" height="10"/></svg>'
    ).format("" if row["quoted"] else "second", at[0], max(at[2] - at[0], 0.4), min(at[1], 99.2))


def chip_maps(plan: Mapping[str, Any], cores: int) -> list[dict[str, Any]]:
    """Drawings of the first chips of a plan, core by core, layers by colour.

    Args:
        plan: As :func:`neurodeploy.hardware.plan.plan_chips` gives it.
        cores: Cores of a chip.

    Returns:
        ``chip, used, svg`` for each.
    """
    layers = layer_order(plan)
    drawn = []
    for chip in range(min(plan["chips"], CHIPS_SHOWN)):
        parts = [part for part in plan["parts"] if part["chip"] == chip]
        drawn.append({"chip": chip + 1, "used": plan["cores_used"][chip], "svg": _chip(parts, cores, layers, chip)})
    return drawn


def layer_order(plan: Mapping[str, Any]) -> list[str]:
    """The layers of a plan, each once, in order."""
    return list(dict.fromkeys(part["layer"] for part in plan["parts"]))


def _chip(parts: Sequence[Mapping[str, Any]], cores: int, layers: Sequence[str], chip: int) -> Markup:
    rows = -(-cores // CORES_A_ROW)
    shapes, first = [], 0
    for part in parts:
        path = "".join(_cell(core) for core in range(first, first + part["cores"]))
        words = f"{part['layer']}: {part['cores']} cores, neurons {part['first']:,} to {part['last'] - 1:,}"
        shape = '<g><title>{}</title><path class="part-{}" d="{}"/></g>'
        shapes.append(Markup(shape).format(words, layers.index(part["layer"]) % COLOURS, path))
        first += part["cores"]
    free = "".join(_cell(core) for core in range(first, cores))
    said = "; ".join(f"{part['layer']} {part['cores']} cores" for part in parts)
    return Markup(
        '<svg class="chip" viewBox="0 0 {} {}" role="img" aria-label="{}" focusable="false">'
        '<path class="track" d="{}"/>{}</svg>'
    ).format(
        CORES_A_ROW * CELL, rows * CELL, f"Chip {chip + 1}: {said}; {max(0, cores - first)} cores free", free,
        Markup("").join(shapes),
    )  # fmt: skip


def _cell(core: int) -> str:
    row, column = divmod(core, CORES_A_ROW)
    return f"M{column * CELL} {row * CELL}h{CELL - 1}v{CELL - 1}h-{CELL - 1}z"


def traffic_words(plan: Mapping[str, Any]) -> str:
    """What crosses between the chips of a plan, in words."""
    if plan["chips"] == 1:
        return "Nothing crosses between chips."
    traffic = plan["traffic"]
    spikes = traffic["spikes_per_image"]
    said = f"at most {numbers.count(traffic['pairs'])} spikes a step cross between chips"
    if spikes is not None:
        said = f"{numbers.count(round(spikes))} spikes an image cross between chips at the rates that were met; {said}"
    return str(escape(said[0].upper() + said[1:])) + "."
