"""Spikes as the kernel counts them, and the taps of convolutions that they arrive at."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurodeploy.simulate.kernel.library import Arrival, Link, library

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
        columns = np.concatenate([np.ones((1, taps.columns.shape[1]), np.bool_), ~patterns]).astype(np.int64)
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


def found_size(steps: int, links: Links | None) -> int:
    """How many integers are found of a layer (ND_FOUND)."""
    return 2 * steps + 1 + (0 if links is None else links.size) * (steps + 2)


@dataclass(eq=False)
class SpikeCounts:
    """The spikes of one layer over all its time steps: how many of its D populations spiked, a channel and place.

    Arrays are views that the next run writes over.

    Attributes:
        channels: C.
        levels: D.
        extent: h and w, of what was counted.
        found: (found_size(),) int64, see :class:`Arrivals`.
        marks: (T, at least h, bytes) uint8, bits, the lowest first: where any channel spiked.
        values: (T, h, w, C rounded up) uint8; None where the observer does not keep values.
    """

    channels: int
    levels: int
    extent: tuple[int, int]
    found: Ints
    marks: NDArray[np.uint8]
    values: NDArray[np.uint8] | None

    @property
    def steps(self) -> int:
        """T."""
        return len(self.marks)

    @property
    def neurons(self) -> int:
        """Neurons of all populations."""
        return self.extent[0] * self.extent[1] * self.channels * self.levels

    def spikes(self, step: int) -> int:
        """Spikes of all populations in a step."""
        return int(self.found[step])

    def spiking(self) -> NDArray[np.bool_]:
        """(T, h, w), where any channel spiked in a step."""
        rows, columns = self.extent
        return np.unpackbits(self.marks[:, :rows], axis=2, count=columns, bitorder="little").astype(np.bool_)

    def arrivals(self) -> Arrivals:
        """What the spikes meet in the convolutions that read the layer."""
        return arrivals_in(self.found.tolist(), self.steps)


def arrivals_in(found: list[int], steps: int) -> Arrivals:
    """The integers of a layer by their names."""
    first, size = 2 * steps + 1, steps + 2
    links = [found[start : start + size] for start in range(first, len(found), size)]
    return Arrivals(found[:steps], found[steps], found[steps + 1 : first], links)


@dataclass(eq=False)
class RunCounts:
    """The spikes of a whole run; its arrays are written over by the next one.

    Attributes:
        layers: Of every spiking layer, in order.
        found: All that is found of them, one after the other.
        reached: (layers and readout, T) int64, outputs that something arrives at; None where only a part was counted.
        names: Of the rows of ``reached``.
    """

    layers: dict[str, SpikeCounts]
    found: Ints
    reached: Ints | None
    names: tuple[str, ...]

    def arrivals(self, found: Ints) -> dict[str, Arrivals]:
        """What the spikes of every layer met, from a copy of :attr:`found`."""
        every, start, each = found.tolist(), 0, {}
        for name, layer in self.layers.items():
            size = len(layer.found)
            each[name] = arrivals_in(every[start : start + size], layer.steps)
            start += size
        return each


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


def arrival(marks: NDArray[np.uint8] | None, extent: tuple[int, int], by: Spread) -> Arrival:
    """What a source brings, as the kernel takes it.

    Args:
        marks: (T, rows, bytes), bits, the lowest first: where it spikes; None for everywhere.
        extent: Its rows and columns.
        by: The convolution that reads it.
    """
    at = (None, 0, 0) if marks is None else (marks.ctypes.data, *marks.strides[:2])
    return Arrival(*at, *extent, *by.kernel, *by.stride, *by.padding, *by.dilation)


def receiving(
    sources: Sequence[tuple[NDArray[np.bool_] | None, tuple[int, int], Spread]], steps: int, extent: tuple[int, int]
) -> list[int]:
    """How many outputs spikes arrive at through any of several convolutions, in every step.

    Args:
        sources: Where there are spikes, (T, h, w), or None for everywhere; h and w; and the convolution that reads it.
        steps: T.
        extent: Rows and columns of the output.
    """
    bits = [None if marks is None else np.packbits(marks, axis=2, bitorder="little") for marks, _, _ in sources]
    arrivals = (Arrival * len(sources))(
        *(arrival(held, size, by) for held, (_, size, by) in zip(bits, sources, strict=True))
    )
    widest = max(size[1] for _, size, _ in sources)
    scratch, found = (ctypes.c_uint64 * (extent[1] // 64 + widest // 64 + 4))(), (ctypes.c_int64 * steps)()
    library().receiving(arrivals, len(sources), steps, *extent, scratch, found)
    return list(found)
