"""Target ``spinnaker2``: a NIR graph as py-spinnaker2's importer (``spinnaker2.s2_nir.from_nir``) takes it.

The importer turns every layer of neurons into a population and every convolution in front of it into a projection with
int8 weights, by truncation; it wants neurons behind every convolution and biases in the shape of the neurons, and drops
dilation, groups and flattening without a word. The input is a list of spikes. ``load.py`` of the bundle calls it as it
has to be called.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nir
import numpy as np

from neurodeploy.errors import Finding
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
)
from neurodeploy.targets.base import Job, Written
from neurodeploy.targets.canonical import canonical
from neurodeploy.targets.events import (
    Layer,
    body,
    chain_graph,
    compare_graph,
    eight_bit_findings,
    geometry_findings,
    job_of,
    keeps_all,
    keeps_nothing,
    read_integers,
    structure_findings,
    write_parts,
)
from neurodeploy.targets.manifest import Manifest
from neurodeploy.targets.registers import neuron_findings

name = "spinnaker2"
summary = "spinnaker2.nir, the layers between the first and the last convolution for py-spinnaker2's NIR importer"
option_values: Mapping[str, tuple[str, ...]] = {}
profile: str | None = None
template: str | None = "spinnaker2/run.py.j2"

first_layer_on_host = True

NETWORK = "spinnaker2.nir"


def supports(node: IntegerNode) -> Finding | None:
    """Why no population or projection can hold this node; None if one can."""
    if isinstance(node, IntegerDense | IntegerFlatten):
        return Finding(node.name, "the importer drops a flatten without a word, and no matrix product goes without one")
    if isinstance(node, IntegerConv):
        layer = Layer(node, IntegerLif("", 0, np.zeros(1, np.int64)), (0, 0, 0), (0, 0, 0))
        return next(iter([*geometry_findings(layer), *eight_bit_findings(layer)]), None)
    if isinstance(node, IntegerLif):
        return next(iter(_neuron_findings(node)), None)
    return None


def _neuron_findings(lif: IntegerLif) -> list[Finding]:
    findings = neuron_findings(lif)
    if not keeps_nothing(lif) and not keeps_all(lif):
        findings.append(
            Finding(
                lif.name,
                "a membrane or current that fades is rounded otherwise there than in the integers",
                limit="a membrane that keeps everything or nothing",
                instead="decay = 1, or target nir",
            )
        )
    return findings


def check(job: Job) -> list[Finding]:
    """Everything that keeps a network from the importer, or would make it compute something else."""
    findings = structure_findings(job.network)
    if findings:
        return findings
    for layer in body(job):
        findings += [*geometry_findings(layer), *eight_bit_findings(layer), *_neuron_findings(layer.lif)]
        if job.network.host.steps > 1 and keeps_all(layer.lif) and np.any(layer.lif.bias):
            findings.append(
                Finding(
                    layer.lif.name,
                    "charges up on its bias while spikes are still on their way to it: there is no reset for a layer",
                    have=f"bias up to {int(np.abs(layer.lif.bias).max())}",
                    limit="0 where a membrane remembers",
                    instead="one time step, or decay = 1",
                )
            )
    return findings


def graph_of(job: Job) -> nir.NIRGraph:
    """The chip's part: weights are the int8 numbers themselves, in units of which everything counts."""
    nodes: dict[str, nir.NIRNode] = {}
    layers = body(job)
    for layer in layers:
        conv, lif = layer.conv, layer.lif
        nodes[conv.name] = nir.Conv2d(
            input_shape=layer.before[1:],
            weight=(conv.weight // 2).astype(np.float32),
            stride=conv.stride,
            padding=conv.padding,
            dilation=(1, 1),
            groups=1,
            bias=(lif.bias / 2).astype(np.float32),
        )
        threshold = np.full(layer.after, (lif.vth + 0.5) / 2, np.float32)
        ones, zeros = np.ones(layer.after, np.float32), np.zeros(layer.after, np.float32)
        if keeps_all(lif):
            nodes[lif.name] = nir.IF(r=ones, v_threshold=threshold, v_reset=zeros)
        else:
            nodes[lif.name] = nir.LIF(tau=ones, r=ones, v_leak=zeros, v_threshold=threshold, v_reset=zeros)
    return chain_graph(layers, nodes)


def write(job: Job, folder: Path) -> Written:
    """Writes ``spinnaker2.nir`` and ``integers.npz``."""
    return Written(files=write_parts(folder, job, NETWORK, graph_of(job)))


def read(folder: Path, manifest: Manifest) -> Mapping[str, IntegerNetwork]:
    """The network of ``integers.npz``, once every value of ``spinnaker2.nir`` has been compared with it.

    Raises:
        UserError: A file cannot be used, or the two differ.
    """
    net = canonical(read_integers(folder, manifest))
    compare_graph(folder / NETWORK, graph_of(job_of(net, manifest.image_size)))
    return {NETWORK: net}
