"""The way back: the NIR graph of an integer network, every number exactly on the grid.

In it the integers count in units of 2^-8: weights ``w * 2^-8``, biases ``b * 2^-8``, thresholds half a unit above the
integer ones, where no membrane can meet them. Reading it with :func:`neurodeploy.quantize.lower.quantize` gives the
same integers again. The real size of a unit goes into ``HostSide.output_scale``.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import Finding, FindingsError
from neurodeploy.graph.convolve import taps
from neurodeploy.graph.portable import UNIT, WEIGHT_STEP, Network, graph_hints
from neurodeploy.graph.spec import DECAY_ONE, threshold_offset
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)

Shape = tuple[int, ...]


def grid_network(net: IntegerNetwork, size: tuple[int, int]) -> Network:
    """The NIR graph of an integer network, levels expanded to channels.

    Args:
        net: The network.
        size: (H, W) of the IMAGE, as for :func:`neurodeploy.graph.portable.portable_graph`.

    Returns:
        The graph (float32 arrays) and the host side, whose ``output_scale`` holds the size of a unit. Where nothing
        decays between steps, its float interpretation and the integer network spike alike.

    Raises:
        FindingsError: Layers that NIR cannot say: biases that no convolution can carry, a current that fades.
    """
    factor = net.host.unshuffle
    grid = (-(-size[0] // factor), -(-size[1] // factor))
    levels = max((len(node.levels) for node in net.lifs()), default=1)
    host = net.host.model_copy(update={"output_scale": net.output_scale / _output_unit(net)})
    wide = expand_levels(net)
    biases, findings = _distribute_biases(wide)
    if findings:
        raise FindingsError("the integer network cannot be written as a NIR graph", findings)
    nodes: dict[str, nir.NIRNode] = {}
    shapes: dict[str, Shape] = {}
    for name, node in wide.nodes.items():
        before = shapes[wide.forward_sources(name)[0]] if wide.sources(name) else ()
        nodes[name], shapes[name] = _build(node, before, biases, grid, host.dt)
    edges = _in_readers_order(wide)
    graph = nir.NIRGraph(nodes=nodes, edges=edges, metadata=graph_hints(host, levels), type_check=False)
    return Network(graph=graph, host=host)


def _in_readers_order(net: IntegerNetwork) -> list[tuple[str, str]]:
    """The edges, those of nodes that lead to the output by feedback alone first.

    norse's executor takes edges in their order, and gives out what the node computes that it comes to last.
    """
    forward: set[str] = set()
    waiting = [net.readout.name]
    while waiting:
        name = waiting.pop()
        forward.add(name)
        waiting += [source for source in net.forward_sources(name) if source not in forward]
    return sorted(net.edges, key=lambda edge: forward.issuperset(edge))


def _output_unit(net: IntegerNetwork) -> float:
    """Value in the graph of one integer unit of the readout: spikes that are counted directly have none."""
    counts_spikes = any(isinstance(net.nodes[source], IntegerLif) for source in net.sources(net.readout.name))
    return 1.0 if counts_spikes else UNIT


def _distribute_biases(net: IntegerNetwork) -> tuple[dict[str, IntArray], list[Finding]]:
    """Gives the bias of every neuron and of the readout to one of the linear nodes that feed it.

    In running order, a node's last source that has none yet takes what the others do not bring along already. A source
    of a feedback edge has no bias: readers part over the first step of one.
    """
    biases: dict[str, IntArray] = {
        source: np.zeros(len(node.weight), np.int64)
        for source, _ in net.feedback
        if isinstance(node := net.nodes[source], IntegerConv | IntegerDense)
    }
    findings: list[Finding] = []
    for name, node in net.nodes.items():
        if not isinstance(node, IntegerLif | IntegerReadout):
            continue
        if isinstance(node, IntegerLif) and np.any(np.asarray(node.i_decay) < DECAY_ONE) and np.any(node.bias):
            findings.append(Finding(name, "a bias beside a current that fades: in NIR the synapse filters it as well"))
        sources = [source for source in net.sources(name) if isinstance(net.nodes[source], IntegerConv | IntegerDense)]
        free = [source for source in sources if source not in biases]
        brought = sum((biases[source] for source in sources if source in biases), start=np.zeros(1, np.int64))
        missing = node.bias - brought
        for source in free:
            biases[source] = np.zeros_like(missing)
        if free:
            biases[free[-1]] = missing
        elif np.any(missing):
            findings.append(
                Finding(name, "its bias cannot be carried by the convolutions that feed it, which feed others too")
            )
    return biases, findings


def _build(
    node: Any, before: Shape, biases: dict[str, IntArray], grid: tuple[int, int], dt: float
) -> tuple[nir.NIRNode, Shape]:
    if isinstance(node, IntegerInput):
        shape: Shape = (node.channels, *grid)
        return nir.Input(input_type={"input": np.array(shape)}), shape
    if isinstance(node, IntegerConv):
        return _build_conv(node, before, biases[node.name])
    if isinstance(node, IntegerDense) and before[1:] == (1, 1):
        # on a grid of one place it is a convolution, which more readers run
        conv = IntegerConv(node.name, node.weight[:, :, None, None])
        return _build_conv(conv, before, biases[node.name])
    if isinstance(node, IntegerDense):
        affine = nir.Affine(
            weight=_scaled(node.weight), bias=_scaled(_full(biases[node.name], len(node.weight))), metadata=_hints()
        )
        return affine, (len(node.weight),)
    if isinstance(node, IntegerFlatten):
        flat = nir.Flatten(input_type={"input": np.array(before)}, start_dim=0, end_dim=-1)
        return flat, (int(np.prod(before)),)
    if isinstance(node, IntegerLif):
        return _build_neuron(node, before, dt), before
    return nir.Output(output_type={"output": np.array(before)}), before


def _build_conv(node: IntegerConv, before: Shape, bias: IntArray) -> tuple[nir.NIRNode, Shape]:
    kernel = (node.weight.shape[2], node.weight.shape[3])
    _, seen = next(taps(np.zeros((1, *before[1:]), np.int8), kernel, node.stride, node.padding, node.dilation))
    conv = nir.Conv2d(
        input_shape=(before[1], before[2]),
        weight=_scaled(node.weight),
        stride=node.stride,
        padding=node.padding,
        dilation=node.dilation,
        groups=node.groups,
        bias=_scaled(_full(bias, len(node.weight))),
        metadata=_hints(),
    )
    return conv, (len(node.weight), seen.shape[1], seen.shape[2])


def _full(bias: IntArray, outputs: int) -> IntArray:
    return np.broadcast_to(bias, (outputs,)).copy()


def _scaled(values: IntArray) -> NDArray[np.float32]:
    return (values * UNIT).astype(np.float32)


def _hints() -> dict[str, Any]:
    return {"weight_step": WEIGHT_STEP, "bias_step": UNIT}


def _build_neuron(node: IntegerLif, shape: Shape, dt: float) -> nir.NIRNode:
    """LIF where the current lasts one step, IF where nothing leaks, CubaLIF where the current fades."""

    def full(values: float | NDArray[np.float64]) -> NDArray[np.float32]:
        column = np.asarray(values, np.float32).reshape(-1, *(1,) * (len(shape) - 1))
        return np.broadcast_to(column, shape)

    v_decay, i_decay = (np.asarray(values, np.float64) / DECAY_ONE for values in (node.v_decay, node.i_decay))
    offset = 0.5 if np.all(np.isin(v_decay, (0, 1))) and np.all(i_decay == 1) else threshold_offset(0.5)
    threshold = (node.vth + offset) * UNIT
    if np.all(i_decay == 1) and np.all(v_decay == 0):
        # r * dt = 1: a current enters the membrane as it is
        return nir.IF(r=full(1 / dt), v_threshold=full(threshold), v_reset=full(0.0))
    if np.any(v_decay == 0) or np.any(i_decay == 0):
        raise FindingsError(
            "the integer network cannot be written as a NIR graph",
            [Finding(node.name, "registers that never decay have no time constant", limit="decay from 1/4096 up")],
        )
    if np.all(i_decay == 1):
        return nir.LIF(
            tau=full(dt / v_decay),
            r=full(1.0),
            v_leak=full(0.0),
            v_threshold=full(v_decay * threshold),
            v_reset=full(0.0),
        )
    return nir.CubaLIF(
        tau_syn=full(dt / i_decay),
        tau_mem=full(dt / v_decay),
        r=full(1 / v_decay),
        v_leak=full(0.0),
        v_threshold=full(threshold),
        v_reset=full(0.0),
        w_in=full(1 / i_decay),
    )
