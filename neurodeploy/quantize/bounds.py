"""What an integer network's numbers may and can become: ranges of the chip's fields, bounds of its registers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import Finding
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerDense,
    IntegerLif,
    IntegerNetwork,
)

WEIGHT_RANGE = (-256, 254)
"""Mixed-sign 8-bit weights: even numbers (``lava.utils.weightutils``)."""

WEIGHT_EXPONENT_MAX = 7
"""Weights may be such numbers times ``2**e``, one e for a layer (wgtExp of Loihi, -8..7; Lava's weight_exp)."""

VTH_MAX = (1 << 17) - 1
"""Threshold mantissa, 17 bits (``lava.proc.lif.process``)."""

BIAS_BITS, BIAS_EXPONENT = 13, 7
"""Bits of a bias mantissa with its sign, and the largest exponent (``lava.proc.lif.process``)."""

CURRENT_SHIFT = 6
"""A current enters its register times ``2**6``, and so does a bias: it is ``mantissa * 2**exponent`` there."""

CURRENT_MAX = (1 << 17) - 1
"""Largest current that the 24-bit register u holds after the shift by 6 bits."""

CONV_MAX = (1 << 23) - 1
"""Largest sum that a convolution's 24-bit accumulator holds."""

Range = tuple[IntArray, IntArray]
"""Least and largest value a channel, (C,) each."""


def range_findings(net: IntegerNetwork) -> list[Finding]:
    """Numbers outside the fields that the chip has for them.

    A weight, threshold or decay out of range is an error. A bias beyond its bits and odd weights are warnings: Lava's
    CPU processes compute them as written, and a target may have a way round (thresholds of their own for populations).
    """
    return [finding for node in net.nodes.values() for finding in _node_findings(node)]


def _node_findings(node: object) -> Iterator[Finding]:
    if isinstance(node, IntegerConv | IntegerDense):
        low, high = int(node.weight.min(initial=0)), int(node.weight.max(initial=0))
        if weight_exponent(node.weight) is None:
            yield Finding(node.name, "weights are out of range", f"{low}..{high}", "-256..254")
        elif np.any(node.weight % 2):
            yield Finding(
                node.name,
                "odd weights are floored to even ones where signs are mixed",
                f"{int(np.sum(node.weight % 2))} odd weights",
                "even weights",
                severity="warning",
            )
    elif isinstance(node, IntegerLif):
        if not 0 <= node.vth <= VTH_MAX:
            yield Finding(node.name, "threshold is out of range", str(node.vth), f"0..{VTH_MAX} (17 bits)")
        for field in ("v_decay", "i_decay"):
            values = np.asarray(getattr(node, field))
            if values.min() < 0 or values.max() > 4096:
                yield Finding(node.name, f"{field} is out of range", f"{values.min()}..{values.max()}", "0..4096")
        if not bias_fits(population_biases(node)).all():
            yield Finding(
                node.name,
                "bias mantissas need more than 13 bits",
                "{}..{}".format(*bias_range(node)),
                "-4096..4095, even ones to twice that",
                "thresholds of their own for the populations, or a larger weight step",
                severity="warning",
            )


def weight_exponent(weight: IntArray) -> int | None:
    """The least e with which weights are even numbers of -256..254 times ``2**e``; odd ones have 0.

    Returns:
        e, 0 to :data:`WEIGHT_EXPONENT_MAX`; None where they are too large, or no such multiples.
    """
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    for exponent in range(WEIGHT_EXPONENT_MAX + 1):
        if low >= WEIGHT_RANGE[0] << exponent and high <= WEIGHT_RANGE[1] << exponent:
            return exponent if not exponent or not np.any(weight % (2 << exponent)) else None
    return None


def bias_range(node: IntegerLif) -> tuple[int, int]:
    """Least and largest bias mantissa of all channels and populations."""
    return int(node.bias.min()) + min(node.levels), int(node.bias.max()) + max(node.levels)


def population_biases(node: IntegerLif) -> IntArray:
    """(D, C) the biases of all populations and channels."""
    return np.add.outer(np.asarray(node.levels, dtype=np.int64), np.asarray(node.bias, dtype=np.int64))


def bias_fits(biases: IntArray, bits: int = BIAS_BITS, exponent: int = BIAS_EXPONENT) -> NDArray[np.bool_]:
    """Whether ``bias * 2**6`` is some ``mantissa * 2**e``.

    Args:
        biases: Any shape.
        bits: Of the mantissa, with its sign.
        exponent: Largest e.

    Returns:
        Same shape.
    """
    values = np.asarray(biases, dtype=np.int64) << CURRENT_SHIFT
    zeros = np.bitwise_count((values & -values) - 1).astype(np.int64)  # zeros below the lowest bit that is set
    mantissas = values >> np.minimum(exponent, zeros)
    fits: NDArray[np.bool_] = (mantissas >= -(1 << (bits - 1))) & (mantissas < 1 << (bits - 1))
    return fits


def accumulator_findings(net: IntegerNetwork, *, input_range: tuple[int, int] | None = None) -> list[Finding]:
    """Registers that some input could overflow, as warnings: worst cases, by interval arithmetic.

    A convolution's sum must stay below 2**23, the current of a neuron below 2**17 (it is shifted by 6 bits into a
    register of 24); both wrap around. The membrane saturates, which only matters where a later step remembers it.

    Args:
        net: The network.
        input_range: Least and largest input code; by default those that the host's encoder can produce.
    """
    return list(_accumulator_findings(net, current_ranges(net, input_range=input_range)))


def _accumulator_findings(net: IntegerNetwork, ranges: dict[str, Range]) -> Iterator[Finding]:
    for name, node in net.nodes.items():
        if isinstance(node, IntegerConv):
            yield from _register_finding(name, "a convolution's sum may wrap around", ranges[name], CONV_MAX)
        elif isinstance(node, IntegerLif):
            found = ranges[f"{name}.u"]
            yield from _register_finding(name, "the current register may wrap around", found, CURRENT_MAX)
            # what ticks hold down and release has a bound of its own, see neurodeploy.quantize.bursts
            remembers = net.host.steps > 1 and np.any(np.asarray(node.v_decay) < 4096)
            if remembers and not net.host.ticks:
                entering = found[0] + node.bias + min(node.levels), found[1] + node.bias + max(node.levels)
                least, _ = _kept_range(node.v_decay, entering, net.host.steps)
                # upward it ends at the threshold, by a spike
                membrane = least, np.minimum(entering[1] + node.vth, CURRENT_MAX)
                yield from _register_finding(name, "the membrane may saturate", membrane, CURRENT_MAX)


def _register_finding(name: str, rule: str, found: Range, limit: int) -> Iterator[Finding]:
    low, high = int(found[0].min()), int(found[1].max())
    if low < -limit or high > limit:
        yield Finding(
            name,
            rule,
            f"up to {low}..{high}",
            f"-{limit}..{limit}",
            "a larger weight step, or a narrower input",
            severity="warning",
        )


def current_ranges(net: IntegerNetwork, *, input_range: tuple[int, int] | None = None) -> dict[str, Range]:
    """Bounds of what every node puts out, a channel; for spiking layers also ``NAME.u``, the current in register u.

    Feedback edges bring what their sources can put out: what spikes can be does not depend on what made them.

    Args:
        net: The network.
        input_range: Least and largest input code; by default those that the host's encoder can produce.
    """
    ranges: dict[str, Range] = {
        node.name: (np.zeros(len(node.bias), np.int64), np.full(len(node.bias), len(node.levels)))
        for node in net.lifs()
    }
    ranges[net.input.name] = channel_ranges(net, input_range)

    def range_of(name: str) -> Range:
        if name not in ranges:
            node, sources = net.nodes[name], [range_of(source) for source in net.sources(name)]
            if isinstance(node, IntegerConv):
                ranges[name] = _conv_range(node, _sum_ranges(sources))
            elif isinstance(node, IntegerDense):
                ranges[name] = _product_range(node.weight, _sum_ranges(sources))
            else:
                ranges[name] = _sum_ranges(sources)
        return ranges[name]

    for name, node in net.nodes.items():
        range_of(name)
        if isinstance(node, IntegerLif):
            arriving = _sum_ranges([range_of(source) for source in net.sources(name)])
            ranges[f"{name}.u"] = _kept_range(node.i_decay, arriving, net.host.steps)
    return ranges


def channel_ranges(net: IntegerNetwork, input_range: tuple[int, int] | None = None) -> Range:
    """What the input's channels can hold in a step: codes, those of the encoder by default, and nothing or a tick."""
    low, high = input_range or (net.host.input_min, net.host.input_max)
    ticks = [(0, *(value for _, value in channel)) for channel in net.host.ticks]
    codes = net.input.channels - len(ticks)
    return (
        np.array([*[low] * codes, *map(min, ticks)], np.int64),
        np.array([*[high] * codes, *map(max, ticks)], np.int64),
    )


def _sum_ranges(ranges: list[Range]) -> Range:
    low = np.sum([low for low, _ in ranges], axis=0)
    high = np.sum([high for _, high in ranges], axis=0)
    return low, high


def _conv_range(node: IntegerConv, source: Range) -> Range:
    """Bounds of a convolution; a tap on the padding contributes 0."""
    outputs = len(node.weight)
    low, high = (values.reshape(node.groups, 1, -1, 1, 1) for values in source)
    weight = node.weight.reshape(node.groups, outputs // node.groups, *node.weight.shape[1:])
    products = weight * low, weight * high
    least, largest = np.minimum(*products), np.maximum(*products)
    if any(node.padding):
        least, largest = np.minimum(least, 0), np.maximum(largest, 0)
    return least.sum(axis=(2, 3, 4)).reshape(-1), largest.sum(axis=(2, 3, 4)).reshape(-1)


def _product_range(weight: IntArray, source: Range) -> Range:
    low, high = source
    if weight.shape[1] != len(low):
        # behind a flatten: every channel stands for several inputs
        low, high = (np.repeat(values, weight.shape[1] // len(values)) for values in source)
    return np.minimum(weight * low, weight * high).sum(axis=1), np.maximum(weight * low, weight * high).sum(axis=1)


def _kept_range(decay: int | IntArray, arriving: Range, steps: int) -> Range:
    """Bounds of a register that keeps ``1 - decay / 4096`` of itself a step: a geometric sum over the run."""
    kept = 1 - np.asarray(decay) / 4096
    if not np.any(kept > 0):
        return arriving
    total = np.where(kept == 1, steps, (1 - kept**steps) / np.where(kept == 1, 1, 1 - kept))
    low, high = np.minimum(arriving[0], 0), np.maximum(arriving[1], 0)
    return np.floor(low * total).astype(np.int64), np.ceil(high * total).astype(np.int64)
