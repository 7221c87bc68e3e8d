"""The one form in which an integer network is exported and compared, out of many that compute the same."""

from __future__ import annotations

from dataclasses import replace

from neurodeploy.graph.portable import UNIT
from neurodeploy.graph.spec import DECAY_ONE
from neurodeploy.quantize.levels import expand_levels, fold_levels
from neurodeploy.quantize.network import IntegerLif, IntegerNetwork, IntegerNode


def canonical(net: IntegerNetwork) -> IntegerNetwork:
    """The same integers in the gauge of the files.

    Every unit of current is 2^-8 and ``output_scale`` takes up the rest (an output that counts spikes keeps the unit
    1); levels are folded; with one time step every decay is 4096, because nothing is there yet that could decay.
    """
    net = fold_levels(expand_levels(net))
    counts_spikes = any(isinstance(net.nodes[source], IntegerLif) for source in net.sources(net.readout.name))
    unit = 1.0 if counts_spikes else UNIT
    host = net.host.model_copy(update={"output_scale": net.output_scale / unit})
    units = {node.name: UNIT for node in net.lifs()} | {net.readout.name: unit}
    nodes: dict[str, IntegerNode] = dict(net.nodes)
    if host.steps == 1:
        nodes |= {node.name: replace(node, v_decay=DECAY_ONE, i_decay=DECAY_ONE) for node in net.lifs()}
    return replace(net, nodes=nodes, host=host, units=units)
