"""Spikes as the kernel holds them: a count a place, and the sums that observers want of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RowSums:
    """Sums of maps over the columns of each row, from which sums over any few columns less follow.

    Attributes:
        sums: (N, h, >= C), of N maps; exact integers.
        values: (T, h, w, >= C): the first T maps.
        channels: C.
        ever: Whether one more map follows, 1 where any of the others is not 0.
    """

    sums: Floats
    values: NDArray[Any]
    channels: int
    ever: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        return self.channels, self.values.shape[1], self.values.shape[2]

    def histogram(self, rows: Floats, columns: Floats) -> Floats:
        """Sums of the maps over the places that tables of rows and columns select.

        Args:
            rows: (h, r), 0 or 1.
            columns: (w, k), 0 or 1; fast where few are 0, as in the taps of a convolution that keeps the resolution.

        Returns:
            (N, C, r, k) float64, exact integers.
        """
        left_out = np.flatnonzero(columns @ np.ones(columns.shape[1]) != columns.shape[1])
        edge = self.values[:, :, left_out, : self.channels]
        if self.ever:
            edge = np.concatenate([edge, (edge != 0).any(axis=0)[None]])
        whole = rows.T @ self.sums[..., : self.channels]
        aside = rows.T @ edge.reshape(*edge.shape[:2], -1).astype(np.float64)
        missing = (1.0 - columns[left_out]).T
        less = missing @ aside.reshape(len(edge), rows.shape[1], len(left_out), self.channels)
        found: Floats = (whole[:, :, None] - less).transpose(0, 3, 1, 2)
        return found


def marked(codes: NDArray[np.int64]) -> RowSums:
    """Where codes (T, C, h, w) are not 0, and where any frame is not."""
    marks = codes != 0
    every = marks if len(marks) == 1 else np.concatenate([marks, marks.any(axis=0)[None]])
    bits = np.bitwise_count(np.packbits(every, axis=3))  # several times faster than summing booleans
    sums = bits.sum(axis=3, dtype=np.float64).transpose(0, 2, 1)
    if len(marks) == 1:
        sums = np.concatenate([sums, sums])
    return RowSums(sums, marks.transpose(0, 2, 3, 1), codes.shape[1], ever=True)


@dataclass(frozen=True)
class SpikeCounts:
    """The spikes of one layer over all its time steps: how many of its D populations spiked, a channel and place.

    Attributes:
        values: (T, h, w, C rounded up) uint8; a view that later layers may overwrite.
        channels: C.
        levels: D.
        sums: (T + 1, h, C rounded up), exact integers, sums over columns: of the counts of each step, and of the places
            with a spike in some step.
        marks: (T, h, w), where any channel spiked.
    """

    values: NDArray[np.uint8]
    channels: int
    levels: int
    sums: Floats
    marks: NDArray[np.bool_]

    @property
    def steps(self) -> int:
        """T."""
        return int(self.values.shape[0])

    @property
    def neurons(self) -> int:
        """Neurons of all populations."""
        return int(self.values.shape[1] * self.values.shape[2] * self.channels * self.levels)

    @cached_property
    def _totals(self) -> list[int]:
        return [int(total) for total in self.sums.sum(axis=(1, 2))]

    def spikes(self, step: int) -> int:
        """Spikes of all populations in a step."""
        return self._totals[step]

    @property
    def ever_active(self) -> int:
        """Places and channels with a spike in some step."""
        return self._totals[-1]

    def anywhere(self, step: int) -> NDArray[np.bool_]:
        """(h, w), where any channel spiked in a step."""
        marks: NDArray[np.bool_] = self.marks[step]
        return marks

    def rows(self) -> RowSums:
        """The counts of every step, and one more map: 1 where there was a spike in some step."""
        return RowSums(self.sums, self.values, self.channels, ever=True)
