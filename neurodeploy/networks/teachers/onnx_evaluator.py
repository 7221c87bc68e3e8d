"""ONNX graphs computed by onnx's reference evaluator, but for their convolutions, which somebody else computes.

onnxruntime's convolutions cannot be replaced one by one. The evaluator's can; what it does for all other operators is
numpy, which costs a network of convolutions little, and one of anything else too much.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Convolve = Callable[..., Tensor]
"""As :func:`neurodeploy.networks.winograd.conv2d`."""

CHEAP = {
    *("Add", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "DepthToSpace"),
    *("Div", "Expand", "Gather", "Identity", "LeakyRelu", "Mul", "PRelu", "Pad", "Relu", "Reshape", "Shape", "Slice"),
    *("SpaceToDepth", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
}
"""Operators that numpy computes about as quickly as onnxruntime does."""

MOST_PIXELS = 1 << 14
"""Of the pictures that are evaluated together: the evaluator keeps all tensors until it has ended."""


def suits(model: Any) -> bool:
    """Whether a graph has float32 convolutions, padded by numbers, and else operators that cost little beside them."""
    types = importlib.import_module("onnx").TensorProto
    graph = model.graph
    plain = all(node.op_type in CHEAP and node.domain in ("", "ai.onnx") for node in graph.node)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    padded = all(
        attribute.s in (b"", b"NOTSET")
        for node in convolutions
        for attribute in node.attribute
        if attribute.name == "auto_pad"
    )
    others = {types.FLOAT16, types.BFLOAT16, types.DOUBLE}
    single = not any(tensor.data_type in others for tensor in graph.initializer)
    single = single and not any(entry.type.tensor_type.elem_type in others for entry in (*graph.input, *graph.output))
    return bool(convolutions) and plain and padded and single


class Evaluator:
    """Runs a graph that :func:`suits`.

    Args:
        model: An ``onnx.ModelProto``.
        convolve: What computes convolutions of stride 1, in one group, with the same padding on both sides.
    """

    def __init__(self, model: Any, convolve: Convolve) -> None:
        reference = importlib.import_module("onnx.reference")
        self._evaluator = reference.ReferenceEvaluator(model, new_ops=_operators(convolve))
        self._output = model.graph.output[0].name

    def run(self, points: Sequence[str], feeds: Mapping[str, NDArray[Any]], *, whole: bool) -> list[NDArray[Any]]:
        """The first output and the tensors that are named.

        Args:
            points: Tensors of the graph.
            feeds: Inputs by name, the pictures first, (B, C, H, W), and all others by pictures too.
            whole: The graph takes no other B.
        """
        pictures = next(iter(feeds.values()))
        count, (height, width) = len(pictures), pictures.shape[2:]
        step = count if whole else max(1, MOST_PIXELS // (height * width))
        parts = [
            self._evaluator.run(
                [self._output, *points], {name: array[start : start + step] for name, array in feeds.items()}
            )
            for start in range(0, count, step)
        ]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _operators(convolve: Convolve) -> list[Any]:
    operator = importlib.import_module("onnx.reference.op_run").OpRun

    class Conv(operator):  # type: ignore[valid-type, misc]
        op_domain = ""

        def _run(  # what the evaluator asks for, by name
            self,
            X: NDArray[Any],
            W: NDArray[Any],
            B: NDArray[Any] | None = None,
            auto_pad: str | None = None,
            dilations: Sequence[int] | None = None,
            group: int | None = None,
            kernel_shape: Sequence[int] | None = None,
            pads: Sequence[int] | None = None,
            strides: Sequence[int] | None = None,
        ) -> tuple[NDArray[Any]]:
            x, weight = _tensor(X), _tensor(W)
            bias = torch.zeros(len(weight)) if B is None else _tensor(B)
            top, left, bottom, right = pads or (0, 0, 0, 0)
            taps, steps = tuple(dilations or (1, 1)), tuple(strides or (1, 1))
            if steps == (1, 1) and group in (None, 1) and (top, left) == (bottom, right):
                return (convolve(x, weight, bias, padding=(top, left), dilation=taps).numpy(),)
            x = F.pad(x, (left, right, top, bottom))
            return (F.conv2d(x, weight, bias, stride=steps, dilation=taps, groups=group or 1).numpy(),)

    class Relu(operator):  # type: ignore[valid-type, misc]
        op_domain = ""

        def _run(self, X: NDArray[Any]) -> tuple[NDArray[Any]]:
            return (torch.relu(_tensor(X)).numpy(),)

    return [Conv, Relu]


def _tensor(array: NDArray[Any]) -> Tensor:
    """The array itself, or a copy where torch cannot know that it must not be written to."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
