"""From an integer network to what the kernel runs: packed weights, thresholds, and the proof that nothing overflows.

A plan belongs to one network and one instruction path. What the kernel cannot run it refuses in words; the reference
runs those networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.quantize.bounds import CONV_MAX, CURRENT_MAX
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)
from neurodeploy.simulate.kernel.library import LANES

Pair = tuple[int, int]

CODE_MAX = (1 << 15) - 1
"""Largest magnitude of a code: they are held in 16 bits."""

LEVELS_MAX = 120
"""Most threshold populations: the AVX2 path adds two products of a count and an int8 weight in 16 bits."""

REGISTER_MAX = 1 << 30
"""Bound of the register u before its wrap-around: with a shifted bias and a membrane it fits 32 bits."""

BIAS_MAX = 1 << 22
"""Bound of a bias mantissa with its level."""

_NOWHERE = np.iinfo(np.int32).max
"""A threshold that no sum exceeds."""


@dataclass(frozen=True)
class TermPlan:
    """One convolution of one source.

    Attributes:
        conv: Name of the convolution.
        source: Name of what it reads.
        weights: As kernel.h says for the plan's path.
        groups: Groups of four bytes a tap, or inputs a tap on the plain path.
        graded: The source is the input's codes.
        shift: 1 where the weights are stored halved.
        run: Groups whose products 16 bits can add up.
        kernel: Rows and columns.
        dilation: As in the network.
        padding: As in the network.
    """

    conv: str
    source: str
    weights: NDArray[Any]
    groups: int
    graded: bool
    shift: int
    run: int
    kernel: Pair
    dilation: Pair
    padding: Pair

    @property
    def shrink(self) -> Pair:
        """Rows and columns by which the output is smaller than the source; negative where it is larger."""
        rows, columns = (self.dilation[axis] * (self.kernel[axis] - 1) - 2 * self.padding[axis] for axis in range(2))
        return rows, columns


@dataclass(frozen=True)
class LayerPlan:
    """One spiking layer, or the readout (``levels`` 0).

    Attributes:
        name: Node name.
        terms: What adds up to its current.
        channels: C.
        padded: C rounded up to a multiple of 16.
        levels: D.
        remembers: A step sees what the one before left.
        u_remembers: The current does.
        v_keep: (padded,) int32, 4096 - v_decay.
        u_keep: (padded,) int32, 4096 - i_decay.
        bias: (D, padded) int32, shifted by 6 bits.
        threshold: int32; (padded,) of the membrane where the layer remembers, else (D, padded) of the current.
        weight_bound: (C,) for sources of codes and of counts: what the sum reaches a unit of the largest code, and from
            counts.
    """

    name: str
    terms: tuple[TermPlan, ...]
    channels: int
    padded: int
    levels: int = 0
    remembers: bool = False
    u_remembers: bool = False
    v_keep: NDArray[np.int32] | None = None
    u_keep: NDArray[np.int32] | None = None
    bias: NDArray[np.int32] | None = None
    threshold: NDArray[np.int32] | None = None
    weight_bound: tuple[int, int] = (0, 0)

    def current_bound(self, code: int) -> int:
        """Largest magnitude of the current, for codes of at most that magnitude."""
        return self.weight_bound[0] * code + self.weight_bound[1]


@dataclass(frozen=True)
class Plan:
    """What the kernel runs, in order; the readout is the last layer.

    Attributes:
        path: The instruction path that the weights are packed for.
        steps: T.
        layers: In network order.
        halo: For every source, the rows and columns of zeros round it.
        last_use: For every source, the place in ``layers`` that reads it last.
        code_max: Largest magnitude of a code with which nothing overflows.
    """

    path: str
    steps: int
    layers: tuple[LayerPlan, ...]
    halo: dict[str, Pair]
    last_use: dict[str, int]
    code_max: int


def refusal(net: IntegerNetwork) -> str | None:
    """Why the kernel cannot run a network, naming the node; None where it can."""
    return next(_refusals(net), None)


def _refusals(net: IntegerNetwork) -> Iterator[str]:
    for name, node in net.nodes.items():
        sources = [net.nodes[source] for source in net.sources(name)]
        if isinstance(node, IntegerConv):
            yield from _conv_refusals(node, any(isinstance(source, IntegerInput) for source in sources))
            if not sources or not all(isinstance(source, IntegerInput | IntegerLif) for source in sources):
                yield f"{name}: a convolution that reads something else than the input or spiking layers"
            for source in sources:
                channels = _channels(source)
                if channels and channels != node.weight.shape[1]:
                    yield f"{name}: weights for {node.weight.shape[1]} channels behind {source.name} with {channels}"
        elif isinstance(node, IntegerDense | IntegerFlatten):
            yield f"{name}: layers without a grid"
        elif isinstance(node, IntegerLif | IntegerReadout):
            if not sources or not all(isinstance(source, IntegerConv) for source in sources):
                yield f"{name}: a layer that is entered by something else than convolutions"
            for source in sources:
                if isinstance(source, IntegerConv) and len(source.weight) != len(node.bias):
                    yield f"{name}: {len(node.bias)} biases for the {len(source.weight)} channels of {source.name}"
            if isinstance(node, IntegerLif):
                yield from _lif_refusals(node)
    if sum(isinstance(node, IntegerReadout) for node in net.nodes.values()) != 1 or not isinstance(
        list(net.nodes.values())[-1], IntegerReadout
    ):
        yield f"{net.readout.name}: a readout that is not the one last node"


def _channels(node: IntegerNode) -> int:
    """Channels of what a convolution may read; 0 for anything else."""
    if isinstance(node, IntegerInput):
        return node.channels
    return len(node.bias) if isinstance(node, IntegerLif) else 0


def _conv_refusals(node: IntegerConv, graded: bool) -> Iterator[str]:
    if node.stride != (1, 1):
        yield f"{node.name}: stride {node.stride}"
    if node.groups != 1:
        yield f"{node.name}: {node.groups} groups"
    low, high = int(node.weight.min(initial=0)), int(node.weight.max(initial=0))
    if graded:
        if max(-low, high) > CODE_MAX:
            yield f"{node.name}: weights {low}..{high} need more than 16 bits"
    elif _shift_of(node.weight) is None:
        yield f"{node.name}: weights {low}..{high} that are neither 8-bit nor even and half of that"
    if node.weight.size == 0:
        yield f"{node.name}: no weights"


def _shift_of(weight: IntArray) -> int | None:
    """How many bits int8 weights have lost: 0 as they are, 1 halved; None where they do not fit."""
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    if low >= -256 and high <= 254 and not np.any(weight % 2):
        return 1
    return 0 if low >= -128 and high <= 127 else None


def _lif_refusals(node: IntegerLif) -> Iterator[str]:
    if not 1 <= len(node.levels) <= LEVELS_MAX:
        yield f"{node.name}: {len(node.levels)} levels"
    for field in ("v_decay", "i_decay"):
        values = np.asarray(getattr(node, field))
        if values.min() < 0 or values.max() > 4096:
            yield f"{node.name}: {field} outside 0..4096"
    if abs(int(node.vth)) >= 1 << 24:
        yield f"{node.name}: threshold {node.vth}"
    if int(np.abs(node.bias).max(initial=0)) + max(map(abs, node.levels), default=0) >= BIAS_MAX:
        yield f"{node.name}: biases beyond 22 bits"


def make_plan(net: IntegerNetwork, path: str) -> Plan:
    """The plan of a network that :func:`refusal` lets pass."""
    layers = tuple(
        _layer(net, node, path) for node in net.nodes.values() if isinstance(node, IntegerLif | IntegerReadout)
    )
    halo: dict[str, Pair] = {}
    last_use: dict[str, int] = {}
    for place, layer in enumerate(layers):
        for term in layer.terms:
            before = halo.get(term.source, (0, 0))
            halo[term.source] = max(before[0], term.padding[0]), max(before[1], term.padding[1])
            last_use[term.source] = place
    bounds = [_code_max(net, layer) for layer in layers]
    return Plan(path, net.host.steps, layers, halo, last_use, min(CODE_MAX, *bounds))


def _layer(net: IntegerNetwork, node: IntegerLif | IntegerReadout, path: str) -> LayerPlan:
    terms, codes, counts = [], np.zeros(len(node.bias), np.int64), np.zeros(len(node.bias), np.int64)
    for name in net.sources(node.name):
        conv = net.nodes[name]
        if not isinstance(conv, IntegerConv):
            continue
        reach = np.abs(conv.weight).sum(axis=(1, 2, 3))
        for source_name in net.sources(name):
            source = net.nodes[source_name]
            levels = len(source.levels) if isinstance(source, IntegerLif) else 0
            terms.append(_term(conv, source_name, levels, path))
            if levels:
                counts = counts + reach * levels
            else:
                codes = codes + reach
    channels = len(node.bias)
    padded = -(-channels // LANES) * LANES
    bound = int(codes.max(initial=0)), int(counts.max(initial=0))
    plan = LayerPlan(node.name, tuple(terms), channels, padded, weight_bound=bound)
    return plan if isinstance(node, IntegerReadout) else _with_neurons(plan, node, net.host.steps)


def _with_neurons(plan: LayerPlan, node: IntegerLif, steps: int) -> LayerPlan:
    def spread(values: int | IntArray, fill: int) -> NDArray[np.int32]:
        row = np.full(plan.padded, fill, np.int32)
        row[: plan.channels] = values
        return row

    v_keep, u_keep = spread(4096 - np.asarray(node.v_decay), 0), spread(4096 - np.asarray(node.i_decay), 0)
    u_remembers = steps > 1 and bool(u_keep.any())
    remembers = u_remembers or (steps > 1 and bool(v_keep.any()))
    biases = [node.bias + offset for offset in node.levels]
    threshold = spread(node.vth << 6, _NOWHERE)
    if not remembers:
        threshold = np.stack([spread(_current_threshold(node.vth, bias), _NOWHERE) for bias in biases])
    return LayerPlan(
        name=plan.name,
        terms=plan.terms,
        channels=plan.channels,
        padded=plan.padded,
        levels=len(node.levels),
        remembers=remembers,
        u_remembers=u_remembers,
        v_keep=v_keep,
        u_keep=u_keep,
        bias=np.stack([spread(bias << 6, 0) for bias in biases]),
        threshold=threshold,
        weight_bound=plan.weight_bound,
    )


def _current_threshold(vth: int, bias: IntArray) -> IntArray:
    """The current above which a neuron without memory fires: ``clip(64 x + 64 bias) > 64 vth``, (C,)."""
    if vth << 6 >= (1 << 23) - 1:  # the membrane saturates below it
        return np.full_like(bias, _NOWHERE)
    if vth << 6 < 1 - (1 << 23):
        return np.full_like(bias, np.iinfo(np.int32).min)
    return vth - bias


def _code_max(net: IntegerNetwork, layer: LayerPlan) -> int:
    """Largest magnitude of a code for which a layer's sums and registers stay inside their bounds; negative: none."""
    limit = CONV_MAX
    if layer.u_remembers:
        limit = min(limit, (REGISTER_MAX // net.host.steps) >> 6)
    codes, counts = layer.weight_bound
    if counts > limit:
        return -1
    return (limit - counts) // codes if codes else CODE_MAX


def _term(conv: IntegerConv, source: str, levels: int, path: str) -> TermPlan:
    graded = not levels
    shift = 0 if graded or path == "plain" else _shift_of(conv.weight) or 0
    weights, groups = _pack(conv.weight >> shift, graded, path)
    return TermPlan(
        conv=conv.name,
        source=source,
        weights=weights,
        groups=groups,
        graded=graded,
        shift=shift,
        run=1 if graded else max(1, CODE_MAX // (256 * levels)),
        kernel=(conv.weight.shape[2], conv.weight.shape[3]),
        dilation=conv.dilation,
        padding=conv.padding,
    )


def _pack(weight: IntArray, graded: bool, path: str) -> tuple[NDArray[Any], int]:
    """Weights as kernel.h says, and the groups (or inputs) a tap."""
    outputs, inputs, rows, columns = weight.shape
    padded = -(-outputs // LANES) * LANES
    size, kind = (1, np.int16) if path == "plain" else (2, np.int16) if graded else (4, np.int8)
    groups = -(-inputs // size)
    table = np.zeros((rows, columns, groups * size, padded), np.int64)
    table[:, :, :inputs, :outputs] = weight.transpose(2, 3, 1, 0)
    grouped = table.reshape(rows, columns, groups, size, padded).swapaxes(3, 4)
    packed = aligned(grouped.shape, kind)
    packed[...] = grouped
    return packed, groups


def aligned(shape: tuple[int, ...], dtype: Any, slack: int = 0) -> NDArray[Any]:
    """Zeros whose first byte lies at a multiple of 64, with ``slack`` bytes of zeros behind them."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + slack + 64, np.uint8)
    start = -raw.ctypes.data % 64
    zeros: NDArray[Any] = raw[start : start + size].view(dtype).reshape(shape)
    return zeros


def may_wrap(layer: LayerPlan, code: int, steps: int) -> bool:
    """Whether the register u may leave its 24 bits."""
    bound = layer.current_bound(code) * (steps if layer.u_remembers else 1)
    return bound > CURRENT_MAX
