"""Losses of H-KD (arXiv 2504.01755): pixels, spectra, the teacher's output, its features, and a limit on operations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CHARBONNIER_EPSILON = 1e-3


def pixel_loss(kind: str, restored: Tensor, clean: Tensor) -> Tensor:
    """Mean error over all pixels: ``l1``, ``mse``, or ``charbonnier`` = mean(sqrt(d^2 + eps^2)), eps = 1e-3."""
    difference = restored - clean
    if kind == "mse":
        return difference.square().mean()
    if kind == "charbonnier":
        return (difference.square() + CHARBONNIER_EPSILON**2).sqrt().mean()
    return difference.abs().mean()


def fft_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """L1 between the 2-D spectra, real and imaginary parts apart, orthonormal scaling. (B, C, H, W) in float32."""
    spectrum = torch.fft.rfft2(restored - clean, norm="ortho")
    return torch.view_as_real(spectrum).abs().mean()


def feature_loss(
    student: Tensor, teacher: Tensor, *, normalise: bool, mean: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Mean square error of a hint, both (B, C, h, w).

    ``normalise`` divides it by the teacher feature's mean square, so that its size does not depend on the teacher's
    scale. ``mean`` takes that mean square over other parts of the batch as well.
    """
    error = (student.float() - teacher.float()).square().mean()
    if not normalise:
        return error
    scale = teacher.float().square().mean()
    return error / (scale if mean is None else mean(scale)).clamp(min=1e-12)


def sop_loss(operations: Tensor, target: float) -> Tensor:
    """log(operations / target) where it is above 0: the pull down is the same in shares at every size."""
    return (operations / target).clamp(min=1).log()
