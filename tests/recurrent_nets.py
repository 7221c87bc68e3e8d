"""Random integer networks with feedback for hypothesis, and what they do, computed neuron by neuron in plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from hypothesis import strategies as st

from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)

Synapses = dict[str, list[tuple[int, int, int]]]
"""Weight layer -> (flat index of the input, flat index of the output, weight) of every synapse in bounds."""


@dataclass(frozen=True)
class Recurrent:
    """A network, codes of every step (T, C, h, w), and the edges that were meant to be feedback."""

    net: IntegerNetwork
    codes: np.ndarray
    feedback: frozenset[tuple[str, str]]


@st.composite
def recurrent_nets(draw: st.DrawFn, *, exact: bool = False) -> Recurrent:
    """Two spiking layers, the first with feedback from itself, from the second, or both; dense, or 3x3 convolutions.

    Args:
        draw: Of hypothesis.
        exact: Only decays with which integers and floats agree: everything or nothing is kept.
    """
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    grid = draw(st.sampled_from([(1, 1), (1, 1), (3, 2), (2, 4)]))
    channels, first, second, steps = (draw(st.integers(1, most)) for most in (3, 5, 4, 5))
    decays = [4096, 0] if exact else [4096, 0, 1024, 2048, 3000]

    def weights(name: str, outputs: int, inputs: int) -> IntegerNode:
        shape = (outputs, inputs) if grid == (1, 1) else (outputs, inputs, 3, 3)
        # some synapses weigh nothing
        values = 2 * rng.integers(-40, 60, shape) * (rng.random(shape) < 0.8)
        return IntegerDense(name, values) if grid == (1, 1) else IntegerConv(name, values, padding=(1, 1))

    def neurons(name: str, size: int, levels: tuple[int, ...] = (0,)) -> IntegerLif:
        v_decay, i_decay = draw(st.sampled_from(decays)), 4096 if exact else draw(st.sampled_from([4096, 2048]))
        return IntegerLif(name, draw(st.integers(20, 200)), rng.integers(-20, 60, size), v_decay, i_decay, levels)

    levels = draw(st.sampled_from([(0,), (0,), (0, -60)]))
    own, across = draw(st.sampled_from([(True, False), (False, True), (True, True)]))
    nodes: list[IntegerNode] = [
        IntegerInput("input", channels),
        weights("w1", first, channels),
        neurons("lif1", first, levels),
        *([weights("own", first, first)] if own else []),
        weights("w2", second, first),
        neurons("lif2", second, levels),
        *([weights("across", first, second)] if across else []),
        weights("w3", 2, second),
        IntegerReadout("output", rng.integers(-9, 9, 2)),
    ]
    feedback = ([("own", "lif1")] if own else []) + ([("across", "lif1")] if across else [])
    edges = [("input", "w1"), ("w1", "lif1"), ("lif1", "w2"), ("w2", "lif2"), ("lif2", "w3"), ("w3", "output")]
    edges += [("lif1", "own")] * own + [("lif2", "across")] * across + feedback
    edges = [edges[place] for place in rng.permutation(len(edges))]
    host = HostSide(channels=channels, unshuffle=1, steps=steps, residual=False, input_scale=1.0)
    units = {name: 2.0**-8 for name in ("lif1", "lif2", "output")}
    net = IntegerNetwork({node.name: node for node in nodes}, tuple(edges), host, units)
    return Recurrent(net, rng.integers(-3, 6, (steps, channels, *grid)), frozenset(feedback))


def synapses(net: IntegerNetwork, grid: tuple[int, int]) -> Synapses:
    """Every synapse in bounds of every weight layer of a net of :func:`recurrent_nets`, tap by tap."""
    height, width = grid
    found: Synapses = {}
    for name, node in net.nodes.items():
        if isinstance(node, IntegerDense):
            pairs = product(range(node.weight.shape[0]), range(node.weight.shape[1]))
            found[name] = [(i, o, int(node.weight[o, i])) for o, i in pairs]
        elif isinstance(node, IntegerConv):
            found[name] = []
            outputs, inputs = node.weight.shape[:2]
            for o, i, y, x, dy, dx in product(*map(range, (outputs, inputs, height, width, 3, 3))):
                row, column = y + dy - 1, x + dx - 1
                if 0 <= row < height and 0 <= column < width:
                    source, target = (i * height + row) * width + column, (o * height + y) * width + x
                    found[name].append((source, target, int(node.weight[o, i, dy, dx])))
    return found


@dataclass
class Ran:
    """What a run did: spikes (T, D, N) of the layers, the output (N,), operations of every weight layer and step."""

    spikes: dict[str, np.ndarray]
    output: np.ndarray
    sop: dict[str, list[int]]
    sop_nonzero: dict[str, list[int]]


def _truncated(value: int, decay: int) -> int:
    kept = abs(value) * (4096 - decay) // 4096
    return kept if value >= 0 else -kept


def by_hand(case: Recurrent) -> Ran:
    """The run of a net of :func:`recurrent_nets`, one neuron, one synapse and one spike at a time."""
    net, steps = case.net, len(case.codes)
    grid = (case.codes.shape[2], case.codes.shape[3])
    places = grid[0] * grid[1]
    wired = synapses(net, grid)
    spikes = {n.name: np.zeros((steps, len(n.levels), len(n.bias) * places), bool) for n in net.lifs()}
    u = {n.name: [0] * (len(n.bias) * places) for n in net.lifs()}
    v = {n.name: [[0] * len(u[n.name]) for _ in n.levels] for n in net.lifs()}
    sop = {name: [0] * steps for name in wired}
    sop_nonzero = {name: [0] * steps for name in wired}
    total = np.zeros(2 * places, np.int64)
    for t in range(steps):
        for name in ("lif1", "lif2", "output"):
            node = net.nodes[name]
            current = [0] * (len(node.bias) * places)
            for weights in net.sources(name):
                (source,) = net.sources(weights)
                at = t - 1 if (weights, name) in case.feedback else t
                if at < 0:
                    continue
                sent = case.codes[at].reshape(-1) if source == "input" else spikes[source][at].sum(axis=0)
                copies = len(node.levels) if isinstance(node, IntegerLif) else 1
                for i, o, weight in wired[weights]:
                    current[o] += weight * int(sent[i])
                    if source != "input":
                        sop[weights][t] += copies * int(sent[i])
                        sop_nonzero[weights][t] += copies * int(sent[i]) * (weight != 0)
            if isinstance(node, IntegerReadout):
                total += np.array(current) + np.repeat(node.bias, places)
                continue
            for n, arrived in enumerate(current):
                u[name][n] = _truncated(u[name][n], node.i_decay) + 64 * arrived
                for d, level in enumerate(node.levels):
                    bias = int(node.bias[n // places]) + level
                    membrane = _truncated(v[name][d][n], node.v_decay) + u[name][n] + 64 * bias
                    spikes[name][t, d, n] = membrane > 64 * node.vth
                    v[name][d][n] = 0 if spikes[name][t, d, n] else membrane
    return Ran(spikes, total, sop, sop_nonzero)
