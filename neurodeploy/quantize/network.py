"""The integer network: what simulate, the chip targets, placement and energy counting look at.

Integers only. A convolution's output is ``a = sum(weight * x)``; every neuron holds a current ``u`` and a membrane
``v`` of 24 bits; the bias enters the membrane (``v += bias << 6``), never the current. See
:mod:`neurodeploy.simulate.reference` for the step itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import InternalError
from neurodeploy.graph.order import backward, run_order
from neurodeploy.graph.spec import HostSide

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class IntegerInput:
    """The graded input: integer codes, the same at every step unless a sequence is given."""

    name: str
    channels: int


@dataclass(frozen=True)
class IntegerConv:
    """2-D cross-correlation, no bias. ``weight``: (out, in / groups, k, k) int64; pairs are (rows, columns)."""

    name: str
    weight: IntArray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class IntegerDense:
    """Matrix product, no bias. ``weight``: (out, in) int64."""

    name: str
    weight: IntArray


@dataclass(frozen=True)
class IntegerFlatten:
    """(C, H, W) -> (C * H * W,) in C, H, W order."""

    name: str


@dataclass(frozen=True)
class IntegerLif:
    """Loihi's current-based LIF with hard reset, as D threshold populations (D = ``len(levels)``, usually 1).

    Attributes:
        v_decay: 0..4096, an int or one value a channel (C,).
        i_decay: 0..4096; 4096 means that the current lasts one step.
        vth: threshold mantissa; a spike when ``v > vth << 6``.
        bias: mantissa a channel (C,), added to v as ``bias << 6`` at every step.
        levels: bias offset of each population. Population i has the bias ``bias + levels[i]``; all share the incoming
            weights; the number of populations that spike (0..D) is what the next convolution receives.
        digit_of: Name of the layer whose bursts this one turns into one digit, see :mod:`neurodeploy.quantize.digits`;
            else empty.
        digit: What one of its spikes stands for then; else 0.
    """

    name: str
    vth: int
    bias: IntArray
    v_decay: int | IntArray = 4096
    i_decay: int | IntArray = 4096
    levels: tuple[int, ...] = (0,)
    digit_of: str = ""
    digit: int = 0


@dataclass(frozen=True)
class IntegerReadout:
    """The output: the sum over time steps of the incoming current plus ``bias`` (C,)."""

    name: str
    bias: IntArray


IntegerNode = IntegerInput | IntegerConv | IntegerDense | IntegerFlatten | IntegerLif | IntegerReadout


@dataclass(frozen=True)
class IntegerNetwork:
    """Nodes in topological order, and edges; several edges into a node are summed.

    An edge that runs backward in the order of the nodes is a feedback edge: it carries what its source put out in the
    previous step, and 0 in the first one. Every cycle passes a spiking layer.

    Attributes:
        nodes: name -> node, in running order.
        edges: (source, target) names.
        host: the host's share of the work; its ``output_scale`` counts in units of the NIR graph.
        units: for every LIF and readout node, the value in the NIR graph of one integer unit of current.
        arithmetic: name of the arithmetic that it was made for.
    """

    nodes: Mapping[str, IntegerNode]
    edges: tuple[tuple[str, str], ...]
    host: HostSide
    units: Mapping[str, float] = field(default_factory=dict)
    arithmetic: str = "loihi2"

    def __post_init__(self) -> None:
        for source, target in self.edges:
            if source not in self.nodes or target not in self.nodes:
                raise InternalError(
                    f"edge {source} -> {target} refers to a node that the integer network does not have"
                )
        if self.feedback:
            self._check_feedback()

    def _check_feedback(self) -> None:
        targets: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, target in self.edges:
            targets[source].append(target)
        for start in {target for _, target in self.feedback}:
            reached: set[str] = set()
            waiting = [start]
            while waiting:
                name = waiting.pop()
                if name not in reached:
                    reached.add(name)
                    waiting += targets[name]
            for source, target in self.feedback:
                if target == start and source not in reached:
                    raise InternalError(f"edge {source} -> {target} does not run forward in the integer network")
        linear = [name for name, node in self.nodes.items() if not isinstance(node, IntegerLif)]
        edges = [edge for edge in self.edges if not any(isinstance(self.nodes[name], IntegerLif) for name in edge)]
        for source, target in run_order(linear, edges, linear[0])[1]:
            raise InternalError(f"edge {source} -> {target} closes a cycle without neurons in the integer network")

    @cached_property
    def feedback(self) -> frozenset[tuple[str, str]]:
        """The edges that carry what their source put out in the previous step."""
        return backward(self.nodes, self.edges)

    def sources(self, name: str) -> tuple[str, ...]:
        """Names of the nodes with an edge into ``name``, feedback edges included, in edge order."""
        return tuple(source for source, target in self.edges if target == name)

    def forward_sources(self, name: str) -> tuple[str, ...]:
        """Names of the nodes with an edge into ``name`` that is no feedback edge, in edge order."""
        return tuple(source for source in self.sources(name) if (source, name) not in self.feedback)

    def targets(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that ``name`` has an edge to, in edge order."""
        return tuple(target for source, target in self.edges if source == name)

    @property
    def input(self) -> IntegerInput:
        """The one input node."""
        return next(node for node in self.nodes.values() if isinstance(node, IntegerInput))

    @property
    def readout(self) -> IntegerReadout:
        """The one readout node."""
        return next(node for node in self.nodes.values() if isinstance(node, IntegerReadout))

    def lifs(self) -> Iterator[IntegerLif]:
        """The spiking layers, in order."""
        return (node for node in self.nodes.values() if isinstance(node, IntegerLif))

    @property
    def output_scale(self) -> float:
        """Image value of one unit of the readout's mean over time steps."""
        return self.host.output_scale * self.units.get(self.readout.name, 1.0)
