"""How a network's cores go onto several chips, and what has to travel between them: an estimate.

Three ways are tried. ``layers in a row`` fills chip after chip. ``whole layers`` starts a chip anew where a layer would
be cut that fits on one. ``bands of rows`` gives every chip a band of the picture through all layers, as tiles do, so
that spikes cross at the seams alone. The one with the fewest chips is taken, and of those the one with the least
traffic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neurodeploy.hardware.placement import LayerPlacement, Placement, neurons_a_core
from neurodeploy.hardware.profile import Profile
from neurodeploy.hardware.reach import Link, links_into
from neurodeploy.hardware.shapes import Size, layer_shapes
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import IntegerNetwork

MOST_CHIPS = 512
"""Beyond this nothing is planned: the answer is to run tiles."""
CHIPS_LISTED = 64
"""Parts are listed for so many chips; the rest looks alike."""
BANDS_TRIED = 4
"""Bands may need more chips than the cores alone, because every band rounds up; so many times as many are tried."""


Listener = tuple[Link, int, int]
"""A link from a source, and the first and the last place (excluded) of its layer that a chip holds."""


@dataclass(frozen=True)
class Part:
    """A run of one layer's neurons on one chip: neurons ``first`` to ``last - 1`` in the order of the places."""

    layer: str
    chip: int
    cores: int
    first: int
    last: int


@dataclass(frozen=True)
class Crossing:
    """Spikes of one layer that other chips listen to.

    Attributes:
        pairs: Pairs of a neuron and another chip with a core that listens to it: spikes a step if every neuron fired.
        spikes: Spikes an image that cross, at the layer's mean spike rate; None where no run told the rate.
    """

    layer: str
    pairs: int
    spikes: float | None


@dataclass(frozen=True)
class Plan:
    """One way to put a network on chips."""

    strategy: str
    chips: int
    parts: tuple[Part, ...]
    crossings: tuple[Crossing, ...]

    @property
    def pairs(self) -> int:
        """Pairs over all layers."""
        return sum(crossing.pairs for crossing in self.crossings)

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        spikes = [crossing.spikes for crossing in self.crossings]
        return {
            "strategy": self.strategy,
            "chips": self.chips,
            "cores_used": [sum(part.cores for part in self.parts if part.chip == chip) for chip in range(self.chips)],
            "parts": [part.__dict__ for part in self.parts if part.chip < CHIPS_LISTED],
            "traffic": {
                "pairs": self.pairs,
                "spikes_per_image": None if None in spikes else sum(value for value in spikes if value is not None),
                "layers": [crossing.__dict__ for crossing in self.crossings],
                "note": "a spike counts once for every other chip that listens; input and output are not in it",
            },
        }


def plan_chips(
    net: IntegerNetwork,
    placed: Placement,
    profile: Profile,
    size: Size,
    *,
    rates: Mapping[str, float] | None = None,
) -> list[Plan]:
    """Plans with weights shared, the best first; none where the profile does not know the cores of a chip.

    Args:
        net: The integer network, compact or expanded.
        placed: Its placement at ``size``.
        profile: The chip.
        size: (H, W) of the image that one run takes.
        rates: Mean spikes a neuron and image, by layer, from a run.
    """
    limit, chips = profile.capacity.cores_per_chip, placed.chips
    if limit is None or chips is None or placed.cores is None or chips[0] > MOST_CHIPS:
        return []
    room = _room(placed, profile, int(limit.value))
    expanded = expand_levels(net)
    shapes = layer_shapes(expanded, size)
    links = {layer.name: links_into(expanded, layer.name, shapes) for layer in placed.layers}
    ways: dict[str, list[Part] | None] = {"layers in a row": _row(placed.layers, room)}
    if chips[0] > 1:
        ways["whole layers"] = _whole(placed.layers, room)
        ways["bands of rows"] = _bands(placed.layers, room, chips[0])
    plans = [
        Plan(
            strategy=name,
            chips=1 + max(part.chip for part in parts),
            parts=tuple(parts),
            crossings=tuple(_crossings(placed.layers, parts, links, rates)),
        )
        for name, parts in ways.items()
        if parts
    ]
    return sorted(plans, key=lambda plan: (plan.chips, plan.pairs))


def _room(placed: Placement, profile: Profile, cores: int) -> int:
    """Cores of a chip that can be used: fewer than it has where the chip's neurons run out before."""
    neurons = profile.capacity.neurons_per_chip
    fullest = max(neurons_a_core(layer, _cores(layer)) for layer in placed.layers)
    return cores if neurons is None else max(1, min(cores, int(neurons.value) // fullest))


def _cores(layer: LayerPlacement) -> int:
    return layer.cores[0] if layer.cores else 1


def _cut(layer: LayerPlacement, pieces: Sequence[tuple[int, int]]) -> Iterator[Part]:
    """Parts of a layer for (chip, cores) in the order of its neurons."""
    each, first = neurons_a_core(layer, _cores(layer)), 0
    for chip, cores in pieces:
        last = min(layer.neurons, first + cores * each)
        yield Part(layer.name, chip, cores, first, last)
        first = last


def _row(layers: Sequence[LayerPlacement], room: int) -> list[Part]:
    parts: list[Part] = []
    chip, free = 0, room
    for layer in layers:
        pieces, left = [], _cores(layer)
        while left:
            if not free:
                chip, free = chip + 1, room
            taken = min(left, free)
            pieces.append((chip, taken))
            left, free = left - taken, free - taken
        parts += _cut(layer, pieces)
    return parts


def _whole(layers: Sequence[LayerPlacement], room: int) -> list[Part]:
    parts: list[Part] = []
    chip, free = 0, room
    for layer in layers:
        need = _cores(layer)
        if need > free and free < room:
            chip, free = chip + 1, room
        over = -(-need // room)  # chips that the layer takes, filled evenly
        pieces = []
        for place in range(over):
            taken = need // over + int(place < need % over)
            pieces.append((chip + place, taken))
        chip, free = chip + over - 1, (free if over == 1 else room) - pieces[-1][1]
        parts += _cut(layer, pieces)
    return parts


def _bands(layers: Sequence[LayerPlacement], room: int, at_least: int) -> list[Part] | None:
    for chips in range(at_least, min(MOST_CHIPS, BANDS_TRIED * at_least) + 1):
        parts: list[Part] = []
        used = [0] * chips
        for layer in layers:
            each = neurons_a_core(layer, _cores(layer))
            for chip in range(chips):
                first, last = (_edge(layer, chip + side, chips) for side in (0, 1))
                if first < last:
                    cores = -(-(last - first) // each)
                    used[chip] += cores
                    parts.append(Part(layer.name, chip, cores, first, last))
        if max(used) <= room:
            return parts
    return None


def _edge(layer: LayerPlacement, chip: int, chips: int) -> int:
    """First neuron of a band: whole rows where there are enough of them, whole places otherwise."""
    channels, height, width = layer.shape
    unit = channels * width if height >= chips else channels
    units = layer.neurons // unit
    return units * chip // chips * unit


def _crossings(
    layers: Sequence[LayerPlacement],
    parts: Sequence[Part],
    links: Mapping[str, tuple[Link, ...]],
    rates: Mapping[str, float] | None,
) -> Iterator[Crossing]:
    held: dict[tuple[str, int], Part] = {(part.layer, part.chip): part for part in parts}
    channels = {layer.name: layer.shape[0] for layer in layers}
    pairs = dict.fromkeys(channels, 0)
    heard: dict[tuple[str, int], list[Listener]] = {}
    for part in parts:
        many = channels[part.layer]
        places = part.first // many, -(-part.last // many)
        for link in links[part.layer]:
            if link.source in channels:
                heard.setdefault((link.source, part.chip), []).append((link, *places))
    for (source, chip), listeners in heard.items():
        pairs[source] += _from_elsewhere(listeners, held.get((source, chip)))
    for layer in layers:
        if any(link.source == layer.name for into in links.values() for link in into):
            spikes = None if rates is None else pairs[layer.name] * rates.get(layer.name, 0.0)
            yield Crossing(layer.name, pairs[layer.name], spikes)


def _from_elsewhere(listeners: Sequence[Listener], own: Part | None) -> int:
    """Neurons of one source that any of a chip's listeners reads and that are not on that chip."""
    channels, height, width = listeners[0][0].shape
    read = _union(listeners, height)
    reached = int(sum(row.sum() for row in read.values())) * channels
    if own is None:
        return reached
    inside = 0
    for row, marks in read.items():
        start = row * width * channels
        first, last = max(own.first - start, 0), min(own.last - start, width * channels)
        if first >= last:
            continue
        left, right = -(-first // channels), last // channels
        if left > right:  # a part of one place
            inside += (last - first) * int(marks[right])
            continue
        inside += channels * int(marks[left:right].sum())
        inside += (left * channels - first) * int(marks[left - 1]) if left * channels > first else 0
        inside += (last - right * channels) * int(marks[right]) if last > right * channels else 0
    return reached - inside


def _union(listeners: Sequence[Listener], height: int) -> dict[int, Any]:
    """Row -> marks of the places that any of the listeners reads."""
    found: dict[int, Any] = {}
    for link, first, last in listeners:
        top, read = link.reached(first, last)
        for offset, marks in enumerate(read):
            row = top + offset
            if row < height and marks.any():
                found[row] = marks if row not in found else found[row] | marks
    return found
