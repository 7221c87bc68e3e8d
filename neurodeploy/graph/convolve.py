"""The one convolution that the plain interpreters share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError

Pair = tuple[int, int]


def taps(
    x: NDArray[Any], kernel: Pair, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> Iterator[tuple[Pair, NDArray[Any]]]:
    """What each tap of a kernel sees at every place of the output.

    Args:
        x: (C, h, w), surrounded by zeros.
        kernel: (rows, columns), as are all other pairs.
        stride: Distance of two places of the kernel.
        padding: Zeros on either side.
        dilation: Distance of two taps.

    Yields:
        (row, column) of the tap, and (C, floor((h + 2 * padding - dilation * (rows - 1) - 1) / stride) + 1, ...).

    Raises:
        UserError: The kernel is larger than the padded input.
    """
    x = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2))
    height = (x.shape[1] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    width = (x.shape[2] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    if height < 1 or width < 1:
        raise UserError("a kernel is larger than its padded input", have=str(kernel), limit=str(x.shape[1:]))
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            top, left = row * dilation[0], column * dilation[1]
            rows = slice(top, top + stride[0] * (height - 1) + 1, stride[0])
            columns = slice(left, left + stride[1] * (width - 1) + 1, stride[1])
            yield (row, column), x[:, rows, columns]


def correlate(
    x: NDArray[Any],
    weight: NDArray[Any],
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> NDArray[Any]:
    """2-D cross-correlation, one matrix product a tap, in the dtype of the arguments.

    Args:
        x: (I, h, w).
        weight: (O, I / groups, rows, columns).
        stride: As in :func:`taps`.
        padding: As in :func:`taps`.
        dilation: As in :func:`taps`.
        groups: Number of independent parts that inputs and outputs are divided into.

    Returns:
        (O, h', w').
    """
    outputs, fan_in, rows, columns = weight.shape
    shape, total = (0, 0), None
    for (row, column), seen in taps(x, (rows, columns), stride, padding, dilation):
        shape = seen.shape[1], seen.shape[2]
        tap = weight[:, :, row, column].reshape(groups, outputs // groups, fan_in)
        part = tap @ seen.reshape(groups, fan_in, shape[0] * shape[1])
        total = part if total is None else np.add(total, part, out=total)
    return np.zeros((outputs, *shape), x.dtype) if total is None else total.reshape(outputs, *shape)
