"""Choosing the value of one int8 step of the weights.

Where weights lie on a grid ``q * step`` with int8 ``q`` already, that grid is found again exactly. Elsewhere the step
is the one with the least error of the layer's current. Any positive step is allowed: threshold and bias scale along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neurodeploy.quantize.parts import FloatArray, LinearPart

Q_MIN, Q_MAX = -128, 127
"""Range of int8; the chip's weight is the even number ``2 q`` in [-256, 254]."""

CANDIDATES = 64
"""Steps that are tried between a third and all of the step that just holds the largest weight."""


def on_grid(weight: FloatArray, step: float) -> bool:
    """Whether every weight is an int8 multiple of ``step``, exactly."""
    q = weight / step
    return bool(np.all(q == np.rint(q)) and q.min(initial=0) >= Q_MIN and q.max(initial=0) <= Q_MAX)


@dataclass(frozen=True)
class Fed:
    """What the linear parts of a group feed, as far as it bears on their step.

    Attributes:
        biases: The summed biases of every neuron and output.
        thresholds: The thresholds of every layer of neurons in units of current, each with the fraction of a unit by
            which quantised networks of its kind are written above a whole one.
        least: Step below which a register might overflow.
        leaks: Whether neurons remember and leak: what truncation takes off counts in units of the step.
    """

    biases: Sequence[FloatArray]
    thresholds: Sequence[tuple[FloatArray, float]] = ()
    least: float = 0.0
    leaks: bool = False


def grid_step(parts: Sequence[LinearPart], fed: Fed) -> float | None:
    """The step of the grid that the weights of some parts lie on, or None where they lie on none.

    The metadata's hint is believed where the weights confirm it. Otherwise powers of two are tried, from the coarsest
    that divides all weights to the finest that int8 allows. The first is taken on which biases lie on half steps and
    thresholds as far above them as in a quantised network; else the first on which the biases do; else,
    and where neurons leak, the finest one that is not below ``fed.least``. Last come grids ``q * step`` of any step, as
    other tools write them in float32.
    """
    weight = np.concatenate([part.weight.reshape(-1) for part in parts])
    hints = {part.step_hint for part in parts}
    if len(hints) == 1 and (hint := hints.pop()) is not None and on_grid(weight, hint):
        return hint
    if not np.any(weight):
        return None
    coarsest = 2.0 ** _lowest_exponent(weight)
    if not on_grid(weight, coarsest):
        return _near_grid(weight)
    fitting = [coarsest]
    while on_grid(weight, fitting[-1] / 2):
        fitting.append(fitting[-1] / 2)
    exact = [step for step in fitting if all(np.all(bias % (step / 2) == 0) for bias in fed.biases)]
    written = [step for step in exact if fed.thresholds and all(_as_written(*t, step / 2) for t in fed.thresholds)]
    finest = [step for step in fitting if step >= fed.least][-1:]
    return (written or (finest if fed.leaks else exact or finest) or [coarsest])[0]


def _as_written(thresholds: FloatArray, fraction: float, unit: float) -> bool:
    """Whether thresholds lie ``fraction`` of a unit above whole ones, but for what float32 has rounded."""
    return bool(np.all(np.abs(thresholds / unit % 1 - fraction) < fraction / 4))


def _lowest_exponent(weight: FloatArray) -> int:
    """The largest e with which every weight is a whole multiple of 2**e."""
    mantissa, exponent = np.frexp(weight[weight != 0])
    whole = np.abs(mantissa * 2.0**53).astype(np.int64)
    trailing = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    return int((exponent - 53 + trailing).min())


def _near_grid(weight: FloatArray) -> float | None:
    """A step of which float32 rounding has left the weights within a few units in the last place."""
    magnitudes = np.unique(np.abs(weight[weight != 0]))
    for count in range(1, 129):
        step = float(magnitudes[0]) / count
        q = magnitudes / step
        if q[-1] > 128.5:
            return None
        if np.all(np.abs(q - np.rint(q)) < 3e-5):
            # the largest weight carries the smallest relative rounding error
            step = float(magnitudes[-1] / np.rint(q[-1]))
            rounded = np.rint(weight / step)
            return step if rounded.min() >= Q_MIN and rounded.max() <= Q_MAX else None
    return None


def best_step(parts: Sequence[LinearPart], moments: Sequence[FloatArray | None], least: float) -> float:
    """The step with the least squared error of the currents.

    ``sum |(W - step * q) p|^2 = sum_o d_o^T (sum p p^T) d_o`` with ``d = W - step * clip(rint(W / step))``; without
    moments, the squared error of the weights.

    Args:
        parts: Linear parts that share a step.
        moments: Second moment (groups, n, n) of what each part's weights see, or None.
        least: Step below which registers might overflow.
    """
    largest = max(max(part.weight.max(initial=0) / Q_MAX, part.weight.min(initial=0) / Q_MIN) for part in parts)
    if largest == 0.0:
        return max(least, 2.0**-7)
    steps = [max(least, step) for step in largest * np.linspace(1 / 3, 1, CANDIDATES)]
    errors = [
        sum(_squared_error(part, moment, step) for part, moment in zip(parts, moments, strict=True)) for step in steps
    ]
    return float(steps[int(np.argmin(errors))])


def _squared_error(part: LinearPart, moment: FloatArray | None, step: float) -> float:
    error = part.weight - step * to_grid(part.weight, step)
    if moment is None:
        return float(np.square(error).sum())
    rows = error.reshape(len(moment), -1, moment.shape[1])
    return float(np.sum((rows @ moment) * rows))


def to_grid(weight: FloatArray, step: float) -> FloatArray:
    """``q``, the nearest int8 multiples of ``step`` (ties to even), as whole floats."""
    return np.clip(np.rint(weight / step), Q_MIN, Q_MAX)
