"""The float interpretation of a bundle's NIR graph on the proof input."""

from __future__ import annotations

import math

import nir
import numpy as np

from neurodeploy.graph.portable import Network
from neurodeploy.quantize.network import IntArray
from neurodeploy.simulate.floating import FloatArray, run_float
from neurodeploy.targets.proof import FloatRun

SPIKING = (nir.LIF, nir.IF, nir.CubaLIF)


def float_run(network: Network, codes: IntArray) -> FloatRun:
    """Runs a NIR graph in float64 and keeps every spike.

    Args:
        network: The graph and its host side.
        codes: (C, h, w), shown at every step.
    """
    spiking = [name for name, node in network.graph.nodes.items() if isinstance(node, SPIKING)]
    kept: dict[str, list[FloatArray]] = {name: [] for name in spiking}
    margins = dict.fromkeys(spiking, math.inf)

    def record(*, step: int, name: str, output: FloatArray, membrane: FloatArray | None) -> None:
        del step
        if name in kept and membrane is not None:
            kept[name].append(output)
            threshold = np.asarray(network.graph.nodes[name].v_threshold, np.float64)
            margins[name] = min(margins[name], float(np.abs(membrane - threshold).min()))

    outputs = run_float(network.graph, codes, network.host.steps, network.host.dt, record)
    spikes = {name: np.stack(steps) != 0 for name, steps in kept.items()}
    return FloatRun(spikes, margins, outputs.mean(axis=0))
