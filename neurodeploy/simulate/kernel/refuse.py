"""Why the compiled kernel leaves a network to the reference, in words that name the node."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neurodeploy.quantize.bounds import WEIGHT_EXPONENT_MAX
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

Pair = tuple[int, int]

CODE_MAX = (1 << 15) - 1
"""Largest magnitude of a code: they are held in 16 bits."""

LEVELS_MAX = 120
"""Most threshold populations: the AVX2 path adds two products of a count and an int8 weight in 16 bits."""

BIAS_MAX = 1 << 22
"""Bound of a bias mantissa with its level."""


def refusal(net: IntegerNetwork) -> str | None:
    """Why the kernel cannot run a network, whatever it runs on, naming the node; None where it can."""
    return next(_refusals(net), None)


def is_sized(net: IntegerNetwork) -> bool:
    """Whether a plan depends on the size of the input: matrices are convolutions as large as what they read."""
    return any(isinstance(node, IntegerDense) for node in net.nodes.values())


def roots(net: IntegerNetwork, name: str) -> list[str]:
    """What a node reads, looked at through flattens."""
    found = []
    for source in net.sources(name):
        found += roots(net, source) if isinstance(net.nodes[source], IntegerFlatten) else [source]
    return found


def _refusals(net: IntegerNetwork) -> Iterator[str]:
    for before, after in sorted(net.feedback):
        yield f"{after}: feedback from {before}, where the kernel runs all steps of a layer at once"
    for name, node in net.nodes.items():
        sources = [net.nodes[source] for source in roots(net, name)]
        if isinstance(node, IntegerConv | IntegerDense):
            what = "convolution" if isinstance(node, IntegerConv) else "matrix"
            yield from _weight_refusals(node, any(isinstance(source, IntegerInput) for source in sources))
            if not sources or not all(isinstance(source, IntegerInput | IntegerLif) for source in sources):
                yield f"{name}: a {what} that reads something else than the input or spiking layers"
            if isinstance(node, IntegerConv):
                yield from _conv_refusals(net, node)
        elif isinstance(node, IntegerFlatten):
            if not all(isinstance(net.nodes[target], IntegerDense | IntegerFlatten) for target in net.targets(name)):
                yield f"{name}: a flatten that something else than a matrix reads"
        elif isinstance(node, IntegerLif | IntegerReadout):
            if not sources or not all(isinstance(source, IntegerConv | IntegerDense) for source in sources):
                yield f"{name}: a layer that is entered by something else than convolutions and matrices"
            for source in sources:
                if isinstance(source, IntegerConv | IntegerDense) and len(source.weight) != len(node.bias):
                    yield f"{name}: {len(node.bias)} biases for the {len(source.weight)} channels of {source.name}"
            if isinstance(node, IntegerLif):
                yield from _lif_refusals(node)
    if sum(isinstance(node, IntegerReadout) for node in net.nodes.values()) != 1 or not isinstance(
        list(net.nodes.values())[-1], IntegerReadout
    ):
        yield f"{net.readout.name}: a readout that is not the one last node"


def channels_of(node: IntegerNode) -> int:
    """Channels of what a convolution may read; 0 for anything else."""
    if isinstance(node, IntegerInput):
        return node.channels
    return len(node.bias) if isinstance(node, IntegerLif) else 0


def _conv_refusals(net: IntegerNetwork, node: IntegerConv) -> Iterator[str]:
    read = node.weight.shape[1] * node.groups
    for name in net.sources(node.name):
        channels = channels_of(net.nodes[name])
        if isinstance(net.nodes[name], IntegerFlatten):
            yield f"{node.name}: a convolution behind a flatten"
        elif channels and channels != read:
            yield f"{node.name}: weights for {read} channels behind {name} with {channels}"
    if len(node.weight) % node.groups:
        yield f"{node.name}: {len(node.weight)} channels in {node.groups} groups"


def _weight_refusals(node: IntegerConv | IntegerDense, graded: bool) -> Iterator[str]:
    low, high = int(node.weight.min(initial=0)), int(node.weight.max(initial=0))
    if graded:
        if max(-low, high) > CODE_MAX:
            yield f"{node.name}: weights {low}..{high} need more than 16 bits"
    elif shift_of(node.weight) is None:
        yield f"{node.name}: weights {low}..{high} that are no 8 bits times a power of two"
    if node.weight.size == 0:
        yield f"{node.name}: no weights"


def shift_of(weight: IntArray) -> int | None:
    """Bits that int8 weights have lost: 0 as they are, 1 halved, more with an exponent; None where they do not fit."""
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    for shift in range(1, WEIGHT_EXPONENT_MAX + 2):
        if low >= -128 << shift and high <= 127 << shift:
            if not np.any(weight % (1 << shift)):
                return shift
            break
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
