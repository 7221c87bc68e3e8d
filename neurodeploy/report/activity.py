"""What the neurons did on one picture: spike rates by channel and step, rates over the picture, membranes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import InternalError
from neurodeploy.images.datasets import Sample
from neurodeploy.quantize.network import IntegerLif, IntegerNetwork
from neurodeploy.simulate.observe import BoolArray, IntArray, Pair
from neurodeploy.simulate.reference import LIMIT, decay
from neurodeploy.simulate.restore import restore

SIDE = 96
"""Side of the centre of the picture that is looked at."""
MAP_SIDE = 32
"""Side of the map of rates, at most."""
CHANNELS = 128
"""Channels of a raster, at most: the first ones."""
BINS = 60
REACH = 3
"""Membranes are counted up to so many times the largest threshold; the last bins hold what lies beyond."""

Floats = NDArray[np.float64]


@dataclass
class _Layer:
    """Sums over the places and steps seen so far."""

    node: IntegerLif
    fired: Floats
    """(T, D, C), spikes over all places."""
    places: Floats
    """(H, W), spikes over all channels, steps and populations."""
    edges: Floats
    bins: NDArray[np.int64]
    before: dict[Pair, IntArray] = field(default_factory=dict)
    """Membranes of the first population after the step before, by tile."""


class ActivityProbe:
    """An observer that keeps rates and a histogram of the membranes just before they may spike."""

    def __init__(self, net: IntegerNetwork) -> None:
        self.net = net
        self.layers: dict[str, _Layer] = {}

    def codes(self, *, codes: IntArray, origin: Pair, extent: Pair) -> None:
        """The input is of no interest here."""

    def layer(
        self,
        *,
        step: int,
        name: str,
        current: IntArray,
        u: IntArray,
        v: IntArray,
        fired: BoolArray,
        origin: Pair,
        extent: Pair,
    ) -> None:
        """Adds one step of one layer and tile."""
        del current
        kept = self.layers.get(name) or self._opened(name, fired, extent)
        height, width = fired.shape[-2:]
        kept.fired[step] += fired.sum(axis=(2, 3))
        window = (slice(origin[0], origin[0] + height), slice(origin[1], origin[1] + width))
        kept.places[window] += fired.sum(axis=(0, 1))
        node = kept.node
        last = kept.before.get(origin, np.zeros_like(v[0]))
        bias = (node.bias + node.levels[0])[:, None, None] << 6
        reached = np.clip(decay(last, _wide(node.v_decay)) + u + bias, 1 - LIMIT, LIMIT - 1)
        kept.before[origin] = v[0].copy()
        inside = np.clip(reached / 64.0, kept.edges[0], kept.edges[-1] - 1e-6)
        kept.bins += np.histogram(inside, kept.edges)[0]

    def as_dict(self) -> list[dict[str, Any]]:
        """A row a layer, with the keys of the JSON answers."""
        return [_row(name, kept, self.net.host.steps) for name, kept in self.layers.items()]

    def _opened(self, name: str, fired: BoolArray, extent: Pair) -> _Layer:
        node = self.net.nodes[name]
        if not isinstance(node, IntegerLif):
            raise InternalError(f"{name} is not a spiking layer")
        levels, channels = fired.shape[:2]
        far = float(max(1, *(abs(value) for value in _thresholds(node)))) * REACH
        kept = _Layer(
            node=node,
            fired=np.zeros((self.net.host.steps, levels, channels)),
            places=np.zeros(extent),
            edges=np.linspace(-far, far, BINS + 1),
            bins=np.zeros(BINS, np.int64),
        )
        self.layers[name] = kept
        return kept


def activity(net: IntegerNetwork, sample: Sample) -> dict[str, Any]:
    """Runs the centre of one picture and tells what its neurons did.

    Returns:
        ``image``, ``size`` (H, W) of the centre, and ``layers[]``: ``rate``; ``raster`` (channels, T * D), the share of
        a channel's neurons that spiked, step by step and, within a step, population by population; ``map`` (rows,
        columns), spikes a neuron and step; ``membrane`` with ``edges``, ``counts`` and ``thresholds`` in units of
        current, for the first population just before it may spike.
    """
    _, height, width = sample.degraded.shape
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    part = sample.degraded[:, top : top + SIDE, left : left + SIDE]
    probe = ActivityProbe(net)
    restore(net, part, observer=probe)
    return {"image": sample.name, "size": list(part.shape[1:]), "layers": probe.as_dict()}


def _thresholds(node: IntegerLif) -> list[int]:
    """Where each population fires, on the membrane of the first one."""
    return [node.vth - (level - node.levels[0]) for level in node.levels]


def _wide(value: int | IntArray) -> int | IntArray:
    return value if isinstance(value, int) else value[:, None, None]


def _row(name: str, kept: _Layer, steps: int) -> dict[str, Any]:
    levels, channels = kept.fired.shape[1:]
    places = kept.places.size
    raster = kept.fired[:, :, :CHANNELS].reshape(steps * levels, -1).T / places
    rates = kept.places / (steps * levels * channels)
    return {
        "name": name,
        "channels": channels,
        "steps": steps,
        "populations": levels,
        "rate": float(kept.fired.sum() / (places * steps * levels * channels)),
        "raster": _rounded(raster),
        "map": _rounded(_reduced(rates)),
        "membrane": {
            "edges": [float(edge) for edge in kept.edges],
            "counts": [int(count) for count in kept.bins],
            "thresholds": _thresholds(kept.node),
            "unit": "units of current, first population, just before it may spike",
        },
    }


def _reduced(rates: Floats) -> Floats:
    """Means over blocks, so that neither side is longer than MAP_SIDE."""
    rows, columns = (min(MAP_SIDE, side) for side in rates.shape)
    row_of = np.arange(rates.shape[0]) * rows // rates.shape[0]
    column_of = np.arange(rates.shape[1]) * columns // rates.shape[1]
    sums, sizes = np.zeros((rows, columns)), np.zeros((rows, columns))
    np.add.at(sums, (row_of[:, None], column_of[None, :]), rates)
    np.add.at(sizes, (row_of[:, None], column_of[None, :]), 1.0)
    found: Floats = sums / sizes
    return found


def _rounded(values: Floats) -> list[list[float]]:
    return [[round(float(value), 4) for value in row] for row in values]
