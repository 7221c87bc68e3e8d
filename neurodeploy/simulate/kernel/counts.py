"""Spikes as the kernel counts them, and the taps of convolutions that they arrive at."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
        self.scratch = (ctypes.c_uint8 * channels)()

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


class Arrivals(NamedTuple):
    """What the spikes of one layer meet, exact integers; L convolutions read it.

    Attributes:
        spikes: T numbers, of all populations.
        ever: Places and channels with a spike in some step.
        marked: T numbers, places where any channel spiked.
        links: For each convolution, T numbers: in-bounds taps that spikes arrive at; then those that places and
            channels with a spike in some step arrive at; then the weights other than 0 that all spikes meet.
    """

    spikes: list[int]
    ever: int
    marked: list[int]
    links: list[list[int]]


@dataclass(eq=False)
class SpikeCounts:
    """The spikes of one layer over all its time steps: how many of its D populations spiked, a channel and place.

    Arrays are views that later layers may overwrite.

    Attributes:
        values: (T, h, w, C rounded up) uint8.
        channels: C.
        levels: D.
        by_channel: (h, C rounded up) uint32, spikes of all steps and columns.
        by_row: (T, h) uint64, spikes of all channels and columns.
        ever: (h,) uint64, places and channels with a spike in some step.
        marks: (T, h, bytes) uint8, bits, the lowest first: where any channel spiked.
        offset: Bits of a row that stand before the first place.
    """

    values: NDArray[np.uint8]
    channels: int
    levels: int
    by_channel: NDArray[np.uint32]
    by_row: NDArray[np.uint64]
    ever: NDArray[np.uint64]
    marks: NDArray[np.uint8]
    offset: int

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
        return int(self.by_row[step].sum())

    def spiking(self) -> NDArray[np.bool_]:
        """(T, h, w), where any channel spiked in a step."""
        bits = np.unpackbits(self.marks, axis=2, bitorder="little")
        return bits[:, :, self.offset : self.offset + self.values.shape[2]].astype(np.bool_)

    def arrivals(self, links: Links) -> Arrivals:
        """What the spikes meet in the convolutions that read the layer."""
        steps, rows, columns, channels = self.values.shape
        mark_step, mark_row, _ = self.marks.strides
        counted = Counted(
            self.by_channel.ctypes.data,
            self.by_row.ctypes.data,
            self.ever.ctypes.data,
            self.marks.ctypes.data,
            self.values.ctypes.data,
            self.by_row.strides[0] // 8,
            mark_step,
            mark_row,
            *self.values.strides[:3],
            steps,
            rows,
            columns,
            channels,
            self.marks.shape[2],
        )
        size = steps + 2
        found = (ctypes.c_int64 * (2 * steps + 1 + links.size * size))()
        at = ctypes.addressof(found)
        marked, linked = at + 8 * (steps + 1), at + 8 * (2 * steps + 1)
        library().count(counted, links.array, links.size, at, marked, linked, links.scratch)
        every = found[:]
        each = [every[first : first + size] for first in range(2 * steps + 1, len(every), size)]
        return Arrivals(every[:steps], every[steps], every[steps + 1 : 2 * steps + 1], each)


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
