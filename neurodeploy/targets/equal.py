"""Whether two integer networks hold the same values: what an export asks after it has read back its own files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from neurodeploy.errors import Finding
from neurodeploy.quantize.network import IntegerNetwork, IntegerNode


def network_differences(written: IntegerNetwork, read: IntegerNetwork, file: str) -> list[Finding]:
    """Every node, value, edge or unit in which two networks differ; an empty list when they are the same.

    Args:
        written: What was exported, in its compact form.
        read: What the file holds, in its compact form.
        file: The file's name, for the findings.
    """
    return list(_differences(written, read, file))


def _differences(written: IntegerNetwork, read: IntegerNetwork, file: str) -> Iterator[Finding]:
    if list(written.nodes) != list(read.nodes):
        yield Finding(file, "holds other nodes", ", ".join(read.nodes), ", ".join(written.nodes))
        return
    if set(written.edges) != set(read.edges):
        yield Finding(file, "holds other edges", str(sorted(read.edges)), str(sorted(written.edges)))
    for name, node in written.nodes.items():
        yield from _node_differences(node, read.nodes[name], f"{file}: {name}")
    for what, first, second in (
        ("host side", written.host, read.host),
        ("units", dict(written.units), dict(read.units)),
        ("arithmetic", written.arithmetic, read.arithmetic),
    ):
        if first != second:
            yield Finding(file, f"holds another {what}", str(second), str(first))


def _node_differences(written: IntegerNode, read: IntegerNode, where: str) -> Iterator[Finding]:
    if type(written) is not type(read):
        yield Finding(where, "is another kind of node", type(read).__name__, type(written).__name__)
        return
    for field in fields(written):
        first, second = (np.asarray(getattr(node, field.name)) for node in (written, read))
        if not _same(first, second):
            yield Finding(f"{where}.{field.name}", "differs", _words(second, first), _words(first, second))


def _same(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    """Equal values; one value a channel that are all the same equal one value."""
    if first.shape != second.shape and first.size != 1 and second.size != 1:
        return False
    return (bool(np.all(first == second)) and first.size * second.size > 0) or first.size == second.size == 0


def _words(values: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> str:
    """One value, a shape where the shapes differ, or the first place that differs."""
    if values.size == 1:
        return str(values.reshape(-1)[0])
    if values.shape != other.shape:
        return f"shape {values.shape}"
    place = tuple(int(axis) for axis in np.argwhere(values != other)[0])
    return f"{values[place]} at {list(place)}"
