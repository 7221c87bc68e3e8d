"""What is to be restored, as single pictures: files, folders, and files of several pages (TIFF, GIF, animations)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from neurodeploy.errors import UserError
from neurodeploy.images import io, pixels


class _Pages:
    """A file of several pages, kept open while one page after another is read."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count
        self._image: ImageFile.ImageFile | None = None
        self._lock = threading.Lock()

    def levels(self, page: int) -> pixels.Levels:
        """The levels of a page; the last one closes the file."""
        with self._lock, io.decoding(self.path, io.MAX_PIXELS):
            if self._image is None:
                self._image = _open(self.path)
            self._image.seek(page)
            _check(self.path, self._image)
            levels = pixels.page_levels(self._image)
            if page + 1 == self.count:
                self._image.close()
                self._image = None
            return levels


@dataclass(frozen=True)
class Picture:
    """One picture of a file.

    Attributes:
        path: The file.
        size: (H, W), from its header.
        page: Which page of a file of several, from 0; None for a file of one.
    """

    path: Path
    size: tuple[int, int]
    page: int | None = None
    pages: _Pages | None = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """How it is called in answers: the path, with the page (from 1) behind it where there are several."""
        return str(self.path) if self.page is None else f"{self.path}[{self.page + 1}]"

    @property
    def stem(self) -> str:
        """The name of what is made of it, without a suffix."""
        return self.path.stem if self.page is None else f"{self.path.stem}-{self.page + 1:05d}"

    def read(self, channels: Literal[1, 3] | None = None) -> NDArray[np.float32]:
        """(C, H, W) in [0, 1]; see :func:`neurodeploy.images.io.read_image`.

        Raises:
            UserError: It cannot be decoded.
        """
        if self.pages is None or self.page is None:
            return io.read_image(self.path, channels=channels)
        return io.to_unit(pixels.with_channels(self.pages.levels(self.page), channels))


def find_pictures(paths: Sequence[str | Path]) -> list[Picture]:
    """Every picture of these files and folders, from their headers alone.

    A folder stands for the pictures in it, by name; a file of several pages for its pages.

    Raises:
        UserError: A file is missing, is no picture or is too large; a folder holds none.
    """
    return [picture for path in paths for file in _files(Path(path)) for picture in _pictures(file)]


def _files(path: Path) -> list[Path]:
    return io.list_images(path) if path.is_dir() else [path]


def _pictures(path: Path) -> Iterator[Picture]:
    path = io.regular_file(path)
    with io.decoding(path, io.MAX_PIXELS), _open(path) as image:
        _check(path, image)
        count = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
        size = pixels.upright_size(image)
        gif = image.format == "GIF"
    if count == 1 and not gif:
        yield Picture(path, size)
        return
    pages = _Pages(path, count)
    for page in range(count):
        yield Picture(path, size, page, pages)


def _open(path: Path) -> ImageFile.ImageFile:
    return Image.open(path, formats=pixels.SEQUENCE_FORMATS)


def _check(path: Path, image: ImageFile.ImageFile) -> None:
    width, height = image.size
    if width * height > io.MAX_PIXELS:
        have, limit = f"{height} x {width} pixels", f"{io.MAX_PIXELS} pixels"
        raise UserError("is too large", node=str(path), have=have, limit=limit, instead="cut it into smaller pictures")
    pixels.check_kind(path, image, pages=True)
