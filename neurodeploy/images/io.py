"""Reading and writing pictures: PNG, JPEG, TIFF, BMP and WebP, gray or RGB, 8 or 16 bits a channel.

What is read is defined to the last bit, because every PSNR starts here:

- 8-bit values are divided by 255, 16-bit values by 65535.
- RGB -> gray is the luma of BT.601 on the integers of the file, rounded to the file's own depth (so that an 8-bit
  picture stays one): ``(19595 R + 38470 G + 7471 B + 2**15) >> 16``. Gray -> RGB repeats the channel.
- The rotation that a camera notes in EXIF is applied. Palettes and 1-bit pictures are expanded.
- Transparency that is not fully opaque is composited on black, ``value * alpha``.
- CMYK, Lab, floating-point and 32-bit pictures, animations and files of several pages are refused by name.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from neurodeploy.errors import UserError
from neurodeploy.files import writing_file
from neurodeploy.images import pixels, wide
from neurodeploy.images.pixels import Levels

MAX_PIXELS = 2**27
"""Pictures with more pixels than this are refused from their header, before anything is decoded."""

MAX_FILE_BYTES = 2**30
"""Files larger than this are refused before they are opened: 2**27 pixels of 16-bit RGB take three quarters of it."""

SUFFIXES: dict[str, str] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".webp": "WEBP",
}
"""File suffix (lower case) -> format, for writing and for listing a folder. Reading goes by content."""

_WIDE_FORMATS = ("PNG", "TIFF")
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "BMP": 2**31 - 1, "PNG": 2**31 - 1, "TIFF": 2**31 - 1}

_OWN_KINDS: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG", "PNG"),
    (rb"\xff\xd8", "JPEG"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"BM.{12}", "BMP"),
)
# The first bytes of what people hand to an image reader by mistake.
_OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (rb"GIF8[79]a", "a GIF"),
    (rb"%PDF", "a PDF"),
    (rb"....ftyp(heic|heix|mif1|msf1)", "a HEIC picture"),
    (rb"....ftypavi[fs]", "an AVIF picture"),
    (rb"....ftyp", "a video"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"P[1-7]\s", "a PNM picture"),
    (rb"8BPS", "a Photoshop file"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"PK\x03\x04", "a zip archive"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"\s*(<\?xml|<svg|<!DOCTYPE|<html)", "a text page or drawing"),
)

# What Pillow's decoders raise on damaged files, besides their own errors.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


def read_image(
    path: str | Path, *, channels: Literal[1, 3] | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[np.float32]:
    """The picture in a file, as values in [0, 1].

    Args:
        path: A PNG, JPEG, TIFF, BMP or WebP file; its content decides, not its suffix.
        channels: 1 for gray, 3 for RGB, None for what the file holds.
        max_pixels: The largest height times width that is decoded.

    Returns:
        (C, H, W) float32, C-contiguous: levels / 255 or levels / 65535.

    Raises:
        UserError: The file is missing, a folder, unreadable, empty, not a picture, damaged, too large, or of a kind
            that is not supported.
    """
    levels = read_levels(path, channels=channels, max_pixels=max_pixels)
    return to_unit(levels)


def to_unit(levels: Levels) -> NDArray[np.float32]:
    """Integer levels (uint8 or uint16, any shape) as float32 values in [0, 1]: divided by 255 or 65535."""
    return levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)


def read_levels(path: str | Path, *, channels: Literal[1, 3] | None = None, max_pixels: int = MAX_PIXELS) -> Levels:
    """The picture in a file, as the integers that the file holds.

    Args:
        path: As for :func:`read_image`.
        channels: As for :func:`read_image`.
        max_pixels: As for :func:`read_image`.

    Returns:
        (C, H, W) uint8 or uint16, C-contiguous.

    Raises:
        UserError: As for :func:`read_image`.
    """
    if channels not in (None, 1, 3):
        raise UserError("a picture has 1 channel (gray) or 3 (RGB)", node="channels", have=str(channels))
    path = regular_file(path)
    with decoding(path, max_pixels):
        levels = pixels.decode(path, lambda image: _check_header(path, image, max_pixels))
    return pixels.with_channels(levels, channels)


def read_size(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width of the picture in a file, upright, from its header alone.

    Args:
        path: As for :func:`read_image`.
        max_pixels: As for :func:`read_image`.

    Raises:
        UserError: The header says that :func:`read_image` would refuse the file.
    """
    path = regular_file(path)
    with decoding(path, max_pixels), pixels.opened(path) as image:
        _check_header(path, image, max_pixels)
        return pixels.upright_size(image)


def write_image(
    path: str | Path, image: NDArray[np.floating], *, bits: Literal[8, 16] = 8, force: bool = False
) -> None:
    """Writes a picture; the suffix of the file says in which format.

    Values are clipped to [0, 1] and rounded to the nearest level, ``rint(value * (2**bits - 1))``. PNG, TIFF and BMP
    are exact, WebP is written without loss (it has no gray: three equal channels are stored), JPEG is lossy and is
    written at quality 95 without chroma subsampling. The file is written beside its place and renamed when whole.

    Args:
        path: Where to write: .png, .jpg, .jpeg, .tif, .tiff, .bmp or .webp.
        image: (1, H, W) or (3, H, W), floating point, values in [0, 1].
        bits: 8, or 16 for PNG and TIFF.
        force: Replace an existing file.

    Raises:
        UserError: An unknown suffix, a format that cannot hold the picture, an array that is no picture (shape, NaN,
            infinity), an existing file without ``force``, or a file system that refuses.
    """
    path = Path(path)
    form = _format_for(path, bits)
    levels = to_levels(image, bits=bits, node=str(path))
    longest = max(levels.shape[1:])
    if longest > _LONGEST_SIDE[form]:
        raise UserError(
            f"{form} cannot hold so long a side",
            node=str(path),
            have=f"{longest} pixels",
            limit=f"{_LONGEST_SIDE[form]} pixels",
            instead="give a .png name",
        )
    with writing_file(path, force=force) as temporary:
        if bits == 16 and levels.shape[0] == 3:
            encode = wide.png_bytes if form == "PNG" else wide.tiff_bytes
            temporary.write_bytes(encode(levels.transpose(1, 2, 0)))
            return
        flat = levels[0] if levels.shape[0] == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0))
        options: dict[str, object] = {}
        if form == "JPEG":
            options = {"quality": 95, "subsampling": 0}
        elif form == "WEBP":
            options = {"lossless": True}
        Image.fromarray(flat).save(temporary, form, **options)


def to_levels(image: NDArray[np.floating], *, bits: Literal[8, 16] = 8, node: str = "image") -> Levels:
    """Values in [0, 1] as integer levels: clipped, times 2**bits - 1, rounded half to even.

    Args:
        image: (1, H, W) or (3, H, W), floating point.
        bits: 8 or 16.
        node: What to call the image in an error.

    Returns:
        The same shape, uint8 or uint16.

    Raises:
        UserError: Another shape or dtype, no pixels, or values that are not finite.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise UserError(
            "is not a picture of shape (channels, height, width)",
            node=node,
            have=str(image.shape),
            limit="1 or 3 channels",
        )
    if not np.issubdtype(image.dtype, np.floating):
        raise UserError(
            "has no floating-point values", node=node, have=str(image.dtype), instead="divide integer levels by 255"
        )
    if not np.isfinite(image).all():
        raise UserError("holds values that are not finite (NaN or infinity)", node=node)
    top = 2**bits - 1
    values = np.rint(np.clip(image.astype(np.float64), 0.0, 1.0) * top)
    levels: Levels = values.astype(np.uint8 if bits == 8 else np.uint16)
    return levels


def list_images(folder: str | Path) -> list[Path]:
    """The picture files of a folder (by suffix, hidden ones and sub-folders left out), sorted by name.

    Raises:
        UserError: The folder is missing, is a file, cannot be listed, or holds no picture.
    """
    folder = Path(folder)
    if folder.is_file():
        raise UserError("is a file, not a folder of pictures", node=str(folder), instead=f"give {folder.parent}")
    if not folder.is_dir():
        raise UserError("no such folder", node=str(folder))
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot be listed: {error.strerror or error}", node=str(folder)) from error
    images = [
        entry
        for entry in entries
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    ]
    if not images:
        raise UserError(
            "holds no pictures",
            node=str(folder),
            have=f"{len(entries)} other entries" if entries else "an empty folder",
            limit=" ".join(SUFFIXES),
        )
    return images


def _format_for(path: Path, bits: int) -> str:
    form = SUFFIXES.get(path.suffix.lower())
    if form is None:
        raise UserError(
            f"the suffix {path.suffix!r} names no picture format" if path.suffix else "has no suffix, so no format",
            node=str(path),
            limit=" ".join(SUFFIXES),
            instead="give a .png name",
        )
    if bits not in (8, 16):
        raise UserError("pictures are written with 8 or 16 bits", node=str(path), have=f"{bits} bits")
    if bits == 16 and form not in _WIDE_FORMATS:
        raise UserError(
            f"{form} holds 8 bits a channel",
            node=str(path),
            have="16 bits",
            limit="8 bits",
            instead="give a .png or .tiff name",
        )
    return form


def regular_file(path: str | Path) -> Path:
    """The path of a file that is there, not empty and not too large; raises a UserError otherwise."""
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError("is a folder, not a picture", node=str(path), instead="give a file in it")
        if not path.exists():
            raise UserError("no such file", node=str(path))
        if not path.is_file():
            raise UserError("is not a regular file", node=str(path))
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {getattr(error, 'strerror', None) or error}", node=str(path)) from error
    if size == 0:
        raise UserError("is empty", node=str(path), have="0 bytes")
    if size > MAX_FILE_BYTES:
        raise UserError("is too large", node=str(path), have=f"{size} bytes", limit=f"{MAX_FILE_BYTES} bytes")
    try:
        _check_png_chunks(path, size)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", node=str(path)) from error
    return path


_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_RATIO = 1100
"""Bytes of pixels that one byte of a PNG may stand for; deflate reaches 1032."""


def _check_png_chunks(path: Path, size: int) -> None:
    """Refuses a PNG that claims far more than its file can hold: the decoder would take the memory for it."""
    with path.open("rb") as file:
        head = file.read(len(_PNG) + 16)
        if not head.startswith(_PNG):
            return
        width, height = (int.from_bytes(head[place : place + 4], "big") for place in (16, 20))
        # a bit a pixel at least; what is too large for every reader is refused as that
        least = width * height // 8
        if least > max(1 << 20, _MAX_RATIO * size) and width * height <= MAX_PIXELS:
            raise UserError(
                "is damaged or cut short and cannot be decoded: it has more pixels than its bytes can hold",
                node=str(path),
                have=f"{height} x {width} pixels in {size} bytes",
            )
        file.seek(len(_PNG))
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if length > max(size, 1 << 20):
                raise UserError(
                    "is damaged or cut short and cannot be decoded: a part claims more than the file holds",
                    node=str(path),
                    have=f"{length} bytes",
                    limit=f"{size} bytes",
                )
            file.seek(length + 4, 1)


def _check_header(path: Path, image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many_pixels(path, f"{height} x {width} = {width * height} pixels", max_pixels)
    pixels.check_kind(path, image)


def _too_many_pixels(path: Path, have: str, max_pixels: int) -> UserError:
    return UserError(
        "is too large", node=str(path), have=have, limit=f"{max_pixels} pixels", instead="cut it into smaller pictures"
    )


@contextmanager
def decoding(path: Path, max_pixels: int) -> Iterator[None]:
    """Turns whatever a decoder raises into one line, and keeps its warnings off the terminal."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        ceiling = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise _too_many_pixels(path, f"{found[1]} pixels" if found else "", ceiling) from error
    except UnidentifiedImageError as error:
        raise _not_an_image(path) from error
    except PermissionError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", node=str(path)) from error
    except _DECODER_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"is damaged or cut short and cannot be decoded: {reason}", node=str(path)) from error


def _not_an_image(path: Path) -> UserError:
    with path.open("rb") as file:
        head = file.read(64)
    for pattern, form in _OWN_KINDS:
        if re.match(pattern, head, re.DOTALL):
            return UserError(
                f"is a {form} file whose header is damaged or whose pixel layout is not supported",
                node=str(path),
                limit="gray or RGB, 8 or 16 bits",
            )
    kind = next((name for pattern, name in _OTHER_KINDS if re.match(pattern, head, re.DOTALL)), "not a picture")
    return UserError(
        f"is {kind}: it cannot be read", node=str(path), limit="PNG, JPEG, TIFF, BMP, WebP", instead="convert it to PNG"
    )
