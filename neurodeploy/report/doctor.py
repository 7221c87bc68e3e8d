"""What this machine can do, and what to install for the rest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurodeploy import __version__, lava_env
from neurodeploy.shipped import shipped
from neurodeploy.simulate import kernel
from neurodeploy.simulate.restore import BACKENDS

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Extra:
    """One extra of the package: what it brings, and what for."""

    name: str
    packages: tuple[str, ...]
    purpose: str


CORE = ("numpy", "click", "rich", "pydantic", "nir", "h5py", "safetensors", "pillow", "jinja2")
EXTRAS = (
    Extra("train", ("torch", "norse", "scikit-image"), "distill, teachers, the built-in photographs"),
    Extra("onnx", ("onnx", "onnxscript", "onnxruntime"), "teachers from .onnx files"),
    Extra("interop", ("nirtorch", "snntorch", "spikingjelly"), "readers that verify compares with"),
    Extra("report", ("matplotlib",), "figures beyond the report's own"),
)


def diagnose() -> dict[str, Any]:
    """Versions, back ends, devices, shipped data, and the advice that follows."""
    packages = [_package(name, "core") for name in CORE]
    packages += [_package(name, extra.name) for extra in EXTRAS for name in extra.packages]
    have = {row["name"] for row in packages if row["version"] is not None}
    return {
        "schema_version": SCHEMA_VERSION,
        "neurodeploy": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "simulators": sorted(BACKENDS),
        "kernel": kernel.describe(),
        "devices": _devices() if "torch" in have else [],
        "lava": _lava(),
        "shipped": {name: _count(name, pattern) for name, pattern in _SHIPPED},
        "packages": packages,
        "advice": _advice(have),
    }


_SHIPPED = (("models", "*/model.toml"), ("hardware_profiles", "*.toml"), ("export", "*"))


def _package(name: str, extra: str) -> dict[str, Any]:
    try:
        version: str | None = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    return {"name": name, "extra": extra, "version": version}


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _devices() -> list[str]:
    """Devices of torch; a torch that cannot be loaded is said to be so."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return [f"torch cannot be loaded: {str(error).splitlines()[0]}"]
    devices = ["cpu"]
    devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return [*devices, "mps"] if torch.backends.mps.is_available() else devices


def _lava() -> str | None:
    """The interpreter of Lava's own environment."""
    found = lava_env.python()
    return None if found is None else str(found)


def _count(folder: Any, pattern: str) -> dict[str, Any]:
    path: Path = shipped(folder)
    return {"path": str(path), "entries": len(list(path.glob(pattern)))}


def _advice(have: set[str]) -> list[str]:
    advice = []
    if kernel.missing() is not None:
        advice.append("a C compiler, then the package anew (pip install --force-reinstall)  for the fast simulator")
    slower = kernel.slower()
    if slower is not None:
        advice.append(slower)
    for extra in EXTRAS:
        missing = [name for name in extra.packages if name not in have]
        if missing:
            advice.append(f"pip install 'neurodeploy[{extra.name}]'  for {extra.purpose} (lacks {', '.join(missing)})")
    if lava_env.python() is None:
        advice.append("neurodeploy doctor --install-lava  to run bundles in Lava, in an environment of its own")
    return advice
