"""What a layer hands on, in memory that runs take from one another."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.simulate.kernel.library import BLOCK_MOST, TILE_BYTES
from neurodeploy.simulate.kernel.pack import aligned, mask_bytes

Pair = tuple[int, int]
Key = tuple[tuple[int, ...], Pair, int]

KEPT_BYTES = 96 << 20
"""Most bytes that are kept from one run for the next: fresh memory costs as much as a small layer."""


@dataclass(frozen=True)
class Buffer:
    """What a node hands on: (T or 1, rows, columns, channels) with zeros of ``halo`` all round.

    ``masks`` holds binary spikes once more, as bits: (T, rows, columns, bytes). ``stride`` is the largest with which
    columns are read.
    """

    array: NDArray[Any]
    halo: Pair
    masks: NDArray[np.uint8] | None = None
    stride: int = 1

    @property
    def extent(self) -> Pair:
        """Rows and columns without the halo."""
        return self.array.shape[1] - 2 * self.halo[0], self.array.shape[2] - 2 * self.halo[1]

    @property
    def inside(self) -> NDArray[Any]:
        """The array without the halo."""
        return self._within(self.array)

    def _within(self, array: NDArray[Any]) -> NDArray[Any]:
        rows, columns = self.extent
        return array[:, self.halo[0] : self.halo[0] + rows, self.halo[1] : self.halo[1] + columns]

    def address(self, row: int, column: int) -> int:
        """Address of a place in the first step, counted from the first place of the halo."""
        return _address(self.array, row, column)

    def mask_address(self, row: int, column: int) -> int | None:
        """As :meth:`address`, of the bits."""
        return None if self.masks is None else _address(self.masks, row, column)

    @property
    def bytes(self) -> int:
        """Of memory."""
        return self.array.nbytes + (0 if self.masks is None else self.masks.nbytes)


def _address(array: NDArray[Any], row: int, column: int) -> int:
    return int(array.ctypes.data) + row * array.strides[1] + column * array.strides[2]


def slack(place_bytes: int, stride: int = 1) -> int:
    """Bytes behind a buffer: the kernel computes whole blocks of places, and throws away what lies beyond a row."""
    return BLOCK_MOST * stride * place_bytes + TILE_BYTES


class Pool:
    """Buffers that nobody reads any more; what surrounds the insides of those for spikes is 0 still."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: defaultdict[Key, list[Buffer]] = defaultdict(list)
        self._kept = 0

    def take(self, shape: tuple[int, ...], halo: Pair, stride: int = 1) -> Buffer:
        """One of (T, rows, columns, channels) for spikes; its inside holds anything."""
        found = self._kept_one((shape, halo, stride))
        if found is not None:
            return found
        masks = aligned((*shape[:3], mask_bytes(shape[3])), np.uint8, slack=slack(mask_bytes(shape[3])))
        return Buffer(aligned(shape, np.uint8, slack=slack(shape[3], stride)), halo, masks, stride)

    def take_sums(self, shape: tuple[int, int, int]) -> Buffer:
        """One of (1, rows, columns, channels) int32 for the readout; holds anything."""
        found = self._kept_one(((0, *shape), (0, 0), 1))  # no spike buffer has this shape
        if found is not None:
            return found
        return Buffer(aligned((1, *shape), np.int32, slack=slack(4 * shape[2])), (0, 0))

    def _kept_one(self, key: Key) -> Buffer | None:
        with self._lock:
            free = self._free[key]
            if not free:
                return None
            found = free.pop()
            self._kept -= found.bytes
            return found

    def give(self, buffer: Buffer) -> None:
        """Hands one back; where that would keep too much memory, everything is let go."""
        with self._lock:
            if self._kept + buffer.bytes > KEPT_BYTES:
                self._free.clear()
                self._kept = 0
            if buffer.bytes <= KEPT_BYTES:
                shape = buffer.array.shape if buffer.masks is not None else (0, *buffer.array.shape[1:])
                self._free[shape, buffer.halo, buffer.stride].append(buffer)
                self._kept += buffer.bytes


POOL = Pool()
"""Of this process."""
