"""Small random pictures for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neurodeploy.images.io import write_image


def save(path: Path, height: int = 24, width: int = 30, seed: int = 0, channels: int = 3, bits: int = 8) -> Path:
    image = np.random.RandomState(seed).rand(channels, height, width)
    write_image(path, image.astype(np.float32), bits=bits)
    return path


def save_three(folder: Path) -> Path:
    """A folder of three pictures of two formats, not in the order of their names."""
    for index, name in enumerate(["c.png", "a.png", "b.bmp"]):
        save(folder / name, seed=index)
    return folder
