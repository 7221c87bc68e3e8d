"""Pictures for the pages: 8-bit PNGs as data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from neurodeploy.errors import InternalError


def png_uri(image: NDArray[np.floating[Any]]) -> str:
    """An image as a data URI.

    Args:
        image: (C, H, W), C = 1 or 3, values in [0, 1]; what lies outside is clipped.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise InternalError(f"an image for a page has the shape {image.shape}")
    pixels = np.rint(255.0 * np.clip(image.astype(np.float64), 0.0, 1.0)).astype(np.uint8)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def difference_uri(image: NDArray[np.floating[Any]], clean: NDArray[np.floating[Any]], gain: float = 4.0) -> str:
    """How far two images differ, as a data URI: ``gain * mean over channels of |image - clean|``, black = equal.

    Args:
        image: (C, H, W) in [0, 1].
        clean: The same shape.
        gain: What the difference is multiplied by, so that it can be seen.
    """
    if image.shape != clean.shape:
        raise InternalError(f"images of the shapes {image.shape} and {clean.shape} have no difference")
    apart = np.abs(np.clip(image, 0.0, 1.0).astype(np.float64) - np.clip(clean, 0.0, 1.0))
    return png_uri(gain * apart.mean(axis=0, keepdims=True))
