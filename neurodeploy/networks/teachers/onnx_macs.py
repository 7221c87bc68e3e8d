"""Counting an ONNX graph's multiply-accumulates: a walk over its nodes with the shapes that they really have."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from numpy.typing import NDArray

from neurodeploy.networks.macs import Macs, taps

Shape = tuple[int, ...]


@dataclass
class GraphCount:
    """What one pass of a graph does.

    Attributes:
        layers: Node -> multiply-accumulates, in the order of the graph.
        other: Operation -> numbers that it puts out, for arithmetic without weights of its own.
        not_covered: (node, operation) that the count does not know.
    """

    layers: dict[str, Macs] = field(default_factory=dict)
    other: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    not_covered: list[tuple[str, str]] = field(default_factory=list)


def count_graph(model: Any, feeds: Mapping[str, NDArray[Any]]) -> GraphCount:
    """Counts one pass of an ONNX model for given inputs.

    Convolutions (transposed, grouped, dilated and of any number of axes, too), matrix products and ``Gemm`` count. What
    only depends on constants does not run at every pass and does not count. Control flow, recurrent cells and whatever
    else is not in the tables is named as not covered.

    Args:
        model: An ``onnx.ModelProto``.
        feeds: Input name -> array.

    Returns:
        The counts for these very inputs (a batch of 2 counts twice).
    """
    live = _depending(model.graph)
    shapes = _shapes(model, live, feeds)
    count = GraphCount()
    for place, node in enumerate(live):
        name = node.name or f"{node.op_type}_{place}"
        rule = _MACS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is not None:
            macs = rule(_Seen(node, shapes))
            count.layers[name] = count.layers.get(name, Macs()) + macs
        elif node.op_type in _ARITHMETIC and node.domain in ("", "ai.onnx"):
            count.other[node.op_type] += prod(shapes[node.output[0]])
        elif node.op_type not in _MOVES or node.domain not in ("", "ai.onnx"):
            count.not_covered.append((name, node.op_type))
    return count


def _depending(graph: Any) -> list[Any]:
    """The nodes that depend on an input of the graph (initializers may be listed as inputs, too)."""
    constants = {tensor.name for tensor in graph.initializer}
    reached = {entry.name for entry in graph.input} - constants
    live = []
    for node in graph.node:
        # a branch or a loop may look at anything around it
        if reached & set(node.input) or any(attribute.g.node or attribute.graphs for attribute in node.attribute):
            live.append(node)
            reached |= set(node.output)
    return live


def _shapes(model: Any, nodes: Sequence[Any], feeds: Mapping[str, NDArray[Any]]) -> dict[str, Shape]:
    """The shape of everything that the nodes take and give, from a run: only shapes come out of it."""
    onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    counted = [n for n in nodes if n.op_type in _MACS or n.op_type in _ARITHMETIC]
    wanted = list(dict.fromkeys(tensor for node in counted for tensor in (*node.input[:2], node.output[0]) if tensor))
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    del asked.graph.output[:]
    for place, tensor in enumerate(wanted):
        name = f"neurodeploy_shape_{place}"
        asked.graph.node.append(onnx.helper.make_node("Shape", [tensor], [name]))
        asked.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["rank"]))
    if not wanted:
        return {}
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(asked.SerializeToString(), options, providers=["CPUExecutionProvider"])
    known = {entry.name for entry in session.get_inputs()}
    found = session.run(None, {key: value for key, value in feeds.items() if key in known})
    return {tensor: tuple(int(n) for n in shape) for tensor, shape in zip(wanted, found, strict=True)}


class _Seen:
    """A node with the shapes around it."""

    def __init__(self, node: Any, shapes: Mapping[str, Shape]) -> None:
        self.node, self.shapes = node, shapes
        onnx = importlib.import_module("onnx")
        self.attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}

    def input(self, place: int) -> Shape:
        return self.shapes[self.node.input[place]]

    @property
    def output(self) -> Shape:
        return self.shapes[self.node.output[0]]

    def numbers(self, name: str, otherwise: Sequence[int]) -> list[int]:
        return [int(value) for value in self.attributes.get(name, otherwise)]


def _convolution(seen: _Seen, *, transposed: bool = False) -> Macs:
    x, weight, out = seen.input(0), seen.input(1), seen.output
    axes = len(weight) - 2
    kernel, strides = weight[2:], seen.numbers("strides", [1] * axes)
    dilations = seen.numbers("dilations", [1] * axes)
    # a transposed convolution is the convolution from its output back to its input, tap by tap
    dense, sparse = (out, x) if transposed else (x, out)
    pads = _first_pads(seen, dense[2:], sparse[2:], kernel, strides, dilations)
    geometry = zip(dense[2:], sparse[2:], kernel, strides, pads, dilations, strict=True)
    pairs = x[0] * weight[0] * weight[1]
    return Macs(
        in_bounds=pairs * prod(taps(*axis) for axis in geometry), padded=pairs * prod(sparse[2:]) * prod(kernel)
    )


def _first_pads(
    seen: _Seen, dense: Shape, sparse: Shape, kernel: Shape, strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """The padding before the first value of each axis, as written or as ``auto_pad`` makes it."""
    kind = seen.attributes.get("auto_pad", b"NOTSET")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if not kind.startswith("SAME"):
        return seen.numbers("pads", [0] * 2 * len(kernel))[: len(kernel)]
    pads = []
    for size, outputs, width, stride, dilation in zip(dense, sparse, kernel, strides, dilations, strict=True):
        whole = max(0, (outputs - 1) * stride + (width - 1) * dilation + 1 - size)
        pads.append(whole // 2 if kind == "SAME_UPPER" else whole - whole // 2)
    return pads


def _product(seen: _Seen) -> Macs:
    macs = prod(seen.output) * seen.input(0)[-1]
    return Macs(macs, macs)


def _gemm(seen: _Seen) -> Macs:
    macs = prod(seen.output) * seen.input(0)[0 if seen.attributes.get("transA", 0) else 1]
    return Macs(macs, macs)


_MACS: dict[str, Callable[[_Seen], Macs]] = {
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "ConvTranspose": lambda seen: _convolution(seen, transposed=True),
    "MatMul": _product,
    "MatMulInteger": _product,
    "Gemm": _gemm,
}

# Arithmetic that multiplies by no weight, or by one number a channel.
_ARITHMETIC_NAMES = """
Abs Acos Add And Asin Atan AveragePool BatchNormalization BitwiseAnd BitwiseNot BitwiseOr Ceil Celu Clip Cos Cosh
CumSum Div DynamicQuantizeLinear DequantizeLinear QuantizeLinear Elu Equal Erf Exp Floor Gelu GlobalAveragePool
GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish InstanceNormalization IsNaN
LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LRN LpNormalization LpPool Max MaxPool Mean Min Mish Mod
Mul Neg Not Or PRelu Pow Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Resize Round Selu Sigmoid Sign Sin Softmax Softplus Softsign Sqrt Sub Sum Swish Tan Tanh
ThresholdedRelu TopK Upsample Xor ArgMax ArgMin
"""
_ARITHMETIC = set(_ARITHMETIC_NAMES.split())

# Operations that only make, move or describe numbers.
_MOVE_NAMES = """
Cast CastLike Concat Constant ConstantOfShape DepthToSpace Dropout Expand EyeLike Flatten Gather GatherElements
GatherND Identity NonZero OneHot Pad Range Reshape ReverseSequence ScatterElements ScatterND Shape Size Slice
SpaceToDepth Split Squeeze Tile Transpose Trilu Unsqueeze Where
"""
_MOVES = set(_MOVE_NAMES.split())
