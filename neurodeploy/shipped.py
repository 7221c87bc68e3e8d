"""Where the data that the program ships lies: the zoo, the bundle descriptions, the hardware profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def shipped(folder: Literal["models", "export", "hardware_profiles"]) -> Path:
    """The folder of shipped data, in an installed wheel and in a checkout alike."""
    package = Path(__file__).resolve().parent
    installed = package / "_shipped" / folder
    return installed if installed.is_dir() else package.parent / folder
