"""What ticks cost: graded events of the host that reach neurons over synapses of their own, once each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neurodeploy.energy.tally import LayerCounts
from neurodeploy.errors import InternalError
from neurodeploy.quantize.bursts import tick_links
from neurodeploy.quantize.network import IntegerConv, IntegerNetwork


def tick_operations(net: IntegerNetwork) -> dict[str, NDArray[np.int64]]:
    """Neurons -> (T,) synapses that ticks arrive at in each step, a place; nothing for a network without ticks.

    A channel of ticks has no synapse where its weight is 0.
    """
    codes = net.input.channels - len(net.host.ticks)
    found: dict[str, NDArray[np.int64]] = {}
    for name in sorted(tick_links(net)):
        node = net.nodes[name]
        if not isinstance(node, IntegerConv) or node.weight.shape[2:] != (1, 1):
            raise InternalError(f"{name}: ticks come over something else than a 1 x 1 convolution")
        synapses = np.count_nonzero(node.weight[:, codes:, 0, 0], axis=0)
        arriving = np.zeros(net.host.steps, np.int64)
        for count, channel in zip(synapses, net.host.ticks, strict=True):
            for step, _ in channel:
                arriving[step] += count
        for target in net.targets(name):
            found[target] = found.get(target, np.zeros(net.host.steps, np.int64)) + arriving
    return found


def book_ticks(row: LayerCounts, arriving: NDArray[np.int64], source: str) -> None:
    """Adds them to a layer, as multiply-accumulates: what a tick carries is a number.

    Args:
        row: The layer.
        arriving: (T,) synapses a place, as :func:`tick_operations` gives them.
        source: The node that they come from.
    """
    places = row.shape[1] * row.shape[2]
    counts = [int(count) * places for count in arriving]
    row.mac += sum(counts)
    row.mac_nonzero += sum(counts)
    row.per_step["mac"] = [old + new for old, new in zip(row.per_step["mac"], counts, strict=True)]
    if (source, False) not in row.driven_by:
        row.driven_by = (*row.driven_by, (source, False))
