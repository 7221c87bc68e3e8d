"""Spikes as the kernel counts them, and the taps of convolutions that they arrive at."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.simulate.kernel.library import Arrival, Counted, Link, library

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Taps:
    """Which taps of a convolution read which places of a part of its source, and the weights that spikes meet there.

    Attributes:
        rows: (h, r), whether a tap reads a row.
        columns: (w, k), whether a tap reads a column.
        weights: (C, r, k), how many weights other than 0 a channel has at a tap.
    """

    rows: NDArray[np.bool_]
    columns: NDArray[np.bool_]
    weights: Ints


class Links:
    """Convolutions that read one source, as the kernel takes them.

    Args:
        taps: Of each of them, for the same places.
        channels: Of the source as the kernel holds it, at least the C of all weights.
    """

    def __init__(self, taps: Sequence[Taps], channels: int) -> None:
        self._held: list[NDArray[np.int32]] = []
        self.array = (Link * max(1, len(taps)))(*(self._link(one, channels) for one in taps))
        self.size = len(taps)

    def _link(self, taps: Taps, channels: int) -> Link:
        row_patterns, row_class = np.unique(taps.rows, axis=0, return_inverse=True)
        patterns, column_class = np.unique(taps.columns, axis=0, return_inverse=True)
        column_class = column_class.reshape(-1)
        missed = (~taps.columns).sum(axis=1)
        edges = np.flatnonzero(missed)
        columns = np.concatenate([np.ones((1, taps.columns.shape[1]), np.bool_), patterns]).astype(np.int64)
        met = np.zeros((len(columns), len(row_patterns), channels), np.int64)
        met[..., : len(taps.weights)] = np.einsum(
            "crk,ir,jk->jic", taps.weights, row_patterns.astype(np.int64), columns
        )
        return Link(
            row_class=self._hold(row_class.reshape(-1)),
            row_taps=self._hold(taps.rows.sum(axis=1)),
            edges=self._hold(edges),
            edge_class=self._hold(column_class[edges] + 1),
            edge_missed=self._hold(missed[edges]),
            weights=self._hold(met),
            column_taps=taps.columns.shape[1],
            edge_count=len(edges),
            row_classes=len(row_patterns),
        )

    def _hold(self, values: NDArray[Any]) -> int:
        kept = np.ascontiguousarray(values, np.int32)
        self._held.append(kept)
        return int(kept.ctypes.data)


@dataclass(frozen=True)
class Arrivals:
    """What the spikes of one layer meet, exact integers; L convolutions read it.

    Attributes:
        spikes: T numbers, of all populations.
        ever: Places and channels with a spike in some step.
        marked: T numbers, places where any channel spiked.
        taps: L times T numbers: in-bounds taps that spikes arrive at.
        ever_taps: L numbers: those that places and channels with a spike in some step arrive at.
        weights: L numbers: weights other than 0 that the spikes of all steps meet.
    """

    spikes: list[int]
    ever: int
    marked: list[int]
    taps: list[list[int]]
    ever_taps: list[int]
    weights: list[int]


@dataclass(frozen=True)
class SpikeCounts:
    """The spikes of one layer over all its time steps: how many of its D populations spiked, a channel and place.

    Attributes:
        values: (T, h, w, C rounded up) uint8; a view that later layers may overwrite.
        channels: C.
        levels: D.
        by_place: (T, h, w) uint32, spikes of all channels; a view that later layers may overwrite.
        ever: (h, w) uint32, channels with a spike in some step; the same.
        by_channel: (h, C rounded up) uint32, spikes of all steps and columns; the same.
    """

    values: NDArray[np.uint8]
    channels: int
    levels: int
    by_place: NDArray[np.uint32]
    ever: NDArray[np.uint32]
    by_channel: NDArray[np.uint32]

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
        found: list[int] = self.by_place.sum(axis=(1, 2), dtype=np.int64).tolist()
        return found

    def spikes(self, step: int) -> int:
        """Spikes of all populations in a step."""
        return self._totals[step]

    def arrivals(self, links: Links) -> Arrivals:
        """What the spikes meet in the convolutions that read the layer."""
        steps, rows, columns, channels = self.values.shape
        by_place, values = self.by_place.strides, self.values.strides
        counted = Counted(
            self.by_place.ctypes.data,
            self.ever.ctypes.data,
            self.by_channel.ctypes.data,
            self.values.ctypes.data,
            by_place[0] // 4,
            by_place[1] // 4,
            *values[:3],
            steps,
            rows,
            columns,
            channels,
        )
        found = (ctypes.c_int64 * (2 * steps + 1 + links.size * (steps + 2)))()
        at = ctypes.addressof(found)
        library().count(counted, links.array, links.size, at, at + 8 * (steps + 1), at + 8 * (2 * steps + 1))
        every = list(found)
        marked = every[steps + 1 : 2 * steps + 1]
        each = [every[first : first + steps + 2] for first in range(2 * steps + 1, len(every), steps + 2)]
        return Arrivals(
            spikes=every[:steps],
            ever=every[steps],
            marked=marked,
            taps=[link[:steps] for link in each],
            ever_taps=[link[steps] for link in each],
            weights=[link[-1] for link in each],
        )


def count_codes(codes: Ints, links: Links) -> tuple[list[int], list[int]]:
    """What codes other than 0 meet in the convolutions that read them.

    Args:
        codes: (frames, C, h, w).
        links: Of convolutions whose taps were given for ``channels`` = C.

    Returns:
        For each convolution, the in-bounds taps that places and channels with a code other than 0 in some frame arrive
        at, and the weights other than 0 that those of all frames meet.
    """
    codes = (
        codes if codes.strides[3] == codes.itemsize and codes.dtype == np.int64 else codes.astype(np.int64, order="C")
    )
    frames, channels, rows, columns = codes.shape
    strides = (codes.strides[0] // 8, codes.strides[1] // 8, codes.strides[2] // 8)
    found, scratch = (ctypes.c_int64 * (2 * links.size))(), (ctypes.c_uint32 * (columns + channels))()
    library().count_codes(
        codes.ctypes.data, *strides, frames, channels, rows, columns, links.array, links.size, scratch, found
    )
    return list(found[::2]), list(found[1::2])


@dataclass(frozen=True)
class Spread:
    """How a convolution spreads what arrives: pairs are (rows, columns)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def receiving(sources: Sequence[tuple[NDArray[np.bool_], Spread]], steps: int, extent: tuple[int, int]) -> list[int]:
    """How many outputs spikes arrive at through any of several convolutions, in every step.

    Args:
        sources: Where there are spikes, (T, h, w), each array in one piece, and the convolution that reads it.
        steps: T.
        extent: Rows and columns of the output.
    """
    arrivals = (Arrival * len(sources))(
        *(
            Arrival(marks.ctypes.data, *marks.shape[1:], *by.kernel, *by.stride, *by.padding, *by.dilation)
            for marks, by in sources
        )
    )
    widest = max(marks.shape[2] for marks, _ in sources)
    scratch, found = ctypes.create_string_buffer(extent[1] + widest), (ctypes.c_int64 * steps)()
    library().receiving(arrivals, len(sources), steps, *extent, scratch, found)
    return list(found)
