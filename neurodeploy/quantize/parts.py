"""A NIR graph taken apart for the chip: float layers without a size, in running order.

What NIR holds as arrays of a whole layer (C, H, W) becomes one value a channel; what an integer network has no node for
(sum pooling) is folded into the weights behind it. Everything that cannot be carried exactly is a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import Finding
from neurodeploy.graph.cycles import late_biases
from neurodeploy.graph.order import backward, run_order
from neurodeploy.graph.shapes import Shape, conv_padding, node_shapes, pair
from neurodeploy.graph.spec import threshold_offset

FloatArray = NDArray[np.float64]
Edge = tuple[str, str]


@dataclass(frozen=True)
class InputPart:
    """The input: (C, h, w), or (N, 1, 1)."""

    name: str
    channels: int


@dataclass(frozen=True)
class LinearPart:
    """A convolution or matrix product with bias. ``weight``: (O, I / groups, rows, columns) or (O, I)."""

    name: str
    weight: FloatArray
    bias: FloatArray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    step_hint: float | None = None
    """What the metadata call the step of the weights' grid."""


@dataclass(frozen=True)
class FlattenPart:
    """(C, h, w) -> (C * h * w, 1, 1)."""

    name: str


@dataclass(frozen=True)
class NeuronPart:
    """Spiking neurons in units of the summed current x that arrives.

    ``u <- (1 - i_decay) u + x``, ``v <- (1 - v_decay) v + u + bias``, a spike when ``v > threshold``, then ``v <- 0``:
    the membrane of NIR divided by the gain with which a current enters it. All arrays have one value a channel, (C,).
    """

    name: str
    threshold: FloatArray
    v_decay: FloatArray
    i_decay: FloatArray

    @property
    def remembers(self) -> bool:
        """Whether anything is left of a step in the next one."""
        return bool(np.any(self.v_decay < 1) or np.any(self.i_decay < 1))

    @property
    def fraction(self) -> float:
        """How far above a whole unit the threshold of a quantised network lies."""
        whole = np.all(self.i_decay > 1 - 1e-6) and np.all((self.v_decay < 1e-6) | (self.v_decay > 1 - 1e-6))
        return threshold_offset(1.0 if whole else 0.5)


@dataclass(frozen=True)
class OutputPart:
    """The output: sums what arrives."""

    name: str


Part = InputPart | LinearPart | FlattenPart | NeuronPart | OutputPart


@dataclass(frozen=True)
class Parts:
    """Parts in running order, and the edges between them; those that run backward are feedback, a step late."""

    nodes: Mapping[str, Part]
    edges: tuple[Edge, ...]

    @cached_property
    def feedback(self) -> frozenset[Edge]:
        """The edges that carry what their source put out in the previous step."""
        return backward(self.nodes, self.edges)

    def sources(self, name: str) -> list[str]:
        """Names of the parts with an edge into ``name``."""
        return [source for source, target in self.edges if target == name]

    def targets(self, name: str) -> list[str]:
        """Names of the parts that ``name`` has an edge to."""
        return [target for source, target in self.edges if source == name]


class _Refused(Exception):
    """A node that an integer network cannot hold."""

    def __init__(self, rule: str, *, have: str = "", limit: str = "", instead: str = "") -> None:
        super().__init__(rule)
        self.rule, self.have, self.limit, self.instead = rule, have, limit, instead


@dataclass(frozen=True)
class _Context:
    """What a builder knows of the surroundings of its node."""

    dt: float
    shapes: Mapping[str, Shape]
    pooled: Mapping[str, tuple[tuple[int, int], Shape]]
    """For nodes whose output is still to be pooled: the window, and the shape before pooling."""

    source: str


def take_apart(graph: nir.NIRGraph, dt: float) -> tuple[Parts, list[Finding]]:
    """The parts of a graph that is sound (``structure_findings`` is empty), and every reason why it has none.

    Args:
        graph: A sound graph.
        dt: Length of a time step in seconds.
    """
    shapes = node_shapes(graph)
    start = next(name for name, node in graph.nodes.items() if isinstance(node, nir.Input))
    order, feedback = run_order(graph.nodes, graph.edges, start)
    findings = [
        Finding(
            source,
            f"its bias arrives at {target} over a feedback edge, from the second step on: a neuron's bias on the chip"
            " counts in every step",
            limit="no bias",
            instead="--first-step-bias if the network was trained in that way, as in snnTorch",
        )
        for source, target in late_biases(graph)
    ]
    nodes: dict[str, Part] = {}
    stands_for: dict[str, str] = {}
    pooled: dict[str, tuple[tuple[int, int], Shape]] = {}
    for name in order:
        sources = [source for source, target in graph.edges if target == name]
        forward = [source for source in sources if (source, name) not in feedback]
        context = _Context(dt, shapes, pooled, forward[0] if forward else "")
        node = graph.nodes[name]
        try:
            _check_sources(node, [graph.nodes[source] for source in sources], sources, pooled)
            if isinstance(node, nir.SumPool2d):
                pooled[name] = (_pool_window(node, shapes[context.source]), shapes[context.source])
                stands_for[name] = stands_for.get(context.source, context.source)
                continue
            nodes[name] = _BUILDERS[type(node)](name, node, context)
        except _Refused as error:
            findings.append(Finding(name, error.rule, have=error.have, limit=error.limit, instead=error.instead))
        if isinstance(node, nir.Flatten) and context.source in pooled:
            pooled[name] = pooled[context.source]
    # the output at the end, behind what only feeds back
    nodes = dict(sorted(nodes.items(), key=lambda item: isinstance(item[1], OutputPart)))
    edges = tuple(
        (stands_for.get(source, source), target) for source, target in graph.edges if target not in stands_for
    )
    return Parts(nodes, edges), findings


_LINEAR = (nir.Conv2d, nir.Affine, nir.Linear)
_SPIKING = (nir.LIF, nir.IF, nir.CubaLIF)
_FED_BY: dict[type, tuple[type, ...]] = {
    nir.Conv2d: (nir.Input, *_SPIKING, nir.SumPool2d),
    nir.Affine: (nir.Input, *_SPIKING, nir.Flatten),
    nir.Linear: (nir.Input, *_SPIKING, nir.Flatten),
    nir.Flatten: (nir.Input, *_SPIKING, nir.SumPool2d),
    nir.SumPool2d: (nir.Input, *_SPIKING),
    nir.LIF: _LINEAR,
    nir.IF: _LINEAR,
    nir.CubaLIF: _LINEAR,
    nir.Output: (*_LINEAR, *_SPIKING),
}
"""What a node may take its input from, so that every synapse of the chip has a weight and a neuron at either end."""

_HELD = (nir.Input, *_FED_BY)


def _check_sources(node: nir.NIRNode, sources: list[nir.NIRNode], names: list[str], pooled: Mapping[str, Any]) -> None:
    if isinstance(node, nir.Input):
        return
    allowed = _FED_BY.get(type(node))
    if allowed is None:
        raise _Refused(
            f"{type(node).__name__} has no counterpart in the integer network",
            limit=", ".join(sorted(kind.__name__ for kind in _HELD)),
        )
    for name, source in zip(names, sources, strict=True):
        if isinstance(source, nir.Flatten) and name in pooled and not isinstance(node, nir.Affine | nir.Linear):
            raise _Refused("only a matrix product can follow a pooled and flattened layer")
        if isinstance(source, _HELD) and not isinstance(source, allowed):
            raise _Refused(
                f"takes its input from {name}",
                have=type(source).__name__,
                limit=" or ".join(kind.__name__ for kind in allowed),
            )
    summed = len(sources) > 1
    if summed and not isinstance(node, (*_SPIKING, nir.Output)):
        raise _Refused("only neurons and the output sum edges", have=f"{len(sources)} edges", limit="1 edge")
    if summed and isinstance(node, nir.Output) and any(isinstance(source, _SPIKING) for source in sources):
        raise _Refused("the output sums currents, or counts the spikes of one layer", have=", ".join(names))


def _pool_window(node: nir.SumPool2d, shape: Shape) -> tuple[int, int]:
    """The window of a sum pooling that can be folded into the weights behind it."""
    window = pair(node.kernel_size)
    if pair(node.stride) != window or pair(node.padding) != (0, 0):
        raise _Refused(
            "only sum pooling without overlap and padding can be folded into the weights behind it",
            have=f"kernel {window}, stride {pair(node.stride)}, padding {pair(node.padding)}",
            limit=f"stride {window}, padding (0, 0)",
        )
    if shape[1] % window[0] or shape[2] % window[1]:
        raise _Refused(
            "sum pooling drops rows or columns", have=f"{shape[1]}x{shape[2]}", limit=f"multiples of {window}"
        )
    return window


# builders


def _build_input(name: str, node: nir.Input, _context: _Context) -> Part:
    shape = tuple(int(size) for size in node.input_type["input"])
    if len(shape) not in (1, 3):
        raise _Refused("the input must be (C, H, W) or (N,)", have=str(shape))
    return InputPart(name, shape[0])


def _build_conv(name: str, node: nir.Conv2d, context: _Context) -> Part:
    padding = conv_padding(node)
    if any(before != after for before, after in padding):
        raise _Refused("an even kernel with padding 'same' is padded unevenly", limit="odd kernels")
    weight = np.asarray(node.weight, np.float64)
    part = LinearPart(
        name,
        weight,
        np.asarray(node.bias, np.float64),
        stride=pair(node.stride),
        padding=(padding[0][0], padding[1][0]),
        dilation=pair(node.dilation),
        groups=int(node.groups),
        step_hint=_step_hint(node),
    )
    return _pooled_conv(part, context.pooled[context.source][0]) if context.source in context.pooled else part


def _pooled_conv(part: LinearPart, window: tuple[int, int]) -> LinearPart:
    """A convolution of sums over windows, as one convolution with a larger kernel and stride."""
    outputs, fan_in, *kernel = part.weight.shape
    sizes = [window[axis] * (part.dilation[axis] * (kernel[axis] - 1) + 1) for axis in range(2)]
    weight = np.zeros((outputs, fan_in, *sizes))
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            top, left = window[0] * part.dilation[0] * row, window[1] * part.dilation[1] * column
            weight[:, :, top : top + window[0], left : left + window[1]] = part.weight[:, :, row, column, None, None]
    return replace(
        part,
        weight=weight,
        stride=(part.stride[0] * window[0], part.stride[1] * window[1]),
        padding=(part.padding[0] * window[0], part.padding[1] * window[1]),
        dilation=(1, 1),
    )


def _build_matrix(name: str, node: nir.Affine | nir.Linear, context: _Context) -> Part:
    weight = np.asarray(node.weight, np.float64)
    if weight.ndim != 2:
        raise _Refused("only plain matrices are held", have=f"{weight.ndim} axes", limit="2 axes")
    bias = np.asarray(node.bias, np.float64) if isinstance(node, nir.Affine) else np.zeros(len(weight))
    if context.source in context.pooled:
        (rows, columns), (channels, height, width) = context.pooled[context.source]
        grid = weight.reshape(-1, channels, height // rows, width // columns)
        weight = grid.repeat(rows, axis=2).repeat(columns, axis=3).reshape(len(weight), -1)
    return LinearPart(name, weight, bias, step_hint=_step_hint(node))


def _build_flatten(name: str, _node: nir.Flatten, context: _Context) -> Part:
    if len(context.shapes[name]) != 1:
        raise _Refused("only flattening to one axis is held", have=str(context.shapes[name]), limit="(N,)")
    return FlattenPart(name)


def _build_lif(name: str, node: nir.LIF, context: _Context) -> Part:
    _check_rest(node)
    decay = context.dt / _by_channel("tau", node.tau)
    gain = decay * _by_channel("r", node.r)
    return _neuron(name, node, gain, v_decay=decay, i_decay=np.ones_like(decay))


def _build_if(name: str, node: nir.IF, context: _Context) -> Part:
    _check_rest(node)
    gain = context.dt * _by_channel("r", node.r)
    return _neuron(name, node, gain, v_decay=np.zeros_like(gain), i_decay=np.ones_like(gain))


def _build_cuba(name: str, node: nir.CubaLIF, context: _Context) -> Part:
    _check_rest(node)
    i_decay = context.dt / _by_channel("tau_syn", node.tau_syn)
    v_decay = context.dt / _by_channel("tau_mem", node.tau_mem)
    gain = i_decay * _by_channel("w_in", node.w_in) * v_decay * _by_channel("r", node.r)
    return _neuron(name, node, gain, v_decay=v_decay, i_decay=i_decay)


def _build_output(name: str, _node: nir.Output, _context: _Context) -> Part:
    return OutputPart(name)


def _check_rest(node: nir.LIF | nir.IF | nir.CubaLIF) -> None:
    for field in ("v_leak", "v_reset"):
        values = getattr(node, field, None)
        if values is not None and np.any(values != 0):
            raise _Refused(
                f"{field} must be 0: the chip's membranes rest at and are reset to 0",
                have=f"{float(np.min(values)):g}..{float(np.max(values)):g}",
                limit="0",
            )


def _by_channel(field: str, values: NDArray[Any]) -> FloatArray:
    """One value a channel (C,) of a parameter (C, H, W) or (N,)."""
    values = np.asarray(values)
    channels = values.reshape(len(values), -1)[:, 0] if values.ndim else values.reshape(1)
    if np.any(values != channels.reshape(-1, *(1,) * (values.ndim - 1))):
        raise _Refused(f"{field} differs inside a channel", limit="one value a channel")
    return channels.astype(np.float64)


def _neuron(name: str, node: Any, gain: FloatArray, *, v_decay: FloatArray, i_decay: FloatArray) -> NeuronPart:
    if np.any(gain <= 0):
        raise _Refused("the gain with which a current enters the membrane must be positive", have=f"{gain.min():g}")
    if max(v_decay.max(), i_decay.max()) > 1 + 1e-6:
        raise _Refused("a time constant is shorter than the time step", limit="tau >= dt")
    threshold = _by_channel("v_threshold", node.v_threshold) / gain
    if np.any(threshold < 0):
        raise _Refused("a negative threshold lets neurons fire without input", have=f"{threshold.min():g}", limit="0")
    return NeuronPart(name, threshold, np.minimum(v_decay, 1.0), np.minimum(i_decay, 1.0))


def _step_hint(node: nir.NIRNode) -> float | None:
    hint = node.metadata.get("weight_step") if isinstance(node.metadata, dict) else None
    if isinstance(hint, int | float | np.number) and np.isfinite(hint) and hint > 0:
        return float(hint)
    return None


_BUILDERS: dict[type, Callable[[str, Any, _Context], Part]] = {
    nir.Input: _build_input,
    nir.Conv2d: _build_conv,
    nir.Affine: _build_matrix,
    nir.Linear: _build_matrix,
    nir.Flatten: _build_flatten,
    nir.LIF: _build_lif,
    nir.IF: _build_if,
    nir.CubaLIF: _build_cuba,
    nir.Output: _build_output,
}
"""A builder for every kind of node that an integer network can carry (sum pooling is folded before)."""


def linear_groups(parts: Parts) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Linear parts that must count in the same step, with the neurons or output that they feed.

    Two of them that are summed anywhere share a step, in all that they reach.
    """
    remaining = [name for name, part in parts.nodes.items() if isinstance(part, LinearPart)]
    while remaining:
        group, fed = {remaining[0]}, set(parts.targets(remaining[0]))
        while True:
            joined = {name for name in remaining if fed & set(parts.targets(name))}
            if joined <= group:
                break
            group |= joined
            fed = {target for name in group for target in parts.targets(name)}
        yield tuple(name for name in remaining if name in group), tuple(name for name in parts.nodes if name in fed)
        remaining = [name for name in remaining if name not in group]
