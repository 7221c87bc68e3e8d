"""From what Pillow decodes to plain integer levels: modes, palettes, transparency, 16 bits, orientation.

Pillow has no mode for more than 8 bits in more than one channel: it opens such PNG and TIFF files and drops the low
bytes. But its unpackers exist for both byte orders, and the one for the other order keeps exactly the bytes that the
right one drops. So a wide file is decoded twice, once for the high and once for the low bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from neurodeploy.errors import UserError

Levels: TypeAlias = NDArray[np.unsignedinteger[Any]]
"""Integer levels as a file holds them: uint8 or uint16."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
SEQUENCE_FORMATS = (*FORMATS, "GIF")
"""What may hold several pictures is read with GIF beside: its palettes lose nothing that matters to a video."""

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PLANAR = 258, 284

_REFUSED_MODES = {
    "CMYK": "a CMYK picture",
    "LAB": "a Lab picture",
    "HSV": "an HSV picture",
    "F": "a picture of floating-point values",
    "I": "a picture of 32-bit integers",
}
_LUMA = (19595, 38470, 7471)
"""BT.601 weights 0.299, 0.587, 0.114 times 2**16; they sum to 2**16."""


def opened(path: Path) -> ImageFile.ImageFile:
    """The file, opened by one of the decoders that are allowed; nothing is decoded yet."""
    return Image.open(path, formats=FORMATS)


def check_kind(path: Path, image: ImageFile.ImageFile | Image.Image, *, pages: bool = False) -> None:
    """Refuses by name what cannot be one gray or RGB picture; with ``pages`` the file may hold several.

    Raises:
        UserError: An animation, several pages, CMYK, Lab, floating-point, 32-bit or planar 16-bit values, no pixels, or
            parts that do not cover the picture.
    """
    if 0 in image.size:
        raise UserError("has no pixels", node=str(path), have=f"{image.size[1]} x {image.size[0]}")
    # Pillow leaves black what no part of a file stands for; of a turned TIFF it says the upright size
    parts = [part[1] or (0, 0, *image.size) for part in getattr(image, "tile", ())]
    covered = sorted(max(part[axis] for part in parts) for axis in (2, 3)) if parts else sorted(image.size)
    if any(have < side for have, side in zip(covered, sorted(image.size), strict=True)):
        raise UserError(
            "is damaged or cut short and cannot be decoded: its parts do not cover it",
            node=str(path),
            have=f"{covered[0]} x {covered[1]}",
            limit=f"{min(image.size)} x {max(image.size)} pixels",
        )
    # A JPEG of a phone may carry a second picture (depth, gain map): the first one is the photograph.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO" and not pages:
        kind = "has several pages" if image.format == "TIFF" else "is an animation"
        raise UserError(
            kind, node=str(path), have=f"{frames} frames", limit="1", instead="save the frames as PNG files"
        )
    if image.mode in _REFUSED_MODES:
        raise UserError(
            f"is {_REFUSED_MODES[image.mode]}", node=str(path), limit="gray or RGB", instead="convert it to RGB"
        )
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        if max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8 and tags.get(_PLANAR, 1) != 1:
            raise UserError(
                "is a TIFF with 16-bit channels in separate planes", node=str(path), instead="save it as interleaved"
            )


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width after the rotation that EXIF asks for."""
    width, height = image.size
    return (width, height) if _orientation(image) >= 5 else (height, width)


def decode(path: Path, check: Callable[[Image.Image], None]) -> Levels:
    """Decodes a file; ``check`` sees the opened image first and may refuse it.

    Returns:
        (H, W) or (H, W, 3), uint8 or uint16, upright, without transparency.
    """
    with opened(path) as image:
        check(image)
        orientation = _orientation(image)
        raw = _raw_mode(image)
        levels = _decode_wide(path, image, raw) if _is_wide(raw) else _decode_plain(image)
        if levels.dtype == np.uint16 and "transparency" in image.info:
            levels = _without_key(levels, image.info["transparency"])
    return np.ascontiguousarray(_turn(levels, orientation))


def page_levels(image: ImageFile.ImageFile) -> Levels:
    """The page that an opened file of several stands at: (H, W) or (H, W, 3), 8 bits, or 16 bits gray.

    Raises:
        UserError: It has 16 bits in more than one channel.
    """
    if _is_wide(_raw_mode(image)):
        raise UserError("has pages of 16 bits in several channels", instead="save the pages as PNG files")
    return np.ascontiguousarray(_decode_plain(image))


def with_channels(levels: Levels, channels: int | None) -> Levels:
    """(H, W) or (H, W, 3) -> (C, H, W) with the wanted number of channels (None: as it is), C-contiguous."""
    if levels.ndim == 2:
        return np.ascontiguousarray(np.broadcast_to(levels, (channels or 1, *levels.shape)))
    if channels == 1:
        return luma(levels)[None]
    return np.ascontiguousarray(levels.transpose(2, 0, 1))


def luma(levels: Levels) -> Levels:
    """BT.601 luma of (H, W, 3) integer levels, rounded to the same depth: (H, W)."""
    wide = levels.astype(np.uint32)
    weighted: Levels = wide @ np.array(_LUMA, np.uint32)
    return ((weighted + np.uint32(2**15)) >> np.uint32(16)).astype(levels.dtype)


def _orientation(image: Image.Image) -> int:
    # Pillow turns TIFF files itself. The method of the base class reads what stands in the header; that of the PNG
    # reader would decode the whole file to look for EXIF behind the pixels.
    value = 1 if image.format == "TIFF" else Image.Image.getexif(image).get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


# What undoes each EXIF orientation: whether to flip the rows, whether to flip the columns, whether to transpose then.
_UPRIGHT = {
    1: (False, False, False),
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (True, False, True),
    7: (True, True, True),
    8: (False, True, True),
}


def _turn(levels: Levels, orientation: int) -> Levels:
    rows, columns, transpose = _UPRIGHT[orientation]
    turned = levels[:: -1 if rows else 1, :: -1 if columns else 1]
    return turned.swapaxes(0, 1) if transpose else turned


def _raw_mode(image: ImageFile.ImageFile) -> str:
    if not image.tile:
        return image.mode
    arguments = image.tile[0][3]
    raw = arguments[0] if isinstance(arguments, tuple) else arguments
    return raw if isinstance(raw, str) else image.mode


def _is_wide(raw: str) -> bool:
    return ";16" in raw and not raw.startswith(("I", "BGR"))


def _decode_plain(image: Image.Image) -> Levels:
    """Modes that Pillow holds without loss."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    gray = image.mode in ("1", "L", "LA")
    transparent = image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info
    mode = ("L" if gray else "RGB") + ("A" if transparent else "")
    levels = np.asarray(image if image.mode == mode else image.convert(mode))
    if transparent:
        levels = _on_black(levels[..., :-1], levels[..., -1:])
    return levels[..., 0] if gray and transparent else levels


ROWS = 256
"""Rows that are composited at once: 64 bits a value for whole pictures would be eight times what they take."""


def _on_black(colour: Levels, alpha: Levels) -> Levels:
    """Composites on black: ``round(colour * alpha / top)`` with top = 255 or 65535."""
    top = np.uint64(np.iinfo(colour.dtype).max)
    out = np.empty_like(colour)
    for start in range(0, len(colour), ROWS):
        rows = slice(start, start + ROWS)
        product = colour[rows].astype(np.uint64) * alpha[rows].astype(np.uint64)
        out[rows] = (product + top // np.uint64(2)) // top
    return out


def _without_key(levels: Levels, key: object) -> Levels:
    """The one colour that a 16-bit PNG calls transparent, on black."""
    hit = levels == np.asarray(key)
    return np.where(hit if levels.ndim == 2 else hit.all(axis=-1, keepdims=True), 0, levels).astype(levels.dtype)


def _decode_wide(path: Path, image: ImageFile.ImageFile, raw: str) -> Levels:
    """16-bit channels of PNG and TIFF: (H, W) or (H, W, 3)."""
    if raw.startswith("LA;16"):
        # Four bytes a pixel: gray high, gray low, alpha high, alpha low. Read as if they were RGBA.
        quads = _with_raw_mode(image, "RGBA", "RGBA")
        pairs = _join(quads[..., 0::2], quads[..., 1::2])
        return _on_black(pairs[..., :1], pairs[..., 1:])[..., 0]
    base, order = raw.rsplit(";16", 1)
    other = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}[order]
    premultiplied = base == "RGBa"
    base = "RGBA" if premultiplied else base
    mode = "RGBA" if base == "RGBA" else "RGB"
    high = _with_raw_mode(image, mode, f"{base};16{order}")
    with opened(path) as again:
        low = _with_raw_mode(again, mode, f"{base};16{other}")
    levels = _join(high, low)
    if mode == "RGB":
        return levels
    # Colours with associated alpha are composited on black already.
    return levels[..., :3] if premultiplied else _on_black(levels[..., :3], levels[..., 3:])


def _join(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return (high.astype(np.uint16) << np.uint16(8)) | low


def _with_raw_mode(image: ImageFile.ImageFile, mode: str, raw: str) -> NDArray[np.uint8]:
    image._mode = mode
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
    ]
    return np.asarray(image)
