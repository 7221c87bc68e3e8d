"""Spikes as the kernel holds them: a count a place, and the sums that observers want of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RowSums:
    """Sums of a map over the columns of each row, from which sums over any few columns less follow.

    Attributes:
        sums: (h, >= C) uint32.
        values: (T, h, w, >= C) uint8: the map, or what it is 1 for where any of them is not 0.
        channels: C.
        marks: Which of the two.
    """

    sums: NDArray[np.uint32]
    values: NDArray[np.uint8]
    channels: int
    marks: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        return self.channels, self.values.shape[1], self.values.shape[2]

    def histogram(self, rows: Floats, columns: Floats) -> Floats:
        """Sums of the map over the places that tables of rows and columns select.

        Args:
            rows: (h, r), 0 or 1.
            columns: (w, k), 0 or 1; fast where few are 0, as in the taps of a convolution that keeps the resolution.

        Returns:
            (C, r, k) float64, exact integers.
        """
        left_out = np.flatnonzero((columns != 1).any(axis=1))
        edge = self.values[:, :, left_out, : self.channels]
        edge = (edge != 0).any(axis=0) if self.marks else edge[0]
        whole = rows.T @ self.sums[:, : self.channels].astype(np.float64)
        aside = rows.T @ edge.reshape(len(rows), -1).astype(np.float64)
        less = (1.0 - columns[left_out]).T @ aside.reshape(rows.shape[1], len(left_out), self.channels)
        found: Floats = (whole[:, None, :] - less).transpose(2, 0, 1)
        return found


@dataclass(frozen=True)
class SpikeCounts:
    """The spikes of one layer over all its time steps: how many of its D populations spiked, a channel and place.

    Attributes:
        values: (T, h, w, C rounded up) uint8; a view that later layers may overwrite.
        channels: C.
        levels: D.
        sums: (T, h, C rounded up) uint32, sums over columns.
        ever: (h, C rounded up) uint32, places of a row with a spike in some step.
        marks: (T, h, w), where any channel spiked.
    """

    values: NDArray[np.uint8]
    channels: int
    levels: int
    sums: NDArray[np.uint32]
    ever: NDArray[np.uint32]
    marks: NDArray[np.bool_]

    @property
    def steps(self) -> int:
        """T."""
        return int(self.values.shape[0])

    @property
    def neurons(self) -> int:
        """Neurons of all populations."""
        return int(self.values.shape[1] * self.values.shape[2] * self.channels * self.levels)

    def spikes(self, step: int) -> int:
        """Spikes of all populations in a step."""
        return int(self.sums[step].sum())

    @property
    def ever_active(self) -> int:
        """Places and channels with a spike in some step."""
        return int(self.ever.sum())

    def anywhere(self, step: int) -> NDArray[np.bool_]:
        """(h, w), where any channel spiked in a step."""
        marks: NDArray[np.bool_] = self.marks[step]
        return marks

    def rows(self, step: int) -> RowSums:
        """The counts of a step."""
        return RowSums(self.sums[step], self.values[step : step + 1], self.channels, marks=False)

    def ever_rows(self) -> RowSums:
        """1 where there was a spike in some step, else 0."""
        return RowSums(self.ever, self.values, self.channels, marks=True)
