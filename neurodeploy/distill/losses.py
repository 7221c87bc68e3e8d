"""Losses of H-KD (arXiv 2504.01755): pixels, spectra, the teacher's output, its features, and a limit on operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neurodeploy.graph.spec import StudentSpec

CHARBONNIER_EPSILON = 1e-3
SMALLEST_VARIANCE = 1e-8
"""Variance of a teacher's channel below which it is not scaled up any further: it is silent."""
PATCH_EPSILON = 1e-6
"""Mean square error of a patch, of values in [0, 1], below which ``psnr`` and ``rmse`` hardly ask for less: 60 dB."""


def pixel_loss(kind: str, restored: Tensor, clean: Tensor) -> Tensor:
    """Mean error over all pixels: ``l1``, ``mse``, or ``charbonnier`` = mean(sqrt(d^2 + eps^2)), eps = 1e-3.

    ``psnr`` is minus the mean PSNR of the patches, in units of 100 dB, so that it is of the size of the others: what
    NAFNet is trained with (arXiv 2204.04676). A decibel counts the same in little and in much noise. ``rmse`` is the
    mean root of the patches' mean square errors: between ``psnr`` and ``mse`` in what much noise counts.
    """
    difference = restored - clean
    if kind in ("psnr", "rmse"):
        errors = difference.square().flatten(1).mean(1) + PATCH_EPSILON
        return errors.log10().mean() / 10 if kind == "psnr" else errors.sqrt().mean()
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

    ``normalise`` takes the mean off every channel of the teacher's feature and divides it by its standard deviation,
    both over the batch: what is behind a ReLU has a large mean, which says nothing, and channels of very different
    sizes. ``mean`` takes these statistics over other parts of the batch as well.
    """
    wanted = teacher.float()
    if normalise:
        centre, power = wanted.mean((0, 2, 3)), wanted.square().mean((0, 2, 3))
        if mean is not None:
            centre, power = mean(centre), mean(power)
        spread = (power - centre.square()).clamp(min=SMALLEST_VARIANCE).sqrt()
        wanted = (wanted - centre[:, None, None]) / spread[:, None, None]
    return (student.float() - wanted).square().mean()


def synaptic_operations(spec: StudentSpec, rates: Sequence[Tensor]) -> Tensor:
    """Synaptic operations a pixel, borders apart.

    A spike of ``lif{k}`` meets every synapse of ``conv{k+1}``, once for each population of each LIF that the
    convolution's current arrives at, directly or by a sum edge.

    Args:
        spec: The student.
        rates: Share of the possible spikes of every LIF, scalars.

    Returns:
        A scalar with the gradient of the rates.
    """
    total = torch.zeros((), device=rates[0].device)
    for layer, rate in enumerate(rates):
        conv = layer + 1
        out, _, kernel, _ = spec.conv_shape(conv)
        receivers = 1 + sum(source == conv for source, _ in spec.edges)
        copies = receivers * spec.levels if conv < spec.depth else 1
        spikes = rate * (spec.levels * spec.steps * spec.width / spec.unshuffle**2)
        total = total + spikes * (out * kernel**2 * copies)
    return total


def digit_operations(spec: StudentSpec, digits: Sequence[Tensor]) -> Tensor:
    """The same with levels as digits, of one time step: every spike meets each synapse once.

    Without the few that make the digits, one a spike of the burst and digit, which never leave their channel.

    Args:
        spec: The student.
        digits: Spikes a neuron of every LIF, scalars.

    Returns:
        A scalar with the gradient of the digits.
    """
    total = torch.zeros((), device=digits[0].device)
    for layer, spikes in enumerate(digits):
        out, _, kernel, _ = spec.conv_shape(layer + 1)
        receivers = 1 + sum(source == layer + 1 for source, _ in spec.edges)
        total = total + spikes * (spec.width / spec.unshuffle**2 * out * kernel**2 * receivers)
    return total


def sop_loss(operations: Tensor, target: float) -> Tensor:
    """log(operations / target) where it is above 0: the pull down is the same in shares at every size."""
    return (operations / target).clamp(min=1).log()
