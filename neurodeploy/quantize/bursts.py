"""Integer levels in time: a neuron that counts to D as a burst of 0 to D spikes, in the place of D populations.

A layer of D populations costs D copies of every synapse, and its spikes meet as many copies of the next layer's: D^2
operations where the levels would need one. The same integers can be sent one after another. Each neuron of a channel
adds up what arrives (a current of one step, a membrane that loses nothing) while a tick holds it far below its
threshold; another tick releases it, and from then on it climbs by the distance of two levels at every step, by its
bias. It crosses the threshold the earlier the higher its level; the reset puts it to 0, and as the climb of a single
step exceeds the threshold of 0, it spikes at every further step, until a tick stops it after D of them: k spikes for
level k. What is summed, in whatever order, is what the populations sum.

Of layer l with D_l levels, whose sources s end at ``start_s + D_s - 1``, the burst starts in the latest of these
steps::

    v(start_l + j) = x - E(D_l - j)   for j = 0 .. D_l - 1,   a spike when v > 0

with ``E(k)`` the threshold of level k. Ticks are graded events of the host that come with the codes
(:class:`neurodeploy.graph.spec.HostSide`), and reach neurons over synapses like any other: 254 for what holds, releases
and stops, 2 for what corrects the distance of two levels. Biases of channels come in with the first step, and with them
what those large ticks are too coarse for. Everything is plain LIF with hard reset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from neurodeploy.errors import Finding, FindingsError, InternalError
from neurodeploy.graph.spec import DECAY_ONE
from neurodeploy.quantize.bounds import CURRENT_MAX, current_ranges
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)

COARSE, FINE = 254, 2
"""Weights of the synapses that bring a tick: the largest and the smallest of 8 bits."""

HIGH = 64
"""What the tick of the high part of biases carries; that of the low part carries 1."""

CLIMB = 2
"""Least climb a step: what is even, and above the threshold of 0."""


@dataclass(frozen=True)
class Coded:
    """A network whose levels are sent in time, and what was noticed.

    Attributes:
        net: The network: every LIF has one population, its host has ticks.
        findings: Warnings: layers whose membranes some input could drive out of what a tick can hold.
        starts: Spiking layer -> the step in which its burst begins.
    """

    net: IntegerNetwork
    findings: tuple[Finding, ...]
    starts: Mapping[str, int]


def _one(levels: int) -> int:
    """The most levels of a neuron that arrive in one step, if each is a spike of its own."""
    return min(levels, 1)


def in_bursts(net: IntegerNetwork, at_once: Callable[[int], int] = _one) -> Coded:
    """The same network with its levels in time; its readout is the same, value by value, and so is every count.

    Args:
        net: A network in its compact form with one time step, of convolutions that keep the resolution.
        at_once: Levels D -> the most levels of a neuron that arrive in one step.

    Raises:
        FindingsError: Everything that keeps its levels from being sent in bursts.
    """
    findings = _findings(net)
    if not findings:
        builder = _Builder(net, at_once)
        made = builder.build()
        findings = builder.refused
        if not findings:
            return Coded(made, tuple(builder.findings), builder.starts)
    raise FindingsError("the levels cannot be sent in time", findings)


def _findings(net: IntegerNetwork) -> list[Finding]:
    found = []
    if net.host.steps != 1:
        found.append(Finding("network", "a burst carries what one time step does", f"T = {net.host.steps}", "T = 1"))
    for name, node in net.nodes.items():
        if isinstance(node, IntegerConv):
            reach = tuple(node.dilation[axis] * (node.weight.shape[2 + axis] - 1) for axis in range(2))
            if node.stride != (1, 1) or tuple(2 * pad for pad in node.padding) != reach or node.groups != 1:
                found.append(
                    Finding(
                        name,
                        "ticks reach the places of the input, and this layer has others or groups",
                        f"stride {node.stride}, padding {node.padding}, {node.groups} groups",
                        "convolutions that keep the resolution",
                    )
                )
        elif not isinstance(node, IntegerInput | IntegerLif | IntegerReadout):
            found.append(Finding(name, "is no convolution", type(node).__name__, "convolutions and LIF"))
        if isinstance(node, IntegerLif | IntegerReadout):
            odd = [source for source in net.sources(name) if not _is_plain(net, source)]
            if odd or net.feedback:
                found.append(Finding(name, "is fed by something else than convolutions of one layer", ", ".join(odd)))
        if isinstance(node, IntegerLif) and np.any(np.diff(_thresholds(node)) < 2):
            rule = "two levels share a threshold: a burst has one spike a step"
            found.append(Finding(name, rule, instead="a smaller weight step"))
    return found


def _is_plain(net: IntegerNetwork, name: str) -> bool:
    """Whether a node is a convolution of the input's codes or of the spikes of one layer."""
    sources = [net.nodes[source] for source in net.sources(name)]
    return (
        isinstance(net.nodes[name], IntegerConv)
        and len(sources) == 1
        and isinstance(sources[0], IntegerInput | IntegerLif)
    )


def _thresholds(node: IntegerLif) -> IntArray:
    """(D,) ascending: level k is reached where ``x + bias > thresholds[k - 1]``."""
    return np.sort(node.vth - np.asarray(node.levels, np.int64))


def _even(values: IntArray) -> IntArray:
    """The largest even numbers that are no larger: for even x, ``x > e`` is the same."""
    return values - values % 2


@dataclass
class _Ticks:
    """The channels of ticks, by name; what each is sent."""

    sent: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def place(self, name: str, step: int, value: int) -> None:
        if value:
            self.sent.setdefault(name, []).append((step, value))

    def send(self, name: str, step: int, value: int, weight: int) -> None:
        """Sends what becomes a value behind synapses of a weight."""
        if value % weight:
            raise InternalError(f"{name}: {value} is no multiple of {weight}")
        self.place(name, step, value // weight)


class _Builder:
    def __init__(self, net: IntegerNetwork, at_once: Callable[[int], int]) -> None:
        self.net = net
        self.at_once = at_once
        self.starts = self._starts()
        self.ticks = _Ticks()
        self.weights: dict[str, dict[str, IntArray]] = {}
        """Neurons -> tick -> (C,) weights of its synapses."""
        self.findings: list[Finding] = []
        self.refused: list[Finding] = []
        self.ranges = current_ranges(net)

    def build(self) -> IntegerNetwork:
        starts = self.starts
        nodes: dict[str, IntegerNode] = {}
        steps = starts[self.net.readout.name] + 1
        steps += 1 - steps % 2  # odd, so that an odd bias can be added up over the steps
        for node in self.net.lifs():
            nodes[node.name] = self._neurons(node, starts[node.name], steps)
        readout = self.net.readout
        nodes[readout.name] = replace(readout, bias=readout.bias % 2)
        self._biases(readout.name, readout.bias - steps * (readout.bias % 2))
        return self._assembled(nodes, steps)

    def _starts(self) -> dict[str, int]:
        """Neurons -> the step in which the last of what they add up arrives, and their burst begins."""
        starts: dict[str, int] = {}
        for name, node in self.net.nodes.items():
            if isinstance(node, IntegerLif | IntegerReadout):
                sources = [
                    self.net.nodes[source] for conv in self.net.sources(name) for source in self.net.sources(conv)
                ]
                starts[name] = max(
                    starts[source.name] + len(source.levels) - 1 if isinstance(source, IntegerLif) else 0
                    for source in sources
                )
        return starts

    def _neurons(self, node: IntegerLif, start: int, steps: int) -> IntegerLif:
        """The neurons of a layer, and the ticks that hold, release, correct and stop them."""
        name, levels, odd = node.name, len(node.levels), node.bias % 2
        thresholds = _thresholds(node)
        plain = _even(thresholds)
        of_odd = _even(thresholds - 1) if odd.any() else plain  # the odd 1 of the bias is left to the threshold
        # all that it climbs in a run is a small part of the register
        most = CLIMB if levels == 1 else CURRENT_MAX // 8 // steps * 2
        spacing = int(min([most, *np.diff(plain), *np.diff(of_odd)]))
        if spacing < CLIMB:
            self.refused.append(Finding(name, "two levels share a threshold: a burst has one spike a step"))
            return node
        below = int(plain[-1]) + spacing * (start + 1)  # the bias climbs from the first step on
        rest = below % COARSE
        self._biases(name, node.bias - odd - rest)
        hold = self._hold(node, start, spacing, below) if start else 0
        below -= rest
        coarse, fine = f"{name} coarse", f"{name} fine"
        self.ticks.send(coarse, 0, -hold if start else -below, COARSE)
        if start:
            self.ticks.send(coarse, start, hold - below, COARSE)
        for step in range(1, levels):
            climb = int(plain[levels - step] - plain[levels - 1 - step])
            self.ticks.send(fine, start + step, climb - spacing, FINE)
        shifts = (plain - of_odd)[::-1]
        for step, shift in enumerate(np.diff(shifts, prepend=0)):
            self.ticks.place(f"{name} odd", start + step, int(shift) // FINE)
        left = steps - start - levels
        if left > 0:
            self.ticks.send(coarse, start + levels, -COARSE * (-(-spacing * (left + 1) // COARSE)), COARSE)
        count = len(node.bias)
        weights = self.weights.setdefault(name, {})
        weights[coarse], weights[fine] = np.full(count, COARSE), np.full(count, FINE)
        weights[f"{name} odd"] = FINE * odd
        return IntegerLif(name, vth=0, bias=np.full(count, spacing), v_decay=0, i_decay=DECAY_ONE)

    def _hold(self, node: IntegerLif, start: int, spacing: int, below: int) -> int:
        """How far below 0 a membrane is held while it adds up: any input stays above the register's end and below 0."""
        even = node.bias - node.bias % 2
        low, high, last = (np.zeros(len(even), np.int64) for _ in range(3))
        for conv in self.net.sources(node.name):
            (source,) = self.net.sources(conv)
            low, high = low + self.ranges[conv][0], high + self.ranges[conv][1]
            sender = self.net.nodes[source]
            count = len(sender.levels) if isinstance(sender, IntegerLif) else 1
            last = last + -(-self.ranges[conv][1] * self.at_once(count) // count)
        least = int(np.max(high + even)) + spacing * start + COARSE
        most = min(CURRENT_MAX + int(np.min(low + even)) - COARSE, CURRENT_MAX + below - int(np.max(last)))
        if least > most:
            self.findings.append(
                Finding(
                    node.name,
                    "some input could drive the membrane beyond what holds it while a burst arrives",
                    f"{int(np.min(low + even))}..{int(np.max(high + even))}",
                    f"{CURRENT_MAX - spacing * start} from end to end",
                    "a larger weight step",
                    severity="warning",
                )
            )
        # half of the register on either side, or as near to that as the bounds allow
        half = CURRENT_MAX // 2 if least > most else min(max(CURRENT_MAX // 2, least), most)
        return half // COARSE * COARSE

    def _biases(self, name: str, values: IntArray) -> None:
        """Brings even biases in with the first step: 64 times one weight and once another."""
        half = values // 2
        high = (half + HIGH // 2) // HIGH
        low = half - HIGH * high
        if np.any(np.abs(high) > COARSE // FINE):
            have = f"{values.min()}..{values.max()}"
            self.refused.append(Finding(name, "biases are too large for ticks", have, f"+-{COARSE * HIGH}"))
            return
        for tick, part, value in (("biases high", high, HIGH), ("biases low", low, 1)):
            if part.any():
                self.weights.setdefault(name, {})[tick] = FINE * part
                if tick not in self.ticks.sent:
                    self.ticks.place(tick, 0, value)

    def _assembled(self, made: dict[str, IntegerNode], steps: int) -> IntegerNetwork:
        net, sent = self.net, self.ticks.sent
        codes, inputs = net.input.channels, net.input.channels + len(sent)
        places = {name: codes + place for place, name in enumerate(sent)}
        nodes: dict[str, IntegerNode] = {}
        edges: list[tuple[str, str]] = list(net.edges)
        for name, node in net.nodes.items():
            if isinstance(node, IntegerInput):
                nodes[name] = replace(node, channels=inputs)
            elif isinstance(node, IntegerConv) and net.sources(name) == (net.input.name,):
                weight = np.pad(node.weight, ((0, 0), (0, len(sent)), (0, 0), (0, 0)))
                nodes[name] = replace(node, weight=weight)
            elif name in made:
                carried = {tick: row for tick, row in self.weights.get(name, {}).items() if tick in sent and row.any()}
                if carried:
                    link = unused(f"ticks_{name}", (*net.nodes, *nodes))
                    weight = np.zeros((len(next(iter(carried.values()))), inputs, 1, 1), np.int64)
                    for tick, row in carried.items():
                        weight[:, places[tick], 0, 0] = row
                    nodes[link] = IntegerConv(link, weight)
                    edges += [(net.input.name, link), (link, name)]
                nodes[name] = made[name]
            else:
                nodes[name] = node
        host = net.host.model_copy(
            update={
                "steps": steps,
                "ticks": tuple(tuple(sorted(channel)) for channel in sent.values()),
                # the output is a mean over the steps
                "output_scale": net.host.output_scale * steps,
            }
        )
        return replace(net, nodes=nodes, edges=tuple(edges), host=type(host).model_validate(host.model_dump()))


def without_ticks(net: IntegerNetwork) -> IntegerNetwork:
    """A network as it is without what keeps the time: its input has the channels of the codes alone.

    For counting and for what is said of a network; it does not run.
    """
    if not net.host.ticks:
        return net
    codes = net.input.channels - len(net.host.ticks)
    links = tick_links(net)
    nodes: dict[str, IntegerNode] = {}
    for name, node in net.nodes.items():
        if name in links:
            continue
        if isinstance(node, IntegerInput):
            nodes[name] = replace(node, channels=codes)
        elif isinstance(node, IntegerConv) and net.sources(name) == (net.input.name,):
            nodes[name] = replace(node, weight=np.ascontiguousarray(node.weight[:, :codes]))
        else:
            nodes[name] = node
    edges = tuple(edge for edge in net.edges if links.isdisjoint(edge))
    return replace(net, nodes=nodes, edges=edges, host=net.host.model_copy(update={"ticks": ()}))


def tick_links(net: IntegerNetwork) -> frozenset[str]:
    """The convolutions that bring ticks to neurons, and no codes."""
    codes = net.input.channels - len(net.host.ticks)
    return frozenset(
        name
        for name, node in net.nodes.items()
        if net.host.ticks
        and isinstance(node, IntegerConv)
        and net.sources(name) == (net.input.name,)
        and not node.weight[:, :codes].any()
    )


def most_spikes(net: IntegerNetwork) -> dict[str, int]:
    """Spiking layer -> the most spikes that a neuron of it can have in a run: T, or from its release to its stop."""
    steps = net.host.steps
    found = dict.fromkeys((node.name for node in net.lifs()), steps)
    codes = net.input.channels - len(net.host.ticks)
    for link in tick_links(net):
        node = net.nodes[link]
        coarse = [place for place in range(codes, net.input.channels) if np.all(_column(node, place) == COARSE)]
        for target in net.targets(link) if len(coarse) == 1 else ():
            sent = net.host.ticks[coarse[0] - codes]
            start = max((step for step, value in sent if value > 0), default=0)
            stop = min((step for step, value in sent if value < 0 and step > start), default=steps)
            found[target] = stop - start
    for node in net.lifs():
        if node.digit_of:  # the largest digit may be sent more than once
            largest = max(other.digit for other in net.lifs() if other.digit_of == node.digit_of)
            found[node.name] = found[node.digit_of] // largest if node.digit == largest else 1
    return found


def _column(node: IntegerNode, place: int) -> IntArray:
    if not isinstance(node, IntegerConv):
        raise InternalError(f"{node.name} is no convolution")
    return node.weight[:, place, 0, 0]


def unused(wish: str, taken: Sequence[str]) -> str:
    """A name like the one that is wished for, which nothing has."""
    while wish in taken:
        wish += "_"
    return wish
