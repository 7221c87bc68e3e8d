"""The counts of one layer: plain integers, added over steps, tiles and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neurodeploy.energy.connections import Connection, connections, fed_back, rows
from neurodeploy.energy.geometry import Pair, Shape, node_shapes, synapses
from neurodeploy.quantize.network import IntegerConv, IntegerLif, IntegerNetwork, IntegerReadout

STATE_BITS = 24
"""Width of the current u and of the membrane v."""
DECAY_ONE = 4096


@dataclass
class LayerCounts:
    """Counts of one layer. Everything is an exact integer; sums run over steps, tiles and (where merged) images.

    Attributes:
        kind: ``spiking``, ``readout`` (accumulators read by the host) or ``linear`` (a convolution into another).
        shape: (C, H, W) of one population; the largest over images.
        populations: D; every population's neurons, spikes and copies of the weights count as hardware.
        driven_by: Nodes that drive it, and whether what they send is spikes.
        sop: Synaptic operations: one spike arriving at one in-bounds synapse.
        sop_nonzero: Those at synapses whose weight is not 0.
        mac: Multiply-accumulates with an analog value at an in-bounds tap, at every step that shows codes and for every
            population; and one for each tick at each of its synapses.
        mac_nonzero: Those whose weight and value are not 0.
        mac_once: The same convolutions computed once: one step, one population.
        spikes: Of all populations.
        neurons: All populations, of the largest image.
        neuron_updates: One a neuron and step; ``_active`` where any input arrived in the step, ``_idle`` where none.
        bias_additions: One a neuron and step in layers that have a bias, and one for each analog value that arrives
            without a weight.
        resets: Hard resets, one a spike.
        leak_multiplications: One a register and step whose decay is neither none nor everything.
        ann_passes: How often an ANN of the same shape computes the layer: once, or once a step where feedback reaches
            it, or where codes of a network with feedback differ from step to step.
        dense_mac: MACs of the same layers as an ANN, in bounds, one population, in all of its passes.
        dense_mac_padded: The same with the taps in the padding.
        ann_mac_nonzero: ``dense_mac`` restricted to inputs other than 0 (in any step, or in the step of the pass).
        activations: Outputs of one pass of an ANN; ``activations_nonzero`` those that are not 0 (in any step).
        inputs: Places that drive it; ``synapses`` their in-bounds synapses, in all copies. ``ann_inputs``: those of the
            ANN, which differ where levels are sent as digits.
        parameters: Weights, biases and thresholds, once; ``parameters_repeated`` as binary spikes carry them.
        state_bits: Current and membrane of all its neurons.
        per_step: Lists over time steps of ``spikes``, ``sop``, ``mac`` and ``neuron_updates_active``.
    """

    name: str
    kind: str
    shape: Shape
    populations: int
    driven_by: tuple[tuple[str, bool], ...] = ()
    sop: int = 0
    sop_nonzero: int = 0
    mac: int = 0
    mac_nonzero: int = 0
    mac_once: int = 0
    spikes: int = 0
    neurons: int = 0
    neuron_updates: int = 0
    neuron_updates_active: int = 0
    neuron_updates_idle: int = 0
    bias_additions: int = 0
    resets: int = 0
    leak_multiplications: int = 0
    ann_passes: int = 1
    dense_mac: int = 0
    dense_mac_padded: int = 0
    ann_mac_nonzero: int = 0
    activations: int = 0
    activations_nonzero: int = 0
    inputs: int = 0
    ann_inputs: int = 0
    synapses: int = 0
    parameters: int = 0
    parameters_repeated: int = 0
    state_bits: int = 0
    per_step: dict[str, list[int]] = field(default_factory=dict)

    def copy(self) -> LayerCounts:
        """Another one that says the same; quicker than :func:`dataclasses.replace`, and done for every image."""
        other = object.__new__(LayerCounts)
        other.__dict__.update(self.__dict__, per_step=dict(self.per_step))
        return other

    @property
    def rate(self) -> float:
        """Spikes per neuron and step; 0 for layers that do not spike."""
        return self.spikes / self.neuron_updates if self.kind == "spiking" and self.neuron_updates else 0.0

    @property
    def in_bounds_fanout(self) -> float:
        """Mean number of in-bounds synapses, in all copies, that one spike (or code) into this layer meets."""
        return self.synapses / self.inputs if self.inputs else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The counts with the keys of the JSON answers."""
        counted = {key: getattr(self, key) for key in COUNTED}
        senders = [
            {"name": name, "payload": "binary spikes" if spikes else "analog"} for name, spikes in self.driven_by
        ]
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "populations": self.populations,
            "driven_by": senders,
            **counted,
            "rate": self.rate,
            "in_bounds_fanout": self.in_bounds_fanout,
            **{key: getattr(self, key) for key in HELD},
            "state_bytes": self.state_bits // 8,
            "ann_passes": self.ann_passes,
            "per_step": self.per_step,
        }


COUNTED = (
    "sop", "sop_nonzero", "mac", "mac_nonzero", "mac_once", "spikes", "neuron_updates", "neuron_updates_active",
    "neuron_updates_idle", "bias_additions", "resets", "leak_multiplications", "dense_mac", "dense_mac_padded",
    "ann_mac_nonzero", "activations", "activations_nonzero",
)  # fmt: skip
"""Counts that are summed over images."""
HELD = ("neurons", "parameters", "parameters_repeated", "state_bits")
"""What the network holds: the largest over images, never a sum over them."""
STEPPED = ("spikes", "sop", "mac", "neuron_updates_active")


def merged(one: LayerCounts, other: LayerCounts) -> LayerCounts:
    """The same layer over the images of both."""
    largest = one if one.neurons >= other.neurons else other
    summed = {key: getattr(one, key) + getattr(other, key) for key in (*COUNTED, "inputs", "ann_inputs", "synapses")}
    steps = {key: [a + b for a, b in zip(one.per_step[key], other.per_step[key], strict=True)] for key in one.per_step}
    return replace(largest, **summed, per_step=steps)


def added(counts: Sequence[int], more: Sequence[int], first: int = 0) -> list[int]:
    """Counts of every step, with others added from step ``first`` on; a new list."""
    found = list(counts)
    for place, count in enumerate(more, start=first):
        found[place] += count
    return found


def ann_passes(net: IntegerNetwork, sequence: bool) -> dict[str, int]:
    """Node -> how often an ANN of the same shape computes what it puts out; see :class:`LayerCounts`.

    Args:
        net: The network.
        sequence: Whether the input differs from step to step.
    """
    stepwise = net.nodes if net.feedback and sequence else fed_back(net)
    return {name: net.host.steps if name in stepwise else 1 for name in net.nodes}


def empty_rows(
    net: IntegerNetwork, extent: Pair, sequence: bool = False, shown: int | None = None
) -> dict[str, LayerCounts]:
    """Everything that can be said of one image without running the network.

    Args:
        net: The network.
        extent: (H, W) of the network's input.
        sequence: Whether the input differs from step to step.
        shown: Steps that show codes; by default all.
    """
    passes = ann_passes(net, sequence)
    shapes = node_shapes(net, extent)
    steps = net.host.steps
    shown = steps if shown is None else shown
    found: dict[str, LayerCounts] = {}
    for name in rows(net):
        node = net.nodes[name]
        row = LayerCounts(name, "linear", shapes[name], populations=1, ann_passes=passes[name])
        row.per_step = {key: [0] * steps for key in STEPPED}
        if isinstance(node, IntegerLif | IntegerReadout):
            _hold_neurons(row, node, steps)
        found[name] = row
    seen: set[str] = set()
    for link in connections(net):
        _hold_synapses(found[link.row], net, link, shapes, seen, passes[link.source], shown)
    return found


def _hold_neurons(row: LayerCounts, node: IntegerLif | IntegerReadout, steps: int) -> None:
    places = row.shape[1] * row.shape[2]
    row.activations = row.shape[0] * places
    row.parameters = row.parameters_repeated = len(node.bias)
    row.neurons = row.activations * (len(node.levels) if isinstance(node, IntegerLif) else 1)
    has_bias = bool(np.any(node.bias))
    if isinstance(node, IntegerLif):
        row.kind, row.populations = "spiking", len(node.levels)
        row.parameters += len(node.levels)
        row.parameters_repeated = row.populations * len(node.bias) + 1
        has_bias = has_bias or any(node.levels)
        decaying = sum(_decaying_channels(value, row.shape[0]) for value in (node.v_decay, node.i_decay))
        row.leak_multiplications = decaying * places * row.populations * steps
        if node.digit_of:  # an ANN has no such layer
            row.activations = row.parameters = 0
    else:
        row.kind = "readout"
    row.neuron_updates = row.neurons * steps
    row.state_bits = row.neurons * STATE_BITS * (2 if row.kind == "spiking" else 1)
    row.bias_additions = row.neuron_updates if has_bias else 0


def _decaying_channels(decay: int | np.ndarray[Any, np.dtype[np.int64]], channels: int) -> int:
    values = np.broadcast_to(np.asarray(decay), (channels,))
    return int(np.count_nonzero((values > 0) & (values < DECAY_ONE)))


def _hold_synapses(
    row: LayerCounts,
    net: IntegerNetwork,
    link: Connection,
    shapes: dict[str, Shape],
    seen: set[str],
    passes: int,
    shown: int,
) -> None:
    source = shapes[link.source]
    places = source[0] * source[1] * source[2]
    once, padded, weights = places, places, 0  # a bare edge: one synapse of weight 1 a place
    if isinstance(link.node, IntegerConv):
        once = synapses(link.node, source[1:])
        out = shapes[link.name]
        padded, weights = out[1] * out[2] * link.node.weight.size, link.node.weight.size
    elif link.node is not None:
        once = padded = weights = link.node.weight.size
    sender = net.nodes[link.source]
    if link.sends:
        row.driven_by = (*row.driven_by, (link.source, link.spiking))
        row.inputs += places
        row.synapses += once * link.copies
    if link.trained:
        row.ann_inputs += places
        row.parameters += weights if link.first else 0
    if link.first and link.sends:
        row.parameters_repeated += weights * link.copies * (len(sender.levels) if isinstance(sender, IntegerLif) else 1)
    # an ANN computes a convolution once, whoever receives it
    if link.node is not None and link.trained and link.name not in seen:
        row.dense_mac += once * passes
        row.dense_mac_padded += padded * passes
    if not link.spiking and link.node is None:  # a value without a weight: one addition
        row.bias_additions += once * link.copies * shown
    elif not link.spiking:
        row.mac_once += 0 if f"{link.name} from {link.source}" in seen else once
        row.mac += once * link.copies * shown
        analog = row.per_step["mac"]
        row.per_step["mac"] = [count + once * link.copies * (step < shown) for step, count in enumerate(analog)]
    seen |= {link.name, f"{link.name} from {link.source}"} if link.trained else set()
