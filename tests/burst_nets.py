"""Random networks of one time step whose levels can be sent in bursts, with codes for them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)


@st.composite
def burstable(draw: st.DrawFn, most: int = 7) -> tuple[IntegerNetwork, IntArray]:
    """A network of one to four layers, of one to ``most`` levels each, with sum edges or without; (C, h, w) codes."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    depth = draw(st.integers(1, 4))
    widths = [draw(st.integers(1, 5)) for _ in range(depth)]
    inputs, outputs = 4, 4
    nodes: dict[str, IntegerNode] = {"input": IntegerInput("input", inputs)}
    for layer, width in enumerate(widths):
        kernel, dilation = draw(st.sampled_from([(1, 1), (3, 1), (3, 2), (5, 1)]))
        fan_in = inputs if layer == 0 else widths[layer - 1]
        limit = 10 if layer == 0 else 127
        weight = 2 * rng.integers(-limit, limit + 1, (width, fan_in, kernel, kernel))
        pad = dilation * (kernel // 2)
        nodes[f"conv{layer}"] = IntegerConv(f"conv{layer}", weight, padding=(pad, pad), dilation=(dilation, dilation))
        nodes[f"lif{layer}"] = _neurons(f"lif{layer}", width, draw(st.integers(1, most)), rng)
    last = 2 * rng.integers(-30, 31, (outputs, widths[-1], 3, 3))
    nodes["last"] = IntegerConv("last", last, padding=(1, 1))
    nodes["output"] = IntegerReadout("output", rng.integers(-900, 900, outputs))
    edges = list(pairwise(nodes))
    for source in range(depth):
        for target in range(source + 1, depth):
            if widths[source] == widths[target] and draw(st.booleans()):
                edges.append((f"conv{source}", f"lif{target}"))
    codes = rng.integers(-60, 120, (inputs, draw(st.integers(1, 7)), draw(st.integers(1, 7))))
    host = HostSide(input_min=-60, input_max=120)
    return IntegerNetwork(nodes=nodes, edges=tuple(edges), host=host, units={"output": 0.25}), codes


def _neurons(name: str, width: int, levels: int, rng: np.random.Generator) -> IntegerLif:
    """Thresholds that lie apart by anything from 3, and biases of any parity."""
    thresholds = 5 + np.cumsum(rng.integers(3, rng.integers(4, 300), levels))
    vth = int(thresholds[0] + thresholds[-1]) // 2
    bias = rng.integers(-150, 150, width)
    return IntegerLif(name, vth=vth, bias=bias, levels=tuple(int(vth - one) for one in thresholds))
