"""Going over to the integer grid: batch norm folded, a step chosen for every convolution's weights, weights rounded.

What a student computes once it is on the grid is :mod:`neurodeploy.networks.student`'s own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neurodeploy.errors import InternalError
from neurodeploy.graph.passes import fold_batch_norm
from neurodeploy.networks.rounding import least_square_step, round_with_feedback, second_moments
from neurodeploy.networks.student import BIAS_LIMIT, THRESHOLD_LIMIT, SpikingStudent

HEADROOM = 1.05
"""Room for biases and thresholds to grow while training goes on on the grid."""


@torch.no_grad()
def fold_norms(student: SpikingStudent) -> None:
    """Folds every batch norm into its convolution, with its running statistics; they become identities."""
    for layer, norm in enumerate(student.norms):
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        conv, bias = student.conv(layer), student.bias(layer)
        mean, var = norm.running_mean, norm.running_var
        if mean is None or var is None:
            raise InternalError(f"the batch norm of conv{layer} has no running statistics")
        weight, shift = _numbers(conv.weight), _numbers(bias)
        scaling = _numbers(norm.weight), _numbers(norm.bias)
        folded = fold_batch_norm(weight, shift, _numbers(mean), _numbers(var), *scaling, norm.eps)
        conv.weight.copy_(torch.from_numpy(folded[0]))
        bias.copy_(torch.from_numpy(folded[1]))
        student.norms[layer] = nn.Identity()


@torch.no_grad()
def to_grid(
    student: SpikingStudent, calibration: Tensor | None = None, mean: Callable[[Tensor], Tensor] | None = None
) -> None:
    """Puts a student on the integer grid: folds batch norm, then chooses each weight step by least square error.

    Convolutions that a sum edge joins share one step.

    Args:
        student: In its float mode.
        calibration: (B, C, H, W) degraded pictures. With them weights are rounded so that their errors cancel in what
            the convolutions put out there (:mod:`~neurodeploy.networks.rounding`), without each for itself.
        mean: Takes the mean over other parts of the pictures as well.
    """
    fold_norms(student)
    signals = {} if calibration is None else student.conv_inputs(calibration)
    for group in _step_groups(student):
        _choose_step(student, group)
    for layer, signal in signals.items():
        conv = student.conv(layer)
        moments = second_moments(signal, student.spec.kernel, int(conv.padding[0]), int(conv.dilation[0]))
        moments = moments if mean is None else mean(moments)
        step = float(student.weight_steps[layer])
        conv.weight.copy_(round_with_feedback(conv.weight, moments, step))
    student.on_grid.fill_(True)


@torch.no_grad()
def take_grid(student: SpikingStudent, steps: Sequence[float]) -> None:
    """Puts a student whose weights lie on the integer grid already on it, at these steps, one a convolution."""
    for group in _step_groups(student):
        _take_step(student, group, steps[group[0]])
    student.on_grid.fill_(True)


def _choose_step(student: SpikingStudent, group: tuple[int, ...]) -> None:
    best = least_square_step(torch.cat([student.conv(layer).weight.detach().double().flatten() for layer in group]))
    grain = student.spec.bias_grain
    _take_step(student, group, max(best, *(_smallest_step(student, layer, grain) for layer in group)))


def _take_step(student: SpikingStudent, group: tuple[int, ...], step: float) -> None:
    """Sets the step of joined convolutions; where biases do not fit at it, those of all of them become coarser."""
    usual = max(_smallest_step(student, layer, 1) for layer in group)
    for layer in group:
        student.weight_steps[layer] = step
        student.bias_grains[layer] = 1 if step >= usual else student.spec.bias_grain


def _smallest_step(student: SpikingStudent, layer: int, grain: int) -> float:
    """Step below which the bias of a population, a multiple of ``grain``, or a threshold would not fit its bits."""
    spec = student.spec
    # what a sum edge brings has a bias as well
    biases = student.bias(layer) + sum(student.bias(source) for source, target in spec.edges if target == layer)
    least, largest = (float(end) for end in torch.aminmax(biases.detach()))
    limit = BIAS_LIMIT * grain
    if layer == spec.depth:
        needs = [max(abs(least), abs(largest)) / limit]
    else:
        delta, levels = float(student.delta(layer).detach()), spec.levels
        centre = min((least + largest) / 2, delta / 2) if spec.steps == 1 else 0.0
        # populations shift their bias by up to half of the way between the lowest and the highest threshold
        widest = max(largest - centre, centre - least) + delta * (levels - 1) / 2
        needs = [widest / limit, (delta * levels + abs(centre)) / THRESHOLD_LIMIT]
    scale = spec.input_scale if layer == 0 else 1.0
    return max(needs) * HEADROOM * 2 * scale


def _step_groups(student: SpikingStudent) -> list[tuple[int, ...]]:
    group = list(range(student.spec.depth + 1))
    for source, target in student.spec.edges:
        old, new = group[source], group[target]
        group = [new if value == old else value for value in group]
    return [tuple(layer for layer, value in enumerate(group) if value == wanted) for wanted in dict.fromkeys(group)]


def _numbers(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().double().cpu().numpy(), dtype=np.float64)
