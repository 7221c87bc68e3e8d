"""What chips that take events alone have in common: a network cut in three.

Such a chip receives spikes, not numbers, and hands out spikes, not membranes. The host therefore computes the first
convolution and its neurons on the codes, and applies the last convolution to the spikes that come back; the chip runs
everything in between. ``integers.npz`` holds the whole network, so that nothing has to be guessed from the chip's part.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np

from neurodeploy.errors import Finding, UserError
from neurodeploy.graph.nir_file import read_nir, write_nir
from neurodeploy.graph.spec import DECAY_ONE
from neurodeploy.hardware.shapes import layer_shapes
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)
from neurodeploy.targets.base import Job, feedback_findings
from neurodeploy.targets.described import described, rebuilt
from neurodeploy.targets.manifest import Manifest
from neurodeploy.targets.proof import npz_bytes, read_npz

INTEGERS = "integers.npz"


@dataclass(frozen=True)
class Layer:
    """One layer on the chip: a convolution, its neurons, and the shape (C, h, w) of what enters and leaves."""

    conv: IntegerConv
    lif: IntegerLif
    before: tuple[int, int, int]
    after: tuple[int, int, int]


def structure_findings(net: IntegerNetwork) -> list[Finding]:
    """Whatever is no chain of convolutions with at least two spiking layers."""
    if found := feedback_findings(net, "layers stand in a chain", "target nir or onnx"):
        return found
    findings = [
        Finding(
            name,
            f"{'a flatten' if isinstance(node, IntegerFlatten) else 'a dense layer'} is not carried",
            instead="a convolution, or target lava",
        )
        for name, node in net.nodes.items()
        if not isinstance(node, IntegerInput | IntegerConv | IntegerLif | IntegerReadout)
    ]
    for name, node in net.nodes.items():
        sources = net.sources(name)
        if len(sources) > 1:
            findings.append(Finding(name, "sums several edges", have=", ".join(sources), instead="target nir or lava"))
        elif isinstance(node, IntegerLif | IntegerReadout) and not isinstance(net.nodes[sources[0]], IntegerConv):
            findings.append(Finding(name, "is not fed by a convolution"))
    if not findings and sum(1 for _ in net.lifs()) < 2:
        rule = "nothing is left for the chip: the host runs the first spiking layer and the last convolution"
        findings.append(Finding(net.readout.name, rule, have="1 spiking layer", limit="at least 2"))
    return findings


def body(job: Job) -> list[Layer]:
    """The layers on the chip, populations as channels; the network has passed :func:`structure_findings`."""
    net, layers = job.expanded, []
    for lif in list(net.lifs())[1:]:
        (name,) = net.sources(lif.name)
        conv = net.nodes[name]
        if isinstance(conv, IntegerConv):
            (source,) = net.sources(name)
            layers.append(Layer(conv, lif, _three(job.shapes[source]), _three(job.shapes[lif.name])))
    return layers


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[0], shape[1], shape[2]


def job_of(net: IntegerNetwork, size: tuple[int, int]) -> Job:
    """A job for a network that was read back; ``size`` is that of the image."""
    expanded = expand_levels(net)
    return Job(net, expanded, size, layer_shapes(expanded, size))


def keeps_nothing(lif: IntegerLif) -> bool:
    """Whether nothing of membrane and current is left after a step."""
    return all(bool(np.all(np.asarray(value) == DECAY_ONE)) for value in (lif.v_decay, lif.i_decay))


def keeps_all(lif: IntegerLif) -> bool:
    """Whether the membrane keeps everything, and the current nothing: an IF neuron."""
    return bool(np.all(np.asarray(lif.v_decay) == 0)) and bool(np.all(np.asarray(lif.i_decay) == DECAY_ONE))


def geometry_findings(layer: Layer) -> list[Finding]:
    """What importers of these chips drop without a word: groups, dilation, kernels that are not square."""
    conv = layer.conv
    rows, columns = conv.weight.shape[2:]
    findings = []
    if rows != columns:
        findings.append(Finding(conv.name, "its kernel is not square", have=f"{rows}x{columns}"))
    if conv.groups != 1:
        findings.append(Finding(conv.name, "has groups", have=str(conv.groups), limit="1"))
    if conv.dilation != (1, 1):
        findings.append(Finding(conv.name, "is dilated", have=str(conv.dilation), limit="(1, 1)"))
    if conv.stride[0] != conv.stride[1]:
        findings.append(Finding(conv.name, "its strides differ", have=str(conv.stride)))
    return findings


def eight_bit_findings(layer: Layer) -> list[Finding]:
    """Weights that are no even numbers of 8 bits and a sign, of which the chip holds the halves."""
    weight = layer.conv.weight
    low, high, odd = int(weight.min(initial=0)), int(weight.max(initial=0)), int((weight % 2 != 0).sum())
    if odd:
        return [Finding(layer.conv.name, "weights are not multiples of 2", f"{odd} odd weights")]
    if low < -256 or high > 254:
        return [Finding(layer.conv.name, "weights are out of range", f"{low}..{high}", "-256..254")]
    return []


def chain_graph(layers: list[Layer], nodes: Mapping[str, nir.NIRNode]) -> nir.NIRGraph:
    """``input -> conv -> neurons -> ... -> output`` of the nodes that a target made for its layers."""
    first, last = layers[0].before, layers[-1].after
    row = {"input": nir.Input(input_type={"input": np.array(first)}), **nodes}
    row["output"] = nir.Output(output_type={"output": np.array(last)})
    names = list(row)
    return nir.NIRGraph(nodes=row, edges=list(itertools.pairwise(names)), type_check=False)


def write_parts(folder: Path, job: Job, file: str, graph: nir.NIRGraph, compat: str | None = None) -> tuple[str, str]:
    """Writes the chip's part and ``integers.npz``; gives their names."""
    if compat == "1.0.4":
        write_nir(folder / file, graph, compat="1.0.4")
    else:
        write_nir(folder / file, graph)
    text = json.dumps(described(job.network), sort_keys=True)
    arrays: dict[str, Any] = {"description": np.frombuffer(text.encode(), np.uint8)}
    arrays |= {
        f"weight/{node.name}": node.weight for node in job.network.nodes.values() if isinstance(node, IntegerConv)
    }
    (folder / INTEGERS).write_bytes(npz_bytes(arrays))
    return file, INTEGERS


def read_integers(folder: Path, manifest: Manifest) -> IntegerNetwork:
    """The network of ``integers.npz``.

    Raises:
        UserError: The file cannot be used.
    """
    path = folder / INTEGERS
    arrays = read_npz(path)

    def weight_of(said: Mapping[str, Any]) -> IntArray:
        weight: IntArray = arrays[f"weight/{said['name']}"].astype(np.int64)
        return weight

    try:
        said = json.loads(arrays["description"].tobytes())
        return rebuilt(
            said,
            weight_of,
            host=manifest.host,
            units={layer.name: layer.unit for layer in manifest.layers if layer.unit is not None},
            arithmetic=manifest.arithmetic,
        )
    except Exception as error:  # whatever is wrong with a description, the file is not to be used
        raise UserError(f"its description cannot be used: {type(error).__name__}: {error}", node=str(path)) from error


def compare_graph(path: Path, wanted: nir.NIRGraph) -> None:
    """Reads the chip's part and compares every value with the one that the integers give.

    Raises:
        UserError: It cannot be read, or something differs.
    """
    found = read_nir(path)
    if set(found.nodes) != set(wanted.nodes) or set(found.edges) != set(wanted.edges):
        raise UserError("holds other nodes than the integers give", node=str(path))
    for name, node in wanted.nodes.items():
        other = found.nodes[name]
        if type(other) is not type(node):
            raise UserError(f"{name} is another kind of node than the integers give", node=str(path))
        for key, value in vars(node).items():
            if key in ("metadata", "name") or not isinstance(value, np.ndarray | int | float | tuple):
                continue
            if not np.array_equal(np.asarray(value), np.asarray(getattr(other, key))):
                raise UserError(f"{name}.{key} differs from what the integers give", node=str(path))
