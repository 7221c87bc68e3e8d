"""Target ``nir``: the portable NIR graph, on the grid of the integers.

Weights are exact multiples of a power of two and every threshold lies half a unit above the integer one, so that the
integers can be recovered by value and no membrane can meet a threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np

from neurodeploy.errors import Finding
from neurodeploy.graph.law import check_graph
from neurodeploy.graph.nir_file import read_nir, write_nir
from neurodeploy.graph.portable import UNIT, WEIGHT_STEP, Network
from neurodeploy.quantize.grid import grid_network
from neurodeploy.quantize.lower import quantize
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
)
from neurodeploy.targets.base import Job, Written, gathered, tick_findings
from neurodeploy.targets.canonical import canonical
from neurodeploy.targets.manifest import Manifest
from neurodeploy.targets.registers import neuron_findings, no_exponent, range_findings

name = "nir"
summary = "network.nir, the interchange graph that norse, snnTorch and SpikingJelly read, with a script that runs it"
option_values: Mapping[str, tuple[str, ...]] = {"compat": ("1.0.4",)}
profile: str | None = None
template = "nir/run.py.j2"

NETWORK = "network.nir"


def supports(node: IntegerNode) -> Finding | None:
    """Why the portable vocabulary cannot hold this node; None if it can."""
    return next(iter(node_findings(node)), None)


def node_findings(node: IntegerNode) -> list[Finding]:
    """Everything about this node that the portable vocabulary, or the grid of the file, cannot hold."""
    if isinstance(node, IntegerFlatten):
        rule = "a flatten is not in the portable vocabulary"
        return [Finding(node.name, rule, instead="a convolution, or target lava")]
    if isinstance(node, IntegerDense):
        return [*range_findings(node), *no_exponent(node, "a NIR graph on the grid")]
    if isinstance(node, IntegerConv):
        return [*range_findings(node), *no_exponent(node, "a NIR graph on the grid"), *_conv_findings(node)]
    if isinstance(node, IntegerLif):
        return [*neuron_findings(node), *_neuron_findings(node)]
    return []


def _conv_findings(node: IntegerConv) -> Iterator[Finding]:
    rows, columns = node.weight.shape[2:]
    if rows != columns:
        yield Finding(node.name, "readers get the shape of a kernel that is not square wrong", f"{rows}x{columns}")
    if node.groups != 1:
        yield Finding(node.name, "readers refuse convolutions with groups", str(node.groups), "1", "target lava")


def _neuron_findings(node: IntegerLif) -> Iterator[Finding]:
    if np.any(np.asarray(node.i_decay) != 4096):
        have = str(np.min(node.i_decay))
        yield Finding(node.name, "a portable LIF has no synaptic current that fades", have, "4096", "target lava")
    if np.unique(node.v_decay).size > 1:
        yield Finding(node.name, "readers want one tau a layer", have="one decay a channel", limit="one a layer")
    elif np.any(np.asarray(node.v_decay) == 0):
        yield Finding(node.name, "a portable LIF leaks", "v_decay 0", "1..4096", "target lava")


def check(job: Job) -> list[Finding]:
    """Everything that keeps a network out of the portable form: the nodes, then the law of the whole graph."""
    if findings := tick_findings(job.network):
        return findings
    findings = [finding for node in job.network.nodes.values() for finding in node_findings(node)]
    findings += _grid_findings(job)
    return findings or gathered(lambda: check_graph(grid_network(job.network, job.size).graph, "portable"), NETWORK)


def _grid_findings(job: Job) -> Iterator[Finding]:
    """Dense layers that are no 1x1 convolution, because what they read has a grid."""
    for name, node in job.network.nodes.items():
        for source in job.network.sources(name) if isinstance(node, IntegerDense) else ():
            if job.shapes[source][1:] != (1, 1):
                have = "{1}x{2} places".format(*job.shapes[source])
                rule = "dense layers over a grid are not in the portable vocabulary"
                yield Finding(name, rule, have, "1x1", "a convolution, or target lava")


def write(job: Job, folder: Path) -> Written:
    """Writes ``network.nir``; for nir 1.0.4 without ``v_reset`` and without metadata, which that version refuses."""
    graph = readable_everywhere(grid_network(job.network, job.size))
    if job.options.get("compat") == "1.0.4":
        for item in (graph, *graph.nodes.values()):
            item.metadata = {}
        write_nir(folder / NETWORK, graph, compat="1.0.4")
    else:
        write_nir(folder / NETWORK, graph)
    return Written(files=(NETWORK,))


def readable_everywhere(network: Network) -> nir.NIRGraph:
    """The graph with ``tau = 2 dt`` where one time step makes it free: SpikingJelly refuses ``tau = dt``.

    From a membrane of 0 one step gives ``v = dt / tau * x``, so that half the threshold says the same, exactly.
    """
    graph, host = network.graph, network.host
    if host.steps > 1:
        return graph
    nodes = {
        name: _half_leak(node, host.dt) if isinstance(node, nir.LIF) else node for name, node in graph.nodes.items()
    }
    return nir.NIRGraph(nodes=nodes, edges=graph.edges, metadata=graph.metadata, type_check=False)


def _half_leak(node: nir.LIF, dt: float) -> nir.LIF:
    shape, threshold = node.v_threshold.shape, np.float32(node.v_threshold.flat[0]) / np.float32(2)
    return nir.LIF(
        tau=np.broadcast_to(np.float32(2 * dt), shape),
        r=node.r,
        v_leak=node.v_leak,
        v_threshold=np.broadcast_to(threshold, shape),
        v_reset=node.v_reset,
    )


def read(folder: Path, manifest: Manifest) -> Mapping[str, IntegerNetwork]:
    """The integer network that ``network.nir`` holds, recovered by value.

    The format states the grid, so that metadata in the file plays no part.
    """
    graph = read_nir(folder / NETWORK)
    for node in graph.nodes.values():
        if isinstance(node, nir.Conv2d):
            node.metadata = {"weight_step": WEIGHT_STEP, "bias_step": UNIT}
    net = canonical(quantize(Network(graph=graph, host=manifest.host)))
    dense = {layer.name for layer in manifest.layers if layer.kind == "dense"}
    return {NETWORK: replace(net, nodes={name: _as_dense(node, name in dense) for name, node in net.nodes.items()})}


def _as_dense(node: IntegerNode, dense: bool) -> IntegerNode:
    """The dense layer that was written as a 1x1 convolution; other nodes as they are."""
    if not dense or not isinstance(node, IntegerConv) or node.weight.shape[2:] != (1, 1):
        return node
    return IntegerDense(node.name, node.weight[:, :, 0, 0])
