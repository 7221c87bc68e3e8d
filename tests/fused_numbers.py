"""What the compiled activations of training give for fixed numbers: ``python tests/fused_numbers.py LIBRARY FILE.npz``.

Needs numpy only, so that it runs where there is no torch.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np

STEPS, SIZE = 3, 5000
"""Two blocks and a part of one."""


def numbers(library: Path) -> dict[str, np.ndarray]:
    """All functions, in both formats, with all surrogates."""
    handle = ctypes.CDLL(str(library))
    address, count, real, small = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
    handle.nd_lif_forward.argtypes = (address, count, *3 * (address,), count, small, real, real, small, small)
    handle.nd_lif_backward.argtypes = (
        *(address, count, address, address, count, address, count, small),
        *(real, real, real, small, small, small),
    )
    handle.nd_levels_forward.argtypes = (*3 * (address,), count, *4 * (real,), small, small)
    handle.nd_levels_backward.argtypes = (*4 * (address,), count, *4 * (real,), small, small)
    rng = np.random.default_rng(0)
    x, grad = (rng.normal(size=(STEPS, SIZE)).astype(np.float32) for _ in range(2))
    found: dict[str, np.ndarray] = {}
    for kind, name in enumerate(("float32", "bfloat16")):
        inputs = [x, grad] if kind == 0 else [(part.view(np.uint32) >> 16).astype(np.uint16) for part in (x, grad)]
        current, slopes = (np.ascontiguousarray(part) for part in inputs)
        u, s, back = (np.zeros_like(current) for _ in range(3))
        parts = np.zeros(1 + SIZE // handle.nd_fused_block(), np.float32)

        def keep(key: str, *arrays: np.ndarray, kind: int = kind, name: str = name) -> None:
            for place, array in enumerate(arrays):
                wide = array.astype(np.uint32) << 16 if array.dtype == np.uint16 else array
                found[f"{name} {key} {place}"] = wide.view(np.float32).copy()

        at = [array.ctypes.data for array in (current, u, s, parts)]
        handle.nd_lif_forward(at[0], SIZE, *at[1:], SIZE, STEPS, 0.7, 0.5, kind, 2)
        keep("forward", u, s, parts)
        for surrogate in range(4):
            at = [slopes.ctypes.data, SIZE, u.ctypes.data, back.ctypes.data, SIZE, parts.ctypes.data]
            handle.nd_lif_backward(*at, SIZE, STEPS, 0.7, 0.5, 0.01, kind, surrogate, 2)
            keep(f"backward {surrogate}", back, parts)
        handle.nd_levels_forward(*(part.ctypes.data for part in (current, s, parts)), SIZE, 0.1, 2.5, 0.5, 4.0, kind, 2)
        keep("levels", s[0], parts)
        at = [part.ctypes.data for part in (slopes, current, back, parts)]
        handle.nd_levels_backward(*at, SIZE, 2.5, -0.5, 4.5, 0.01, kind, 2)
        keep("levels backward", back[0], parts)
    return found


if __name__ == "__main__":
    np.savez(sys.argv[2], **numbers(Path(sys.argv[1])))  # type: ignore[arg-type]
