"""The photographs that need no download: those of scikit-image's wheel that its documentation calls free of rights.

==================  =========  ================================================================  =====
picture             size       terms, as scikit-image documents them                             part
==================  =========  ================================================================  =====
camera              512 x 512  CC0, by the photographer (Lav Varshney); gray                     test
chelsea             300 x 451  CC0, by the photographer (Stefan van der Walt)                    test
coffee              400 x 600  CC0, by the photographer (Rachel Michetti)                        test
astronaut           512 x 512  public domain (NASA)                                              train
brick               512 x 512  CC0 (CC0Textures, Bricks25); gray                                 train
grass               512 x 512  CC0 (linolafett); gray                                            train
gravel              512 x 512  CC0 (CC0Textures, Gravel04); gray                                 train
hubble_deep_field   872 x 1000 public domain (NASA, HubbleSite)                                  train
retina              1411 x 1411  CC0 (Mikael Haggstrom)                                          train
rocket              427 x 640  public domain (SpaceX)                                            train
text                172 x 448  public domain (Wikipedia, Corner.png); gray                       train
==================  =========  ================================================================  =====

No picture is in both parts. Left out: what the documentation gives no such terms for (moon, coins, page, the motorcycle
pair, immunohistochemistry), and what is no photograph of a scene. ``hubble_deep_field`` and ``retina`` are JPEG files
much larger than the rest; they are halved by averaging 2 x 2 pixels, which also takes off most of the JPEG's own noise.
Test pictures are cut to their middle 512 x 512 where they are larger. In colour, the gray pictures of the training part
are used with three equal channels; the test part has the two colour photographs alone.

A photograph is checked against its SHA-256, so that a score names the same pixels everywhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from neurodeploy.errors import UserError
from neurodeploy.images.io import read_levels
from neurodeploy.images.pixels import Levels

TEST_SIDE = 512
"""Test pictures are cut to at most this many pixels on a side."""

Part = Literal["train", "test"]


@dataclass(frozen=True)
class Photograph:
    """One picture of the table above."""

    file: str
    part: Part
    sha256: str
    gray: bool = False
    halved: bool = False

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return Path(self.file).stem


PHOTOGRAPHS: tuple[Photograph, ...] = (
    Photograph("camera.png", "test", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a", gray=True),
    Photograph("chelsea.png", "test", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    Photograph("coffee.png", "test", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    Photograph("astronaut.png", "train", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
    Photograph("brick.png", "train", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf", gray=True),
    Photograph("grass.png", "train", "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89", gray=True),
    Photograph("gravel.png", "train", "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12", gray=True),
    Photograph(
        "hubble_deep_field.jpg",
        "train",
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        halved=True,
    ),
    Photograph("retina.jpg", "train", "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6", halved=True),
    Photograph("rocket.jpg", "train", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
    Photograph("text.png", "train", "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1", gray=True),
)


def photographs(part: Part, channels: Literal[1, 3]) -> tuple[Photograph, ...]:
    """The pictures of a part, in the order of the table.

    Raises:
        UserError: No such part.
    """
    if part not in ("train", "test"):
        raise UserError("the built-in photographs have no such part", node=str(part), limit="train, test")
    return tuple(
        photograph
        for photograph in PHOTOGRAPHS
        if photograph.part == part and not (part == "test" and channels == 3 and photograph.gray)
    )


def load_photograph(photograph: Photograph, channels: Literal[1, 3]) -> Levels:
    """The pixels of a picture, halved or cut as the table's text says.

    Returns:
        (C, H, W) uint8.

    Raises:
        UserError: scikit-image is not installed, has no such picture, or another one under this name.
    """
    path = _folder() / photograph.file
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != photograph.sha256:
        what = "is not the picture that it was" if path.is_file() else "is missing"
        raise UserError(
            f"{what} in the installed scikit-image", node=str(path), instead="install scikit-image >=0.24,<0.27"
        )
    levels = read_levels(path, channels=channels)
    if photograph.halved:
        levels = _halved(levels)
    return _middle(levels, TEST_SIDE) if photograph.part == "test" else levels


def _folder() -> Path:
    # Found without importing the library, which would take longer than reading the pictures.
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the built-in photographs are those of scikit-image, which is not installed",
            node="builtin",
            instead="pip install 'neurodeploy[train]', or give a folder of pictures with --data",
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _halved(levels: Levels) -> Levels:
    """(C, H, W) -> (C, H // 2, W // 2): means of 2 x 2 pixels, rounded; a last odd row or column is left out."""
    channels, height, width = levels.shape
    even = levels[:, : height // 2 * 2, : width // 2 * 2].astype(np.uint32)
    sums = even.reshape(channels, height // 2, 2, width // 2, 2).sum(axis=(2, 4), dtype=np.uint32)
    means: Levels = ((sums + np.uint32(2)) // np.uint32(4)).astype(levels.dtype)
    return means


def _middle(levels: Levels, side: int) -> Levels:
    """The middle of (C, H, W), at most ``side`` high and wide."""
    _, height, width = levels.shape
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    return np.ascontiguousarray(levels[:, top : top + side, left : left + side])
