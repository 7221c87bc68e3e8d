"""The shapes that an integer network's nodes have for an image of a given size."""

from __future__ import annotations

import math

from neurodeploy.errors import UserError
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)

Shape = tuple[int, int, int]
Size = tuple[int, int]


def layer_shapes(net: IntegerNetwork, size: Size) -> dict[str, Shape]:
    """(C, h, w) of every node's output for an image of ``size`` = (H, W) pixels.

    Raises:
        UserError: The image is too small for a convolution, a layer gets another number of channels than it has weights
            for, or summed edges differ in shape.
    """
    factor = net.host.unshuffle
    shapes: dict[str, Shape] = {}
    for name, node in net.nodes.items():
        if isinstance(node, IntegerInput):
            shapes[name] = (node.channels, -(-size[0] // factor), -(-size[1] // factor))
            continue
        arriving = [shapes[source] for source in net.forward_sources(name)]
        if len(set(arriving)) != 1:
            raise UserError("the inputs that meet here differ in shape", node=name, have=str(arriving))
        shapes[name] = _output_shape(name, node, arriving[0])
    for source, target in sorted(net.feedback):
        wanted = shapes[net.forward_sources(target)[0]]
        if shapes[source] != wanted:
            have = f"{shapes[source]} fed back by {source}"
            raise UserError("the inputs that meet here differ in shape", node=target, have=have, limit=str(wanted))
    return shapes


def _output_shape(name: str, node: IntegerNode, shape: Shape) -> Shape:
    if isinstance(node, IntegerDense):
        return _checked(name, node.weight.shape[1], math.prod(shape), (node.weight.shape[0], 1, 1))
    if isinstance(node, IntegerLif | IntegerReadout):
        return _checked(name, len(node.bias), shape[0], shape)
    if isinstance(node, IntegerConv):
        rows, columns = (
            (shape[axis + 1] + 2 * node.padding[axis] - node.dilation[axis] * (node.weight.shape[2 + axis] - 1) - 1)
            // node.stride[axis]
            + 1
            for axis in (0, 1)
        )
        if min(rows, columns) < 1:
            raise UserError("the image is too small for this convolution", node=name, have=f"{shape[1]}x{shape[2]}")
        return _checked(name, node.weight.shape[1] * node.groups, shape[0], (node.weight.shape[0], rows, columns))
    return (math.prod(shape), 1, 1)


def _checked(name: str, wanted: int, have: int, shape: Shape) -> Shape:
    if wanted != have:
        raise UserError(
            "gets another number of channels than it is made for", node=name, have=f"{have}", limit=f"{wanted}"
        )
    return shape
