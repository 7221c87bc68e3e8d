"""Padding an image to a multiple of a network's stride."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional


def pad_to_multiple(x: Tensor, multiple: int, mode: Literal["constant", "reflect", "replicate"]) -> Tensor:
    """Pads rows below and columns at the right until both sizes are multiples of ``multiple``.

    Args:
        x: Images (B, C, H, W).
        multiple: What the sizes must be multiples of.
        mode: What is padded with: zeros, the mirror image, or the last row and column. An image too small to be
            mirrored is replicated.

    Returns:
        Images (B, C, H', W'), the same tensor where nothing is missing.
    """
    below = -x.shape[-2] % multiple
    right = -x.shape[-1] % multiple
    if below == 0 and right == 0:
        return x
    if mode == "reflect" and (below >= x.shape[-2] or right >= x.shape[-1]):
        mode = "replicate"
    return functional.pad(x, (0, right, 0, below), mode=mode)
