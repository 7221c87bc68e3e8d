"""Whether an integer network fits a chip: every reason against it, and what is not known about it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neurodeploy.errors import Finding
from neurodeploy.hardware.placement import LimitUse, Placement, placement
from neurodeploy.hardware.profile import Profile
from neurodeploy.hardware.shapes import Size
from neurodeploy.hardware.tables import Limit
from neurodeploy.quantize.bounds import CURRENT_SHIFT, bias_fits, population_biases, weight_exponent
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import IntArray, IntegerConv, IntegerDense, IntegerLif, IntegerNetwork

Weighted = IntegerConv | IntegerDense


def fit_findings(net: IntegerNetwork, profile: Profile, size: Size) -> list[Finding]:
    """Every reason why a network does not fit a chip, and what is not known about it.

    Args:
        net: The integer network, compact or expanded.
        profile: The chip.
        size: (H, W) of the image that one run takes.

    Returns:
        Errors for what is against a stated limit; warnings where it fits only with conditions; notes where the limit is
        unknown.
    """
    expanded = expand_levels(net)
    findings = [*_payload_findings(net, profile)]
    for name, node in expanded.nodes.items():
        if isinstance(node, IntegerConv | IntegerDense):
            findings += _weight_findings(name, node, profile)
        elif isinstance(node, IntegerLif):
            findings += _neuron_findings(name, node, profile)
    return [*findings, *_capacity_findings(placement(expanded, profile, size), profile)]


def _payload_findings(net: IntegerNetwork, profile: Profile) -> Iterator[Finding]:
    if not profile.accepts_graded:
        yield Finding(
            net.input.name,
            "the input is graded (integer codes), but a spike of this chip carries none",
            have=f"codes {net.host.input_min}..{net.host.input_max}",
            limit=" or ".join(profile.arithmetic.payload) + " spikes",
            instead="a chip with graded spikes, such as loihi2",
        )
    bits = profile.arithmetic.payload_bits
    if bits is not None:
        most = (1 << (int(bits.value) - 1)) - 1
        if not -most - 1 <= net.host.input_min <= net.host.input_max <= most:
            yield Finding(
                net.input.name,
                "the input codes are wider than a spike's payload",
                have=f"{net.host.input_min}..{net.host.input_max}",
                limit=f"{int(bits.value)} bits, signed",
                instead="a smaller input_scale",
            )


def _weight_findings(name: str, node: Weighted, profile: Profile) -> Iterator[Finding]:
    rules = profile.arithmetic
    low, high = int(node.weight.min(initial=0)), int(node.weight.max(initial=0))
    # with an exponent a layer's weights may be so many times as large, and as coarse
    largest = int(rules.weight_exponent_max.value) if rules.weight_exponent_max else 0
    scale = 1 << min(weight_exponent(node.weight) or 0, largest)
    least = int(rules.weight_min.value) * scale if rules.weight_min else low
    most = int(rules.weight_max.value) * scale if rules.weight_max else high
    if low < least or high > most:
        yield Finding(name, "weights are out of range", f"{low}..{high}", f"{least}..{most}", "quantise for this chip")
    if rules.weight_step is not None:
        step = int(rules.weight_step.value)
        off = int((node.weight % step != 0).sum())
        if off:
            what = "odd weights" if step == 2 else "weights"
            yield Finding(name, f"weights are not multiples of {step}", f"{off} {what}", "", "quantise for this chip")
    if rules.weight_min is None and rules.weight_max is None and rules.weight_bits is not None:
        yield from _width_findings(name, node.weight, rules.weight_bits)
    if isinstance(node, IntegerConv) and rules.groups_max and node.groups > int(rules.groups_max.value):
        yield Finding(name, "too many groups", str(node.groups), f"{rules.groups_max.value:g}")


def _width_findings(name: str, weight: IntArray, bits: Limit) -> Iterator[Finding]:
    """Where a profile gives only the width of a weight: its magnitude has to fit, as with Loihi's sign bit."""
    need = int(np.abs(weight).max(initial=0)).bit_length()
    widest = int(bits.high if bits.high is not None else bits.value)
    if need > widest:
        yield Finding(name, "weights need more bits", f"{need}", f"{widest}", "quantise for this chip")


def _neuron_findings(name: str, node: IntegerLif, profile: Profile) -> Iterator[Finding]:
    rules = profile.arithmetic
    if rules.vth_bits and not 0 <= node.vth < 1 << int(rules.vth_bits.value):
        limit = f"0..{(1 << int(rules.vth_bits.value)) - 1}"
        yield Finding(name, "the threshold mantissa is out of range", str(node.vth), limit, "a larger weight step")
    if rules.decay_bits:
        most = 1 << int(rules.decay_bits.value)
        for key, value in (("v_decay", node.v_decay), ("i_decay", node.i_decay)):
            if np.min(value) < 0 or np.max(value) > most:
                yield Finding(name, f"{key} is out of range", str(np.max(value)), f"0..{most}")
    if rules.bias_bits:
        exponent = (1 << int(rules.bias_exponent_bits.value)) - 1 if rules.bias_exponent_bits else CURRENT_SHIFT
        biases = population_biases(node).ravel()
        wide = biases[~bias_fits(biases, int(rules.bias_bits.value), exponent)]
        if wide.size:
            yield Finding(
                name,
                f"{wide.size} of {biases.size} biases exceed the nominal mantissa (Lava's CPU models take them)",
                have=f"{wide.min()}..{wide.max()}",
                limit=f"{int(rules.bias_bits.value)} bits, signed, exponent up to {exponent}",
                instead="fewer levels or a larger weight step, should the chip refuse them",
                severity="warning",
            )


def _capacity_findings(placed: Placement, profile: Profile) -> Iterator[Finding]:
    if profile.capacity.fan_in is not None:
        for layer in placed.layers:
            if layer.fan_in > profile.capacity.fan_in.value:
                yield Finding(
                    layer.name,
                    "a neuron has too many synapses",
                    str(layer.fan_in),
                    f"{profile.capacity.fan_in.value:g}",
                    "fewer channels, fewer levels or a smaller kernel",
                )
    yield from _axon_findings(placed.limits)
    yield from _wait_findings(placed, profile.arithmetic.delay_max)
    yield from _chip_findings(placed, profile.capacity.chips_per_board)
    yield from _unknown_findings(placed, profile)


def _axon_findings(limits: tuple[LimitUse, ...]) -> Iterator[Finding]:
    for use in limits:
        if use.name == "input_axons_per_core" and use.status == "broken":
            yield Finding(
                "network",
                "one place of a layer listens to more neurons than a core has axons",
                f"{use.have[0]}",
                f"{use.limit:g}",
                "fewer channels, fewer levels or a smaller kernel",
            )
        elif use.name == "output_axons_per_core" and use.status == "over":
            yield Finding(
                "network",
                "a core would need more output axons than it has: more cores than estimated, each with fewer neurons",
                f"{use.have[0]}",
                f"{use.limit:g}",
                severity="warning",
            )


def _wait_findings(placed: Placement, most: Limit | None) -> Iterator[Finding]:
    for layer in placed.layers:
        if most is not None and layer.delay > most.value:
            yield Finding(
                layer.name,
                "a sum edge would have to wait longer than a synapse can",
                f"{layer.delay} steps",
                f"{most.value:g}",
                "an edge over fewer layers",
            )


def _chip_findings(placed: Placement, board: Limit | None) -> Iterator[Finding]:
    if placed.chips is None or placed.chips[1] <= 1:
        return
    low, high = placed.chips
    beyond = board is not None and low > board.value
    yield Finding(
        "network",
        f"takes {low if low == high else f'{low} to {high}'} chips by estimate ({placed.tightest})",
        have=f"{placed.neurons} neurons for a {placed.image_size[0]}x{placed.image_size[1]} image",
        limit=f"{board.value:g} chips a board" if board is not None else "one chip; chips a board unknown",
        instead="a smaller tile, fewer channels or fewer levels",
        severity="error" if beyond else "warning",
    )


def _unknown_findings(placed: Placement, profile: Profile) -> Iterator[Finding]:
    if profile.model != "chip":
        yield Finding("network", f"not checked: profile {profile.id} is a technology, not a chip", severity="note")
        return
    if placed.unknown:
        yield Finding(
            "network",
            f"not checked, because profile {profile.id} does not know the limit: {', '.join(placed.unknown)}",
            instead="set what you know with --assume KEY=VALUE",
            severity="note",
        )
    if placed.assumed:
        rule = f"limits that were set and stand in no document: {', '.join(placed.assumed)}"
        yield Finding("network", rule, severity="note")
