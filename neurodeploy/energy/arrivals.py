"""Counting with the compiled kernel: what it is told of a network's convolutions, once an image size.

It counts what :mod:`neurodeploy.energy.count` counts step by step in numpy, for sources that only convolutions without
groups read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from neurodeploy.energy.connections import Connection
from neurodeploy.energy.geometry import Pair, Shape, conv_taps, covered, nonzero_outputs
from neurodeploy.errors import InternalError
from neurodeploy.quantize.network import IntegerConv
from neurodeploy.simulate.kernel.counts import Links, Spread, Taps, receiving
from neurodeploy.simulate.observe import BoolArray

KEPT = 256
"""Tables that are kept: those of the tiles of one picture, at most."""


def is_plain(link: Connection) -> bool:
    """Whether a connection is a convolution without groups."""
    return isinstance(link.node, IntegerConv) and link.node.groups == 1


class LinkTables:
    """The tables of all convolutions behind each source of a network, made when they are first asked for."""

    def __init__(self, by_source: Mapping[str, Sequence[Connection]]) -> None:
        self._by_source = by_source
        self._known: dict[tuple[str, Pair, tuple[int, int, int], Pair], Links] = {}

    def of(self, name: str, origin: Pair, shape: tuple[int, int, int], extent: Pair) -> Links:
        """Of the connections behind a source.

        Args:
            name: The source; only convolutions without groups read it.
            origin: Row and column of the first place that is shown.
            shape: Its channels as they are held, and the rows and columns that are shown.
            extent: (H, W) of the whole source.
        """
        key = name, origin, shape, extent
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= KEPT:
                self._known.clear()
            found = self._known[key] = Links(
                [_taps(link.node, origin, shape[1:], extent) for link in self._by_source[name]], shape[0]
            )
        return found


def _taps(node: object, origin: Pair, size: Pair, extent: Pair) -> Taps:
    if not isinstance(node, IntegerConv):
        raise InternalError(f"{node} is no convolution")
    rows, columns = conv_taps(node, extent)
    rows, columns = rows[origin[0] : origin[0] + size[0]], columns[origin[1] : origin[1] + size[1]]
    if (len(rows), len(columns)) != size:
        raise InternalError(f"places {origin} + {size} lie outside the layer's {extent}")
    return Taps(rows > 0, columns > 0, nonzero_outputs(node).astype(np.int64))


def places_reached(
    links: Sequence[Connection], arrived: Mapping[str, BoolArray], shapes: Mapping[str, Shape], extent: Pair, steps: int
) -> list[int]:
    """Outputs of a layer that receive anything, in every step.

    Args:
        links: All its connections; convolutions without groups.
        arrived: For sources that did not spike everywhere in every step, (T, h, w): where any channel did.
        shapes: Of all nodes.
        extent: (H, W) of the layer.
        steps: T.
    """
    everything = extent[0] * extent[1]
    sources = []
    for link in links:
        node, size = link.node, shapes[link.source][1:]
        if not isinstance(node, IntegerConv):
            raise InternalError(f"{link.name} is no convolution")
        marks = arrived.get(link.source)
        if marks is None:
            rows, columns = covered(node, size)
            reached = int(np.count_nonzero(rows)) * int(np.count_nonzero(columns))
            if reached == everything or len(links) == 1:
                return [reached] * steps
            marks = np.ones((steps, *size), np.bool_)
        kernel = (node.weight.shape[2], node.weight.shape[3])
        sources.append((marks, Spread(kernel, node.stride, node.padding, node.dilation)))
    return receiving(sources, steps, extent)
