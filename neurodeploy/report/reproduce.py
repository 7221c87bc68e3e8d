"""Hashes of what a run was made from, so that another run can be known to be the same."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np

from neurodeploy.images.datasets import Sample
from neurodeploy.quantize.network import IntegerNetwork


def network_sha256(net: IntegerNetwork) -> str:
    """Hash of an integer network: its nodes with all their numbers, its edges, the host's share."""
    found = hashlib.sha256()
    for name, node in net.nodes.items():
        found.update(f"{name} {type(node).__name__}\n".encode())
        for part in fields(node):
            value = getattr(node, part.name)
            found.update(f"{part.name} {np.shape(value)} ".encode())
            found.update(value.astype("<i8").tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    found.update(repr(net.edges).encode())
    found.update(net.host.model_dump_json().encode())
    return found.hexdigest()


class DataHash:
    """Hash of the degraded pictures that were run, name after name."""

    def __init__(self) -> None:
        self._found = hashlib.sha256()

    def add(self, sample: Sample) -> None:
        """The next picture."""
        self._found.update(f"{sample.name} {sample.degraded.shape}\n".encode())
        self._found.update(np.ascontiguousarray(sample.degraded, "<f4").tobytes())

    @property
    def sha256(self) -> str:
        """In hexadecimal."""
        return self._found.hexdigest()
