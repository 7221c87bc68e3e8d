"""The float form of an ONNX graph: what the NIR graph of the same network says, step for step.

Convolutions are float32, which is exact here: their sums are whole numbers of units below 2**24, in whatever order a
runtime adds. Membranes are float64 and go through the operations of
:func:`neurodeploy.simulate.floating.run_float` in its order, so that the spikes are equal bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np

from neurodeploy.errors import Finding
from neurodeploy.graph.portable import UNIT
from neurodeploy.quantize.bounds import current_ranges, range_findings
from neurodeploy.quantize.grid import grid_network
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)
from neurodeploy.simulate.floating import FloatArray
from neurodeploy.targets.onnx_graph import Graph
from neurodeploy.targets.onnx_integer import Fired, State, conv_attributes, sources_range
from neurodeploy.targets.registers import no_exponent

EXACT = 1 << 24
"""Whole numbers up to here are float32 values."""


@dataclass
class FloatForm:
    """Emits the nodes of the float form.

    Attributes:
        graph: Where they go.
        net: The network in its compact form.
        size: (H, W) of the image.
    """

    graph: Graph
    net: IntegerNetwork
    size: tuple[int, int]
    nodes: dict[str, Any] = field(init=False)
    narrow: set[str] = field(default_factory=set)
    """Tensors of float32; all others are float64."""

    kind = "DOUBLE"
    state_kind = "DOUBLE"
    summed = "output_sum"

    def __post_init__(self) -> None:
        self.nodes = grid_network(self.net, self.size).graph.nodes

    def start(self, codes: str) -> str:
        """The codes as the layers take them."""
        self.narrow.add(f"{codes}.float")
        return self.graph.add("Cast", [codes], f"{codes}.float", to=self.graph.types.FLOAT)

    def reshaped(self, x: str, name: str) -> None:
        """Notes that a tensor holds the values of another."""
        if x in self.narrow:
            self.narrow.add(name)

    def arriving(self, parts: list[str], name: str) -> str:
        """The current into neurons or the readout."""
        wide = [
            self.graph.add("Cast", [part], f"{name}.{part}.wide", to=self.graph.types.DOUBLE)
            if part in self.narrow
            else part
            for part in parts
        ]
        return self.sum(wide, name)

    def sum(self, parts: list[str], name: str) -> str:
        """The sum of tensors."""
        total = parts[0]
        for place, part in enumerate(parts[1:]):
            total = self.graph.add("Add", [total, part], f"{name}.{place}")
        return total

    def linear(self, node: IntegerConv | IntegerDense, x: str, name: str) -> str:
        """A convolution or matrix product in float32, widened."""
        graph, scaled = self.graph, (node.weight * UNIT).astype(np.float32)
        if isinstance(node, IntegerConv):
            weight = graph.constant(scaled, f"{node.name}.weight")
            out = graph.add("Conv", [x, weight], name, **conv_attributes(node))
        else:
            weight = graph.constant(np.ascontiguousarray(scaled.T), f"{node.name}.weight")
            out = graph.add("MatMul", [x, weight], name)
        return graph.add("Cast", [out], f"{name}.wide", to=graph.types.DOUBLE)

    def remembers(self, node: IntegerLif) -> bool:
        """Whether the layer has a state."""
        return self.net.host.steps > 1

    def state_channels(self, node: IntegerLif) -> dict[str, int]:
        """State tensor -> its channels; populations stand one after another."""
        if not self.remembers(node):
            return {}
        populations = len(node.bias) * len(node.levels)
        filtered = isinstance(self.nodes[node.name], nir.CubaLIF)
        return {"v": populations, "i": populations} if filtered else {"v": populations}

    def fire(self, node: IntegerLif, x: str, state: State | None, name: str) -> Fired:
        """One step of a spiking layer; ``state`` None means that everything is 0."""
        graph, populations, channels = self.graph, len(node.levels), len(node.bias)
        spikes: list[str] = []
        after: dict[str, list[str]] = {key: [] for key in self.state_channels(node)}
        before = {key: self._parts(state, key, populations, channels, name) for key in after}
        for d, level in enumerate(node.levels):
            bias = graph.constant(((node.bias + level) * UNIT).reshape(1, -1, 1, 1))
            arriving = graph.add("Add", [x, bias], f"{name}.x.d{d}") if np.any(node.bias + level) else x
            own = {key: parts[d] for key, parts in before.items()}
            membrane, rest = self._membrane(node, d, arriving, own, f"{name}.v.d{d}")
            threshold = graph.constant(self._values(node, "v_threshold", d))
            spikes.append(graph.add("Greater", [membrane, threshold], f"{name}.d{d}"))
            if "v" in after:
                reset = graph.add("Where", [spikes[-1], graph.constant(np.float64(0)), membrane], f"{name}.reset.d{d}")
                after["v"].append(reset)
            if "i" in after:
                after["i"].append(rest)
        state_next = {
            key: parts[0] if populations == 1 else graph.add("Concat", parts, f"{name}.{key}.next", axis=1)
            for key, parts in after.items()
        }
        return Fired(self.count(spikes, name), tuple(spikes), state_next)

    def _parts(self, state: State | None, key: str, populations: int, channels: int, name: str) -> list[str | None]:
        if state is None:
            return [None] * populations
        if populations == 1:
            return [state[key]]
        return list(self.graph.split(state[key], populations, channels, f"{name}.{key}"))

    def count(self, spikes: list[str], name: str) -> str:
        """How many populations fired, as float32."""
        graph = self.graph
        total = self.sum([graph.add("Cast", [s], f"{s}.float", to=graph.types.FLOAT) for s in spikes], f"{name}.count")
        self.narrow.add(total)
        return total

    def _values(self, node: IntegerLif, key: str, population: int) -> FloatArray:
        """A parameter of the NIR node: one number, or one a channel, float64 of its float32."""
        channels = len(node.bias)
        whole = np.asarray(getattr(self.nodes[node.name], key), np.float64)
        values = whole.reshape(len(whole), -1)[population * channels : (population + 1) * channels, 0]
        same = bool(np.all(values == values[0]))
        found: FloatArray = values[0].reshape(()) if same else values.reshape(1, -1, 1, 1)
        return found

    def _membrane(
        self, node: IntegerLif, population: int, x: str, before: dict[str, str | None], name: str
    ) -> tuple[str, str]:
        """The membrane before the reset, and the synaptic current of a layer that has one."""
        said, dt = self.nodes[node.name], self.net.host.dt

        def of(key: str) -> FloatArray:
            return self._values(node, key, population)

        if isinstance(said, nir.IF):
            step = self._times(dt * of("r"), x, f"{name}.in")
            return self._plus(before.get("v"), step, f"{name}.new"), ""
        if isinstance(said, nir.CubaLIF):
            driven = self._times(of("w_in"), x, f"{name}.w")
            current = self._toward(dt / of("tau_syn"), driven, before.get("i"), f"{name}.i")
            return self._toward(
                dt / of("tau_mem"), self._times(of("r"), current, f"{name}.r"), before.get("v"), name
            ), current
        return self._toward(dt / of("tau"), self._times(of("r"), x, f"{name}.r"), before.get("v"), name), ""

    def _times(self, factor: FloatArray, x: str, name: str) -> str:
        if np.all(factor == 1):
            return x
        return self.graph.add("Mul", [self.graph.constant(factor), x], name)

    def _plus(self, before: str | None, x: str, name: str) -> str:
        return x if before is None else self.graph.add("Add", [before, x], name)

    def _toward(self, share: FloatArray, x: str, before: str | None, name: str) -> str:
        """``before + share * (x - before)``."""
        if before is None:
            return self._times(share, x, f"{name}.first")
        gap = self.graph.add("Sub", [x, before], f"{name}.gap")
        return self._plus(before, self._times(share, gap, f"{name}.step"), f"{name}.new")

    def read(self, node: IntegerReadout, x: str, name: str) -> str:
        """What one step adds to the output."""
        if not np.any(node.bias):
            return x
        bias = self.graph.constant((node.bias * UNIT).reshape(1, -1, 1, 1))
        return self.graph.add("Add", [x, bias], name)

    def finish(self, total: str, output: str) -> str:
        """The sum over the steps under its name."""
        return self.graph.add("Identity", [total], output)

    def mean(self, total: str, output: str) -> str:
        """The mean over the steps in units of the NIR graph, float64."""
        steps = np.float64(self.net.host.steps)
        return self.graph.add("Div", [total, self.graph.constant(steps)], output)


def float_findings(net: IntegerNetwork) -> list[Finding]:
    """Sums that float32 may not hold exactly, and numbers that the chip has no field for."""
    ranges = current_ranges(net)
    findings = [found for found in range_findings(net) if found.severity == "error"]
    for name, node in net.nodes.items():
        if isinstance(node, IntegerConv | IntegerDense):
            findings += no_exponent(node, "the float form")
            low, high = sources_range(net, ranges, name)
            weight = node.weight if np.any(node.weight % 2) else node.weight // 2
            worst = int(np.abs(weight).sum(axis=tuple(range(1, weight.ndim))).max(initial=0)) * max(high, -low)
            if worst >= EXACT:
                findings.append(
                    Finding(
                        name,
                        "float32 may not hold a sum exactly",
                        f"up to {worst} units",
                        f"below {EXACT}",
                        "option form=integer",
                    )
                )
    return findings
