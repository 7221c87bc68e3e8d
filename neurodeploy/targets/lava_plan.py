"""How a graph of layers runs in Lava, where every connection takes a step: depths, delays, and what cannot run there.

A spiking layer of depth d (hops from the input) works d steps after the input. Where a shorter way meets a longer one,
what the shorter one carries has to wait: spikes pass through relays, neurons that spike one step after they were spiked
at; graded codes of the input, which a relay cannot carry, are sent once more, later.

A layer that feeds itself does so over one connection, in the one step that is meant. A gate in front of it keeps back
what is sent in the step before a window begins: in a window's first step nothing arrives over feedback edges. A loop
through several layers would take a step for each, and is refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from neurodeploy.errors import Finding
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)


@dataclass(frozen=True)
class Hop:
    """One connection process.

    Attributes:
        process: Its name, unique in the program.
        weights: The convolution or dense layer whose weights it holds.
        source: The input or spiking layer that feeds it.
        delay: Steps that what the source sends has to wait.
        gated: It is a feedback connection: what is sent in the last step of a window is kept back.
    """

    process: str
    weights: str
    source: str
    delay: int
    gated: bool = False


@dataclass(frozen=True)
class Stage:
    """One layer of neurons, the number of hops from the input to it, and the connections that meet in it."""

    neuron: IntegerLif | IntegerReadout
    depth: int
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class Plan:
    """The layers in the order of their depths, the readout last."""

    stages: tuple[Stage, ...]

    @property
    def hops(self) -> int:
        """Hops from the input to the output."""
        return self.stages[-1].depth

    def delays(self, source: str) -> int:
        """The longest time, in steps, that what a source sends has to wait."""
        return max((hop.delay for stage in self.stages for hop in stage.hops if hop.source == source), default=0)


def plan(net: IntegerNetwork) -> Plan:
    """The plan of a network that :func:`graph_findings` has nothing against."""
    depths = {net.input.name: 0}
    ways: dict[str, list[tuple[str, str]]] = {}
    for name, node in net.nodes.items():
        if isinstance(node, IntegerLif | IntegerReadout):
            ways[name] = [
                (weights, source) for weights in net.sources(name) for source in spiking_sources(net, weights)
            ]
            depths[name] = 1 + max(depths[source] for weights, source in ways[name] if not _is_late(net, weights, name))
    copies: Counter[str] = Counter()
    stages = []
    for name in sorted(ways, key=lambda layer: depths[layer]):
        hops = []
        for weights, source in ways[name]:
            copies[weights] += 1
            process = weights if copies[weights] == 1 else f"{weights}_{copies[weights]}"
            late = _is_late(net, weights, name)
            hops.append(Hop(process, weights, source, 0 if late else depths[name] - 1 - depths[source], late))
        neuron = net.nodes[name]
        if isinstance(neuron, IntegerLif | IntegerReadout):
            stages.append(Stage(neuron, depths[name], tuple(hops)))
    # the readout may share its depth with a layer that nothing reads; it ends the program all the same
    stages.sort(key=lambda stage: isinstance(stage.neuron, IntegerReadout))
    return Plan(tuple(stages))


def _is_late(net: IntegerNetwork, weights: str, name: str) -> bool:
    """Whether a weight layer leads back into a layer of neurons."""
    return (weights, name) in net.feedback


def spiking_sources(net: IntegerNetwork, weights: str) -> list[str]:
    """The layers whose spikes (or the input whose codes) a weight layer is given, through a flatten or not."""
    found: list[str] = []
    for source in net.sources(weights):
        flat = isinstance(net.nodes[source], IntegerFlatten)
        found += net.sources(source) if flat else (source,)
    return found


_SOURCES: dict[type[IntegerNode], tuple[tuple[type[IntegerNode], ...], str]] = {
    IntegerConv: ((IntegerInput, IntegerLif), "the input or spiking layers"),
    IntegerDense: ((IntegerInput, IntegerLif, IntegerFlatten), "the input, spiking layers or a flatten"),
    IntegerFlatten: ((IntegerInput, IntegerLif), "the input or spiking layers"),
    IntegerLif: ((IntegerConv, IntegerDense), "convolutions or dense layers"),
    IntegerReadout: ((IntegerConv, IntegerDense), "convolutions or dense layers"),
}
"""What may stand before what: between two layers of neurons there is one layer of weights, never none and never two."""


def graph_findings(net: IntegerNetwork) -> list[Finding]:
    """Every place where a network is no graph of spiking layers that one weight layer each connects."""
    findings = []
    for name, node in net.nodes.items():
        if not isinstance(node, IntegerInput):
            findings += _source_findings(net, name, node)
        if not isinstance(node, IntegerReadout) and not net.targets(name):
            findings.append(Finding(name, "feeds nothing", instead="leave it out"))
    if not any(isinstance(node, IntegerReadout) for node in net.nodes.values()):
        findings.append(Finding("network", "has no readout"))
    return findings or _loop_findings(net)


def _loop_findings(net: IntegerNetwork) -> list[Finding]:
    """Feedback edges that do not lead from weights back into the layer whose spikes these read."""
    findings = []
    for source, target in sorted(net.feedback):
        weighted = isinstance(net.nodes[source], IntegerConv | IntegerDense)
        senders = spiking_sources(net, source) if weighted else [source]
        if senders != [target]:
            findings.append(
                Finding(
                    target,
                    f"the feedback edge from {source} is not carried: every connection of a loop takes a step in Lava",
                    have=f"a loop through {', '.join([*senders, target])}",
                    limit="a layer that feeds itself",
                    instead="target nir or onnx",
                )
            )
    return findings


def _source_findings(net: IntegerNetwork, name: str, node: IntegerNode) -> list[Finding]:
    kinds, words = _SOURCES[type(node)]
    sources = net.sources(name)
    wrong = [source for source in sources if not isinstance(net.nodes[source], kinds)]
    if not sources:
        return [Finding(name, "has no source")]
    if wrong:
        return [Finding(name, "is fed by something that a process of Lava does not take", ", ".join(wrong), words)]
    return []
