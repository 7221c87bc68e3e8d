"""Networks of a student's shape, with thresholds so that every layer spikes: for tests and benchmarks of the kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import IntegerLif, IntegerNetwork
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from tests.random_nets import chain, even_weights


def student_like(steps: int = 1, levels: int = 1, *, width: int = 24, depth: int = 4) -> IntegerNetwork:
    """A gray student: pixel-unshuffle 2, 3 x 3 kernels, D levels a layer, a leak where there are several steps."""
    rng = np.random.default_rng(7)
    weights = [even_weights(rng, width, 4, 3, 3, limit=20)]
    weights += [even_weights(rng, width, width, 3, 3, limit=120) for _ in range(depth - 1)]
    weights.append(even_weights(rng, 4, width, 3, 3, limit=60))
    host = HostSide(steps=steps, unshuffle=2, input_scale=64, input_min=-64, input_max=128, output_scale=1e-5)
    net = chain(weights, levels=(0,) * levels, v_decay=4096 if steps == 1 else 1500, host=host)
    codes = rng.integers(-64, 128, (4, 24, 24))
    for name in [lif.name for lif in net.lifs()]:
        trace = Trace(steps)
        run(net, codes, observer=trace)
        currents = trace.layers[name].current
        # thresholds of the populations spread over the upper part of what arrives
        marks = np.quantile(currents, np.linspace(0.65, 0.95, levels)).astype(int)
        node = net.nodes[name]
        if isinstance(node, IntegerLif):
            offsets = tuple(int(marks[0] - mark) for mark in marks)
            net = replace(net, nodes={**net.nodes, name: replace(node, vth=int(marks[0]), levels=offsets)})
    return net
