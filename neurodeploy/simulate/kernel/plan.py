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
from neurodeploy.simulate.kernel.pack import EventTable, pack, pack_events, rounded

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
        events: The table of the event form; None for sources that are not binary.
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
    events: EventTable | None
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
        halvings: How often a step halves every membrane; -1 where a decay is something else.
        v_keep: (padded,) int32, 4096 - v_decay.
        u_keep: (padded,) int32, 4096 - i_decay.
        bias: (D, padded) int32, shifted by 6 bits.
        threshold: int32; (padded,) of the membrane where the layer remembers, else (D, padded) of the current.
        weight_bound: (C,) for sources of codes and of counts: what the sum reaches a unit of the largest code, and from
            counts.
        summed: The readout reads its sources' sums over all steps, once.
    """

    name: str
    terms: tuple[TermPlan, ...]
    channels: int
    padded: int
    levels: int = 0
    remembers: bool = False
    u_remembers: bool = False
    halvings: int = -1
    v_keep: NDArray[np.int32] | None = None
    u_keep: NDArray[np.int32] | None = None
    bias: NDArray[np.int32] | None = None
    threshold: NDArray[np.int32] | None = None
    weight_bound: tuple[int, int] = (0, 0)
    summed: bool = False

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
        binary: Sources whose spikes the event form may read.
    """

    path: str
    steps: int
    layers: tuple[LayerPlan, ...]
    halo: dict[str, Pair]
    last_use: dict[str, int]
    code_max: int
    binary: frozenset[str]


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
    code_max = min(CODE_MAX, *(_code_max(net, layer) for layer in layers))
    binary = frozenset(term.source for layer in layers for term in layer.terms if term.events is not None)
    return Plan(path, net.host.steps, layers, halo, last_use, code_max, binary)


def _layer(net: IntegerNetwork, node: IntegerLif | IntegerReadout, path: str) -> LayerPlan:
    pairs = [
        (conv, net.nodes[source])
        for conv in (net.nodes[name] for name in net.sources(node.name))
        if isinstance(conv, IntegerConv)
        for source in net.sources(conv.name)
    ]
    levels = [len(source.levels) if isinstance(source, IntegerLif) else 0 for _, source in pairs]
    summed = isinstance(node, IntegerReadout) and net.host.steps > 1 and _sums_fit(levels, net.host.steps)
    codes, counts = np.zeros(len(node.bias), np.int64), np.zeros(len(node.bias), np.int64)
    terms = []
    for (conv, source), count in zip(pairs, levels, strict=True):
        reach = np.abs(conv.weight).sum(axis=(1, 2, 3))
        terms.append(_term(conv, source.name, count * (net.host.steps if summed else 1), path))
        if count:
            counts = counts + reach * count
        else:
            codes = codes + reach
    channels = len(node.bias)
    bound = int(codes.max(initial=0)), int(counts.max(initial=0))
    plan = LayerPlan(node.name, tuple(terms), channels, rounded(channels), weight_bound=bound, summed=summed)
    return plan if isinstance(node, IntegerReadout) else _with_neurons(plan, node, net.host.steps)


def _sums_fit(levels: list[int], steps: int) -> bool:
    """Whether the counts of all steps together are as counts of one step may be."""
    return bool(levels) and min(levels) > 0 and max(levels) * steps <= LEVELS_MAX


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
        halvings=_halvings(v_keep[: plan.channels]),
        v_keep=v_keep,
        u_keep=u_keep,
        bias=np.stack([spread(bias << 6, 0) for bias in biases]),
        threshold=threshold,
        weight_bound=plan.weight_bound,
    )


def _halvings(keep: NDArray[np.int32]) -> int:
    """The n for which every membrane keeps 2**-n of its value, else -1."""
    found = [count for count in range(13) if np.all(keep == 4096 >> count)]
    return found[0] if found else -1


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
    halves = 0 if graded else _shift_of(conv.weight) or 0
    shift = 0 if path == "plain" else halves
    weights, groups = pack(conv.weight >> shift, graded, path)
    return TermPlan(
        conv=conv.name,
        source=source,
        weights=weights,
        groups=groups,
        graded=graded,
        shift=shift,
        run=1 if graded else max(1, CODE_MAX // (256 * levels)),
        events=pack_events(conv.weight, halves) if levels == 1 else None,
        kernel=(conv.weight.shape[2], conv.weight.shape[3]),
        dilation=conv.dilation,
        padding=conv.padding,
    )


def may_wrap(layer: LayerPlan, code: int, steps: int) -> bool:
    """Whether the register u may leave its 24 bits."""
    bound = layer.current_bound(code) * (steps if layer.u_remembers else 1)
    return bound > CURRENT_MAX
