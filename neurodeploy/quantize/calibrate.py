"""Measuring a network's parts on calibration codes: what their weights see, and how large their currents get."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from neurodeploy.errors import UserError
from neurodeploy.graph.convolve import correlate, taps
from neurodeploy.quantize.levels import copy_counts, repeats
from neurodeploy.quantize.network import IntArray
from neurodeploy.quantize.parts import (
    FlattenPart,
    FloatArray,
    InputPart,
    LinearPart,
    NeuronPart,
    OutputPart,
    Parts,
)

MAX_PLACES = 4096
"""Places of one frame that a second moment is taken over; larger frames are thinned out evenly."""


def copies(weight: FloatArray) -> tuple[int, int]:
    """How often a weight repeats itself over its outputs and over its inputs: the populations of integer levels."""
    outputs, inputs = (
        next((count for count in copy_counts(weight.shape[axis]) if repeats(weight, count, axis)), 1)
        for axis in range(2)
    )
    return outputs, inputs


def compacted(part: LinearPart) -> LinearPart:
    """A linear part without the repetitions of its weights; with groups, the part itself."""
    if part.groups > 1:
        return part
    outputs, inputs = (part.weight.shape[axis] // count for axis, count in enumerate(copies(part.weight)))
    return replace(part, weight=part.weight[:outputs, :inputs], bias=part.bias)


@dataclass
class Measured:
    """What calibration saw.

    Attributes:
        moments: for a linear part, the sum over places of ``p p^T``, one a group of channels: (groups, n, n) with
            n the number of weights an output of the compacted part, where ``p`` is what these are multiplied with.
        peaks: for neurons and the output, the largest magnitude of the summed current.
    """

    moments: dict[str, FloatArray] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)


def measure(
    parts: Parts, calibration: Sequence[IntArray], steps: int, linear: Collection[str], fed: Collection[str]
) -> Measured:
    """Runs the parts on every calibration sample and measures some of them.

    Args:
        parts: The network; parts that are quantised already have their weights and thresholds on the grid here.
        calibration: Codes, each (C, h, w) or (T, C, h, w).
        steps: Number of time steps T.
        linear: Linear parts to take second moments of.
        fed: Neurons and outputs to take peaks of.

    Raises:
        UserError: Calibration codes that do not fit the network.
    """
    measured = Measured()
    small = {name: compacted(part) for name, part in parts.nodes.items() if isinstance(part, LinearPart)}

    def visit(name: str, x: FloatArray) -> None:
        if name in linear:
            moment = _second_moment(small[name], _summed_copies(small[name], x))
            measured.moments[name] = measured.moments.get(name, np.zeros_like(moment)) + moment
        elif name in fed:
            measured.peaks[name] = max(measured.peaks.get(name, 0.0), float(np.abs(x).max()))

    order = list(parts.nodes)
    # what is fed back into a part may come from anywhere
    last = len(order) if parts.feedback else 1 + max(order.index(name) for name in (*linear, *fed))
    for codes in calibration:
        _run(parts, small, order[:last], codes, steps, visit)
    return measured


def _run(
    parts: Parts,
    small: Mapping[str, LinearPart],
    names: Sequence[str],
    codes: IntArray,
    steps: int,
    visit: Callable[[str, FloatArray], None],
) -> None:
    """Runs the first parts of a network in float64 and shows every one what arrives at it."""
    source = next(part for part in parts.nodes.values() if isinstance(part, InputPart))
    if codes.ndim not in (3, 4) or codes.shape[-3] != source.channels or (codes.ndim == 4 and len(codes) != steps):
        raise UserError(
            "calibration codes do not fit the network",
            node=source.name,
            have=str(codes.shape),
            limit=f"({source.channels}, h, w) or ({steps}, {source.channels}, h, w)",
        )
    currents: dict[str, FloatArray] = {}
    membranes: dict[str, FloatArray] = {}
    before: dict[str, FloatArray] = {}
    for step in range(steps):
        values: dict[str, FloatArray] = {}
        for name in names:
            part = parts.nodes[name]
            if isinstance(part, InputPart):
                values[name] = (codes if codes.ndim == 3 else codes[step]).astype(np.float64)
                continue
            x = sum((values[s] for s in parts.sources(name) if (s, name) not in parts.feedback), start=np.zeros(()))
            x = sum((before[s] for s, t in parts.feedback if t == name and s in before), start=x)
            visit(name, x)
            if isinstance(part, LinearPart):
                values[name] = _linear(small[name], x)
            elif isinstance(part, FlattenPart):
                values[name] = x.reshape(-1, 1, 1)
            elif isinstance(part, NeuronPart):
                u = (1 - _column(part.i_decay)) * currents.get(name, 0.0) + x
                v = (1 - _column(part.v_decay)) * membranes.get(name, 0.0) + u
                fired = v > _column(part.threshold)
                currents[name], membranes[name] = u, np.where(fired, 0.0, v)
                values[name] = fired.astype(np.float64)
            elif isinstance(part, OutputPart):
                values[name] = x
        before = values


def _column(values: FloatArray) -> FloatArray:
    return values.reshape(-1, 1, 1)


def _summed_copies(part: LinearPart, x: FloatArray) -> FloatArray:
    """The input of a compacted part: what the repeated weights would see, added up."""
    if part.groups > 1:
        return x
    tail = x.shape[1:] if part.weight.ndim == 4 else ()
    summed: FloatArray = x.reshape(-1, part.weight.shape[1], *tail).sum(axis=0)
    return summed


def _linear(part: LinearPart, x: FloatArray) -> FloatArray:
    """Output of a compacted part; its bias has one value for every output that the whole part has."""
    x = _summed_copies(part, x)
    if part.weight.ndim == 2:
        out = (part.weight @ x.reshape(-1)).reshape(-1, 1, 1)
    else:
        out = correlate(x, part.weight, part.stride, part.padding, part.dilation, part.groups)
    return np.tile(out, (len(part.bias) // len(out), 1, 1)) + _column(part.bias)


def _second_moment(part: LinearPart, x: FloatArray) -> FloatArray:
    if part.weight.ndim == 2:
        flat = x.reshape(-1)
        return np.outer(flat, flat)[None]
    kernel = (part.weight.shape[2], part.weight.shape[3])
    seen = np.stack([view for _, view in taps(x, kernel, part.stride, part.padding, part.dilation)], axis=1)
    # (I, taps, h, w): the order of weight.reshape(O, -1)
    thinning = max(1, round((seen.shape[2] * seen.shape[3] / MAX_PLACES) ** 0.5))
    seen = seen[:, :, ::thinning, ::thinning]
    rows = seen.reshape(part.groups, part.weight[0].size, -1)
    moment: FloatArray = rows @ rows.transpose(0, 2, 1)
    return moment
