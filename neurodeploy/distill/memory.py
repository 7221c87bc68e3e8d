"""Keeping freed memory at hand: a training step asks for the same large blocks again and again."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Names of glibc's ``mallopt`` parameters (malloc.h)."""


def keep_freed_memory() -> bool:
    """Tells glibc to hold freed blocks for the next step instead of giving them back to the system.

    Every step would otherwise have its memory mapped and cleared page by page anew. The process keeps its peak memory
    until it ends. Returns False where the C library is another one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    settings = {MMAP_THRESHOLD: 1 << 30, TRIM_THRESHOLD: (1 << 31) - 1, TOP_PAD: 1 << 26}
    return all([mallopt(name, value) == 1 for name, value in settings.items()])
