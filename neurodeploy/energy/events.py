"""What events meet at the connections behind a layer, and where they arrive: functions of a connection and of arrays.

The compiled kernel counts most of this itself, see :mod:`neurodeploy.energy.arrivals`; this is the way in numpy, for
every kind of connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import lcm

import numpy as np
from numpy.typing import NDArray

from neurodeploy.energy.connections import Connection
from neurodeploy.energy.geometry import Pair, Shape, nonzero_outputs, reached, tap_histogram
from neurodeploy.quantize.network import IntegerConv, IntegerDense
from neurodeploy.simulate.observe import BoolArray

Floats = NDArray[np.float64]


def outputs_of(link: Connection) -> int:
    """Neurons of one population that an input reaches through one tap."""
    if isinstance(link.node, IntegerConv):
        return int(link.node.weight.shape[0]) // link.node.groups
    return int(link.node.weight.shape[0]) if link.node is not None else 1


def groups_of(link: Connection, shapes: Mapping[str, Shape]) -> int:
    """How many parts of the source's channels reach different neurons."""
    if isinstance(link.node, IntegerConv):
        return link.node.groups
    return shapes[link.source][0] if link.node is None else 1


def weights_at(link: Connection) -> Floats:
    """Weights other than 0 that an event meets: (I, kh, kw) for a convolution, (I,) for a matrix, 1 for a bare edge."""
    if isinstance(link.node, IntegerConv):
        return nonzero_outputs(link.node)
    if isinstance(link.node, IntegerDense):
        counted: Floats = (link.node.weight != 0).sum(axis=0, dtype=np.float64)
        return counted
    return np.ones(())


def shown_weights(counted: Floats, link: Connection, source: Shape, size: Pair, origin: Pair) -> Floats:
    """What :func:`weights_at` counted, in the shape of the events' histogram: of a matrix only the part that was shown.

    Args:
        counted: The weights of ``link``.
        link: The connection.
        source: Shape (C, H, W) of all of its source.
        size: Rows and columns of the source that were shown.
        origin: Row and column of the first place that was shown.
    """
    if not isinstance(link.node, IntegerDense):
        return counted
    rows, columns = (slice(first, first + length) for first, length in zip(origin, size, strict=True))
    part: Floats = counted.reshape(source)[:, rows, columns]
    return part


def histograms(links: Sequence[Connection], events: Floats, origin: Pair, extent: Pair) -> dict[str, Floats]:
    """How often every tap of every convolution is reached; the events themselves where there are no taps.

    Args:
        links: Connections behind one source.
        events: (C, h, w), how often something left each place of the source.
        origin: Row and column of ``events[:, 0, 0]`` in the whole source.
        extent: (H, W) of the whole source.

    Returns:
        Name of the connection -> (C, kh, kw) for a convolution, else (C, h, w).
    """
    shared: dict[tuple[object, ...], Floats] = {}
    found: dict[str, Floats] = {}
    for link in links:
        if isinstance(link.node, IntegerConv):
            node = link.node
            key = (node.weight.shape[2:], node.stride, node.padding, node.dilation)
            if key not in shared:
                shared[key] = tap_histogram(events, node, origin, extent)
            found[link.name] = shared[key]
        else:
            found[link.name] = events
    return found


def receiving(
    links: Sequence[Connection],
    arrived: Mapping[tuple[str, int], BoolArray],
    shapes: Mapping[str, Shape],
    shape: Shape,
    steps: int,
) -> BoolArray:
    """Where the neurons of a group of channels receive anything, at every step.

    Args:
        links: All connections into the layer.
        arrived: (spiking source, groups) -> (T, groups, h, w): where any channel of the group spiked.
        shapes: Of all nodes.
        shape: (C, H, W) of the layer.
        steps: T.

    Returns:
        (T, G, H, W), G the least common multiple of the connections' groups.
    """
    maps: list[BoolArray] = []
    for link in links:
        groups = groups_of(link, shapes)
        marks = np.ones((1, groups, *shapes[link.source][1:]), np.bool_)  # the same in all steps
        if link.spiking:
            marks = arrived[(link.source, groups)]
            if link.delay:
                marks = np.concatenate([np.zeros_like(marks[: link.delay]), marks[: -link.delay]])
        if isinstance(link.node, IntegerDense):
            any_at = marks.any(axis=(1, 2, 3), keepdims=True)
            maps.append(np.broadcast_to(any_at, (len(marks), 1, *shape[1:])))
            continue
        if isinstance(link.node, IntegerConv):
            joined = reached(marks.reshape(-1, *marks.shape[2:]), link.node)
            marks = joined.reshape(len(marks), groups, *joined.shape[1:])
        if marks.shape[2:] != shape[1:]:  # a flatten lies between
            channels = shape[0] // (marks.shape[2] * marks.shape[3])
            marks = np.repeat(marks, channels // groups, axis=1).reshape(len(marks), *shape)
        maps.append(marks)
    if len(maps) == 1:
        return np.broadcast_to(maps[0], (steps, *maps[0].shape[1:]))
    together = np.zeros((steps, lcm(*(found.shape[1] for found in maps)), *shape[1:]), np.bool_)
    for found in maps:
        together |= np.repeat(found, together.shape[1] // found.shape[1], axis=1)
    return together
