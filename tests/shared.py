"""Real pictures, published teachers and traces of others, where the machine has them."""

from __future__ import annotations

from pathlib import Path

import pytest


def shared_data(name: str) -> Path:
    """The path of ``name`` in the folder ``shared`` beside the checkout; skips the test where it is absent.

    Args:
        name: A path inside that folder, such as ``data/Set12`` or ``golden``.
    """
    path = Path(__file__).resolve().parents[2] / "shared" / name
    if not path.exists():
        pytest.skip(f"needs shared/{name} beside the checkout: pictures and traces that the repository does not carry")
    return path
