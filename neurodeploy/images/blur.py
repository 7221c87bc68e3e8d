"""Blur: convolution with a kernel, and where kernels come from (a disc, a random camera path, a file).

Borders are reflected about the outermost pixel without repeating it (NumPy's ``reflect``), as if the scene went on
mirrored; so no dark frame appears and a constant picture stays constant.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError

Kernel = NDArray[np.float64]

MAX_KERNEL_SIDE = 255
MAX_KERNEL_FILE_BYTES = 2**26

_SUBSAMPLES = 16
_POINTS_PER_PIXEL = 8
_FAST_FACTORS = (2, 3, 5)


def convolve(image: NDArray[np.floating], kernel: Kernel) -> NDArray[np.float64]:
    """Convolves every channel with one kernel, the border reflected.

    ``out[y, x] = sum_{i, j} kernel[i, j] * image[y - i + r, x - j + s]`` with (r, s) the kernel's centre: a true
    convolution, so that a kernel is the picture of a point of light.

    Args:
        image: (C, H, W).
        kernel: (2 r + 1, 2 s + 1).

    Returns:
        (C, H, W) float64.
    """
    _, height, width = image.shape
    r, s = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(image.astype(np.float64), ((0, 0), (r, r), (s, s)), mode="reflect")
    # A circular convolution is the wanted one wherever the kernel lies inside the padded picture.
    shape = (_fast_length(padded.shape[1]), _fast_length(padded.shape[2]))
    spectrum = np.fft.rfft2(padded, shape) * np.fft.rfft2(kernel, shape)
    return np.fft.irfft2(spectrum, shape)[:, 2 * r : 2 * r + height, 2 * s : 2 * s + width]


@lru_cache(maxsize=1024)
def _fast_length(length: int) -> int:
    """The smallest product of 2, 3 and 5 that is not below ``length``."""
    while True:
        rest = length
        for factor in _FAST_FACTORS:
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


@lru_cache(maxsize=64)
def disc_kernel(radius: float) -> Kernel:
    """The circle of confusion of a defocused lens: a uniform disc, each pixel weighted by its covered share.

    Args:
        radius: In pixels, above 0.

    Returns:
        (2 r + 1, 2 r + 1) with r = ceil(radius - 1/2), sum 1; coverage counted on 16 x 16 points a pixel.
    """
    reach = max(0, math.ceil(radius - 0.5))
    side = 2 * reach + 1
    points = (np.arange(side * _SUBSAMPLES) + 0.5) / _SUBSAMPLES - side / 2
    inside = points[:, None] ** 2 + points[None, :] ** 2 <= radius**2
    covered = inside.reshape(side, _SUBSAMPLES, side, _SUBSAMPLES).mean(axis=(1, 3))
    kernel: Kernel = covered / covered.sum() if covered.any() else np.ones((1, 1))
    kernel.setflags(write=False)
    return kernel


def path_reach(length: float) -> int:
    """How far the kernel of a camera path of ``length`` pixels can reach from its centre, in whole pixels.

    No point of a curve is farther from the curve's centroid than half its length (the end of a straight one).
    """
    return math.ceil(length / 2) + 1


def path_kernel(length: float, shake: float, rng: np.random.RandomState) -> Kernel:
    """The trace of a point of light while a hand-held camera moves.

    A path of given length whose direction does a random walk and whose speed varies smoothly, both in proportion to
    ``shake``; where the camera is slow, the trace is bright. The path's centroid lies in the middle.

    Args:
        length: Length of the path in pixels.
        shake: 0 for a straight path of constant speed; 1 for a wildly curved one.
        rng: Draws the first direction, the walk and the speeds.

    Returns:
        (2 r + 1, 2 r + 1) with r = ``path_reach(length)``, sum 1.
    """
    count = max(2, math.ceil(length * _POINTS_PER_PIXEL))
    direction = rng.uniform(0.0, 2.0 * np.pi)
    # A walk whose total spread does not depend on how finely it is sampled.
    turns = np.cumsum(rng.standard_normal(count)) * (np.pi * shake / math.sqrt(count))
    dwell = np.cumsum(rng.standard_normal(count)) * (1.5 * shake / math.sqrt(count))
    angles = direction + turns - turns.mean()
    weights = np.exp(dwell - dwell.max())
    weights /= weights.sum()
    x = np.cumsum(np.cos(angles)) * (length / count)
    y = np.cumsum(np.sin(angles)) * (length / count)
    reach = path_reach(length)
    kernel = splat(y - y.mean() + reach, x - x.mean() + reach, weights, (2 * reach + 1, 2 * reach + 1))
    normed: Kernel = kernel / kernel.sum()
    return normed


def splat(
    y: NDArray[np.float64], x: NDArray[np.float64], weight: NDArray[np.float64], shape: tuple[int, int]
) -> Kernel:
    """Adds points to a grid, each shared among its four neighbours by bilinear weights; what lies outside is lost.

    Args:
        y: Rows of the points, any shape.
        x: Columns, the same shape.
        weight: What each point adds, the same shape.
        shape: (H, W) of the grid.

    Returns:
        (H, W) float64.
    """
    height, width = shape
    top, left = np.floor(y), np.floor(x)
    down, right = y - top, x - left
    # One more row and column at each side take what falls on the edge and beyond.
    row = np.clip(top.astype(np.int64) + 1, 0, height)
    column = np.clip(left.astype(np.int64) + 1, 0, width)
    inside = (top >= -1) & (top < height) & (left >= -1) & (left < width)
    first = (row * (width + 2) + column).ravel()
    cells = np.concatenate([first, first + 1, first + width + 2, first + width + 3])
    weight = np.where(inside, weight, 0.0)
    shares = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
    values = np.concatenate([(weight * share).ravel() for share in shares])
    sums = np.bincount(cells, values, minlength=(height + 2) * (width + 2)).astype(np.float64, copy=False)
    return sums.reshape(height + 2, width + 2)[1:-1, 1:-1]


def load_kernels(path: str | Path) -> tuple[Kernel, ...]:
    """The blur kernels of an ``.npz`` file: every two-dimensional array in it, in the order of the names.

    Args:
        path: The file. Nothing that needs pickle is read.

    Returns:
        Kernels with odd sides and sum 1; one with an even side gets an empty row or column at its end.

    Raises:
        UserError: The file is missing, no ``.npz`` or damaged, or an array is no kernel (not two-dimensional, empty,
            wider than 255, negative, not finite, sum 0).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("no such file of blur kernels", node=str(path))
    return _load_kernels(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _load_kernels(path: Path, _modified: int) -> tuple[Kernel, ...]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_KERNEL_FILE_BYTES:
            raise UserError(
                "is too large for a file of blur kernels",
                node=str(path),
                have=f"{size} bytes",
                limit=f"{MAX_KERNEL_FILE_BYTES} bytes",
            )
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: np.asarray(arrays[name]) for name in sorted(arrays.files)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"is no .npz file of plain arrays: {reason}", node=str(path), instead="write it with numpy.savez"
        ) from error
    if not found:
        raise UserError("holds no kernels", node=str(path))
    return tuple(_checked_kernel(f"{path}[{name}]", array) for name, array in found.items())


def _checked_kernel(node: str, array: NDArray[np.generic]) -> Kernel:
    if array.ndim != 2 or 0 in array.shape or max(array.shape) > MAX_KERNEL_SIDE:
        raise UserError(
            "is not a blur kernel",
            node=node,
            have=f"shape {array.shape}",
            limit=f"two dimensions, at most {MAX_KERNEL_SIDE} x {MAX_KERNEL_SIDE}",
        )
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise UserError("is not a blur kernel", node=node, have=f"dtype {array.dtype}", limit="real numbers")
    kernel = array.astype(np.float64)
    total = float(kernel.sum())
    if not np.isfinite(kernel).all() or kernel.min() < 0.0 or total <= 0.0:
        raise UserError("is not a blur kernel", node=node, limit="finite values, none negative, not all zero")
    odd: Kernel = np.pad(kernel, [(0, 1 - side % 2) for side in kernel.shape]) / total
    odd.setflags(write=False)
    return odd
