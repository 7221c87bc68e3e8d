"""Packages that only some of the program needs: imported when they are, with one message where they are missing."""

from __future__ import annotations

import importlib
from typing import Any


def require(package: str, extra: str = "onnx") -> Any:
    """The package of that name.

    Args:
        package: Name of the module.
        extra: The extra of this program that brings it.

    Raises:
        UserError: It is not installed.
    """
    from neurodeploy.errors import UserError

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"this needs {package}, which is not installed", instead=f"pip install 'neurodeploy[{extra}]'"
        ) from error
