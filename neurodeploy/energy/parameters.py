"""Parameters counted tensor by tensor, never by matching the types of layers."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)


def parameter_table(net: IntegerNetwork) -> list[dict[str, Any]]:
    """Every tensor of a network: name, shape, count, number of zeros, and the bits that its values need.

    A layer of D populations holds its weights once and D thresholds. Decays are constants of the neuron, not trained,
    and are not listed.
    """
    rows: list[dict[str, Any]] = []
    for name, node in net.nodes.items():
        if isinstance(node, IntegerConv | IntegerDense):
            rows.append(_row(f"{name}.weight", node.weight))
        elif isinstance(node, IntegerLif):
            rows.append(_row(f"{name}.bias", node.bias))
            rows.append(_row(f"{name}.threshold", np.asarray([node.vth - level for level in node.levels])))
        elif isinstance(node, IntegerReadout):
            rows.append(_row(f"{name}.bias", node.bias))
    return rows


def _row(name: str, values: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Any]:
    shape = list(values.shape)
    return {
        "name": name,
        "shape": shape,
        "count": prod(shape),
        "zeros": int(values.size - np.count_nonzero(values)),
        "bits": _bits(values),
    }


def _bits(values: np.ndarray[Any, np.dtype[np.int64]]) -> int:
    """Width of the narrowest two's complement integer that holds every value; even values are stored halved."""
    if values.size and not np.any(values % 2):
        values = values // 2
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    return max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()) + 1
