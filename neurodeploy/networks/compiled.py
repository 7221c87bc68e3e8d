"""Loading the C code that the package was installed with."""

from __future__ import annotations

import ctypes
from pathlib import Path


def loaded(file: Path, abi: str, expected: int) -> ctypes.CDLL | None:
    """A shared library, or None: it is not there, cannot be loaded, or was made of another version of its source.

    Args:
        file: The library.
        abi: Its function that gives the number of its interface.
        expected: That number here.
    """
    if not file.is_file():
        return None
    try:
        handle = ctypes.CDLL(str(file))
        return handle if int(getattr(handle, abi)()) == expected else None
    except (OSError, AttributeError):
        return None
