"""The one form in which an integer network is exported and compared, out of many that compute the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from heapq import heapify, heappop, heappush

from neurodeploy.graph.portable import UNIT
from neurodeploy.graph.spec import DECAY_ONE
from neurodeploy.quantize.levels import expand_levels, fold_levels
from neurodeploy.quantize.network import IntegerDense, IntegerFlatten, IntegerLif, IntegerNetwork, IntegerNode


def canonical(net: IntegerNetwork) -> IntegerNetwork:
    """The same integers in the gauge of the files.

    Every unit of current is 2^-8 and ``output_scale`` takes up the rest (an output that counts spikes keeps the unit
    1); levels are folded; with one time step every decay is 4096, because nothing is there yet that could decay; what
    is flat already is not flattened. With feedback, of all running orders of the nodes it is the one by names.
    """
    net = ordered(fold_levels(expand_levels(without_idle_flattens(net))))
    counts_spikes = any(isinstance(net.nodes[source], IntegerLif) for source in net.sources(net.readout.name))
    unit = 1.0 if counts_spikes else UNIT
    host = net.host.model_copy(update={"output_scale": net.output_scale / unit})
    units = {node.name: UNIT for node in net.lifs()} | {net.readout.name: unit}
    nodes: dict[str, IntegerNode] = dict(net.nodes)
    if host.steps == 1:
        nodes |= {node.name: replace(node, v_decay=DECAY_ONE, i_decay=DECAY_ONE) for node in net.lifs()}
    return replace(net, nodes=nodes, host=host, units=units)


def ordered(net: IntegerNetwork) -> IntegerNetwork:
    """The same network with feedback in the running order that takes, of the nodes whose turn it is, the first by name.

    The readout comes last. A network without feedback stays as it is.
    """
    if not net.feedback:
        return net
    last = net.readout.name
    forward = [edge for edge in net.edges if edge not in net.feedback]
    missing = Counter(target for _, target in forward)
    targets: dict[str, list[str]] = {name: [] for name in net.nodes}
    for source, target in forward:
        targets[source].append(target)
    free = [(name == last, name) for name in net.nodes if not missing[name]]
    heapify(free)
    nodes: dict[str, IntegerNode] = {}
    while free:
        _, name = heappop(free)
        nodes[name] = net.nodes[name]
        for target in targets[name]:
            missing[target] -= 1
            if not missing[target]:
                heappush(free, (target == last, target))
    return replace(net, nodes=nodes)


def without_idle_flattens(net: IntegerNetwork) -> IntegerNetwork:
    """The same network without a flatten of what is flat already, at which Lava's netx fails."""
    for name, node in net.nodes.items():
        if isinstance(node, IntegerFlatten) and (len(sources := net.sources(name)) == 1 and _is_flat(net, sources[0])):
            nodes = {key: value for key, value in net.nodes.items() if key != name}
            edges = [(sources[0] if start == name else start, end) for start, end in net.edges if end != name]
            return without_idle_flattens(replace(net, nodes=nodes, edges=tuple(edges)))
    return net


def _is_flat(net: IntegerNetwork, name: str) -> bool:
    """Whether what a node puts out has no grid: it comes from a matrix product or a flatten."""
    node = net.nodes[name]
    if isinstance(node, IntegerLif):
        return all(_is_flat(net, source) for source in net.sources(name))
    return isinstance(node, IntegerDense | IntegerFlatten)
