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


def is_counted(link: Connection) -> bool:
    """Whether the kernel counts what arrives over a connection: one without groups, or one synapse a channel."""
    one = isinstance(link.node, IntegerConv) and link.node.weight.shape[1:] == (1, 1, 1)
    return is_plain(link) or (one and len(link.node.weight) == link.node.groups)  # type: ignore[union-attr]


class LinkTables:
    """The tables of all convolutions behind each source of a network, made when they are first asked for."""

    def __init__(self, by_source: Mapping[str, Sequence[Connection]]) -> None:
        self._by_source = by_source
        self._known: dict[tuple[object, ...], Mapping[str, Links]] = {}

    def of(
        self, names: Sequence[str], shapes: Mapping[str, Shape], *, size: Pair, origin: Pair, extent: Pair | None
    ) -> Mapping[str, Links]:
        """Of the connections behind sources; the same object for the same places.

        Args:
            names: The sources; only convolutions without groups read them.
            shapes: Of all nodes, each with the channels as they are held.
            size: Rows and columns of the input that are shown.
            origin: Row and column of the first place that is shown.
            extent: (H, W) of every source, of which ``size`` is a part; None where all of every source is shown.
        """
        key = tuple(names), size, origin, extent
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= KEPT:
                self._known.clear()
            found = self._known[key] = {
                name: Links(
                    [
                        _taps(link.node, origin, size if extent else shapes[name][1:], extent or shapes[name][1:])
                        for link in self._by_source[name]
                    ],
                    shapes[name][0],
                )
                for name in names
            }
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
        kernel = (node.weight.shape[2], node.weight.shape[3])
        sources.append((marks, size, Spread(kernel, node.stride, node.padding, node.dilation)))
    return receiving(sources, steps, extent)
