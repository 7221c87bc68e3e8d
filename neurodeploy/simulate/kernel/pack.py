"""Weights in the layouts that the kernel reads, see kernel.h."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.quantize.network import IntegerConv, IntegerDense
from neurodeploy.simulate.kernel.library import FAMILIES, GROUPS, LANES, TILE_BYTES

IntArray = NDArray[np.int64]

NARROW_MAX = (1 << 15) - 1
"""Largest magnitude of a sum that is held in 16 bits."""

EVENTS_BYTES, SETS_BYTES = 1 << 22, 1 << 24
"""Largest table of events, and of sets, which is read in parts: beyond it the rows come from memory."""

THIN_MAX = 4
"""Outputs up to which the dense form of AVX2 has inputs side by side in its vectors, of ``VECTOR`` bytes."""

VECTOR = 32

WORD = 64
"""Channels whose spikes are found together, where they are not listed; a row of zeros follows theirs."""

CHUNK = 32
"""Channels of the rows of a table of sets (ND_CHUNK)."""

SETS = (6, 5, 5)
"""Inputs of which such a table has all sets, of sixteen; behind their rows there is room for one more."""

ENTRY_MAX = (1 << 16) - 1
"""Largest entry of a list of spikes, in 16 lanes of a row of weights."""


@dataclass(frozen=True)
class EventTable:
    """Weights of the event form.

    Attributes:
        rows: (columns, rows * inputs + 1, padded outputs) int16; the last row of every column is 0. With words
            (columns, words, 65, padded outputs); the last row of every word is 0.
        joined: Rows of the source that share a word; 0 where there are none.
        sets: (chunks, rows * inputs / 16, 131, columns, 32) int16, the sums of the rows of every set of six, five
            and five inputs; or None.
        inputs: Channels of the source, rounded up.
        narrow: 16 bits hold every sum.
        shift: Of the sum, to the left.
    """

    rows: NDArray[np.int16]
    joined: int
    sets: NDArray[np.int16] | None
    inputs: int
    narrow: bool
    shift: int


def rounded(channels: int) -> int:
    """Channels rounded up to what the kernel computes together."""
    return -(-channels // LANES) * LANES


def mask_bytes(channels: int) -> int:
    """Bytes of the spikes of one place as bits: whole words of 64 (ND_MASK_BYTES)."""
    return 8 * -(-channels // 64)


def pack(weight: IntArray, graded: bool, path: str) -> tuple[NDArray[Any], int]:
    """The table of the dense form, and the groups (or inputs) a tap.

    Args:
        weight: (outputs, inputs, rows, columns).
        graded: The source holds codes of 16 bits.
        path: Instruction path.
    """
    outputs, inputs, rows, columns = weight.shape
    padded = rounded(outputs)
    wide = graded or path == "plain"
    size = (1 if path in FAMILIES[1] else 2) if wide else GROUPS.get(path, 4)
    kind: type[np.int8 | np.int16] = np.int16 if wide else np.int8
    groups = -(-inputs // size)
    table = np.zeros((rows, columns, groups * size, padded), np.int64)
    table[:, :, :inputs, :outputs] = weight.transpose(2, 3, 1, 0)
    grouped = table.reshape(rows, columns, groups, size, padded).swapaxes(3, 4)
    packed = aligned(grouped.shape, kind)
    packed[...] = grouped
    return packed, groups


def pack_tiles(weight: IntArray, *, dilated: bool) -> tuple[NDArray[np.int8], int, int]:
    """The table of the dense form on the AMX path for a source of counts, the parts of a row, and the chunks of a part.

    Args:
        weight: (outputs, inputs, rows, columns), of 8 bits.
        dilated: Columns of the kernel read places that are not neighbours.
    """
    outputs, inputs, rows, columns = weight.shape
    padded, held = rounded(outputs), rounded(inputs)
    parts = columns if dilated else 1
    size = columns // parts * held
    chunks = -(-size // TILE_BYTES)
    table = np.zeros((rows, columns, held, padded), np.int8)
    table[:, :, :inputs, :outputs] = weight.transpose(2, 3, 1, 0)
    filled = np.zeros((rows, parts, chunks * TILE_BYTES, padded), np.int8)
    filled[:, :, :size] = table.reshape(rows, parts, size, padded)
    packed = aligned((rows, parts, chunks, TILE_BYTES // 4, padded, 4), np.int8)
    packed[...] = filled.reshape(rows, parts, chunks, TILE_BYTES // 4, 4, padded).swapaxes(4, 5)
    return packed, parts, chunks


def pack_thin(weight: IntArray) -> NDArray[np.int8]:
    """The table of the dense form for few outputs on the AVX2 path, of a kernel without dilated columns.

    Args:
        weight: (outputs, inputs, rows, columns), of 8 bits; at most ``THIN_MAX`` outputs.
    """
    outputs, inputs, rows, columns = weight.shape
    held = rounded(inputs)
    vectors = -(-columns * held // VECTOR)
    table = np.zeros((outputs, rows, columns, held), np.int8)
    table[..., :inputs] = weight.transpose(0, 2, 3, 1)
    filled = np.zeros((outputs, rows, vectors * VECTOR), np.int8)
    filled[..., : columns * held] = table.reshape(outputs, rows, columns * held)
    packed = aligned((rows, vectors, outputs, VECTOR), np.int8)
    packed[...] = filled.reshape(outputs, rows, vectors, VECTOR).transpose(1, 2, 0, 3)
    return packed


def pack_events(weight: IntArray, shift: int, *, scanned: bool) -> EventTable | None:
    """The table of the event form, or None where it would be out of proportion.

    Sums are held in 16 bits where no output's positive weights, and no output's negative ones, add up to more: then no
    sum over a part of the inputs leaves them either.

    Args:
        weight: (outputs, inputs, rows, columns), of at most 9 bits.
        shift: Bits that all weights can lose: 1 where all are even.
        scanned: The path finds spikes in words, under a kernel of three columns that are neighbours, see scan.h.
    """
    outputs, inputs, rows, columns = weight.shape
    padded, listed = rounded(outputs), rounded(inputs)
    if columns * (rows * listed + 1) * padded * 2 > EVENTS_BYTES or rows * listed * (padded // LANES) > ENTRY_MAX:
        return None
    halved = weight >> shift
    positive, negative = (np.maximum(part, 0).sum(axis=(1, 2, 3)).max(initial=0) for part in (halved, -halved))
    narrow = max(int(positive), int(negative)) <= NARROW_MAX
    by_input = np.zeros((columns, rows, listed, padded), np.int16)
    by_input[:, :, :inputs, :outputs] = (halved if narrow else weight).transpose(3, 2, 1, 0)
    shift = shift if narrow else 0
    if scanned and narrow:
        words, joined = _in_words(by_input)
        return EventTable(words, joined, _sets(by_input), listed, narrow, shift)
    table = aligned((columns, rows * listed + 1, padded), np.int16)
    table[:, :-1] = by_input.reshape(columns, rows * listed, padded)
    return EventTable(table, 0, None, listed, narrow, shift)


def _in_words(by_input: NDArray[np.int16]) -> tuple[NDArray[np.int16], int]:
    """The rows (columns, rows, inputs, outputs) by words, and the rows of the source that share one."""
    columns, rows, inputs, outputs = by_input.shape
    joined = 4 if inputs <= 16 else 2 if inputs <= 32 else 1
    size = WORD // joined if joined > 1 else -(-inputs // WORD) * WORD  # of a row
    held = np.zeros((columns, -(-rows // joined) * joined, size, outputs), np.int16)
    held[:, :rows, :inputs] = by_input
    words = held.shape[1] * size // WORD
    table = aligned((columns, words, WORD + 1, outputs), np.int16)
    table[:, :, :WORD] = held.reshape(columns, words, WORD, outputs)
    return table, joined


def _sets(by_input: NDArray[np.int16]) -> NDArray[np.int16] | None:
    """The table of sets of rows (columns, rows, inputs, outputs), or None where it would be too large."""
    columns, rows, inputs, outputs = by_input.shape
    parts, chunks = rows * inputs // LANES, -(-outputs // CHUNK)
    held = sum((1 << size) + 1 for size in SETS)
    if chunks * parts * held * columns * CHUNK * 2 > SETS_BYTES:
        return None
    padded = np.zeros((columns, parts, LANES, chunks * CHUNK), np.int16)
    padded[..., :outputs] = by_input.reshape(columns, parts, LANES, outputs)
    weights = padded.reshape(columns, parts, LANES, chunks, CHUNK).transpose(3, 1, 2, 0, 4)
    table = aligned((chunks, parts, held, columns, CHUNK), np.int16)
    row = first = 0
    for size in SETS:
        for one in range(size):  # the sets with this input and no later one
            at = row + (1 << one)
            table[:, :, at : at + (1 << one)] = table[:, :, row:at] + weights[:, :, first + one, None]
        row, first = row + (1 << size) + 1, first + size
    return table


def pack_alone(node: IntegerConv | IntegerDense, padded: int) -> NDArray[np.int32] | None:
    """Weights of a convolution that leads every channel to itself, place by place; None for any other node."""
    if not isinstance(node, IntegerConv) or node.groups != len(node.weight) or node.weight.shape[1:] != (1, 1, 1):
        return None
    if (node.stride, node.padding) != ((1, 1), (0, 0)):
        return None
    weights = np.zeros(padded, np.int32)
    weights[: node.groups] = node.weight[:, 0, 0, 0]
    return weights


def aligned(shape: tuple[int, ...], dtype: Any, slack: int = 0) -> NDArray[Any]:
    """Zeros whose first byte lies at a multiple of 64, with ``slack`` bytes of zeros behind them."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + slack + 64, np.uint8)
    start = -raw.ctypes.data % 64
    zeros: NDArray[Any] = raw[start : start + size].view(dtype).reshape(shape)
    return zeros
