"""From an integer network to what the kernel runs: packed weights, thresholds, and the proof that nothing overflows.

A plan belongs to one network and one instruction path. What the kernel cannot run is refused in words, see
:mod:`neurodeploy.simulate.kernel.refuse`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerDense,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)
from neurodeploy.simulate.kernel.limits import code_max
from neurodeploy.simulate.kernel.pack import (
    THIN_MAX,
    EventTable,
    pack,
    pack_alone,
    pack_events,
    pack_thin,
    pack_tiles,
    rounded,
)
from neurodeploy.simulate.kernel.refuse import CODE_MAX, LEVELS_MAX, Pair, channels_of, roots, shift_of

_NOWHERE = np.iinfo(np.int32).max
"""A threshold that no sum exceeds."""


class _Declined(Exception):
    """Why a network has no plan."""


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
        parts: Of a row of the kernel, on the AMX path.
        chunks: Of 64 bytes, of each part; 0 where the weights are as on the other paths.
        thin: Outputs, where they are few and the weights are those of the AVX2 path for that; else 0.
        events: The table of the event form; None for sources that are not binary.
        alone: (padded,) int32, the weights of a convolution of one synapse a channel; None for all others.
        reads: (C,) of codes, 1 where some weight is not 0; None for counts.
        kernel: Rows and columns.
        dilation: As in the network.
        padding: As in the network.
        stride: As in the network.
    """

    conv: str
    source: str
    weights: NDArray[Any]
    groups: int
    graded: bool
    shift: int
    run: int
    parts: int
    chunks: int
    thin: int
    events: EventTable | None
    alone: NDArray[np.int32] | None
    reads: NDArray[np.uint8] | None
    kernel: Pair
    dilation: Pair
    padding: Pair
    stride: Pair

    def outputs(self, extent: Pair) -> Pair:
        """Rows and columns of the output for a source of that many; below 1 where the kernel does not fit."""
        rows, columns = (
            (extent[axis] + 2 * self.padding[axis] - self.dilation[axis] * (self.kernel[axis] - 1) - 1)
            // self.stride[axis]
            + 1
            for axis in range(2)
        )
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


@dataclass(frozen=True)
class Plan:
    """What the kernel runs, in order; the readout is the last layer.

    Attributes:
        path: The instruction path that the weights are packed for.
        steps: T.
        layers: In network order.
        halo: For every source, the rows and columns of zeros round it.
        strides: For every source, the largest stride with which columns are read.
        last_use: For every source, the place in ``layers`` that reads it last.
        code_max: Largest magnitude of a code with which nothing overflows.
        binary: Sources whose spikes the event form may read.
        in_bits: Those of them whose readers can all do with bits, however many spike.
        offset: (C,) int64, what the readout's bias adds in all steps.
        input: Name of the input.
        input_channels: Its channels.
        tick_max: Largest magnitude of a tick; 0 where there are none.
    """

    path: str
    steps: int
    layers: tuple[LayerPlan, ...]
    halo: dict[str, Pair]
    strides: dict[str, int]
    last_use: dict[str, int]
    code_max: int
    binary: frozenset[str]
    in_bits: frozenset[str]
    offset: IntArray
    input: str
    input_channels: int
    tick_max: int

    def slots(self, sizes: Sequence[Hashable]) -> list[int]:
        """Which memory every spiking layer writes to: that of a layer of its size that nobody reads any more.

        Args:
            sizes: Of every spiking layer.
        """
        free: defaultdict[Hashable, list[int]] = defaultdict(list)
        held: dict[int, int] = {}
        found: list[int] = []
        for place, size in enumerate(sizes):
            found.append(free[size].pop() if free[size] else max(found, default=-1) + 1)
            held[place] = self.last_use.get(self.layers[place].name, place)
            for done in [at for at, last in held.items() if last <= place]:
                del held[done]
                free[sizes[done]].append(found[done])
        return found


def extents_of(plan: Plan, size: Pair) -> dict[str, Pair] | str:
    """Rows and columns of every layer, or why its sources do not fit together."""
    found: dict[str, Pair] = {}
    for layer in plan.layers:
        shapes = {term.outputs(found.get(term.source, size)) for term in layer.terms}
        if len(shapes) != 1 or min(min(shape) for shape in shapes) < 1:
            return f"{layer.name}: convolutions of other sizes than one another, or larger than the image"
        found[layer.name] = shapes.pop()
    return found


def make_plan(net: IntegerNetwork, path: str, size: Pair) -> Plan | str:
    """The plan of a network that is not refused, or why it has none for an input of ``size`` (rows, columns).

    Without matrices it is the same for every size.
    """
    extents: dict[str, Pair] = {net.input.name: size}
    layers: list[LayerPlan] = []
    halo: dict[str, Pair] = {}
    strides: dict[str, int] = {}
    last_use: dict[str, int] = {}
    for node in net.nodes.values():
        if not isinstance(node, IntegerLif | IntegerReadout):
            continue
        try:
            layer = _layer(net, node, path, extents)
        except _Declined as reason:
            return str(reason)
        extents[node.name] = layer.terms[0].outputs(extents[layer.terms[0].source])
        for term in layer.terms:
            before = halo.get(term.source, (0, 0))
            halo[term.source] = max(before[0], term.padding[0]), max(before[1], term.padding[1])
            strides[term.source] = max(strides.get(term.source, 1), term.stride[1])
            last_use[term.source] = len(layers)
        layers.append(layer)
    largest = min(CODE_MAX, *(code_max(layer, net.host.steps) for layer in layers))
    binary = frozenset(
        term.source
        for layer in layers
        if path == "avx2" or not layer.summed
        for term in layer.terms
        if term.events is not None
    )
    in_bytes = {term.source for layer in layers for term in layer.terms if not _takes_bits(layer, term)}
    return Plan(
        path=path,
        steps=net.host.steps,
        layers=tuple(layers),
        halo=halo,
        strides=strides,
        last_use=last_use,
        code_max=largest,
        binary=binary,
        in_bits=binary - in_bytes if path == "avx2" else frozenset(),
        offset=np.asarray(net.readout.bias * net.host.steps, np.int64),
        input=net.input.name,
        input_channels=net.input.channels,
        tick_max=max((abs(value) for channel in net.host.ticks for _, value in channel), default=0),
    )


def _takes_bits(layer: LayerPlan, term: TermPlan) -> bool:
    """Whether the AVX2 path can always take a source's spikes as bits."""
    table = term.events
    return table is not None and (table.sets is not None or term.alone is not None or layer.summed)


def _as_conv(node: IntegerConv | IntegerDense, source: IntegerNode, extent: Pair) -> IntegerConv:
    """A convolution of one group that computes the same: of groups the weights between them are 0."""
    if isinstance(node, IntegerDense):
        shape = channels_of(source), *extent
        if node.weight.shape[1] != shape[0] * shape[1] * shape[2]:
            raise _Declined(f"{node.name}: weights for {node.weight.shape[1]} values behind {source.name} with {shape}")
        return IntegerConv(node.name, node.weight.reshape(-1, *shape))
    if node.groups == 1:
        return node
    outputs, inputs, rows, columns = node.weight.shape
    weight = np.zeros((node.groups, outputs // node.groups, node.groups, inputs, rows, columns), np.int64)
    for group, part in enumerate(np.split(node.weight, node.groups)):
        weight[group, :, group] = part
    full = weight.reshape(outputs, node.groups * inputs, rows, columns)
    return IntegerConv(node.name, full, node.stride, node.padding, node.dilation)


def _layer(net: IntegerNetwork, node: IntegerLif | IntegerReadout, path: str, extents: dict[str, Pair]) -> LayerPlan:
    padded = rounded(len(node.bias))
    pairs = [
        (
            _as_conv(conv, net.nodes[source], extents[source]),
            net.nodes[source],
            pack_alone(conv, padded),
        )
        for conv in (net.nodes[name] for name in net.sources(node.name))
        if isinstance(conv, IntegerConv | IntegerDense)
        for source in roots(net, conv.name)
    ]
    levels = [len(source.levels) if isinstance(source, IntegerLif) else 0 for _, source, _ in pairs]
    plain = all(conv.stride == (1, 1) for conv, _, _ in pairs)
    sums = isinstance(node, IntegerReadout) and plain and net.host.steps > 1
    summed = sums and _sums_fit(levels, net.host.steps)
    codes, counts = np.zeros(len(node.bias), np.int64), np.zeros(len(node.bias), np.int64)
    terms = []
    for (conv, source, alone), count in zip(pairs, levels, strict=True):
        reach = np.abs(conv.weight).sum(axis=(1, 2, 3))
        few = path == "avx2" and isinstance(node, IntegerReadout) and len(node.bias) <= THIN_MAX
        term = _term(conv, source.name, count, net.host.steps if summed else 1, path, few=few)
        terms.append(replace(term, alone=alone if count else None))
        if count:
            counts = counts + reach * count
        else:
            codes = codes + reach
    channels = len(node.bias)
    bound = int(codes.max(initial=0)), int(counts.max(initial=0))
    plan = LayerPlan(node.name, tuple(terms), channels, padded, weight_bound=bound, summed=summed)
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


def _term(conv: IntegerConv, source: str, levels: int, steps: int, path: str, *, few: bool) -> TermPlan:
    """steps: So many are read at once, as their sum."""
    graded = not levels
    weights: NDArray[Any]
    halves = 0 if graded else shift_of(conv.weight) or 0
    shift = 0 if path == "plain" else halves
    parts = chunks = 0
    if path == "amx" and not graded:
        weights, parts, chunks = pack_tiles(conv.weight >> shift, dilated=conv.dilation[1] > 1)
        groups = -(-conv.weight.shape[1] // 4)
    else:
        weights, groups = pack(conv.weight >> shift, graded, path)
    thin = few and not graded and conv.dilation[1] == 1
    if thin:
        weights = pack_thin(conv.weight >> shift)
    scanned = path == "avx2" and steps == 1 and conv.weight.shape[3] == 3 and conv.dilation[1] == 1
    return TermPlan(
        conv=conv.name,
        source=source,
        weights=weights,
        groups=groups,
        graded=graded,
        shift=shift,
        run=1 if graded else max(1, CODE_MAX // ((128 if path == "neon" else 256) * levels * steps)),
        parts=parts,
        chunks=chunks,
        thin=len(conv.weight) if thin else 0,
        events=pack_events(conv.weight, halves, scanned=scanned) if levels == 1 and conv.stride == (1, 1) else None,
        alone=None,
        reads=np.any(conv.weight, axis=(0, 2, 3)).astype(np.uint8) if graded else None,
        kernel=(conv.weight.shape[2], conv.weight.shape[3]),
        dilation=conv.dilation,
        padding=conv.padding,
        stride=conv.stride,
    )
