"""Multiply-accumulates of ONNX graphs, by brute force.

With ones for numbers, the sum of a linear layer's outputs is the number of its products that lie inside the image.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neurodeploy.networks.macs import count_macs
from neurodeploy.networks.teachers.onnx_macs import count_graph

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def model_of(nodes: list[Any], feeds: dict[str, Any], weights: dict[str, Any], outputs: int = 1) -> Any:
    helper, image = onnx.helper, onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(name, image, array.shape) for name, array in feeds.items()]
    given_weights = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info(f"y{k}", image, None) for k in range(outputs)], given_weights
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def products(model: Any, feeds: dict[str, Any]) -> int:
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return round(float(sum(y.astype(np.float64).sum() for y in session.run(None, feeds))))


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


@settings(max_examples=60)
@given(st.data())
def test_convolutions_by_brute_force(data: st.DataObject) -> None:
    draw = data.draw
    transposed = draw(st.booleans())
    groups, per_group, out = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    axes = draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 4)) for _ in range(axes)]
    dilation = [draw(st.integers(1, 2)) for _ in range(axes)]
    stride = [draw(st.integers(1, 3)) for _ in range(axes)]
    size = [draw(st.integers(8, 11)) for _ in range(axes)]
    attributes: dict[str, Any] = {"strides": stride, "dilations": dilation, "group": groups}
    if draw(st.booleans()) and not transposed and dilation == [1] * axes:
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    else:
        attributes["pads"] = [draw(st.integers(0, 2)) for _ in range(2 * axes)]
    x = {"x": ones(2, groups * per_group, *size)}
    shape = (groups * per_group, out) if transposed else (groups * out, per_group)
    weight = {"w": ones(*shape, *kernel)}
    kind = "ConvTranspose" if transposed else "Conv"
    model = model_of([onnx.helper.make_node(kind, ["x", "w"], ["y0"], name="layer", **attributes)], x, weight)
    counted = count_graph(model, x)
    assert counted.layers["layer"].in_bounds == products(model, x)
    assert counted.layers["layer"].padded >= counted.layers["layer"].in_bounds
    assert counted.not_covered == [] and not counted.other


@pytest.mark.parametrize(
    ("operation", "a", "b", "attributes"),
    [
        ("MatMul", (2, 3, 4, 5), (5, 6), {}),
        ("MatMul", (4, 5), (2, 3, 5, 6), {}),
        ("MatMul", (5,), (5,), {}),
        ("MatMul", (2, 4, 5), (5,), {}),
        ("Gemm", (4, 5), (5, 6), {}),
        ("Gemm", (5, 4), (6, 5), {"transA": 1, "transB": 1}),
    ],
)
def test_matrix_products_by_brute_force(operation: str, a: Any, b: Any, attributes: dict[str, int]) -> None:
    feeds = {"a": ones(*a), "b": ones(*b)}
    model = model_of([onnx.helper.make_node(operation, ["a", "b"], ["y0"], name="m", **attributes)], feeds, {})
    assert count_graph(model, feeds).layers["m"].padded == products(model, feeds)


class Attention(nn.Module):
    """Two heads over the channels of an image, a transposed convolution behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(4, 12, 1)
        self.out = nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(2).reshape(x.shape[0], 3, 2, 2, -1).unbind(1)
        mixed = torch.softmax(q.transpose(-1, -2) @ k, -1) @ v.transpose(-1, -2)
        whole: Tensor = self.out(mixed.transpose(-1, -2).reshape(x.shape))
        return whole


def test_attention_counts_as_in_torch() -> None:
    network, x, buffer = Attention().eval(), torch.rand(2, 4, 5, 6), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (x,), buffer, input_names=["x"], opset_version=17, dynamo=False)  # type: ignore[arg-type]
    counted = count_graph(onnx.load_model_from_string(buffer.getvalue()), {"x": x.numpy()})
    places = 30
    attention = 2 * 2 * 2 * (places * places * 2)
    assert sum(m.padded for m in counted.layers.values()) == count_macs(network, x).total.padded
    assert sum(m.in_bounds for m in counted.layers.values()) == count_macs(network, x).total.in_bounds
    assert attention == sum(m.padded for name, m in counted.layers.items() if "MatMul" in name)
    assert counted.not_covered == [] and counted.other["Softmax"] == 2 * 2 * places * places


def test_what_depends_on_constants_alone_does_not_count() -> None:
    helper = onnx.helper
    nodes = [
        helper.make_node("MatMul", ["w", "w"], ["ww"], name="once"),
        helper.make_node("MatMul", ["x", "ww"], ["y0"], name="always"),
    ]
    feeds = {"x": ones(2, 3)}
    counted = count_graph(model_of(nodes, feeds, {"w": ones(3, 3)}), feeds)
    assert {name: macs.padded for name, macs in counted.layers.items()} == {"always": 18}


def test_what_the_tables_do_not_know_is_named() -> None:
    helper = onnx.helper
    nodes = [
        helper.make_node("Einsum", ["x", "x"], ["e"], name="sum", equation="ij,kj->ik"),
        helper.make_node("LSTM", ["x3", "w", "r"], ["y0"], name="cell", hidden_size=2),
    ]
    nodes.append(helper.make_node("Unsqueeze", ["e", "axis"], ["y1"], name="move"))
    nodes.insert(1, helper.make_node("Unsqueeze", ["x", "axis"], ["x3"], name="row"))
    weights = {"w": ones(1, 8, 3), "r": ones(1, 8, 2), "axis": np.array([0], np.int64)}
    feeds = {"x": ones(2, 3)}
    counted = count_graph(model_of(nodes, feeds, weights, outputs=2), feeds)
    assert counted.not_covered == [("sum", "Einsum"), ("cell", "LSTM")] and not counted.layers


def test_a_choice_inside_of_the_graph_is_named() -> None:
    helper, image = onnx.helper, onnx.TensorProto.FLOAT
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "x"], ["z"])], "b", [], [helper.make_tensor_value_info("z", image, [2, 2])]
    )
    nodes = [helper.make_node("If", ["yes"], ["y0"], name="choice", then_branch=branch, else_branch=branch)]
    feeds = {"x": ones(2, 2)}
    counted = count_graph(model_of(nodes, feeds, {"yes": np.array(True)}), feeds)
    assert counted.not_covered == [("choice", "If")]


def test_a_noisy_batch_counts_twice() -> None:
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["y0"], name="c")]
    weights = {"w": ones(3, 1, 3, 3)}
    counts = []
    for batch in (1, 2):
        feeds = {"x": ones(batch, 1, 6, 7)}
        counts.append(count_graph(model_of(nodes, feeds, weights), feeds).layers["c"].padded)
    assert counts == [math.prod((3, 9, 4, 5)), 2 * math.prod((3, 9, 4, 5))]
