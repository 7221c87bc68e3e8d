"""How many cores and chips an integer network takes: an estimate, limit by limit.

No public document gives a placement algorithm for these chips. The estimate puts every layer on cores of its own and
fills them with neurons in the order of the layer's places, all channels of a place together. Where a chip's synaptic
memory is known, it also counts the weights, once as if a convolution's weights were shared by all its neurons (the
lower end) and once as if every synapse were stored (the upper end). A limit that the profile does not know is said to
be unknown, and can be set (:meth:`neurodeploy.hardware.profile.Profile.assuming`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from neurodeploy.hardware.profile import Profile
from neurodeploy.hardware.reach import Link, inputs_of_run, links_into, longest_run
from neurodeploy.hardware.shapes import Shape, Size, layer_shapes
from neurodeploy.hardware.tables import Limit
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import IntArray, IntegerConv, IntegerDense, IntegerLif, IntegerNetwork, IntegerReadout

Weighted = IntegerConv | IntegerDense
Range = tuple[int, int]

DIVISIBLE = ("neurons_per_core", "synaptic_memory_bits_per_core", "input_axons_per_core")
"""Limits of a core that more cores keep: a core that they fill is no sign of tightness."""
STATE_BITS = 24
"""Width of a current and of a membrane where the profile does not say."""


@dataclass(frozen=True)
class LayerPlacement:
    """One layer of neurons with the synapses into it; populations count as neurons.

    Attributes:
        fan_in: Synapses into one neuron away from the border.
        synapses: In-bounds synapses into all neurons, every copy of a shared weight counted.
        weights: Stored weights if the neurons of a convolution share them.
        weight_bits: Width of one stored weight: the chip's, or what the values need where the profile does not say.
        shared_bits: Synaptic memory of the whole layer with weights shared by all neurons.
        expanded_bits: The same with every in-bounds synapse stored.
        state_bits: Current and membrane of all its neurons (a readout: the membrane alone).
        cores: (low, high) with weights shared and not shared, equal where the synaptic memory is unknown; None where
            the profile knows neither neurons nor memory of a core.
        bound_by: What asks for the most cores.
        input_axons: Source neurons that the fullest of the lower number of cores listens to.
        output_axons: Pairs of a neuron and a core that listens to it, a core of this layer, rounded up; compared with
            the chip's limit, and asking for no cores.
        delay: Steps that the longest edge into the layer has to wait for the others; 0 in a chain.
    """

    name: str
    shape: Shape
    neurons: int
    fan_in: int
    synapses: int
    weights: int
    weight_bits: int
    shared_bits: int
    expanded_bits: int
    state_bits: int
    cores: Range | None
    bound_by: str
    input_axons: int = 0
    output_axons: int = 0
    delay: int = 0


@dataclass(frozen=True)
class LimitUse:
    """One limit of a chip beside what the network asks of it.

    Attributes:
        have: (low, high) over the two ways of storing weights; of a core the fullest, of a chip the whole network.
        limit: None where the profile does not know it.
        status: ``fits``, ``shared`` (fits with weights shared, not with every synapse stored), ``over`` (more than one
            core or chip is needed), ``broken`` (no number of cores helps) or ``unknown``.
        trust: How the limit is known: ``opened`` source, ``second-hand`` or ``assumed``; empty where it is unknown.
    """

    name: str
    have: Range
    limit: float | None
    status: str
    trust: str = ""


@dataclass(frozen=True)
class Placement:
    """An estimate of what a network takes on a chip.

    Attributes:
        profile: Id of the profile.
        image_size: (H, W) of the image.
        cores: (low, high), sums over the layers; None where unknown.
        chips: (low, high); None where the profile knows nothing that would tell.
        tightest: The limit that is closest to, or furthest beyond, what one chip has, with have and limit; those of a
            core that more cores keep are left out.
        limits: Every limit of a core or a chip, with what is asked of it.
        pipeline_steps: Layers that a spike passes one after another; with one step of delay a layer, an image of T
            steps is through after ``pipeline_steps + T - 1`` steps.
        unknown: Limits that the profile does not know, so that nothing is said about them.
        assumed: Limits that whoever asked has set.
    """

    profile: str
    image_size: Size
    layers: tuple[LayerPlacement, ...]
    neurons: int
    synapses: int
    cores: Range | None
    chips: Range | None
    tightest: str
    limits: tuple[LimitUse, ...]
    pipeline_steps: int
    unknown: tuple[str, ...]
    assumed: tuple[str, ...] = ()
    estimate: str = "one layer never shares a core with another; no public document gives the real placement"

    def as_dict(self) -> dict[str, Any]:
        """The placement as JSON values: lists, no tuples."""
        values: dict[str, Any] = _lists(asdict(self))
        return values


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
    names = [name for name, node in expanded.nodes.items() if isinstance(node, IntegerLif | IntegerReadout)]
    links = {name: links_into(expanded, name, shapes) for name in names}
    depths = _depths(expanded)
    heard: dict[str, int] = dict.fromkeys(names, 0)  # pairs of a neuron and a core that listens to it
    placed: list[LayerPlacement] = []
    for name in reversed(names):  # what listens to a layer is placed before it
        layer = _place(expanded, name, shapes, links[name], heard[name], depths, profile)
        placed.insert(0, layer)
        for source in {link.source for link in links[name]} & heard.keys():
            only = tuple(link for link in links[name] if link.source == source)
            many = layer.cores[0] if layer.cores else 1
            heard[source] += many * inputs_of_run(only, _places_a_core(layer, many), _places(layer.shape))
    layers = tuple(placed)
    neurons, synapses = sum(layer.neurons for layer in layers), sum(layer.synapses for layer in layers)
    each = [layer.cores for layer in layers if layer.cores is not None]
    cores = (sum(low for low, _ in each), sum(high for _, high in each)) if each else None
    limits = _limits(layers, cores, neurons, synapses, links, profile)
    return Placement(
        profile=profile.id,
        image_size=size,
        layers=layers,
        neurons=neurons,
        synapses=synapses,
        cores=cores,
        chips=_chips(cores, neurons, synapses, profile),
        tightest=_tightest(limits),
        limits=limits,
        pipeline_steps=max(depths.values(), default=0),
        unknown=tuple(profile.capacity.unknown),
        assumed=profile.assumed,
    )


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value


def neurons_a_core(layer: LayerPlacement, cores: int) -> int:
    """Neurons on every core of a layer but the last, spread evenly."""
    return -(-layer.neurons // cores)


def _places(shape: Shape) -> int:
    return shape[1] * shape[2]


def _places_a_core(layer: LayerPlacement, cores: int) -> int:
    """Places that a core touches at most: it may begin and end in the middle of one."""
    held = neurons_a_core(layer, cores)
    channels = layer.shape[0]
    touched = held // channels if held % channels == 0 else (held - 2) // channels + 2
    return max(1, min(touched, _places(layer.shape)))


def _place(
    net: IntegerNetwork,
    name: str,
    shapes: Mapping[str, Shape],
    links: tuple[Link, ...],
    heard: int,
    depths: Mapping[str, int],
    profile: Profile,
) -> LayerPlacement:
    sources = [(source, net.nodes[source]) for source in net.sources(name)]
    weighted = [(source, node) for source, node in sources if isinstance(node, IntegerConv | IntegerDense)]
    neurons = math.prod(shapes[name])
    synapses = sum(_synapses(net, source, node, shapes) for source, node in weighted)
    weights = sum(node.weight.size for _, node in weighted)
    width = _weight_bits([node.weight for _, node in weighted], profile)
    need = _cores_needed(neurons, weights * width, synapses * width, profile)
    need |= _axon_cores(links, _places(shapes[name]), profile)
    cores = (max(low for low, _ in need.values()), max(high for _, high in need.values())) if need else None
    spiking = isinstance(net.nodes[name], IntegerLif)
    state = int(profile.arithmetic.state_bits.value) if profile.arithmetic.state_bits else STATE_BITS
    layer = LayerPlacement(
        name=name,
        shape=shapes[name],
        neurons=neurons,
        fan_in=sum(math.prod(node.weight.shape[1:]) for _, node in weighted),
        synapses=synapses,
        weights=weights,
        weight_bits=width,
        shared_bits=weights * width,
        expanded_bits=synapses * width,
        state_bits=neurons * state * (2 if spiking else 1),
        cores=cores,
        bound_by=max(need, key=lambda limit: need[limit][1]) if need else "unknown",
        delay=_longest_wait(links, depths),
    )
    low = cores[0] if cores else 1
    axons = inputs_of_run(links, _places_a_core(layer, low), _places(layer.shape))
    return LayerPlacement(**{**layer.__dict__, "input_axons": axons, "output_axons": -(-heard // low)})


def _cores_needed(neurons: int, shared: int, expanded: int, profile: Profile) -> dict[str, Range]:
    """Cores that one layer asks for, (low, high) for every limit that the profile knows."""
    need: dict[str, Range] = {}
    most = profile.capacity.neurons_per_core
    if most is not None:
        need["neurons per core"] = (_parts(neurons, most),) * 2
    memory = profile.capacity.synaptic_memory_bits_per_core
    if memory is not None:
        need["synaptic memory per core"] = (_parts(shared, memory), _parts(expanded, memory))
    return need


def _axon_cores(links: tuple[Link, ...], places: int, profile: Profile) -> dict[str, Range]:
    inputs = profile.capacity.input_axons_per_core
    if inputs is None or not links:
        return {}
    run = longest_run(links, places, int(inputs.value))
    run = max(1, run - 1) if run < places else run  # a core may begin in the middle of a place
    return {"input axons per core": (-(-places // run),) * 2}


def _weight_bits(weights: list[IntArray], profile: Profile) -> int:
    if profile.arithmetic.weight_bits is not None:
        return int(profile.arithmetic.weight_bits.value)
    return max((int(np.abs(weight).max(initial=0)).bit_length() + 1 for weight in weights), default=1)


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


def _depths(net: IntegerNetwork) -> dict[str, int]:
    """Layers of neurons on the longest way from the input to the output of every node, without feedback edges."""
    depth: dict[str, int] = {}
    for name, node in net.nodes.items():
        before = max((depth[source] for source in net.forward_sources(name)), default=0)
        depth[name] = before + int(isinstance(node, IntegerLif | IntegerReadout))
    return depth


def _longest_wait(links: tuple[Link, ...], depths: Mapping[str, int]) -> int:
    arriving = [depths[link.source] for link in links if not link.late]
    return max(arriving) - min(arriving) if arriving else 0


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


def _limits(
    layers: tuple[LayerPlacement, ...],
    cores: Range | None,
    neurons: int,
    synapses: int,
    links: Mapping[str, tuple[Link, ...]],
    profile: Profile,
) -> tuple[LimitUse, ...]:
    """Every limit beside what is asked of it: of a core by its fullest one, of a chip by the whole network."""
    low = {layer.name: layer.cores[0] if layer.cores else 1 for layer in layers}
    one_place = max((inputs_of_run(links[layer.name], 1, _places(layer.shape)) for layer in layers), default=0)

    def fullest(amounts: list[int]) -> Range:
        return (max(amounts, default=0),) * 2

    memory = (
        max((min(layer.shared_bits, layer.expanded_bits) for layer in layers), default=0),
        max((-(-layer.expanded_bits // low[layer.name]) for layer in layers), default=0),
    )
    asked: dict[str, Range] = {
        "neurons_per_core": fullest([neurons_a_core(layer, low[layer.name]) for layer in layers]),
        "synaptic_memory_bits_per_core": (min(memory), max(memory)),
        "fan_in": fullest([layer.fan_in for layer in layers]),
        "input_axons_per_core": fullest([layer.input_axons for layer in layers]),
        "output_axons_per_core": fullest([layer.output_axons for layer in layers]),
        "neurons_per_chip": (neurons, neurons),
        "synapses_per_chip": (sum(layer.weights for layer in layers), synapses),
    }
    if cores is not None:
        asked["cores_per_chip"] = cores
    broken = {"fan_in": asked["fan_in"][0], "input_axons_per_core": one_place}
    return tuple(_use(name, have, broken.get(name, 0), profile) for name, have in asked.items())


def _use(name: str, have: Range, at_least: int, profile: Profile) -> LimitUse:
    """``at_least``: what is asked however many cores there are."""
    limit: Limit | None = getattr(profile.capacity, name)
    if limit is None:
        return LimitUse(name, have, None, "unknown")
    status = "broken" if at_least > limit.value else "over" if have[0] > limit.value else "fits"
    status = "shared" if status == "fits" and have[1] > limit.value else status
    trust = "opened" if profile.sources[limit.source].verified == "primary" else "second-hand"
    return LimitUse(name, have, limit.value, status, "assumed" if name in profile.assumed else trust)


def _tightest(limits: tuple[LimitUse, ...]) -> str:
    known = [use for use in limits if use.limit is not None]
    if not known:
        return "unknown: the profile has no capacity of this chip"
    split = [use for use in known if use.name not in DIVISIBLE or use.status in ("over", "broken")]
    use = max(split or known, key=lambda use: use.have[0] / (use.limit or 1.0))
    words = {"fan_in": "fan-in of a neuron"}.get(use.name, use.name.replace("_", " "))
    return f"{words}: have {use.have[0]:,}, limit {use.limit:,.0f}"
