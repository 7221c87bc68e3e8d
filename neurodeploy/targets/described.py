"""An integer network as JSON and arrays, for files that carry the integers beside a form of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)

KINDS: dict[type, str] = {
    IntegerInput: "input",
    IntegerConv: "conv",
    IntegerDense: "dense",
    IntegerFlatten: "flatten",
    IntegerLif: "lif",
    IntegerReadout: "readout",
}


def weight_factor(weight: IntArray) -> int:
    """2 where all weights are even, as those of Loihi 2 are; else 1."""
    return 1 if np.any(weight % 2) else 2


def described(net: IntegerNetwork) -> dict[str, Any]:
    """Nodes (everything but the weights, of which ``factor`` is told) and edges, as JSON can hold them."""
    return {"nodes": [_described(node) for node in net.nodes.values()], "edges": [list(edge) for edge in net.edges]}


def _described(node: IntegerNode) -> dict[str, Any]:
    said: dict[str, Any] = {"kind": KINDS[type(node)], "name": node.name}
    for key, value in vars(node).items():
        if key == "weight":
            said["factor"] = weight_factor(value)
        elif key not in ("name", "digit_of", "digit"):  # these files carry no levels in time
            said[key] = _plain(value)
    return said


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [int(part) for part in value]
    return value


def rebuilt(
    said: Mapping[str, Any],
    weight_of: Callable[[Mapping[str, Any]], IntArray],
    *,
    host: HostSide,
    units: Mapping[str, float],
    arithmetic: str,
) -> IntegerNetwork:
    """The network that :func:`described` described.

    Args:
        said: The description. It may be anyone's: whatever is wrong with it comes out as some exception, for the caller
            to turn into a message that names the file.
        weight_of: Gives the weights of a node from its entry.
        host: The host's share, from the manifest.
        units: Unit of every layer, from the manifest.
        arithmetic: Name of the arithmetic.
    """
    nodes = [_node(entry, weight_of) for entry in said["nodes"]]
    return IntegerNetwork(
        nodes={node.name: node for node in nodes},
        edges=tuple((str(source), str(target)) for source, target in said["edges"]),
        host=host,
        units=dict(units),
        arithmetic=arithmetic,
    )


def _node(said: Mapping[str, Any], weight_of: Callable[[Mapping[str, Any]], IntArray]) -> IntegerNode:
    kinds: dict[str, Any] = {kind: node for node, kind in KINDS.items()}
    values = {key: _value(key, value) for key, value in said.items() if key not in ("kind", "factor")}
    if "factor" in said:
        values["weight"] = weight_of(said)
    node: IntegerNode = kinds[said["kind"]](**values)
    return node


def _value(key: str, value: Any) -> Any:
    """Numbers and names as they are; lists of numbers as the nodes hold them."""
    if not isinstance(value, list):
        return value
    if key in ("bias", "v_decay", "i_decay"):
        return np.asarray(value, np.int64).reshape(-1)
    return tuple(int(part) for part in value)
