"""PSNR and SSIM by the protocol of the restoration papers.

The restored image is clipped to [0, 1] and rounded to 8 bits, and so is the clean one (an 8-bit picture stays as it
is). Data range 1 (255 in 8-bit units). All pixels count, no border is cut; for RGB the three channels are pooled in the
PSNR, and the SSIM is the mean over the channels. With ``y_channel`` both are taken on the luma of BT.601 in the
convention of the deraining papers (MATLAB's ``rgb2ycbcr``): computed from the rounded 8-bit RGB, 16 for black, 235 for
white, not rounded again, and the peak is still 255.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.images.io import to_levels

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03

_Y_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255.0
_Y_BLACK = 16.0


def to_8bit(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Clips to [0, 1], multiplies by 255 and rounds half to even.

    Args:
        image: (1, H, W) or (3, H, W), floating point.

    Returns:
        The same shape, uint8.

    Raises:
        UserError: Another shape, or values that are not finite.
    """
    return to_levels(image, bits=8).astype(np.uint8)


def luma(levels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """BT.601 luma of 8-bit RGB, ``16 + (65.481 R + 128.553 G + 24.966 B) / 255``; gray is its own luma.

    Args:
        levels: (1, H, W) or (3, H, W) uint8.

    Returns:
        (1, H, W) float64 in [16, 235] (for gray in [0, 255]).
    """
    if levels.shape[0] == 1:
        return levels.astype(np.float64)
    return _Y_BLACK + np.tensordot(_Y_WEIGHTS, levels.astype(np.float64), axes=1)[None]


def psnr(restored: NDArray[np.floating], clean: NDArray[np.floating], *, y_channel: bool = False) -> float:
    """Peak signal-to-noise ratio, ``10 log10(255**2 / mean((a - b)**2))`` over all pixels and channels.

    Args:
        restored: (C, H, W), values in [0, 1] (what lies outside is clipped).
        clean: (C, H, W), the same shape.
        y_channel: On the luma instead of on RGB.

    Returns:
        dB; ``math.inf`` for pictures that are equal after rounding.

    Raises:
        UserError: Shapes that differ or are no pictures, or values that are not finite.
    """
    a, b = _prepared(restored, clean, y_channel)
    error = float(np.mean(np.square(a - b)))
    return math.inf if error == 0.0 else 10.0 * math.log10(255.0**2 / error)


def ssim(restored: NDArray[np.floating], clean: NDArray[np.floating], *, y_channel: bool = False) -> float:
    """Structural similarity of Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004.

    ``((2 mu_a mu_b + C1) (2 cov + C2)) / ((mu_a**2 + mu_b**2 + C1) (var_a + var_b + C2))`` with an 11 x 11 Gaussian
    window of standard deviation 1.5, C1 = (0.01 * 255)**2 and C2 = (0.03 * 255)**2, averaged over the positions where
    the window lies inside the picture (as the authors' code does), then over the channels.

    Args:
        restored: (C, H, W), values in [0, 1] (what lies outside is clipped), H and W at least 11.
        clean: (C, H, W), the same shape.
        y_channel: On the luma instead of on RGB.

    Returns:
        At most 1, which equal pictures have.

    Raises:
        UserError: As for :func:`psnr`, or a picture smaller than the window.
    """
    a, b = _prepared(restored, clean, y_channel)
    if min(a.shape[1:]) < WINDOW:
        raise UserError(
            "is smaller than the window of SSIM",
            node="image",
            have=f"{a.shape[1]} x {a.shape[2]}",
            limit=f"{WINDOW} x {WINDOW}",
        )
    c1, c2 = (K1 * 255.0) ** 2, (K2 * 255.0) ** 2
    mean_a, mean_b = _windowed(a), _windowed(b)
    var_a = _windowed(a * a) - mean_a**2
    var_b = _windowed(b * b) - mean_b**2
    cov = _windowed(a * b) - mean_a * mean_b
    similarity = ((2.0 * mean_a * mean_b + c1) * (2.0 * cov + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    return float(similarity.mean())


def _prepared(
    restored: NDArray[np.floating], clean: NDArray[np.floating], y_channel: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if restored.shape != clean.shape:
        raise UserError(
            "the restored and the clean picture differ in shape",
            have=str(tuple(restored.shape)),
            limit=str(tuple(clean.shape)),
        )
    pair = (to_levels(restored, node="restored picture"), to_levels(clean, node="clean picture"))
    if y_channel:
        return luma(pair[0].astype(np.uint8)), luma(pair[1].astype(np.uint8))
    return pair[0].astype(np.float64), pair[1].astype(np.float64)


def _windowed(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian means of (C, H, W) at all positions where the window fits: (C, H - 10, W - 10)."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2.0 * SIGMA**2))
    weights /= weights.sum()
    across = sliding_window_view(planes, WINDOW, axis=2) @ weights
    both: NDArray[np.float64] = sliding_window_view(across, WINDOW, axis=1) @ weights
    return both
