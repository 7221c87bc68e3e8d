"""Where tests find the real images, published teachers and traces that are not part of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""A folder named ``shared`` beside the checkout. It is optional: what needs it is skipped without it."""


def shared_path(name: str) -> Path:
    """The file or folder ``name`` of the shared folder, such as ``golden/netx``; skips the test when it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {name} in a folder 'shared' beside the checkout, which is not there")
    return path


def shared_data(name: str) -> Path:
    """The file or folder ``data/<name>`` of the shared folder, such as ``set12``; skips the test when it is absent."""
    return shared_path(f"data/{name}")
