"""Which places of a source a run of a layer's places reads: for axons, and for traffic between chips.

A layer's neurons stand in the order of its places, row by row, all channels of a place together: neuron
``place * C + channel``. A core, or a chip, holds a run of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from neurodeploy.hardware.shapes import Shape
from neurodeploy.quantize.network import IntegerConv, IntegerDense, IntegerFlatten, IntegerNetwork


@dataclass(frozen=True)
class Link:
    """The synapses from one source layer (or the input) into one layer of neurons.

    Attributes:
        source: The node whose outputs arrive, looked at through a flatten.
        shape: (C, h, w) of the source.
        node: The convolution; None where every neuron reads the whole source (a matrix).
        out: (h', w') of the layer.
        late: A feedback edge lies in between.
    """

    source: str
    shape: Shape
    node: IntegerConv | None
    out: tuple[int, int]
    late: bool = False

    def reached(self, first: int, last: int) -> tuple[int, NDArray[np.bool_]]:
        """The places of the source that the places ``first`` to ``last - 1`` of the layer read.

        Returns:
            The first row of a map, and the map (rows, w): True where a place is read.
        """
        _, height, width = self.shape
        if self.node is None:
            return 0, np.ones((height, width), np.bool_)
        pieces = [
            (_read(self.node, 0, rows, height), _read(self.node, 1, columns, width))
            for rows, columns in _rectangles(first, last, self.out[1])
        ]
        pieces = [(rows, columns) for rows, columns in pieces if rows and columns]
        if not pieces:
            return 0, np.zeros((0, width), np.bool_)
        top, bottom = min(rows[0] for rows, _ in pieces), max(rows[-1] for rows, _ in pieces) + 1
        found = np.zeros((bottom - top, width), np.bool_)
        for rows, columns in pieces:
            found[np.ix_(np.asarray(rows) - top, np.asarray(columns))] = True
        return top, found


def links_into(net: IntegerNetwork, name: str, shapes: Mapping[str, Shape]) -> tuple[Link, ...]:
    """The links into one layer of neurons, one a convolution or matrix before it."""
    found = []
    for before in net.sources(name):
        node = net.nodes[before]
        if isinstance(node, IntegerConv | IntegerDense):
            conv = node if isinstance(node, IntegerConv) else None
            for source, late in _roots(net, before):
                late = late or (before, name) in net.feedback
                found.append(Link(source, shapes[source], conv, shapes[name][1:], late))
    return tuple(found)


def inputs_of_run(links: tuple[Link, ...], length: int, places: int) -> int:
    """Source neurons that a run of ``length`` places reads, where it reads most.

    Counted for runs that start in the middle of the layer, at the left edge and halfway along a row; a longer run never
    reads less.
    """
    if not links:
        return 0
    width = links[0].out[1]
    middle = (places // width // 2) * width
    starts = {min(start, places - length) for start in (middle, middle + width // 2)}
    return max(_inputs(links, start, start + length) for start in starts)


def longest_run(links: tuple[Link, ...], places: int, limit: int) -> int:
    """The most places whose inputs are at most ``limit`` source neurons; 0 where one place reads more."""
    low, high = 0, 1
    while high < places and inputs_of_run(links, high, places) <= limit:
        low, high = high, min(2 * high, places)
    while low < high:
        tried = (low + high + 1) // 2
        low, high = (tried, high) if inputs_of_run(links, tried, places) <= limit else (low, tried - 1)
    return low


def _inputs(links: tuple[Link, ...], first: int, last: int) -> int:
    """Distinct source neurons; a source that arrives through two convolutions counts once."""
    maps: dict[str, NDArray[np.bool_]] = {}
    channels = {link.source: link.shape[0] for link in links}
    for link in links:
        top, read = link.reached(first, last)
        whole = maps.setdefault(link.source, np.zeros(link.shape[1:], np.bool_))
        whole[top : top + len(read)] |= read
    return sum(int(read.sum()) * channels[source] for source, read in maps.items())


def _rectangles(first: int, last: int, width: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """A run of places as at most three rectangles ((row, row end), (column, column end))."""
    top, bottom = first // width, (last - 1) // width
    left, right = first % width, (last - 1) % width + 1
    if top == bottom:
        yield (top, top + 1), (left, right)
        return
    if left == 0 and right == width:
        yield (top, bottom + 1), (0, width)
        return
    yield (top, top + 1), (left, width)
    if bottom - top > 1:
        yield (top + 1, bottom), (0, width)
    yield (bottom, bottom + 1), (0, right)


def _read(node: IntegerConv, axis: int, outputs: tuple[int, int], length: int) -> tuple[int, ...]:
    kernel = node.weight.shape[2 + axis]
    return _read_along(outputs, length, kernel, node.stride[axis], node.padding[axis], node.dilation[axis])


@lru_cache(maxsize=4096)
def _read_along(
    outputs: tuple[int, int], length: int, kernel: int, stride: int, padding: int, dilation: int
) -> tuple[int, ...]:
    """Places of one axis that a range of outputs reads in bounds, in order."""
    places = np.arange(*outputs)[:, None] * stride - padding + np.arange(kernel)[None, :] * dilation
    return tuple(int(place) for place in np.unique(places[(places >= 0) & (places < length)]))


def _roots(net: IntegerNetwork, name: str) -> Iterator[tuple[str, bool]]:
    """What a weight layer reads, looked at through flattens, and whether over a feedback edge."""
    for source in net.sources(name):
        late = (source, name) in net.feedback
        if isinstance(net.nodes[source], IntegerFlatten):
            yield from ((root, late or before) for root, before in _roots(net, source))
        else:
            yield source, late
