"""What a walk over an ONNX graph knows of each tensor, and the layers that it finds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass
class Layer:
    """One convolution with everything that was folded into it.

    Attributes:
        name: The node.
        weight: (O, I, K, K).
        bias: (O,).
        dilation: The same along both axes.
        source: Layer whose activation it sees; -1 for what is made of the image.
        head: The tensor that it sees, for a layer that sees the image.
    """

    name: str
    weight: FloatArray
    bias: FloatArray
    dilation: int
    source: int
    head: str = ""


@dataclass(frozen=True)
class Head:
    """Made of the inputs alone."""


@dataclass(frozen=True)
class Pre:
    """The sum of layers' outputs, before an activation."""

    layers: tuple[int, ...]


@dataclass(frozen=True)
class Active:
    """An activation of a layer, zero-padded by so many rows and columns."""

    layer: int
    padding: int = 0


@dataclass(frozen=True)
class Tail:
    """Made of a layer's output by operations that are no activation.

    Attributes:
        layer: The layer.
        cut: The tensor of that layer where they start.
        nodes: Those operations, (node, operation).
    """

    layers: tuple[int, ...]
    cut: str
    nodes: tuple[tuple[str, str], ...]


Value = Head | Pre | Active | Tail


@dataclass
class Chain:
    """What a walk found.

    Attributes:
        layers: The convolutions, in order.
        caps: For every activation, the value at which it is clipped (infinite for a ReLU).
        edges: (i, k): the output of convolution i is added to the input of activation k.
        head: Tensor that the first convolution sees.
        cut: Tensor that the last convolution gives.
    """

    layers: list[Layer] = field(default_factory=list)
    caps: dict[int, float] = field(default_factory=dict)
    edges: list[tuple[int, int]] = field(default_factory=list)
    head: str = ""
    cut: str = ""
