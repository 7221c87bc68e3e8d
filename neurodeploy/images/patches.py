"""Random patches of pictures, for training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import Finding, FindingsError, UserError
from neurodeploy.images.datasets import Channels, CleanSet, DegradedFolder, PairedFolders, check_seed
from neurodeploy.images.degradation_base import DegradationBase, Place
from neurodeploy.images.io import to_unit
from neurodeploy.images.pixels import Levels

Scalar = TypeVar("Scalar", bound=np.generic)

MAX_BYTES = 2**34
"""What the pictures of a :class:`PatchSampler` may take in memory."""

MAX_CONTRAST = 0.4
"""Share of the values at either end that a :class:`PatchSampler` may clip."""

_FLAT = 1 / 16
"""Range of values below which a patch is not stretched."""


@dataclass(frozen=True)
class PatchBatch:
    """What one training step sees.

    Attributes:
        degraded: (B, C, p, p) float32.
        clean: (B, C, p, p) float32 in [0, 1].
        noise_level: (B,) float32, as in :class:`Sample`.
    """

    degraded: NDArray[np.float32]
    clean: NDArray[np.float32]
    noise_level: NDArray[np.float32]


class PatchSampler:
    """Random square patches, flipped and turned; batch ``step`` is a pure function of the seed and the step.

    Each patch: a picture drawn uniformly, one of the eight flips and quarter turns, a position drawn uniformly. Clean
    pictures are degraded afterwards, so rain keeps falling downwards; with as much of the surroundings as the
    degradation looks at, so a blurred patch is a part of a blurred picture. Pairs are cut and turned together.

    With ``contrast`` the clean patches are stretched before that, all channels alike: the darkest share of their values
    becomes black and as large a share of the brightest white; the share is drawn uniformly from 0 to ``contrast``. Of a
    haze or a veil it is hard to tell how thick it is, unless one knows how dark pictures get: this teaches that.

    All pictures are decoded once and kept as the integers of their files (one byte a value for 8-bit pictures).

    Args:
        source: A folder of clean pictures, a :class:`CleanSet` or :class:`PairedFolders`.
        patch: Side of the patches in pixels.
        batch: Patches in a batch.
        seed: 0 to 2**32 - 1.
        degradation: What to do to clean pictures; None for that of the source, or for pairs.
        channels: 1 or 3; None for that of the source.
        contrast: Largest share of the values at either end that is clipped, 0 (nothing is stretched) to 0.4.
        max_bytes: What the pictures may take in memory.

    Raises:
        UserError: No degradation for clean pictures, one or contrast for pairs, channels that differ from the source's,
            a picture that cannot be read, more pictures than the memory limit allows, a wrong number.
        FindingsError: Pictures smaller than a patch: all are named. Exit code 2.
    """

    def __init__(
        self,
        source: str | Path | CleanSet | PairedFolders,
        *,
        patch: int,
        batch: int,
        seed: int,
        degradation: DegradationBase | None = None,
        channels: Channels | None = None,
        contrast: float = 0.0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if isinstance(source, str | Path):
            source = DegradedFolder(source, degradation, 1 if channels is None else channels)
        if channels is not None and channels != source.channels:
            raise UserError(
                "differs from the channels of the pictures",
                node="channels",
                have=str(channels),
                limit=str(source.channels),
            )
        for name, value in (("patch", patch), ("batch", batch)):
            if value < 1:
                raise UserError("has to be positive", node=name, have=str(value))
        check_seed("seed", seed)
        if not 0 <= contrast <= MAX_CONTRAST:
            raise UserError("is outside its range", node="contrast", have=str(contrast), limit=f"0 to {MAX_CONTRAST}")
        if contrast and isinstance(source, PairedFolders):
            raise UserError("pairs are taken as they are", node="contrast", have=str(contrast), limit="0")
        self.contrast = contrast
        self.source, self.patch, self.batch_size, self.seed = source, patch, batch, seed
        self.degradation = _degradation_for(source, degradation)
        self._pictures = _loaded(source, max_bytes)
        sizes = [picture[0].shape[1:] for picture in self._pictures]
        findings = [
            Finding(name, "is smaller than a patch", f"{height} x {width}", f"{patch} x {patch}")
            for name, (height, width) in zip(source.names, sizes, strict=True)
            if min(height, width) < patch
        ]
        if findings:
            raise FindingsError("pictures that are too small to cut patches from", findings, exit_code=2)

    def batch(self, step: int) -> PatchBatch:
        """The batch of a training step.

        Args:
            step: 0 to 2**32 - 1.

        Raises:
            UserError: The step is outside that range.
        """
        check_seed("step", step)
        rng = np.random.RandomState([self.seed, step])
        shape = (self.batch_size, self.source.channels, self.patch, self.patch)
        degraded, clean = np.empty(shape, np.float32), np.empty(shape, np.float32)
        level = np.zeros(self.batch_size, np.float32)
        for index in range(self.batch_size):
            degraded[index], clean[index], level[index] = self._sample(rng)
        return PatchBatch(degraded, clean, level)

    def _sample(self, rng: np.random.RandomState) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        choice, turn = rng.randint(len(self._pictures)), rng.randint(8)
        views = [_turned(levels, turn) for levels in self._pictures[choice]]
        _, height, width = views[0].shape
        top, left = (int(rng.randint(side - self.patch + 1)) for side in (height, width))
        if self.degradation is None:
            degraded, clean = (to_unit(self._cut(view, top, left)) for view in views)
            return degraded, clean, 0.0
        # The surroundings that have a say, from a line of the degradation's grid on, as far as the picture goes.
        margin, grid = self.degradation.margin, self.degradation.grid
        first, begin = (max(0, start - margin) // grid * grid for start in (top, left))
        window = to_unit(views[0][:, first : top + self.patch + margin, begin : left + self.patch + margin])
        if self.contrast:
            window = _stretched(window, float(rng.uniform(0.0, self.contrast)))
        degraded, level = self.degradation.apply(window, rng, place=Place(first, begin, height, width))
        return self._cut(degraded, top - first, left - begin), self._cut(window, top - first, left - begin), level

    def _cut(self, array: NDArray[Scalar], top: int, left: int) -> NDArray[Scalar]:
        return array[:, top : top + self.patch, left : left + self.patch]


def _degradation_for(source: CleanSet | PairedFolders, degradation: DegradationBase | None) -> DegradationBase | None:
    if isinstance(source, PairedFolders):
        if degradation is not None:
            raise UserError("pairs are degraded already", node="degradation", have=degradation.spec(), limit="none")
        return None
    degradation = degradation or source.degradation
    if degradation is None:
        raise UserError("clean pictures need a degradation to train on", node="degradation", instead="gaussian:25, ...")
    degradation.check()
    return degradation


def _loaded(source: CleanSet | PairedFolders, max_bytes: int) -> list[tuple[Levels, ...]]:
    pictures: list[tuple[Levels, ...]] = []
    total = 0
    for index in range(len(source)):
        pictures.append(source.pair_levels(index) if isinstance(source, PairedFolders) else (source.levels(index),))
        total += sum(levels.nbytes for levels in pictures[-1])
        if total > max_bytes:
            raise UserError(
                f"the first {index + 1} of {len(source)} pictures do not fit into memory",
                node=source.describe(),
                have=f"{total} bytes",
                limit=f"{max_bytes} bytes",
                instead="train on fewer or on smaller pictures",
            )
    return pictures


def _stretched(values: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The darkest share of all values becomes 0, as large a share of the brightest 1; their order stays."""
    black, white = np.quantile(values[:, ::2, ::2], (share, 1.0 - share)).astype(np.float32)
    if white - black < _FLAT:  # a patch of nothing but sky stays one
        return values
    stretched: NDArray[np.float32] = ((values - black) / (white - black)).clip(0.0, 1.0)
    return stretched


def _turned(levels: Levels, turn: int) -> Levels:
    """One of the eight symmetries of the square, as a view: bit 0 flips rows, bit 1 columns, bit 2 transposes."""
    if turn & 1:
        levels = levels[:, ::-1]
    if turn & 2:
        levels = levels[:, :, ::-1]
    return levels.swapaxes(1, 2) if turn & 4 else levels
