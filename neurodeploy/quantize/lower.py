"""Lowering: from a NIR graph to the integer network of Loihi 2's arithmetic.

A linear part becomes weights ``2 q`` with int8 ``q``; one integer unit of current is half a weight step. Its bias moves
to the neurons (or the readout) that it feeds, in units of current. A neuron's threshold becomes the whole number of
units below it: ``v > threshold`` and ``v_int > floor(threshold / unit)`` are the same for whole ``v_int``, so that
nothing is lost where nothing decays between steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from neurodeploy.errors import Finding, FindingsError
from neurodeploy.graph.law import structure_findings
from neurodeploy.graph.portable import Network
from neurodeploy.graph.spec import DECAY_ONE
from neurodeploy.quantize.bounds import (
    CURRENT_MAX,
    CURRENT_SHIFT,
    VTH_MAX,
    accumulator_findings,
    bias_fits,
    bias_range,
    population_biases,
    range_findings,
)
from neurodeploy.quantize.calibrate import Measured, compacted, measure
from neurodeploy.quantize.levels import copy_counts, fold_levels, repeats
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
from neurodeploy.quantize.parts import (
    FlattenPart,
    FloatArray,
    InputPart,
    LinearPart,
    NeuronPart,
    OutputPart,
    Part,
    Parts,
    linear_groups,
    take_apart,
)
from neurodeploy.quantize.steps import Fed, best_step, grid_step, on_grid, to_grid

HEADROOM = 1.25
"""Factor by which a register holds more than the largest current that calibration saw."""


@dataclass(frozen=True)
class Lowering:
    """An integer network, and what was noticed on the way.

    Attributes:
        net: The network, levels folded.
        findings: Warnings and notes: rounded weights, biases or decays, fields that are too narrow, registers that some
            input could overflow.
    """

    net: IntegerNetwork
    findings: tuple[Finding, ...]


def quantize(network: Network, *, calibration: Sequence[IntArray] | None = None) -> IntegerNetwork:
    """The integer network of a NIR graph; see :func:`lower`."""
    return lower(network, calibration=calibration).net


def lower(network: Network, *, calibration: Sequence[IntArray] | None = None) -> Lowering:
    """Lowers a NIR graph to integers.

    Weights that lie on an int8 grid come over exactly. For others the step of each layer is chosen to make the error of
    its current small: on the calibration codes where there are some (layer by layer, behind what is quantised already),
    else over the weights alone.

    Args:
        network: The graph and its host side (time steps, dt, range of the input codes).
        calibration: Samples of input codes, each (C, h, w), or (T, C, h, w) for sequences.

    Raises:
        FindingsError: Everything in the graph that the integer network cannot hold, all at once.
        UserError: Calibration codes that do not fit.
    """
    _refuse(structure_findings(network.graph))
    parts, findings = take_apart(network.graph, network.host.dt)
    findings += _bias_findings(parts)
    if not findings:
        findings += _threshold_findings(parts, network.host.steps)
    _refuse(findings)
    builder = _Lowerer(network, parts, tuple(calibration or ()))
    return builder.lower()


def _refuse(findings: Sequence[Finding]) -> None:
    if findings:
        raise FindingsError("the graph cannot be lowered to integers", findings)


def _summed_bias(parts: Parts, name: str) -> FloatArray:
    """The biases of everything that feeds a part, summed, in units of the graph."""
    biases = [part.bias for source in parts.sources(name) if isinstance(part := parts.nodes[source], LinearPart)]
    return np.sum(biases, axis=0) if biases else np.zeros(1)


def _bias_findings(parts: Parts) -> list[Finding]:
    """Biases that a synapse filters: in NIR they charge up with the current, on the chip they enter the membrane."""
    return [
        Finding(
            name,
            "a bias into neurons whose synapses filter has no counterpart on the chip",
            have=f"up to {float(np.abs(_summed_bias(parts, name)).max()):g}",
            limit="0",
            instead="tau_syn = dt, or no bias",
        )
        for name, part in parts.nodes.items()
        if isinstance(part, NeuronPart) and np.any(part.i_decay < 1) and np.any(_summed_bias(parts, name) != 0)
    ]


def _threshold_findings(parts: Parts, steps: int) -> list[Finding]:
    """Thresholds of their own for the channels: a bias stands in for them only where nothing is remembered."""
    return [
        Finding(
            name,
            "thresholds (over gain) differ between channels while membranes keep their charge",
            have=f"{float(part.threshold.min()):g}..{float(part.threshold.max()):g}",
            limit="one value a layer",
        )
        for name, part in parts.nodes.items()
        if isinstance(part, NeuronPart) and steps > 1 and part.remembers and _spread(part.threshold) > 1e-6
    ]


def _spread(values: FloatArray) -> float:
    largest = float(values.max())
    return 0.0 if largest == 0 else float(values.max() - values.min()) / largest


def _fit_biases(net: IntegerNetwork) -> IntegerNetwork:
    """Centres biases that need more bits than there are, where the threshold can make up for it.

    ``x + b > vth`` and ``x + (b + c) > vth + c`` are the same; with a membrane that remembers they are not.
    """
    nodes = dict(net.nodes)
    for node in net.lifs():
        forgets = net.host.steps == 1 or (np.all(np.asarray(node.v_decay) == DECAY_ONE) and _lasts_one_step(node))
        low, high = bias_range(node)
        shift = max(-node.vth, min(-(low + high) // 2, VTH_MAX - node.vth))
        shift = 2 * int(shift / 2)  # even biases stay even: their range is twice as large
        if forgets and not bias_fits(population_biases(node), exponent=CURRENT_SHIFT).all():
            nodes[node.name] = replace(node, vth=node.vth + shift, bias=node.bias + shift)
    return replace(net, nodes=nodes)


def _lasts_one_step(node: IntegerLif) -> bool:
    return bool(np.all(np.asarray(node.i_decay) == DECAY_ONE))


class _Lowerer:
    """Quantises group after group; ``self.parts`` holds the quantised values of those that are done."""

    def __init__(self, network: Network, parts: Parts, calibration: tuple[IntArray, ...]) -> None:
        self.network = network
        self.parts = parts
        self.calibration = calibration
        self.findings: list[Finding] = []
        self.nodes: dict[str, IntegerNode] = {}
        self.units: dict[str, float] = {}

    def lower(self) -> Lowering:
        for group, fed in linear_groups(self.parts):
            self._quantize_group(group, fed)
        for name, part in self.parts.nodes.items():
            if name not in self.nodes:
                self.nodes[name] = self._unweighted(part)
        net = IntegerNetwork(
            nodes={name: self.nodes[name] for name in self.parts.nodes},
            edges=self.parts.edges,
            host=self.network.host,
            units={name: self.units[name] for name in self.parts.nodes if name in self.units},
        )
        net = _fit_biases(fold_levels(net))
        ranges = range_findings(net)
        _refuse([finding for finding in ranges if finding.severity == "error"])
        return Lowering(net, (*self.findings, *ranges, *accumulator_findings(net)))

    def _unweighted(self, part: Part) -> IntegerNode:
        if isinstance(part, InputPart):
            return IntegerInput(part.name, part.channels)
        if isinstance(part, FlattenPart):
            return IntegerFlatten(part.name)
        # an output that counts the spikes of a layer
        self.units[part.name] = 1.0
        sources = [self.parts.nodes[source] for source in self.parts.sources(part.name)]
        counted = [len(source.threshold) for source in sources if isinstance(source, NeuronPart)]
        return IntegerReadout(part.name, np.zeros(max(counted, default=1), np.int64))

    def _quantize_group(self, group: tuple[str, ...], fed: tuple[str, ...]) -> None:
        linear = [part for name in group if isinstance(part := self.parts.nodes[name], LinearPart)]
        measured = Measured()
        if self.calibration:
            measured = measure(self.parts, self.calibration, self.network.host.steps, group, fed)
        least = max(self._least_step(name, measured) for name in fed)
        step = grid_step(
            linear,
            Fed(
                biases=[_summed_bias(self.parts, name) for name in fed],
                thresholds=[
                    (p.threshold, p.fraction) for name in fed if isinstance(p := self.parts.nodes[name], NeuronPart)
                ],
                least=least,
                leaks=any(self._leaks(name) for name in fed),
            ),
        )
        if step is None:
            step = best_step(
                [compacted(part) for part in linear], [measured.moments.get(name) for name in group], least
            )
        quantized: dict[str, Part] = {}
        for part in linear:
            self.nodes[part.name] = self._integer_linear(part, step)
            quantized[part.name] = replace(part, weight=step * to_grid(part.weight, step))
        for name in fed:
            quantized[name] = self._quantize_fed(name, step / 2)
        self.parts = replace(self.parts, nodes={**self.parts.nodes, **quantized})

    def _leaks(self, name: str) -> bool:
        part = self.parts.nodes[name]
        return self.network.host.steps > 1 and isinstance(part, NeuronPart) and part.remembers

    def _least_step(self, name: str, measured: Measured) -> float:
        """The step below which a threshold or, as far as calibration saw, a current would not fit its register."""
        part = self.parts.nodes[name]
        if not isinstance(part, NeuronPart):
            return 0.0
        fading = float(part.i_decay.min())
        kept = self.network.host.steps if fading == 0 else min(self.network.host.steps, 1 / fading)
        largest = measured.peaks.get(name, self._worst_current(name)) * HEADROOM * kept
        return 2 * max(largest / CURRENT_MAX, float(part.threshold.max()) / VTH_MAX)

    def _worst_current(self, name: str) -> float:
        """The largest current for any codes of an image in [0, 1] and any spikes."""
        total = 0.0
        for source in self.parts.sources(name):
            part = self.parts.nodes[source]
            if isinstance(part, LinearPart):
                before = self.parts.nodes[self.parts.sources(source)[0]]
                reach = self.network.host.input_scale if isinstance(before, InputPart) else 1.0
                rows = part.weight.reshape(len(part.weight), -1)
                total += reach * float(
                    max(np.maximum(rows, 0).sum(axis=1).max(), np.maximum(-rows, 0).sum(axis=1).max())
                )
        return total

    def _integer_linear(self, part: LinearPart, step: float) -> IntegerNode:
        if not on_grid(part.weight, step):
            error = np.abs(part.weight - step * to_grid(part.weight, step)).max()
            self.findings.append(
                Finding(
                    part.name,
                    "weights are rounded to 8 bits",
                    have=f"error up to {error / step:.2g} steps of {step:.3g}",
                    severity="note",
                )
            )
        weight = 2 * to_grid(part.weight, step).astype(np.int64)
        if weight.ndim == 2:
            return IntegerDense(part.name, weight)
        return IntegerConv(part.name, weight, part.stride, part.padding, part.dilation, part.groups)

    def _quantize_fed(self, name: str, unit: float) -> Part:
        """Makes the integer node of a neuron or output, and gives its part with the values that are on the chip."""
        part = self.parts.nodes[name]
        exact = _summed_bias(self.parts, name) / unit
        bias = self._whole_bias(name, exact)
        if np.any(bias != exact):
            self.findings.append(
                Finding(
                    name,
                    "biases are rounded",
                    have=f"error up to {np.abs(bias - exact).max():.2g} units of {unit:.3g}",
                    severity="note",
                )
            )
        self.units[name] = unit
        if isinstance(part, OutputPart):
            self.nodes[name] = IntegerReadout(name, bias.astype(np.int64))
            return part
        if not isinstance(part, NeuronPart):
            raise TypeError(f"{name} is fed by weights but is no neuron")
        vth = self._threshold(name, part.threshold / unit)
        # Thresholds of single channels shift their bias: nothing is remembered there, so that it is the same.
        shift = 0 if self._leaks(name) else vth[0] - vth
        v_decay, i_decay = self._decay(name, "v_decay", part.v_decay), self._decay(name, "i_decay", part.i_decay)
        self.nodes[name] = IntegerLif(
            name, vth=int(vth[0]), bias=(bias + shift).astype(np.int64), v_decay=v_decay, i_decay=i_decay
        )
        return replace(
            part,
            threshold=(vth + part.fraction) * unit,
            v_decay=np.broadcast_to(v_decay, part.v_decay.shape) / DECAY_ONE,
            i_decay=np.broadcast_to(i_decay, part.i_decay.shape) / DECAY_ONE,
        )

    def _whole_bias(self, name: str, exact: FloatArray) -> FloatArray:
        """Biases rounded to whole units, in the same way in every population of integer levels.

        Where the channels consist of copies that differ in one offset each, as far as float32 can tell, a bias and an
        offset are rounded apart, so that the copies still differ in one offset each.
        """
        weights = [p.weight for s in self.parts.sources(name) if isinstance(p := self.parts.nodes[s], LinearPart)]
        noise = 32 * float(np.finfo(np.float32).eps) * float(np.abs(exact).max())
        for copies in copy_counts(len(exact)) if isinstance(self.parts.nodes[name], NeuronPart) else ():
            rows = exact.reshape(copies, -1)
            offsets = rows - rows[0]
            if np.ptp(offsets, axis=1).max() <= noise and all(repeats(weight, copies, axis=0) for weight in weights):
                exact = (np.rint(offsets.mean(axis=1))[:, None] + np.rint(rows[0])).reshape(-1)
                break
        return np.rint(exact)

    def _threshold(self, name: str, exact: FloatArray) -> FloatArray:
        """Threshold mantissas; a threshold that rounding has put next to a whole number is that number."""
        nearest = np.rint(exact)
        on_unit = np.abs(exact - nearest) <= 1e-6 * np.maximum(nearest, 1)
        if np.any(on_unit):
            self.findings.append(
                Finding(
                    name,
                    "the threshold lies on the grid of the currents, where readers part over v > threshold",
                    have=f"{float(exact[on_unit][0]):g} units",
                    instead="half a unit more",
                    severity="warning",
                )
            )
        return np.where(on_unit, nearest, np.floor(exact))

    def _decay(self, name: str, field: str, values: FloatArray) -> int | IntArray:
        """12-bit decays, one for the layer where all are equal."""
        exact = values * DECAY_ONE
        whole = np.rint(exact).astype(np.int64)
        error = float(np.abs(whole - exact).max())
        # float32 time constants are off by this much without meaning it
        if error > 1e-2 and self.network.host.steps > 1:
            self.findings.append(
                Finding(
                    name,
                    f"{field} is rounded to 12 bits",
                    have=f"{float(exact.flat[0]):.3f}/4096",
                    limit=f"{int(whole.flat[0])}/4096",
                    severity="warning",
                )
            )
        return int(whole[0]) if np.all(whole == whole[0]) else whole
