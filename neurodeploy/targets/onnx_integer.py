"""The integer form of an ONNX graph: every value is an integer, and every operation exact in any runtime.

Convolutions are ``ConvInteger`` over 8-bit digits. A digit of the input stays within 0..127: with it no pair of 8-bit
products overflows the 16 bits in which processors without wider instructions add them, so that the sum is exact
everywhere. What wraps or saturates on the chip does so here where bounds do not rule it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import Finding
from neurodeploy.graph.spec import DECAY_ONE
from neurodeploy.quantize.bounds import CONV_MAX, CURRENT_MAX, VTH_MAX, Range, current_ranges
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerDense,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)
from neurodeploy.simulate.reference import LIMIT
from neurodeploy.targets.described import weight_factor
from neurodeploy.targets.onnx_graph import Graph

INPUT_BASE, WEIGHT_BASE = 128, 256
INT32 = 1 << 31

State = dict[str, str]


@dataclass(frozen=True)
class Fired:
    """One spiking layer in one step: the number of spikes a neuron, each population's own, and its new state."""

    count: str
    populations: tuple[str, ...]
    state: State


@dataclass(frozen=True)
class _Digit:
    """``value = sum of factor * (stored - zero)`` over the digits."""

    stored: str
    zero: int
    factor: int


@dataclass
class IntegerForm:
    """Emits the nodes of the integer form.

    Attributes:
        graph: Where they go.
        net: The network in its compact form.
    """

    graph: Graph
    net: IntegerNetwork
    ranges: Mapping[str, Range] = field(init=False)
    _digits: dict[str, list[_Digit]] = field(default_factory=dict)

    kind = "INT32"
    state_kind = "INT64"
    summed = "readout"

    def __post_init__(self) -> None:
        self.ranges = current_ranges(self.net)

    def start(self, codes: str) -> str:
        """The codes as the layers take them."""
        return codes

    def reshaped(self, x: str, name: str) -> None:
        """Notes that a tensor holds the values of another."""

    def arriving(self, parts: list[str], name: str) -> str:
        """The current into neurons or the readout."""
        return self.sum(parts, name)

    def sum(self, parts: list[str], name: str) -> str:
        """The sum of tensors."""
        total = parts[0]
        for place, part in enumerate(parts[1:]):
            total = self.graph.add("Add", [total, part], f"{name}.{place}")
        return total

    def linear(self, node: IntegerConv | IntegerDense, x: str, name: str) -> str:
        """A convolution or matrix product, wrapped to 24 bits where it may need it."""
        parts = []
        for place, (digit, (weight, factor)) in enumerate(
            (digit, weight) for digit in self._input_digits(node, x) for weight in self._weights(node)
        ):
            product = self._product(node, digit, weight, f"{name}.{place}")
            scale = digit.factor * factor
            parts.append(product if scale == 1 else self._scaled(product, scale, f"{product}.scaled"))
        total = self.sum(parts, f"{name}.sum")
        if isinstance(node, IntegerConv) and _largest(self.ranges[node.name]) > CONV_MAX:
            return self._wrapped(total, LIMIT, f"{name}.wrapped", np.int32)
        return total

    def _scaled(self, x: str, factor: int, name: str) -> str:
        return self.graph.add("Mul", [x, self.graph.constant(np.int32(factor))], name)

    def _wrapped(self, x: str, half: int, name: str, dtype: type[np.int32] | type[np.int64]) -> str:
        """``x`` modulo ``2 * half`` in -half .. half - 1: what a register of that width holds."""
        graph, low, whole = self.graph, self.graph.constant(dtype(half)), self.graph.constant(dtype(2 * half))
        return graph.add(
            "Sub", [graph.add("Mod", [graph.add("Add", [x, low], f"{name}.up"), whole], f"{name}.mod"), low], name
        )

    def _product(self, node: IntegerConv | IntegerDense, digit: _Digit, weight: str, name: str) -> str:
        zero = self.graph.constant(np.uint8(digit.zero))
        if isinstance(node, IntegerConv):
            return self.graph.add("ConvInteger", [digit.stored, weight, zero], name, **conv_attributes(node))
        return self.graph.add("MatMulInteger", [digit.stored, weight, zero], name)

    def _input_digits(self, node: IntegerConv | IntegerDense, x: str) -> list[_Digit]:
        if x not in self._digits:
            low, high = sources_range(self.net, self.ranges, node.name)
            self._digits[x] = self._split_digits(x, min(low, 0), max(high, 0))
        return self._digits[x]

    def _split_digits(self, x: str, low: int, high: int) -> list[_Digit]:
        graph = self.graph
        if low >= 0 and high < INPUT_BASE:
            return [_Digit(graph.add("Cast", [x], f"{x}.u8", to=graph.types.UINT8), 0, 1)]
        if high - low < INPUT_BASE and low < 0 <= high:
            moved = graph.add("Sub", [x, graph.constant(np.int32(low))], f"{x}.moved")
            return [_Digit(graph.add("Cast", [moved], f"{x}.u8", to=graph.types.UINT8), -low, 1)]
        base = graph.constant(np.int32(INPUT_BASE))
        last = graph.add("Mod", [x, base], f"{x}.low")
        rest = graph.add("Div", [graph.add("Sub", [x, last], f"{x}.rest"), base], f"{x}.high")
        digit = _Digit(graph.add("Cast", [last], f"{last}.u8", to=graph.types.UINT8), 0, 1)
        higher = self._split_digits(rest, low // INPUT_BASE, high // INPUT_BASE)
        return [digit, *(_Digit(more.stored, more.zero, more.factor * INPUT_BASE) for more in higher)]

    def _weights(self, node: IntegerConv | IntegerDense) -> list[tuple[str, int]]:
        found = []
        for place, (digits, factor) in enumerate(weight_digits(node.weight)):
            array = digits if isinstance(node, IntegerConv) else np.ascontiguousarray(digits.T)
            found.append((self.graph.constant(array, f"{node.name}.weight.{place}"), factor))
        return found

    def remembers(self, node: IntegerLif) -> bool:
        """Whether the layer needs the general step; else its threshold is compared with the current alone."""
        forgets = self.net.host.steps == 1 or (
            bool(np.all(np.asarray(node.v_decay) == DECAY_ONE)) and bool(np.all(np.asarray(node.i_decay) == DECAY_ONE))
        )
        plain = 0 <= node.vth <= VTH_MAX and _largest(self.ranges[f"{node.name}.u"]) <= CURRENT_MAX
        return not (forgets and plain)

    def state_channels(self, node: IntegerLif) -> dict[str, int]:
        """State tensor -> its channels; populations stand one after another."""
        channels = len(node.bias)
        tensors = {"u": (node.i_decay, channels), "v": (node.v_decay, channels * len(node.levels))}
        return {key: size for key, (amount, size) in tensors.items() if self.remembers(node) and _keeps(amount)}

    def fire(self, node: IntegerLif, x: str, state: State | None, name: str) -> Fired:
        """One step of a spiking layer; ``state`` None means that everything is 0."""
        if not self.remembers(node):
            spikes = []
            for d, level in enumerate(node.levels):
                bias = self.graph.constant((node.bias + level).astype(np.int32).reshape(1, -1, 1, 1))
                charged = self.graph.add("Add", [x, bias], f"{name}.x.d{d}")
                threshold = self.graph.constant(np.int32(node.vth))
                spikes.append(self.graph.add("Greater", [charged, threshold], f"{name}.d{d}"))
            return Fired(self.count(spikes, name), tuple(spikes), {})
        return self._general(node, x, state, name)

    def count(self, spikes: list[str], name: str) -> str:
        """How many populations fired."""
        graph = self.graph
        return self.sum([graph.add("Cast", [s], f"{s}.int", to=graph.types.INT32) for s in spikes], f"{name}.count")

    def _general(self, node: IntegerLif, x: str, state: State | None, name: str) -> Fired:
        """The step of :func:`neurodeploy.simulate.reference.lif_step`, in 64 bits."""
        graph, c64 = self.graph, self._int64
        u = self._current(node, x, (state or {}).get("u"), name)
        populations, channels = len(node.levels), len(node.bias)
        before: list[str | None] = [None] * populations
        if state and "v" in state:
            whole = state["v"]
            before = [whole] if populations == 1 else list(graph.split(whole, populations, channels, f"{name}.v"))
        spikes, after = [], []
        for d, level in enumerate(node.levels):
            bias = graph.constant((node.bias + level).astype(np.int64).reshape(1, -1, 1, 1) << 6)
            charged = graph.add("Add", [u, bias], f"{name}.charge.d{d}")
            kept = self._decayed(before[d], node.v_decay, f"{name}.v.d{d}")
            if kept is not None:
                charged = graph.add("Add", [kept, charged], f"{name}.sum.d{d}")
            v = graph.add("Clip", [charged, c64(1 - LIMIT), c64(LIMIT - 1)], f"{name}.clip.d{d}")
            spikes.append(graph.add("Greater", [v, c64(node.vth << 6)], f"{name}.d{d}"))
            after.append(graph.add("Where", [spikes[-1], c64(0), v], f"{name}.reset.d{d}"))
        v_next = after[0]
        if populations > 1 and "v" in self.state_channels(node):
            v_next = graph.add("Concat", after, f"{name}.v.next", axis=1)
        after_all = {"u": u, "v": v_next}
        return Fired(
            self.count(spikes, name), tuple(spikes), {key: after_all[key] for key in self.state_channels(node)}
        )

    def _int64(self, value: int) -> str:
        return self.graph.constant(np.int64(value))

    def _current(self, node: IntegerLif, x: str, before: str | None, name: str) -> str:
        graph, c64 = self.graph, self._int64
        u = graph.add("Mul", [graph.add("Cast", [x], f"{name}.wide", to=graph.types.INT64), c64(64)], f"{name}.shifted")
        worst = _largest(sources_bounds(self.net, self.ranges, node.name))
        if worst << 6 >= INT32:
            u = self._wrapped(u, INT32, f"{name}.shifted.wrapped", np.int64)
        kept = self._decayed(before, node.i_decay, f"{name}.u")
        if kept is not None:
            u = graph.add("Add", [kept, u], f"{name}.u.sum")
        if _largest(self.ranges[f"{node.name}.u"]) > CURRENT_MAX:
            u = self._wrapped(u, INT32, f"{name}.u.wrapped", np.int64) if worst << 6 >= INT32 - LIMIT else u
            over, under = (graph.add(f"{how}", [u, c64(edge)], f"{name}.u.{how}") for how, edge in (
                ("Greater", LIMIT), ("LessOrEqual", -LIMIT)))  # fmt: skip
            down = graph.add("Sub", [u, c64(2 * LIMIT)], f"{name}.u.down")
            up = graph.add("Add", [u, c64(2 * LIMIT)], f"{name}.u.up")
            u = graph.add("Where", [over, down, graph.add("Where", [under, up, u], f"{name}.u.once")], f"{name}.u.next")
        return u

    def _decayed(self, x: str | None, amount: int | IntArray, name: str) -> str | None:
        """``x * (1 - amount / 4096)`` truncated toward zero; None for 0."""
        amounts = np.asarray(amount, np.int64)
        if x is None or np.all(amounts == DECAY_ONE):
            return None
        if np.all(amounts == 0):
            return x
        graph = self.graph
        kept = DECAY_ONE - (amounts.reshape(()) if amounts.size == 1 else amounts.reshape(1, -1, 1, 1))
        size = graph.add("Mul", [graph.add("Abs", [x], f"{name}.abs"), graph.constant(kept)], f"{name}.product")
        whole = graph.add("Div", [size, self._int64(DECAY_ONE)], f"{name}.whole")
        return graph.add("Mul", [whole, graph.add("Sign", [x], f"{name}.sign")], f"{name}.kept")

    def read(self, node: IntegerReadout, x: str, name: str) -> str:
        """What one step adds to the output."""
        if not np.any(node.bias):
            return x
        bias = self.graph.constant(node.bias.astype(np.int32).reshape(1, -1, 1, 1))
        return self.graph.add("Add", [x, bias], name)

    def finish(self, total: str, output: str) -> str:
        """The sum over the steps under its name."""
        return self.graph.add("Identity", [total], output)

    def mean(self, total: str, output: str) -> str:
        """The mean over the steps in units of the NIR graph, float64."""
        graph = self.graph
        wide = graph.add("Cast", [total], f"{output}.sum", to=graph.types.DOUBLE)
        unit = self.net.units.get(self.net.readout.name, 1.0) / self.net.host.steps
        return graph.add("Mul", [wide, graph.constant(np.float64(unit))], output)


def conv_attributes(node: IntegerConv) -> dict[str, object]:
    """The attributes of ``Conv`` and ``ConvInteger``."""
    rows, columns = node.padding
    return {
        "kernel_shape": list(node.weight.shape[2:]),
        "strides": list(node.stride),
        "pads": [rows, columns, rows, columns],
        "dilations": list(node.dilation),
        "group": node.groups,
    }


def _keeps(amount: int | IntArray) -> bool:
    """Whether anything is left of a register after a step."""
    return bool(np.any(np.asarray(amount) < DECAY_ONE))


def weight_digits(weight: IntArray) -> Iterator[tuple[NDArray[np.int8], int]]:
    """Weights as int8 digits with their factors: ``weight = sum of factor * digit``."""
    factor = weight_factor(weight)
    rest = weight // factor
    while True:
        digit = (rest + 128) % WEIGHT_BASE - 128
        yield digit.astype(np.int8), factor
        rest = (rest - digit) // WEIGHT_BASE
        factor *= WEIGHT_BASE
        if not np.any(rest):
            return


def sources_bounds(net: IntegerNetwork, ranges: Mapping[str, Range], name: str) -> Range:
    """Bounds of what arrives at a node, a channel."""
    found = [ranges[source] for source in net.sources(name)]
    return np.sum([low for low, _ in found], axis=0), np.sum([high for _, high in found], axis=0)


def sources_range(net: IntegerNetwork, ranges: Mapping[str, Range], name: str) -> tuple[int, int]:
    """The least and the largest value that arrives at a node."""
    low, high = sources_bounds(net, ranges, name)
    return int(low.min()), int(high.max())


def _largest(found: Range) -> int:
    return int(max(-found[0].min(), found[1].max(), 0))


def integer_findings(net: IntegerNetwork) -> list[Finding]:
    """Sums that do not fit the 32 bits in which ``ConvInteger`` adds."""
    ranges = current_ranges(net)
    findings = []
    for name, node in net.nodes.items():
        if isinstance(node, IntegerConv | IntegerDense):
            low, high = sources_range(net, ranges, name)
            # what the digits hold at most, before the zero points are taken off
            stored = 4 * INPUT_BASE + 2 * max(high, -low)
            weights = sum(np.abs(d.astype(np.int64)) * factor for d, factor in weight_digits(node.weight))
            worst = int(np.sum(weights, axis=tuple(range(1, node.weight.ndim))).max(initial=0)) * stored
        elif isinstance(node, IntegerReadout):
            worst = net.host.steps * (_largest(ranges[name]) + int(np.abs(node.bias).max(initial=0)))
        else:
            continue
        if worst >= INT32:
            findings.append(Finding(name, "a sum may need more than 32 bits", f"up to {worst}", f"{INT32 - 1}"))
    return findings
