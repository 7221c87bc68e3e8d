"""What a layer hands on, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.simulate.kernel.library import BLOCK_MOST, TILE_BYTES
from neurodeploy.simulate.kernel.pack import aligned, mask_bytes

Pair = tuple[int, int]


@dataclass(frozen=True)
class Buffer:
    """What a node hands on: (T or 1, rows, columns, channels) with zeros of ``halo`` all round.

    ``masks`` holds binary spikes once more, as bits: (T, rows, columns, bytes). Where they are ``unread`` as bytes,
    nobody writes those: their pages are no memory.
    """

    array: NDArray[Any]
    halo: Pair
    masks: NDArray[np.uint8] | None = None
    unread: bool = False

    @property
    def inside(self) -> NDArray[Any]:
        """The array without the halo."""
        rows, columns = (self.array.shape[1 + axis] - 2 * self.halo[axis] for axis in range(2))
        return self.array[:, self.halo[0] : self.halo[0] + rows, self.halo[1] : self.halo[1] + columns]

    def address(self, row: int, column: int) -> int:
        """Address of a place in the first step, counted from the first place of the halo."""
        return _address(self.array, row, column)

    def mask_address(self, row: int, column: int) -> int | None:
        """As :meth:`address`, of the bits."""
        return None if self.masks is None else _address(self.masks, row, column)

    @property
    def bytes(self) -> int:
        """Of memory."""
        return (0 if self.unread else self.array.nbytes) + (0 if self.masks is None else self.masks.nbytes)


def _address(array: NDArray[Any], row: int, column: int) -> int:
    return int(array.ctypes.data) + row * array.strides[1] + column * array.strides[2]


def buffer(
    steps: int,
    extent: Pair,
    channels: int,
    kind: Any,
    *,
    halo: Pair = (0, 0),
    stride: int = 1,
    masks: bool = False,
    unread: bool = False,
) -> Buffer:
    """One of zeros.

    Args:
        steps: T, or 1.
        extent: Rows and columns without the halo.
        channels: As they are held.
        kind: Data type.
        halo: Rows and columns round it.
        stride: The largest with which columns are read.
        masks: Whether it holds spikes as bits too.
        unread: Whether it holds them as bits alone.
    """
    shape = (steps, extent[0] + 2 * halo[0], extent[1] + 2 * halo[1])
    size, bits = channels * np.dtype(kind).itemsize, mask_bytes(channels)
    held = aligned((*shape, bits), np.uint8, slack=_slack(bits)) if masks else None
    return Buffer(aligned((*shape, channels), kind, slack=_slack(size, stride)), halo, held, unread)


def _slack(place_bytes: int, stride: int = 1) -> int:
    """Bytes behind a buffer: the kernel computes whole blocks of places, and throws away what lies beyond a row."""
    return BLOCK_MOST * stride * place_bytes + TILE_BYTES
