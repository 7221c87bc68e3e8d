"""Spikes as the kernel holds them: a count a place, and the sums that observers want of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from neurodeploy.simulate.kernel.library import Tally, library

Floats = NDArray[np.float64]

BYTES_PER_THREAD = 1 << 20
"""Counts for which another thread is worth while."""


@dataclass(frozen=True)
class RowSums:
    """Sums of a map over the columns of each row, from which sums over any few columns less follow.

    Attributes:
        sums: (C, h) float64, exact integers.
        values: (T, h, w, >= C) uint8: the map, or what it is 1 for where any of them is not 0.
        marks: Which of the two.
    """

    sums: Floats
    values: NDArray[np.uint8]
    marks: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        return len(self.sums), self.values.shape[1], self.values.shape[2]

    def along(self, columns: Floats) -> Floats:
        """Sums over the columns that a table selects.

        Args:
            columns: (w, k), 0 or 1; fast where few are 0, as in the taps of a convolution that keeps the resolution.

        Returns:
            (C, h, k) float64.
        """
        left_out = np.flatnonzero((columns != 1).any(axis=1))
        edge = self.values[:, :, left_out, : len(self.sums)]
        edge = (edge != 0).any(axis=0) if self.marks else edge[0]
        less = np.tensordot(edge.astype(np.float64), 1.0 - columns[left_out], axes=(1, 0)).transpose(1, 0, 2)
        found: Floats = self.sums[:, :, None] - less
        return found


@dataclass(frozen=True)
class SpikeCounts:
    """The spikes of one layer over all its time steps: how many of its D populations spiked, a channel and place.

    Attributes:
        values: (T, h, w, C rounded up) uint8; a view that later layers may overwrite.
        channels: C.
        levels: D.
        path: The instruction path to sum with.
        threads: The threads to sum with.
    """

    values: NDArray[np.uint8]
    channels: int
    levels: int
    path: str
    threads: int

    @property
    def steps(self) -> int:
        """T."""
        return int(self.values.shape[0])

    @property
    def neurons(self) -> int:
        """Neurons of all populations."""
        return int(self.values.shape[1] * self.values.shape[2] * self.channels * self.levels)

    def cropped(self, window: tuple[slice, slice]) -> SpikeCounts:
        """The part of the layer in some rows and columns."""
        return replace(self, values=self.values[:, window[0], window[1]])

    def spikes(self, step: int) -> int:
        """Spikes of all populations in a step."""
        return int(self._sums[0][step].sum())

    @property
    def ever_active(self) -> int:
        """Places and channels with a spike in some step."""
        return int(self._sums[1].sum())

    def anywhere(self, step: int) -> NDArray[np.bool_]:
        """(h, w), where any channel spiked in a step."""
        marks: NDArray[np.bool_] = self._sums[2][step] != 0
        return marks

    def rows(self, step: int) -> RowSums:
        """The counts of a step."""
        return RowSums(self._row_sums(self._sums[0][step]), self.values[step : step + 1], marks=False)

    def ever_rows(self) -> RowSums:
        """1 where there was a spike in some step, else 0."""
        return RowSums(self._row_sums(self._sums[1]), self.values, marks=True)

    def _row_sums(self, sums: NDArray[np.uint32]) -> Floats:
        return np.ascontiguousarray(sums[:, : self.channels].T, np.float64)

    @cached_property
    def _sums(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint8]]:
        steps, rows, columns, channels = self.values.shape
        sums = np.empty((steps, rows, channels), np.uint32)
        ever = np.empty((rows, channels), np.uint32)
        anywhere = np.empty((steps, rows, columns), np.uint8)
        tally = Tally(
            counts=self.values.ctypes.data,
            sums=sums.ctypes.data,
            ever=ever.ctypes.data,
            any=anywhere.ctypes.data,
            step_bytes=self.values.strides[0],
            row_bytes=self.values.strides[1],
            place_bytes=self.values.strides[2],
            steps=steps,
            rows=rows,
            columns=columns,
            channels=channels,
            levels=self.levels,
        )
        threads = max(1, min(self.threads, self.values.size // BYTES_PER_THREAD))
        library().run_tally(tally, self.path, threads)
        return sums, ever, anywhere
