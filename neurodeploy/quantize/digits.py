"""Integer levels as binary digits: the bursts of a layer, turned into few spikes before they are sent.

In bursts (:mod:`neurodeploy.quantize.bursts`) level k costs k spikes, each of which meets every synapse behind it. Here
the burst goes to a few neurons of the same channel alone, over one synapse each, and what they send meets the synapses:
the neuron of digit b spikes where b is part of k, over weights that are b times as large (Loihi's weight exponent)::

    k = sum over b of b n_b,   n_b = (k mod b') // b,   b' the next larger digit

so that level 7 is three spikes (4 + 2 + 1) where it was seven. What arrives is the same sum, integer for integer. The
digits are powers of two; the largest may be sent more than once (8 = 4 + 4), which saves a digit where it is rare.

They are plain LIF with hard reset, a current of one step and a membrane that loses nothing. Every spike of the burst
brings 2 to each of them, every spike of a larger digit b' takes 2 b' from the smaller ones. The largest digit needs no
more: it exceeds its threshold 2 b - 1 at every b-th spike, where the reset puts it to 0. The others must not spike
before the burst is over. A bias B sees to that, where a layer in bursts is held by a tick: the threshold lies as far
above 2 b - 1 as the bias climbs until then, and at every step before it is further away than all that can have
arrived::

    vth = B (last + 1) + 2 b - 1,   B = 2 b_max

In the last step of the burst those spike whose remainder is b or more; one tick in the step after it pulls down the
others for good. Nothing takes longer than in bursts.

Radix codes of spikes: Kim et al., Deep neural networks with weighted spikes (Neurocomputing 311, 2018); Stockl and
Maass, Optimized spiking neurons can classify images with high accuracy through temporal coding with two spikes (Nature
Machine Intelligence 3, 2021). Both want neurons that no chip has; here digits come from LIF alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neurodeploy.graph.spec import DECAY_ONE
from neurodeploy.quantize.bursts import COARSE, Coded, in_bursts, unused, without_ticks
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
)

LEAST_LEVELS = 4
"""Levels from which on digits pay: below, a burst has hardly more spikes than digits."""

UNIT = 2
"""What a spike of a burst brings to the neuron of a digit: the smallest weight of 8 bits."""


def digits_of(levels: int) -> tuple[int, ...]:
    """The digits of a level 0..D, the largest first, which is at most three times in a level.

    Args:
        levels: D, of at least :data:`LEAST_LEVELS`; (1,) for fewer, which go as bursts.
    """
    if levels < LEAST_LEVELS:
        return (1,)
    largest = 1 << ((levels + 2) // 2).bit_length() - 1
    return tuple(1 << place for place in reversed(range(largest.bit_length())))


def in_digits(net: IntegerNetwork) -> Coded:
    """The same network with its levels as binary digits; its readout is the same, value by value.

    Args:
        net: A network in its compact form with one time step, of convolutions that keep the resolution.

    Raises:
        FindingsError: Everything that keeps its levels from being sent in bursts.
    """
    bursts = in_bursts(net, _most_at_once)
    rewriting = _Rewriting(bursts, {node.name: len(node.levels) for node in net.lifs()})
    return replace(bursts, net=rewriting.network())


def _most_at_once(levels: int) -> int:
    """In the last step of a burst all digits may arrive, the largest once."""
    return min(levels, 2 * digits_of(levels)[0] - 1)


class _Rewriting:
    """Puts neurons of digits behind the layers of a network in bursts."""

    def __init__(self, bursts: Coded, levels: dict[str, int]) -> None:
        self.net = bursts.net
        self.ends = {name: bursts.starts[name] + count - 1 for name, count in levels.items()}
        self.digits = {name: digits_of(count) for name, count in levels.items()}
        self.nodes: dict[str, IntegerNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.stops: list[tuple[str, int, int]] = []
        """Link, step and value of every layer's tick."""

    def network(self) -> IntegerNetwork:
        net = self.net
        for name, node in net.nodes.items():
            sender = next((source for source in net.sources(name) if len(self.digits.get(source, ())) > 1), None)
            if isinstance(node, IntegerConv) and sender is not None:
                self._repeat(node, sender)
                continue
            self.nodes[name] = node
            # of a convolution that is repeated, all that it leads to has been linked there
            self.edges += [(name, target) for target in net.targets(name) if len(self.digits.get(name, ())) < 2]
            if isinstance(node, IntegerLif) and len(self.digits[name]) > 1:
                self._digits(node)
        return self._with_stops()

    def _repeat(self, node: IntegerConv, sender: str) -> None:
        """A convolution of a layer's bursts, once for each digit; that of the digit 1 keeps its name."""
        for digit in self.digits[sender]:
            name = node.name if digit == 1 else self._name(f"{node.name}_{digit}")
            self.nodes[name] = replace(node, name=name, weight=node.weight * digit)
            self.edges.append((self._layer(sender, digit), name))
            self.edges += [(name, target) for target in self.net.targets(node.name)]

    def _layer(self, sender: str, digit: int) -> str:
        return next(
            name
            for name, node in self.nodes.items()
            if isinstance(node, IntegerLif) and (node.digit_of, node.digit) == (sender, digit)
        )

    def _digits(self, node: IntegerLif) -> None:
        channels, end, steps = len(node.bias), self.ends[node.name], self.net.host.steps
        largest = self.digits[node.name][0]
        climb = UNIT * largest
        stop = self._name(f"ticks_{node.name}_1")
        if end + 1 < steps:
            self.nodes[stop] = IntegerConv(stop, np.full((channels, 1, 1, 1), COARSE))
            self.stops.append((stop, end + 1, -(-(climb * (steps - end) + UNIT * largest) // COARSE)))
        before: list[str] = []
        for digit in self.digits[node.name]:
            layer = self._name(f"{node.name}_{digit}")
            links = [(node.name, UNIT), *((larger, -UNIT * self._digit(larger)) for larger in before)]
            for source, weight in links:
                link = self._name(f"{source}_to_{layer}")
                self.nodes[link] = IntegerConv(link, np.full((channels, 1, 1, 1), weight), groups=channels)
                self.edges += [(source, link), (link, layer)]
            rest = UNIT * digit - 1
            held = digit < largest
            self.nodes[layer] = IntegerLif(
                layer,
                vth=climb * (end + 1) + rest if held else rest,
                bias=np.full(channels, climb if held else 0),
                v_decay=0,
                i_decay=DECAY_ONE,
                digit_of=node.name,
                digit=digit,
            )
            if held and stop in self.nodes:
                self.edges.append((stop, layer))
            before.append(layer)

    def _digit(self, layer: str) -> int:
        node = self.nodes[layer]
        return node.digit if isinstance(node, IntegerLif) else 0

    def _with_stops(self) -> IntegerNetwork:
        """The network with a channel of the input for the tick of every layer."""
        net, more = self.net, len(self.stops)
        place = {link: net.input.channels + row for row, (link, _, _) in enumerate(self.stops)}
        for name, node in self.nodes.items():
            if isinstance(node, IntegerInput):
                self.nodes[name] = replace(node, channels=node.channels + more)
            elif name in place:
                self.nodes[name] = _reading(node, place[name], net.input.channels + more)
                self.edges.append((net.input.name, name))
            elif isinstance(node, IntegerConv) and net.input.name in net.sources(name):
                self.nodes[name] = _reading(node, 0, net.input.channels + more)
        ticks = (*net.host.ticks, *(((step, -value),) for _, step, value in self.stops))
        host = type(net.host).model_validate(net.host.model_copy(update={"ticks": ticks}).model_dump())
        return replace(net, nodes=self.nodes, edges=tuple(self.edges), host=host)

    def _name(self, wish: str) -> str:
        return unused(wish, (*self.net.nodes, *self.nodes))


def _reading(node: IntegerNode, first: int, channels: int) -> IntegerNode:
    """A convolution of some channels of the input as one of all, the first of them at a place."""
    if not isinstance(node, IntegerConv):
        return node
    have = node.weight.shape[1]
    return replace(node, weight=np.pad(node.weight, ((0, 0), (first, channels - first - have), (0, 0), (0, 0))))


def as_trained(net: IntegerNetwork) -> IntegerNetwork:
    """A network without what carries its levels in time: no ticks, no digits, every convolution once.

    For what is said of a network's own shape; it does not run.
    """
    net = without_ticks(net)
    digits = {node.name: node for node in net.lifs() if node.digit_of}
    if not digits:
        return net
    within = {name for name in net.nodes if digits.keys() & {*net.targets(name)}}
    repeated = {name for layer, node in digits.items() if node.digit > 1 for name in net.targets(layer)}
    left = within | repeated | digits.keys()
    edges = []
    for source, target in net.edges:
        layer = digits.get(source)
        if target not in left and layer is not None and layer.digit == 1:
            edges.append((layer.digit_of, target))
        elif target not in left and source not in left:
            edges.append((source, target))
    return replace(net, nodes={name: node for name, node in net.nodes.items() if name not in left}, edges=tuple(edges))
