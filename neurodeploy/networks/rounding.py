"""Rounding weights to 8 bits: the step of a layer, and rounding so that errors cancel in what a convolution puts out.

Each weight's rounding error is made up for by the weights that are not rounded yet, as far as what the convolution
receives is correlated. This is GPTQ (Frantar et al., arXiv 2210.17323), which is optimal brain surgery for rounding
(Hassibi and Stork, 1993) with a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHT_MIN, WEIGHT_MAX = -128, 127
"""The integers of 8 bits."""
DAMPING = 0.01
"""Added to the diagonal of the second moments, as a share of its mean."""


def second_moments(signal: Tensor, kernel: int, padding: int, dilation: int) -> Tensor:
    """E[x x^T] over all places, x being what one output of a convolution sees.

    Args:
        signal: (B, C, H, W), what the convolution receives.
        kernel: Side of its square kernels.
        padding: Zeros on each side.
        dilation: Distance of its taps.

    Returns:
        (C * kernel^2, C * kernel^2) float64, symmetric, in the order of a flattened weight.
    """
    seen = F.unfold(signal.float(), kernel, dilation=dilation, padding=padding)
    total = torch.zeros(seen.shape[1], seen.shape[1], dtype=torch.float64, device=seen.device)
    for picture in seen:
        total += (picture @ picture.T).double()
    return total / (seen.shape[0] * seen.shape[2])


def round_with_feedback(weight: Tensor, moments: Tensor, step: float) -> Tensor:
    """Weights on the grid ``step * integer`` with a small mean square error of what the convolution puts out.

    The inputs are taken in the order of falling second moment. With H the damped moments and U the upper Cholesky
    factor of H^-1, input i is rounded, and its error e_i = (w_i - q_i) / U_ii is taken from the inputs behind it:
    ``w_j -= e_i U_ij``.

    Args:
        weight: (O, ...) float.
        moments: (N, N), N the number of inputs of one output, see :func:`second_moments`.
        step: Distance of the grid's points, positive.

    Returns:
        The rounded weights, shape and dtype of ``weight``.
    """
    flat = weight.detach().double().flatten(1)
    diagonal = moments.diagonal()
    damped = moments + torch.diag(torch.full_like(diagonal, DAMPING * float(diagonal.mean()) + 1e-12))
    order = torch.argsort(diagonal, descending=True, stable=True)
    left = flat[:, order].clone()
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped[order][:, order])), upper=True)
    rounded = torch.empty_like(left)
    for i in range(left.shape[1]):
        rounded[:, i] = (left[:, i] / step).round().clamp(WEIGHT_MIN, WEIGHT_MAX) * step
        error = (left[:, i] - rounded[:, i]) / factor[i, i]
        left[:, i + 1 :] -= error[:, None] * factor[i, i + 1 :]
    result = torch.empty_like(rounded)
    result[:, order] = rounded
    return result.view_as(weight).to(weight.dtype)


def least_square_step(weight: Tensor) -> float:
    """The step with the least square error of 8-bit rounding, among 60 between half and all of max / 127."""
    top = float(weight.abs().max()) / WEIGHT_MAX
    if top == 0.0:
        return 1.0 / WEIGHT_MAX

    def error(step: float) -> float:
        return float(((weight / step).round().clamp(WEIGHT_MIN, WEIGHT_MAX) * step - weight).square().sum())

    candidates: Iterable[float] = (top * (0.5 + 0.5 * i / 60) for i in range(1, 61))
    return min(candidates, key=error)
