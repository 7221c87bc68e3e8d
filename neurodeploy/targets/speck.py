"""Target ``speck``: a NIR graph of IF neurons that sinabs reads, within the limits of the DYNAP-CNN core.

sinabs' importer makes neurons that may spike several times a step and subtract their threshold; three lines in the run
script make them those of the graph. Its chip builder wants square kernels, strides of 1, 2, 4 or 8, int8 weights and
biases, thresholds of 16 bits, and nine cores whose memories it counts in powers of two. The chip itself has no time
steps: it works on every event as it comes, so that equality is that of sinabs' simulation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import nir
import numpy as np

from neurodeploy.errors import Finding
from neurodeploy.quantize.network import (
    IntArray,
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
    read_integers,
    structure_findings,
    write_parts,
)
from neurodeploy.targets.manifest import Manifest

name = "speck"
summary = "speck.nir, IF layers for sinabs within the limits of Speck's nine cores, with a script that runs them"
option_values: Mapping[str, tuple[str, ...]] = {}
profile: str | None = None
template: str | None = "speck/run.py.j2"

first_layer_on_host = True

NETWORK = "speck.nir"

KERNEL_MAX, CHANNELS_MAX, STRIDES = 16, 1024, (1, 2, 4, 8)
BIAS_MAX, THRESHOLD_MAX = 127, (1 << 15) - 1
KI = 1024
CORES = tuple((kernel * KI, neuron * KI) for kernel, neuron in (
    (16, 64), (16, 64), (16, 64), (32, 32), (32, 32), (64, 16), (64, 16), (16, 16), (16, 16)))  # fmt: skip
"""Kernel and neuron memory of every core, in words (sinabs 3.1.3, backend.dynapcnn.chips.dynapcnn.get_constraints)."""


def supports(node: IntegerNode) -> Finding | None:
    """Why no core can hold this node wherever it stands; None if one can."""
    if isinstance(node, IntegerDense | IntegerFlatten):
        return Finding(node.name, "only convolutions are carried")
    if isinstance(node, IntegerConv):
        layer = Layer(node, IntegerLif("", 0, np.zeros(1, np.int64)), (0, 0, 0), (0, 0, 0))
        return next(iter(_conv_findings(layer)), None)
    return None


def _conv_findings(layer: Layer) -> list[Finding]:
    conv = layer.conv
    findings = [*geometry_findings(layer), *eight_bit_findings(layer)]
    if conv.weight.shape[2] > KERNEL_MAX:
        findings.append(Finding(conv.name, "its kernel is too large", str(conv.weight.shape[2]), str(KERNEL_MAX)))
    if conv.stride[0] not in STRIDES:
        findings.append(Finding(conv.name, "has a stride that no core has", str(conv.stride[0]), "1, 2, 4 or 8"))
    if max(conv.weight.shape[:2]) > CHANNELS_MAX:
        findings.append(Finding(conv.name, "has too many channels", str(max(conv.weight.shape[:2])), str(CHANNELS_MAX)))
    return findings


def _neuron_findings(layer: Layer, steps: int) -> list[Finding]:
    lif = layer.lif
    if steps > 1 and not keeps_all(lif):
        return [Finding(lif.name, "the chip has IF neurons alone", limit="a membrane that keeps everything (decay 0)")]
    if steps > 1 and np.any(lif.bias % 2):
        return [
            Finding(
                lif.name, "biases that add up over steps are not multiples of 2", f"{int((lif.bias % 2).sum())} odd"
            )
        ]
    bias, threshold = halved(lif, steps)
    findings = []
    if max(int(bias.max()), -int(bias.min()) - 1) > BIAS_MAX:
        findings.append(
            Finding(
                lif.name,
                "biases do not fit 8 bits in units of the weights",
                have=f"{int(bias.min())}..{int(bias.max())}",
                limit=f"{-BIAS_MAX - 1}..{BIAS_MAX}",
                instead="fewer levels, or smaller biases",
            )
        )
    if not 0 <= threshold <= THRESHOLD_MAX:
        findings.append(Finding(lif.name, "the threshold does not fit 16 bits", str(threshold), f"0..{THRESHOLD_MAX}"))
    return findings


def halved(lif: IntegerLif, steps: int) -> tuple[IntArray, int]:
    """Bias a channel and threshold in units of a weight step, two of the integers' units of current.

    With X the whole sum of weights: ``2 X + bias > vth`` says ``X > floor((vth - bias) / 2)``. With one time step only
    the difference of threshold and bias matters, and the threshold is set so that the biases lie around 0.
    """
    if steps > 1:
        return lif.bias // 2, lif.vth // 2
    least = np.floor_divide(lif.vth - lif.bias, 2)
    threshold = max(0, int(least.min() + least.max()) // 2)
    bias: IntArray = threshold - least
    return bias, threshold


def memory(layer: Layer) -> tuple[int, int]:
    """Words of kernel and neuron memory, as the chip counts them: in powers of two."""
    outputs, inputs, rows, columns = layer.conv.weight.shape
    kernel = inputs * 2 ** (math.ceil(math.log2(rows * columns)) + math.ceil(math.log2(outputs)))
    _, height, width = layer.after
    return kernel, outputs * 2 ** (math.ceil(math.log2(height)) + math.ceil(math.log2(width)))


def placed(layers: list[Layer]) -> list[int] | None:
    """A core for every layer, or None where they do not all find one (augmenting paths)."""
    fits = [
        [core for core, (kernel, neuron) in enumerate(CORES) if need[0] <= kernel and need[1] <= neuron]
        for need in map(memory, layers)
    ]
    taken: dict[int, int] = {}

    def place(layer: int, seen: set[int]) -> bool:
        for core in fits[layer]:
            if core not in seen:
                seen.add(core)
                if core not in taken or place(taken[core], seen):
                    taken[core] = layer
                    return True
        return False

    if not all(place(layer, set()) for layer in range(len(layers))):
        return None
    where = {layer: core for core, layer in taken.items()}
    return [where[layer] for layer in range(len(layers))]


def check(job: Job) -> list[Finding]:
    """Everything that keeps a network from the chip's cores or from sinabs."""
    findings = structure_findings(job.network)
    if findings:
        return findings
    layers, steps = body(job), job.network.host.steps
    for layer in layers:
        findings += [*_conv_findings(layer), *_neuron_findings(layer, steps)]
        kernel, neuron = memory(layer)
        if not any(kernel <= core[0] and neuron <= core[1] for core in CORES):
            findings.append(
                Finding(
                    layer.conv.name,
                    "fits no core",
                    have=f"{kernel // KI} Ki words of kernel and {neuron // KI} Ki of neuron memory",
                    limit="16 and 64, 32 and 32, or 64 and 16 Ki",
                    instead="fewer channels or levels, or a smaller image (--size)",
                )
            )
    if len(layers) > len(CORES):
        findings.append(Finding(NETWORK, "has more layers than there are cores", str(len(layers)), str(len(CORES))))
    elif not findings and placed(layers) is None:
        findings.append(Finding(NETWORK, "its layers do not all find a core", instead="fewer channels or levels"))
    return findings


def graph_of(job: Job) -> nir.NIRGraph:
    """The chip's part: weights are the int8 numbers themselves; thresholds lie half a unit above the whole one."""
    nodes: dict[str, nir.NIRNode] = {}
    layers, steps = body(job), job.network.host.steps
    for layer in layers:
        conv, lif = layer.conv, layer.lif
        bias, threshold = halved(lif, steps)
        nodes[conv.name] = nir.Conv2d(
            input_shape=layer.before[1:],
            weight=(conv.weight // 2).astype(np.float32),
            stride=conv.stride,
            padding=conv.padding,
            dilation=(1, 1),
            groups=1,
            bias=bias.astype(np.float32),
        )
        nodes[lif.name] = nir.IF(
            r=np.ones(layer.after, np.float32),
            v_threshold=np.full(layer.after, threshold + 0.5, np.float32),
            v_reset=np.zeros(layer.after, np.float32),
        )
    return chain_graph(layers, nodes)


def write(job: Job, folder: Path) -> Written:
    """Writes ``integers.npz`` and ``speck.nir`` without ``v_reset``, which sinabs' nir 1.0.4 refuses."""
    return Written(files=write_parts(folder, job, NETWORK, graph_of(job), compat="1.0.4"))


def read(folder: Path, manifest: Manifest) -> Mapping[str, IntegerNetwork]:
    """The network of ``integers.npz``, once every value of ``speck.nir`` has been compared with it.

    Raises:
        UserError: A file cannot be used, or the two differ.
    """
    net = canonical(read_integers(folder, manifest))
    compare_graph(folder / NETWORK, graph_of(job_of(net, manifest.image_size)))
    return {NETWORK: net}
