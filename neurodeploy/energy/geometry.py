"""How many in-bounds synapses a place of the grid has: exact, and separable into rows and columns.

Output row ``o`` of a convolution reads input row ``y`` through tap ``k`` where ``y = o * stride - padding +
k * dilation``. Rows and columns do not interact, so the fan-out of a place is the product of a count a row and a count
a column, times the output channels of its group.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import InternalError, UserError
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerNetwork,
)

Shape = tuple[int, int, int]
Pair = tuple[int, int]


def out_length(length: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Length of a convolution's output along one axis; 0 where the kernel does not fit."""
    return max(0, (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)


@lru_cache(maxsize=512)
def taps(length: int, kernel: int, stride: int, padding: int, dilation: int) -> NDArray[np.float64]:
    """Which taps read which place along one axis.

    Returns:
        (length, kernel), 1 where tap k of some output reads the place, else 0. No two outputs read one place through
        the same tap. Read-only.
    """
    places = np.arange(length)[:, None] + padding - np.arange(kernel)[None, :] * dilation
    outputs = out_length(length, kernel, stride, padding, dilation)
    read = (places % stride == 0) & (places >= 0) & (places // stride < outputs)
    table: NDArray[np.float64] = read.astype(np.float64)
    table.flags.writeable = False
    return table


def conv_taps(node: IntegerConv, extent: Pair) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The tables of :func:`taps` for the rows and the columns of a whole input of ``extent`` (H, W)."""
    rows, columns = (
        taps(extent[axis], node.weight.shape[2 + axis], node.stride[axis], node.padding[axis], node.dilation[axis])
        for axis in range(2)
    )
    return rows, columns


@lru_cache(maxsize=512)
def _covered(length: int, kernel: int, stride: int, padding: int, dilation: int) -> NDArray[np.bool_]:
    """Which outputs along one axis have a tap in bounds; read-only."""
    starts = np.arange(out_length(length, kernel, stride, padding, dilation))[:, None] * stride - padding
    places = starts + np.arange(kernel) * dilation
    found: NDArray[np.bool_] = np.asarray(((places >= 0) & (places < length)).any(axis=1))
    found.flags.writeable = False
    return found


def _spacing(node: IntegerConv, axis: int) -> tuple[int, int, int]:
    return node.stride[axis], node.padding[axis], node.dilation[axis]


def covered(node: IntegerConv, extent: Pair) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows and which columns of a convolution's output have a tap in bounds of an input of ``extent`` (H, W)."""
    rows, columns = (_covered(extent[axis], node.weight.shape[2 + axis], *_spacing(node, axis)) for axis in range(2))
    return rows, columns


def reached(arrived: NDArray[np.bool_], node: IntegerConv) -> NDArray[np.bool_]:
    """Which outputs have at least one marked place in bounds of their kernel.

    Args:
        arrived: (G, H, W), marks.
        node: The convolution.

    Returns:
        (G, H', W'). A kernel is a rectangle of taps, so rows and columns are gathered one after the other.
    """
    if arrived.all():
        rows, columns = covered(node, (arrived.shape[1], arrived.shape[2]))
        return np.broadcast_to(rows[:, None] & columns, (len(arrived), len(rows), len(columns)))
    for axis in range(2):
        length, kernel, stride = arrived.shape[1 + axis], node.weight.shape[2 + axis], node.stride[axis]
        outputs = out_length(length, kernel, stride, node.padding[axis], node.dilation[axis])
        found = np.zeros((*arrived.shape[: 1 + axis], outputs, *arrived.shape[2 + axis :]), np.bool_)
        for tap in range(kernel):
            shift = node.padding[axis] - tap * node.dilation[axis]  # output o reads place o * stride - shift
            first, last = max(0, -(-shift // stride)), min(outputs, (length - 1 + shift) // stride + 1)
            if first < last:
                read = slice(first * stride - shift, (last - 1) * stride - shift + 1, stride)
                before = (slice(None),) * (1 + axis)
                found[(*before, slice(first, last))] |= arrived[(*before, read)]
        arrived = found
    return arrived


def tap_histogram(values: NDArray[np.float64], node: IntegerConv, origin: Pair, extent: Pair) -> NDArray[np.float64]:
    """Sum of ``values`` over the places that each tap reads in bounds.

    Args:
        values: (C, h, w), non-negative integers: how often each place counts.
        node: The convolution that reads them.
        origin: Row and column of ``values[:, 0, 0]`` in the whole layer.
        extent: (H, W) of the whole layer.

    Returns:
        (C, kh, kw) float64, exact integers: sums stay far below 2**53.
    """
    rows, columns = conv_taps(node, extent)
    height, width = values.shape[1:]
    rows = rows[origin[0] : origin[0] + height]
    columns = columns[origin[1] : origin[1] + width]
    if len(rows) != height or len(columns) != width:
        raise InternalError(f"places {origin} + {(height, width)} lie outside the layer's {extent}")
    along = (values.reshape(-1, width) @ columns).reshape(len(values), height, -1)
    found: NDArray[np.float64] = np.einsum("chk,hr->crk", along, rows, optimize=True)
    return found


def nonzero_outputs(node: IntegerConv) -> NDArray[np.float64]:
    """(I, kh, kw): how many weights other than 0 an input channel has at each tap."""
    outputs, fan_in, rows, columns = node.weight.shape
    grouped = node.weight.reshape(node.groups, outputs // node.groups, fan_in, rows, columns) != 0
    counted: NDArray[np.float64] = grouped.sum(axis=1, dtype=np.float64)
    return counted.reshape(-1, rows, columns)


def synapses(node: IntegerConv, extent: Pair) -> int:
    """In-bounds synapses of a convolution over a whole input: its dense MACs of one pass."""
    rows, columns = conv_taps(node, extent)
    return int(rows.sum()) * int(columns.sum()) * int(node.weight.shape[0]) * int(node.weight.shape[1])


def node_shapes(net: IntegerNetwork, extent: Pair) -> dict[str, Shape]:
    """Shape (C, H, W) of what every node hands on, for an input of ``extent`` (H, W).

    Raises:
        UserError: A convolution's kernel does not fit its input.
    """
    shapes: dict[str, Shape] = {}
    for name, node in net.nodes.items():
        if isinstance(node, IntegerInput):
            shapes[name] = (node.channels, *extent)
            continue
        incoming = shapes[net.forward_sources(name)[0]]
        shapes[name] = incoming
        if isinstance(node, IntegerConv):
            height, width = (
                out_length(
                    incoming[1 + axis],
                    node.weight.shape[2 + axis],
                    node.stride[axis],
                    node.padding[axis],
                    node.dilation[axis],
                )
                for axis in range(2)
            )
            if not height or not width:
                raise UserError("the kernel does not fit the input", node=name, have=f"input {incoming[1:]}")
            shapes[name] = (node.weight.shape[0], height, width)
        elif isinstance(node, IntegerDense):
            shapes[name] = (node.weight.shape[0], 1, 1)
        elif isinstance(node, IntegerFlatten):
            shapes[name] = (prod(incoming), 1, 1)
    return shapes
