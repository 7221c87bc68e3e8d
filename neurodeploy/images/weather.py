"""Rain and haze on pictures that have none: a layer of streaks, and a depth map that looks like a scene."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from neurodeploy.images.blur import splat

ANGLE_JITTER = 2.0
"""Standard deviation in degrees of a single streak's direction about that of the layer."""

NEAR, FAR = 0.2, 1.2
"""The least and the greatest depth of the synthetic scene, in the units that beta is the inverse of."""

_CHUNK = 2**20
# A streak's cross-section: five parallel lines with the weights of a raised cosine.
_ACROSS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) / 3.0
_PROFILE = np.array([0.25, 0.75, 1.0, 0.75, 0.25]) / 3.0
_WAVES = 6


def rain_layer(
    shape: tuple[int, int],
    *,
    density: float,
    length: tuple[float, float],
    angle: float,
    strength: tuple[float, float],
    width: tuple[float, float],
    rng: np.random.RandomState,
) -> NDArray[np.float64]:
    """Brightness that falling drops add during an exposure.

    Each streak is a straight line with soft ends and a raised-cosine cross-section. Length, strength and width are
    drawn for each on its own, its direction from a narrow normal distribution about ``angle``; positions are uniform on
    the layer and a margin around it, so that streaks cross the border as they cross any other line.

    Args:
        shape: (H, W) of the layer.
        density: Expected number of streaks a pixel.
        length: Least and greatest length of a streak in pixels.
        angle: Direction of fall in degrees from the vertical, positive to the right.
        strength: Least and greatest brightness in the middle of a streak, 1 = white.
        width: Least and greatest width in pixels.
        rng: Draws everything.

    Returns:
        (H, W) float64, not negative.
    """
    height, columns = shape
    tilt = math.radians(abs(angle) + 3 * ANGLE_JITTER)
    reach_y = length[1] / 2 + width[1]
    reach_x = length[1] / 2 * math.sin(min(tilt, math.pi / 2)) + width[1]
    area = (height + 2 * reach_y) * (columns + 2 * reach_x)
    layer = np.zeros(shape)
    count = rng.poisson(density * area)
    samples = max(2, math.ceil(1.5 * length[1]))
    along = (np.arange(samples) + 0.5) / samples - 0.5
    fade = np.cos(np.pi * along) ** 0.5
    step = max(1, _CHUNK // (samples * _ACROSS.size))
    for start in range(0, count, step):
        n = min(step, count - start)
        y, x = rng.uniform(-reach_y, height + reach_y, n), rng.uniform(-reach_x, columns + reach_x, n)
        theta = np.radians(angle + ANGLE_JITTER * rng.standard_normal(n))
        long, bright, wide = (rng.uniform(low, high, n) for low, high in (length, strength, width))
        down, right = np.cos(theta), np.sin(theta)
        points_y = (
            y[:, None, None] + (long * down)[:, None, None] * along[:, None] - (wide * right)[:, None, None] * _ACROSS
        )
        points_x = (
            x[:, None, None] + (long * right)[:, None, None] * along[:, None] + (wide * down)[:, None, None] * _ACROSS
        )
        weight = (bright * wide * long / samples)[:, None, None] * fade[:, None] * _PROFILE
        layer += splat(points_y, points_x, weight, shape)
    return layer


def scene_depth(
    rows: NDArray[np.float64], columns: NDArray[np.float64], rng: np.random.RandomState
) -> NDArray[np.float64]:
    """A smooth depth map: far at the top, near at the bottom, with low hills, tilted a little.

    A closed form in relative coordinates, so that any part of a picture can be had without the rest, and a picture and
    its half-size copy see the same scene.

    Args:
        rows: (h,) vertical position, 0 at the top of the picture and 1 at its bottom.
        columns: (w,) horizontal position, 0 at the left and 1 at the right.
        rng: Draws the tilt and the hills; the draws do not depend on the sizes.

    Returns:
        (h, w) float64 in [0.2, 1.2].
    """
    tilt = rng.uniform(-0.3, 0.3)
    horizon = rng.uniform(-0.15, 0.15)
    frequency = rng.uniform(-2.0, 2.0, (_WAVES, 2))
    phase = rng.uniform(0.0, 2.0 * np.pi, _WAVES)
    v, u = rows[:, None], columns[None, :]
    hills = sum(
        np.cos(2.0 * np.pi * (frequency[k, 0] * v + frequency[k, 1] * u) + phase[k]) for k in range(_WAVES)
    ) / np.sqrt(_WAVES)
    far = np.clip(1.0 - v + tilt * (u - 0.5) + horizon + 0.12 * hills, 0.0, 1.0)
    depth: NDArray[np.float64] = NEAR + (FAR - NEAR) * far * far * (3.0 - 2.0 * far)
    return depth
