"""Small integer networks for the tests of counting and pricing, and a count by brute force."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from neurodeploy.energy.geometry import node_shapes
from neurodeploy.errors import UserError
from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)
from neurodeploy.simulate.observe import Trace


def chain(nodes: list[IntegerNode], *, steps: int, edges: tuple[tuple[str, str], ...] = ()) -> IntegerNetwork:
    """Nodes one after another, and further edges."""
    names = [node.name for node in nodes]
    return IntegerNetwork(
        nodes={node.name: node for node in nodes},
        edges=(*pairwise(names), *edges),
        host=HostSide(channels=1, unshuffle=1, steps=steps),
    )


def student(
    rng: np.random.Generator, *, width: int = 4, depth: int = 3, levels: int = 1, steps: int = 1
) -> IntegerNetwork:
    """A network like a student's: constant resolution, half of the neurons' weights even, some of them 0."""
    nodes: list[IntegerNode] = [IntegerInput("input", 1)]
    for layer in range(depth):
        fan_in = 1 if layer == 0 else width
        weight = 2 * rng.integers(-6, 7, (width, fan_in, 3, 3))
        nodes.append(IntegerConv(f"conv{layer}", weight, padding=(1, 1)))
        scale = 900 if layer == 0 else 12
        offsets = tuple(int(-scale * place) for place in range(levels))
        nodes.append(
            IntegerLif(f"lif{layer}", scale, rng.integers(-5, 6, width), 2048 if steps > 1 else 4096, levels=offsets)
        )
    nodes.append(IntegerConv(f"conv{depth}", 2 * rng.integers(-6, 7, (1, width, 3, 3)), padding=(1, 1)))
    nodes.append(IntegerReadout("output", np.array([3])))
    return chain(nodes, steps=steps)


@st.composite
def networks(draw: st.DrawFn) -> tuple[IntegerNetwork, tuple[int, int], int]:
    """Networks with stride, padding, dilation, groups, populations, sum edges and a dense end; input size and seed."""
    rng = np.random.default_rng(seed := draw(st.integers(0, 2**32 - 1)))
    steps = draw(st.integers(1, 3))
    extent = (draw(st.integers(4, 7)), draw(st.integers(4, 7)))
    channels = draw(st.sampled_from([1, 2]))
    nodes: list[IntegerNode] = [IntegerInput("input", channels)]
    for layer in range(draw(st.integers(1, 3))):
        groups = draw(st.sampled_from([1, channels]))
        out = groups * draw(st.integers(1, 2))
        kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 3)]))
        dilation = draw(st.sampled_from([(1, 1), (1, 2)]))
        weight = rng.integers(-3, 4, (out, channels // groups, *kernel))
        padding = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        nodes.append(IntegerConv(f"conv{layer}", weight, stride, padding, dilation, groups))
        levels = tuple(range(0, -3 * draw(st.integers(1, 3)), -3))
        threshold = 40 if layer == 0 else 2
        nodes.append(IntegerLif(f"lif{layer}", threshold, rng.integers(-2, 3, out), 1024, 3000, levels))
        channels = out
    edges: tuple[tuple[str, str], ...] = ()
    if draw(st.booleans()):  # a second pair of convolutions into one layer
        for name in ("left", "right"):
            nodes.append(IntegerConv(name, rng.integers(-3, 4, (2, channels, 3, 3)), padding=(1, 1)))
        nodes.append(IntegerLif("both", 2, rng.integers(-2, 3, 2), levels=(0, -4)))
        source = nodes[-4].name
        net = chain(nodes[:-2], steps=steps)
        edges = ((source, "right"), ("left", "both"), ("right", "both"))
        net = IntegerNetwork({node.name: node for node in nodes}, (*net.edges, *edges), net.host)
        channels = 2
    else:
        net = chain(nodes, steps=steps)
    try:
        node_shapes(net, extent)
    except UserError:  # a kernel larger than what is left of the image
        assume(False)
    return _ended(draw, rng, net, channels, extent), extent, seed


def _ended(
    draw: st.DrawFn, rng: np.random.Generator, net: IntegerNetwork, channels: int, extent: tuple[int, int]
) -> IntegerNetwork:
    """The network with a readout behind a convolution, or behind a flatten and a matrix."""
    last = next(reversed(net.nodes.values()))
    tail: list[IntegerNode] = [IntegerConv("last", rng.integers(-3, 4, (1, channels, 3, 3)), padding=(1, 1))]
    if draw(st.booleans()):
        probe = IntegerNetwork(net.nodes, net.edges, net.host)
        size = int(np.prod(node_shapes(probe, extent)[last.name]))
        tail = [IntegerFlatten("flat"), IntegerDense("fc", rng.integers(-2, 3, (3, size)))]
        tail += [
            IntegerLif("fc_lif", 2, rng.integers(-2, 3, 3), levels=(0, -2)),
            IntegerDense("out", rng.integers(-2, 3, (1, 3))),
        ]
    tail.append(IntegerReadout("output", np.array([1])))
    names = [last.name, *(node.name for node in tail)]
    return IntegerNetwork(
        {**net.nodes, **{node.name: node for node in tail}},
        (*net.edges, *pairwise(names)),
        net.host,
    )


@dataclass
class Brute:
    """Counts found by visiting every spike and every synapse."""

    sop: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    sop_nonzero: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    mac: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    mac_nonzero: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    spikes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    active: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def targets_of(node: IntegerConv | IntegerDense, place: tuple[int, int, int], shape: tuple[int, int, int]):
    """Every (output neuron, weight) that an input place reaches in bounds, one by one."""
    if isinstance(node, IntegerDense):
        flat = (place[0] * shape[1] + place[1]) * shape[2] + place[2]
        yield from (((out, 0, 0), int(node.weight[out, flat])) for out in range(len(node.weight)))
        return
    outputs, fan_in, kernel_rows, kernel_columns = node.weight.shape
    sizes = [
        (shape[1 + axis] + 2 * node.padding[axis] - node.dilation[axis] * (node.weight.shape[2 + axis] - 1) - 1)
        // node.stride[axis] + 1
        for axis in range(2)
    ]  # fmt: skip
    for out in range(outputs):
        first = (out // (outputs // node.groups)) * fan_in
        if not first <= place[0] < first + fan_in:
            continue
        for row in range(sizes[0]):
            for column in range(sizes[1]):
                for kr in range(kernel_rows):
                    for kc in range(kernel_columns):
                        y = row * node.stride[0] - node.padding[0] + kr * node.dilation[0]
                        x = column * node.stride[1] - node.padding[1] + kc * node.dilation[1]
                        if (y, x) == (place[1], place[2]):
                            yield (out, row, column), int(node.weight[out, place[0] - first, kr, kc])


def brute_force(net: IntegerNetwork, trace: Trace, codes: np.ndarray) -> Brute:
    """Counts of a run, by loops over spikes and synapses. ``codes``: (C, H, W), shown at every step."""
    found = Brute()
    links = []
    for name, node in net.nodes.items():
        if isinstance(node, IntegerConv | IntegerDense):
            source = net.sources(name)[0]
            source = net.sources(source)[0] if isinstance(net.nodes[source], IntegerFlatten) else source
            for receiver in net.targets(name):
                target = net.nodes[receiver]
                links.append((node, source, receiver, len(target.levels) if isinstance(target, IntegerLif) else 1))
    for name, layer in trace.layers.items():
        found.spikes[name] += int(layer.fired.sum())
    for step in range(net.host.steps):
        reached: dict[str, set[tuple[int, int, int]]] = defaultdict(set)
        for node, source, receiver, copies in links:
            spiking = source in trace.layers
            values = trace.layers[source].fired[step].sum(axis=0) if spiking else codes
            for place in np.ndindex(values.shape):
                for neuron, weight in targets_of(node, place, values.shape):
                    count = int(values[place])
                    if spiking:
                        found.sop[receiver] += count * copies
                        found.sop_nonzero[receiver] += count * copies if weight else 0
                    else:
                        found.mac[receiver] += copies
                        found.mac_nonzero[receiver] += copies if weight and count else 0
                    if count or not spiking:
                        reached[receiver].add(neuron)
        for receiver, neurons in reached.items():
            target = net.nodes[receiver]
            found.active[receiver] += len(neurons) * (len(target.levels) if isinstance(target, IntegerLif) else 1)
    return found
