"""Data sets: a folder that is degraded on the way, pairs from two folders, the built-in photographs.

The evaluation sets are sequences of :class:`Sample`; an index always gives the same sample. Noise of one sigma is drawn
from a fresh ``RandomState(seed)`` for every picture, as the denoising papers do it. Where parameters are drawn too (a
range of sigma, rain, a blur kernel) that would give every picture the same draw, so picture i has
``RandomState([seed, i])``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import Finding, FindingsError, UserError
from neurodeploy.images import pairing
from neurodeploy.images.degradation_base import DegradationBase
from neurodeploy.images.io import list_images, read_levels, read_size, to_unit
from neurodeploy.images.photographs import Part, load_photograph, photographs
from neurodeploy.images.pixels import Levels

Channels: TypeAlias = Literal[1, 3]

_SEED_LIMIT = 2**32


@dataclass(frozen=True)
class Sample:
    """One picture to restore.

    Attributes:
        name: The file's name, or that of the photograph.
        degraded: (C, H, W) float32.
        clean: The same shape, or None where there is no reference.
        noise_level: Standard deviation of the noise in units of the picture (sigma / 255); 0.0 where it is unknown.
    """

    name: str
    degraded: NDArray[np.float32]
    clean: NDArray[np.float32] | None
    noise_level: float


class CleanSet(ABC):
    """Clean pictures that a degradation is applied to."""

    def __init__(self, degradation: DegradationBase | None, channels: Channels, seed: int) -> None:
        _check_channels(channels)
        check_seed("seed", seed)
        if degradation is not None:
            degradation.check()
        self.degradation = degradation
        self.channels: Channels = channels
        self.seed = seed

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the pictures, in their order."""

    @abstractmethod
    def levels(self, index: int) -> Levels:
        """Picture ``index`` as (C, H, W) integer levels, without degradation."""

    @abstractmethod
    def describe(self) -> str:
        """One phrase for a report."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        picture = to_unit(self.levels(index))
        if self.degradation is None:
            return Sample(self.names[index], picture, None, 0.0)
        seed = [self.seed, index] if self.degradation.random_parameters else self.seed
        degraded, level = self.degradation.apply(picture, np.random.RandomState(seed))
        return Sample(self.names[index], degraded, picture, level)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def _degradation_phrase(self) -> str:
        return "as they are" if self.degradation is None else self.degradation.describe()


class DegradedFolder(CleanSet):
    """The pictures of a folder, degraded when they are read.

    Args:
        folder: A folder of pictures.
        degradation: What to do to them; None if they are degraded already and have no reference.
        channels: 1 for gray, 3 for RGB; the files are converted.
        seed: Of the random draws.

    Raises:
        UserError: No such folder, no pictures in it, a wrong argument; on access, a picture that cannot be read.
    """

    def __init__(
        self, folder: str | Path, degradation: DegradationBase | None, channels: Channels, seed: int = 0
    ) -> None:
        super().__init__(degradation, channels, seed)
        self.folder = Path(folder)
        self.paths = list_images(folder)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files, sorted."""
        return tuple(path.name for path in self.paths)

    def levels(self, index: int) -> Levels:
        """Picture ``index`` as the file holds it, (C, H, W) uint8 or uint16."""
        return read_levels(self.paths[index], channels=self.channels)

    def describe(self) -> str:
        """One phrase for a report."""
        return f"{len(self)} pictures of {self.folder.name}, {self._degradation_phrase()}"


class Builtin(CleanSet):
    """The photographs that need no download (:mod:`neurodeploy.images.photographs`).

    Args:
        part: "train" or "test"; they share no picture.
        degradation: As for :class:`DegradedFolder`.
        channels: 1 for gray, 3 for RGB.
        seed: Of the random draws.

    Raises:
        UserError: No such part, a wrong argument, or scikit-image (extra ``train``) is not installed.
    """

    def __init__(self, part: Part, degradation: DegradationBase | None, channels: Channels, seed: int = 0) -> None:
        super().__init__(degradation, channels, seed)
        self.part = part
        self._photographs = photographs(part, channels)
        load_photograph(self._photographs[0], channels)  # an installation that lacks them shows at once

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the photographs."""
        return tuple(photograph.name for photograph in self._photographs)

    def levels(self, index: int) -> Levels:
        """Photograph ``index``, (C, H, W) uint8."""
        return load_photograph(self._photographs[index], self.channels)

    def describe(self) -> str:
        """One phrase for a report."""
        return f"{len(self)} built-in photographs ({self.part}), {self._degradation_phrase()}"


class PairedFolders:
    """Degraded pictures and their clean originals in two folders.

    Args:
        lq: The degraded pictures.
        gt: The clean ones; several degraded pictures may share one.
        channels: 1 for gray, 3 for RGB; the files are converted.
        match: "names" pairs by the rules of :mod:`neurodeploy.images.pairing`, "order" by the sorted order.

    Raises:
        UserError: A folder is missing or without pictures, both are the same, a wrong argument.
        FindingsError: Files without a partner, pairs of different size, files that are no pictures: all are named. Exit
            code 2.
    """

    def __init__(
        self, lq: str | Path, gt: str | Path, channels: Channels, match: Literal["names", "order"] = "names"
    ) -> None:
        _check_channels(channels)
        if match not in ("names", "order"):
            raise UserError("folders are paired by names or by order", node="match", have=match, limit="names, order")
        degraded, clean = list_images(lq), list_images(gt)
        if Path(lq).resolve() == Path(gt).resolve():
            raise UserError("the degraded and the clean folder are the same", node=str(lq))
        pair = pairing.pairs_by_name if match == "names" else pairing.pairs_by_order
        self.lq, self.gt = Path(lq), Path(gt)
        self.channels: Channels = channels
        self.paths = pair(degraded, clean)
        findings = [finding for paths in self.paths for finding in _size_findings(*paths)]
        if findings:
            raise FindingsError("pairs that do not fit together", findings, exit_code=2)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the degraded files."""
        return tuple(degraded.name for degraded, _ in self.paths)

    def pair_levels(self, index: int) -> tuple[Levels, Levels]:
        """Pair ``index``, degraded and clean, each (C, H, W) uint8 or uint16."""
        degraded, clean = (read_levels(path, channels=self.channels) for path in self.paths[index])
        return degraded, clean

    def describe(self) -> str:
        """One phrase for a report."""
        return f"{len(self)} pairs of {self.lq.parent.name}/{self.lq.name} and {self.gt.parent.name}/{self.gt.name}"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        degraded, clean = (to_unit(levels) for levels in self.pair_levels(index))
        return Sample(self.names[index], degraded, clean, 0.0)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def _size_findings(degraded: Path, clean: Path) -> list[Finding]:
    sizes, findings = [], []
    for path in (degraded, clean):
        try:
            sizes.append(read_size(path))
        except UserError as error:
            findings.append(Finding(str(path), error.message, error.have, error.limit, error.instead))
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        have, limit = (f"{height} x {width}" for height, width in sizes)
        findings.append(
            Finding(str(degraded), f"differs in size from {clean}", have, limit, "cut both to the same part")
        )
    return findings


def _check_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise UserError("a picture has 1 channel (gray) or 3 (RGB)", node="channels", have=str(channels))


def check_seed(name: str, value: int) -> None:
    """Refuses what is no seed of ``RandomState``."""
    if not 0 <= value < _SEED_LIMIT:
        raise UserError("is outside the range of seeds", node=name, have=str(value), limit=f"0 to {_SEED_LIMIT - 1}")
