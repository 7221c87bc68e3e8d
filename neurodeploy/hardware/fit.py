"""Whether an integer network fits a chip, and how many cores it takes: an estimate, and every reason against it.

No public document gives a placement algorithm for these chips. The estimate puts every layer on cores of its own and
fills them with neurons; where a chip's synaptic memory is known, it also counts the weights, once as if a convolution's
weights were shared by all its neurons (the lower end) and once as if every synapse were stored (the upper end). A limit
that the profile does not know is said to be unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from neurodeploy.errors import Finding
from neurodeploy.hardware.profile import Profile
from neurodeploy.hardware.shapes import Shape, Size, layer_shapes
from neurodeploy.hardware.tables import Limit
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerDense,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)

Weighted = IntegerConv | IntegerDense
Range = tuple[int, int]

NOT_MODELLED = ("input_axons_per_core", "output_axons_per_core")
"""Limits that the estimate has no model for, even where a profile knows them."""


@dataclass(frozen=True)
class LayerPlacement:
    """One layer of neurons with the synapses into it; populations count as neurons.

    Attributes:
        fan_in: Synapses into one neuron away from the border.
        synapses: In-bounds synapses into all neurons, every copy of a shared weight counted.
        weights: Stored weights if the neurons of a convolution share them.
        cores: (low, high) with weights shared and not shared, equal where the synaptic memory is unknown; None where
            the profile knows neither neurons nor memory of a core.
        bound_by: What asks for the most cores.
    """

    name: str
    shape: Shape
    neurons: int
    fan_in: int
    synapses: int
    weights: int
    cores: Range | None
    bound_by: str


@dataclass(frozen=True)
class Placement:
    """An estimate of what a network takes on a chip.

    Attributes:
        profile: Id of the profile.
        image_size: (H, W) of the image.
        cores: (low, high), sums over the layers; None where unknown.
        chips: (low, high); None where the profile knows nothing that would tell.
        tightest: The limit that is closest to, or furthest beyond, what one chip has, with have and limit.
        unknown: Limits that the profile does not know, so that nothing is said about them.
    """

    profile: str
    image_size: Size
    layers: tuple[LayerPlacement, ...]
    neurons: int
    synapses: int
    cores: Range | None
    chips: Range | None
    tightest: str
    unknown: tuple[str, ...]
    estimate: str = "one layer never shares a core with another; no public document gives the real placement"

    def as_dict(self) -> dict[str, Any]:
        """The placement as JSON values."""
        return asdict(self)


def placement(net: IntegerNetwork, profile: Profile, size: Size) -> Placement:
    """Estimated cores and chips of a network.

    Args:
        net: The integer network, compact or expanded.
        profile: The chip.
        size: (H, W) of the image that one run takes.

    Raises:
        UserError: The image does not go through the network.
    """
    expanded = expand_levels(net)
    shapes = layer_shapes(expanded, size)
    layers = tuple(_place(expanded, name, shapes, profile) for name in _neuron_layers(expanded))
    neurons, synapses = sum(layer.neurons for layer in layers), sum(layer.synapses for layer in layers)
    each = [layer.cores for layer in layers if layer.cores is not None]
    cores = (sum(low for low, _ in each), sum(high for _, high in each)) if each else None
    return Placement(
        profile=profile.id,
        image_size=size,
        layers=layers,
        neurons=neurons,
        synapses=synapses,
        cores=cores,
        chips=_chips(cores, neurons, synapses, profile),
        tightest=_tightest(layers, neurons, cores, profile),
        unknown=tuple(profile.capacity.unknown),
    )


def _neuron_layers(net: IntegerNetwork) -> list[str]:
    return [name for name, node in net.nodes.items() if isinstance(node, IntegerLif | IntegerReadout)]


def _place(net: IntegerNetwork, name: str, shapes: Mapping[str, Shape], profile: Profile) -> LayerPlacement:
    incoming = [(source, net.nodes[source]) for source in net.sources(name)]
    weighted = [(source, node) for source, node in incoming if isinstance(node, IntegerConv | IntegerDense)]
    neurons = math.prod(shapes[name])
    synapses = sum(_synapses(net, source, node, shapes) for source, node in weighted)
    weights = sum(node.weight.size for _, node in weighted)
    need = _cores_needed(neurons, weights, synapses, profile)
    cores = (max(low for low, _ in need.values()), max(high for _, high in need.values())) if need else None
    return LayerPlacement(
        name=name,
        shape=shapes[name],
        neurons=neurons,
        fan_in=sum(_fan_in(node) for _, node in weighted),
        synapses=synapses,
        weights=weights,
        cores=cores,
        bound_by=max(need, key=lambda limit: need[limit][1]) if need else "unknown",
    )


def _cores_needed(neurons: int, weights: int, synapses: int, profile: Profile) -> dict[str, Range]:
    """Cores that one layer asks for, (low, high) for every limit that the profile knows."""
    need: dict[str, Range] = {}
    most = profile.capacity.neurons_per_core
    if most is not None:
        need["neurons per core"] = (_parts(neurons, most),) * 2
    memory, bits = profile.capacity.synaptic_memory_bits_per_core, profile.arithmetic.weight_bits
    if memory is not None and bits is not None:
        width = int(bits.value)
        need["synaptic memory per core"] = (_parts(weights * width, memory), _parts(synapses * width, memory))
    return need


def _fan_in(node: Weighted) -> int:
    return math.prod(node.weight.shape[1:])


def _synapses(net: IntegerNetwork, name: str, node: Weighted, shapes: Mapping[str, Shape]) -> int:
    """In-bounds synapses of a layer: padding has none."""
    if isinstance(node, IntegerDense):
        return node.weight.size
    (source, *_) = net.sources(name)
    taps = [
        _taps(shapes[source][1 + axis], shapes[name][1 + axis], node.weight.shape[2 + axis], *_geometry(node, axis))
        for axis in (0, 1)
    ]
    return math.prod(node.weight.shape[:2]) * taps[0] * taps[1]


def _geometry(node: IntegerConv, axis: int) -> tuple[int, int, int]:
    return node.stride[axis], node.padding[axis], node.dilation[axis]


def _taps(length: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many (output, tap) pairs of one axis fall on the input."""
    places = np.arange(outputs)[:, None] * stride - padding + np.arange(kernel)[None, :] * dilation
    return int(((places >= 0) & (places < length)).sum())


def _parts(amount: int, limit: Limit) -> int:
    return -(-amount // int(limit.value))


def _chips(cores: Range | None, neurons: int, synapses: int, profile: Profile) -> Range | None:
    capacity = profile.capacity
    need: list[Range] = []
    if cores is not None and capacity.cores_per_chip is not None:
        need.append((_parts(cores[0], capacity.cores_per_chip), _parts(cores[1], capacity.cores_per_chip)))
    if capacity.neurons_per_chip is not None:
        need.append((_parts(neurons, capacity.neurons_per_chip),) * 2)
    if capacity.synapses_per_chip is not None:
        need.append((1, _parts(synapses, capacity.synapses_per_chip)))
    return (max(low for low, _ in need), max(high for _, high in need)) if need else None


def _tightest(layers: Sequence[LayerPlacement], neurons: int, cores: Range | None, profile: Profile) -> str:
    capacity = profile.capacity
    loads: list[tuple[str, int | None, Limit | None]] = [
        ("cores per chip", cores[0] if cores else None, capacity.cores_per_chip),
        ("neurons per chip", neurons, capacity.neurons_per_chip),
        ("fan-in of a neuron", max((layer.fan_in for layer in layers), default=0), capacity.fan_in),
    ]
    known = [
        (have / limit.value, name, have, limit.value)
        for name, have, limit in loads
        if limit is not None and have is not None
    ]
    if not known:
        return "unknown: the profile has no capacity of this chip"
    _, name, have, most = max(known)
    return f"{name}: have {have}, limit {most:g}"


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
    least = int(rules.weight_min.value) if rules.weight_min else low
    most = int(rules.weight_max.value) if rules.weight_max else high
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
        exponent = (1 << int(rules.bias_exponent_bits.value)) - 1 if rules.bias_exponent_bits else 6
        wide = [value for value in node.bias.tolist() if not _bias_fits(value, int(rules.bias_bits.value), exponent)]
        if wide:
            yield Finding(
                name,
                f"{len(wide)} of {len(node.bias)} biases exceed the nominal mantissa (Lava's CPU models take them)",
                have=f"{min(wide)}..{max(wide)}",
                limit=f"{int(rules.bias_bits.value)} bits, signed, exponent up to {exponent}",
                instead="fewer levels or a larger weight step, should the chip refuse them",
                severity="warning",
            )


def _bias_fits(bias: int, bits: int, exponent: int) -> bool:
    """Whether ``bias << 6`` is some ``mantissa << e`` with a signed mantissa of ``bits`` and ``e <= exponent``."""
    value = bias << 6
    shift = min(exponent, (value & -value).bit_length() - 1) if value else 0
    return -(1 << (bits - 1)) <= value >> shift < 1 << (bits - 1)


def _capacity_findings(placed: Placement, profile: Profile) -> Iterator[Finding]:
    capacity = profile.capacity
    if capacity.fan_in is not None:
        for layer in placed.layers:
            if layer.fan_in > capacity.fan_in.value:
                yield Finding(
                    layer.name,
                    "a neuron has too many synapses",
                    str(layer.fan_in),
                    f"{capacity.fan_in.value:g}",
                    "fewer channels, fewer levels or a smaller kernel",
                )
    yield from _chip_findings(placed, capacity.chips_per_board)
    yield from _unknown_findings(profile)


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


def _unknown_findings(profile: Profile) -> Iterator[Finding]:
    if profile.model != "chip":
        yield Finding("network", f"not checked: profile {profile.id} is a technology, not a chip", severity="note")
        return
    unknown = profile.capacity.unknown
    if unknown:
        rule = f"not checked, because profile {profile.id} does not know the limit: {', '.join(unknown)}"
        yield Finding("network", rule, severity="note")
    passed = [name for name in NOT_MODELLED if name not in unknown]
    if passed:
        rule = f"not checked, because the estimate has no model of it: {', '.join(passed)}"
        yield Finding("network", rule, severity="note")
