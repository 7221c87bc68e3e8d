"""Writing RGB pictures with 16 bits a channel as PNG and TIFF, which Pillow cannot."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from neurodeploy.images.pixels import Levels

_BYTES_PER_PIXEL = 6


def png_bytes(levels: Levels) -> bytes:
    """A PNG file of colour type 2 with bit depth 16 (ISO/IEC 15948), every row filtered by the Paeth predictor.

    Args:
        levels: (H, W, 3) uint16.
    """
    height, width, _ = levels.shape
    rows = np.ascontiguousarray(levels, dtype=">u2").view(np.uint8).reshape(height, width * _BYTES_PER_PIXEL)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 4
    filtered[:, 1:] = rows - _paeth(rows)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _paeth(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of left, above and upper left, the one nearest to left + above - upper left; ties in that order."""
    padded = np.pad(rows.astype(np.int16), ((1, 0), (_BYTES_PER_PIXEL, 0)))
    left, above = padded[1:, :-_BYTES_PER_PIXEL], padded[:-1, _BYTES_PER_PIXEL:]
    corner = padded[:-1, :-_BYTES_PER_PIXEL]
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    nearest = np.where(to_above <= to_corner, above, corner)
    nearest = np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)
    return nearest.astype(np.uint8)


def tiff_bytes(levels: Levels) -> bytes:
    """A baseline RGB TIFF (TIFF 6.0), little-endian, one uncompressed strip, BitsPerSample 16 16 16.

    Args:
        levels: (H, W, 3) uint16.
    """
    height, width, _ = levels.shape
    data = np.ascontiguousarray(levels, dtype="<u2").tobytes()
    short, long, rational = 3, 4, 5
    count = 13
    extra = 8 + 2 + 12 * count + 4  # the values that do not fit into an entry lie behind the directory
    resolution, strip = extra + 6, extra + 6 + 8
    entries = [
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, 3, extra),
        (259, short, 1, 1),  # no compression
        (262, short, 1, 2),  # RGB
        (273, long, 1, strip),
        (277, short, 1, 3),
        (278, long, 1, height),
        (279, long, 1, len(data)),
        (282, rational, 1, resolution),
        (283, rational, 1, resolution),
        (284, short, 1, 1),  # interleaved
        (296, short, 1, 1),  # no unit of resolution
    ]
    directory = struct.pack("<H", count) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    values = struct.pack("<3H", 16, 16, 16) + struct.pack("<2I", 1, 1)
    return struct.pack("<2sHI", b"II", 42, 8) + directory + struct.pack("<I", 0) + values + data
