"""The linear chain that a netx file can hold: blocks of one weight layer and the neurons behind it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from neurodeploy.errors import Finding
from neurodeploy.quantize.bounds import (
    CURRENT_SHIFT,
    bias_fits,
    bias_range,
    channel_ranges,
    population_biases,
)
from neurodeploy.quantize.bursts import most_spikes
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
from neurodeploy.targets.lava_plan import spiking_sources
from neurodeploy.targets.registers import VTH_MAX, no_exponent, range_findings

HINTS = "neurodeploy/hints"
"""Dataset at the root of a netx file, which netx does not look at: JSON with the host side, units and node names."""

READOUT_VTH = VTH_MAX
"""Threshold mantissa of the last block, out of reach of its membrane."""

GROUPS_MAX = 127
"""Lava keeps groups, stride, padding and dilation in 8 signed bits; 128 groups give zeros without a word."""


@dataclass(frozen=True)
class Block:
    """One hop: weights, the neurons behind them, and whether a flatten stands before them."""

    weights: IntegerConv | IntegerDense
    neuron: IntegerLif | IntegerReadout
    flattened: bool = False

    @property
    def i_decay(self) -> int | IntArray:
        """4096 for a readout: its current lasts one step."""
        return self.neuron.i_decay if isinstance(self.neuron, IntegerLif) else 4096

    @property
    def v_decay(self) -> int | IntArray:
        """0 for a readout: its membrane keeps everything."""
        return self.neuron.v_decay if isinstance(self.neuron, IntegerLif) else 0

    @property
    def vth(self) -> int:
        """Threshold mantissa."""
        return self.neuron.vth if isinstance(self.neuron, IntegerLif) else READOUT_VTH


def blocks(net: IntegerNetwork) -> list[Block]:
    """The blocks of a chain that :func:`chain_findings` has nothing against, first to last."""
    found: list[Block] = []
    flattened = False
    weights: IntegerConv | IntegerDense | None = None
    for node in net.nodes.values():
        if isinstance(node, IntegerFlatten):
            flattened = True
        elif isinstance(node, IntegerConv | IntegerDense):
            weights = node
        elif isinstance(node, IntegerLif | IntegerReadout) and weights is not None:
            found.append(Block(weights, node, flattened))
            flattened, weights = False, None
    return found


def chain_findings(net: IntegerNetwork) -> list[Finding]:
    """Every place where a network is no chain of weight layer and neurons behind one input."""
    findings = [found for name in net.nodes for found in _junctions(net, name)]
    if not findings:
        findings += _sequence_findings(list(net.nodes.values()))
    return findings


def _junctions(net: IntegerNetwork, name: str) -> list[Finding]:
    node, findings = net.nodes[name], []
    sources, targets = net.sources(name), net.targets(name)
    if len(sources) > 1:
        findings.append(
            Finding(
                name,
                "sums several edges; a netx file has no field that names a source layer",
                have=", ".join(sources),
                limit="one edge",
                instead="the form 'program' of target lava",
            )
        )
    elif not sources and not isinstance(node, IntegerInput):
        findings.append(Finding(name, "has no source"))
    if len(targets) > 1:
        findings.append(Finding(name, "feeds several layers; a netx file is a chain", ", ".join(targets), "one edge"))
    elif not targets and not isinstance(node, IntegerReadout):
        findings.append(Finding(name, "feeds nothing; a netx file is a chain"))
    return findings


_FOLLOWS: dict[type[IntegerNode], tuple[type[IntegerNode], ...]] = {
    IntegerInput: (IntegerConv,),
    IntegerConv: (IntegerLif, IntegerReadout),
    IntegerDense: (IntegerLif, IntegerReadout),
    IntegerLif: (IntegerConv, IntegerFlatten, IntegerDense),
    IntegerFlatten: (IntegerDense,),
    IntegerReadout: (),
}
"""What may stand behind what in a chain that is written."""

_WORDS: dict[type[IntegerNode], str] = {
    IntegerInput: "the input",
    IntegerConv: "a convolution",
    IntegerDense: "a dense layer",
    IntegerFlatten: "a flatten",
    IntegerLif: "a spiking layer",
    IntegerReadout: "the readout",
}


def _sequence_findings(nodes: list[IntegerNode]) -> list[Finding]:
    findings = []
    for before, node in itertools.pairwise(nodes):
        allowed = _FOLLOWS[type(before)]
        if type(node) not in allowed:
            findings.append(
                Finding(
                    node.name,
                    f"{_WORDS[type(node)]} cannot stand behind {_WORDS[type(before)]} in a netx file",
                    limit=" or ".join(_WORDS[kind] for kind in allowed) or "nothing",
                )
            )
    if not nodes or not isinstance(nodes[-1], IntegerReadout):
        findings.append(Finding("network", "has no readout at its end"))
    return findings


def process_findings(node: IntegerConv | IntegerDense) -> list[Finding]:
    """Weights that Lava's processes would take and compute something else with, or the chip cannot hold."""
    return [*range_findings(node), *(_conv_findings(node) if isinstance(node, IntegerConv) else [])]


def netx_findings(node: IntegerConv | IntegerDense) -> list[Finding]:
    """Weights that a netx file has no place for: with an exponent, or of a matrix that netx scales out of range."""
    return no_exponent(node, "a netx file") or (_matrix_findings(node) if isinstance(node, IntegerDense) else [])


def _matrix_findings(node: IntegerDense) -> list[Finding]:
    """Dense layers that netx, which scales matrices to fill 8 bits, brings out of range."""
    low, high = int(node.weight.min(initial=0)), int(node.weight.max(initial=0))
    if not np.any(node.weight):
        return [Finding(node.name, "all weights are zero, which netx cannot load", instead="drop the layer")]
    if high <= 0 and -low & (-low - 1) == 0:
        # netx shifts such a matrix up until its smallest weight is -256, which Lava does not hold in that mode.
        return [
            Finding(
                node.name,
                "no weight is positive and the smallest is minus a power of two: netx scales it out of Lava's range",
                have=f"{low}..{int(node.weight.max())}",
                instead="give one weight another value",
            )
        ]
    return []


def bias_findings(node: IntegerLif) -> list[Finding]:
    """Biases that fit their fields with an exponent which a netx file cannot name: every one of its biases has 6."""
    biases = population_biases(node)
    if not bias_fits(biases).all() or bias_fits(biases, exponent=CURRENT_SHIFT).all():
        return []
    return [
        Finding(
            node.name,
            "biases need the exponent 7, and those of a netx file have 6",
            have="{}..{}".format(*bias_range(node)),
            limit="-4096..4095",
            instead="the form 'program' of target lava",
        )
    ]


def _conv_findings(node: IntegerConv) -> list[Finding]:
    findings = []
    if node.groups > GROUPS_MAX:
        findings.append(Finding(node.name, "too many groups for Lava's 8 bits", str(node.groups), f"{GROUPS_MAX}"))
    for key, pair in (("stride", node.stride), ("padding", node.padding), ("dilation", node.dilation)):
        if max(pair) > GROUPS_MAX:
            findings.append(Finding(node.name, f"{key} is too large for Lava's 8 bits", str(pair), f"{GROUPS_MAX}"))
    return findings


def readout_findings(net: IntegerNetwork) -> list[Finding]:
    """Whether the membrane that carries the output can reach its threshold, or its ends, on any input.

    The last block sums T currents and biases in its membrane, which must stay within ``+- 131071 << 6``; and one
    current must stay within the 17 bits that its register holds above the shift.
    """
    readout = net.readout
    current, total = np.zeros((2, len(readout.bias)), np.int64), np.zeros((2, len(readout.bias)), np.int64)
    spikes = most_spikes(net)
    for source in net.sources(readout.name):
        node = net.nodes[source]
        if not isinstance(node, IntegerConv | IntegerDense):
            return []
        flat = node.weight.reshape(len(node.weight), -1)
        for before in spiking_sources(net, source):
            if isinstance(net.nodes[before], IntegerInput):
                ranges, times = np.stack(channel_ranges(net)), _times_shown(net)
            else:
                ranges, times = np.array([[0], [1]]), np.array([spikes[before]])
            for reached, held in ((current, ranges), (total, ranges * times)):
                low, high = (np.repeat(values, flat.shape[1] // len(values)) for values in held)
                ends = np.stack([flat * low, flat * high])
                reached += ends.min(axis=0).sum(axis=1), ends.max(axis=0).sum(axis=1)
    total += net.host.steps * readout.bias
    bottom = min(int(current[0].min()), int(total[0].min()), 0)
    top = max(int(current[1].max()), int(total[1].max()), 0)
    sources = ", ".join(net.sources(readout.name))
    if top <= READOUT_VTH and bottom >= -READOUT_VTH:
        return []
    return [
        Finding(
            readout.name,
            "the membrane that carries the output could leave its range and spike or saturate",
            have=f"{bottom}..{top}",
            limit=f"{-READOUT_VTH}..{READOUT_VTH}",
            instead=f"a larger weight step in {sources}, fewer levels, or fewer time steps",
        )
    ]


def _times_shown(net: IntegerNetwork) -> IntArray:
    """In how many steps every channel of the input holds something."""
    ticks = net.host.ticks
    codes = net.input.channels - len(ticks)
    return np.array([1 if ticks else net.host.steps] * codes + [len(channel) for channel in ticks], np.int64)
