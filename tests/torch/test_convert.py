"""From an ONNX network to a spiking student: the same function before quantising, the loss, and what is refused."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodeploy.cli import main
from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph.student_file import read_student
from neurodeploy.images.degradations import parse_degradation
from neurodeploy.networks.convert.balance import balanced
from neurodeploy.networks.convert.run import ConvertPlan, convert, read_network
from neurodeploy.networks.convert.shape import Shaped
from neurodeploy.networks.stored import student_of
from neurodeploy.networks.teachers.dncnn import DnCNN
from neurodeploy.networks.teachers.ffdnet import FFDNet
from neurodeploy.networks.teachers.onnx_file import OnnxTeacher, load_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PLAN = ConvertPlan(levels=6, degradation=parse_degradation("gaussian:25"), pictures=2, crop=32)


class Blocks(nn.Module):
    """Space-to-depth by Reshape and Transpose, channels in the order of TensorFlow."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        f = self.factor
        cut = x.reshape(b, c, h // f, f, w // f, f).permute(0, 3, 5, 1, 2, 4)
        return cut.reshape(b, c * f * f, h // f, w // f)


class Odd(nn.Module):
    """Batch norm behind, ReLU6, dilation, widths and kernels that differ, an added residual, a scale."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.blocks = Blocks(2)
        self.body = nn.Sequential(
            nn.Conv2d(4 * channels, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU6(),
            nn.Conv2d(6, 4, 3, padding=2, dilation=2), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 5, 1), nn.ReLU(),
            nn.ZeroPad2d(1), nn.Conv2d(5, 4 * channels, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.25 * F.pixel_shuffle(self.body(self.blocks(2 * x)), 2)


class Summed(nn.Module):
    """Currents of an earlier convolution added to a later one's."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in ((1, 4), (4, 4), (4, 4), (4, 1))])

    def forward(self, x: Tensor) -> Tensor:
        a = self.convs[1](self.convs[0](x).relu())
        return torch.clip(x - self.convs[3]((self.convs[2](a.relu()) + a).relu()), 0, 1)


def exported(network: nn.Module, path: Path, channels: int = 1, told: bool = False) -> OnnxTeacher:
    torch.manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.7 / module.weight[0].numel() ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    example = (torch.rand(1, channels, 16, 24), torch.rand(1))[: 2 if told else 1]
    names, axes = ["x", "sigma"][: len(example)], {0: "b", 2: "h", 3: "w"}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), example, buffer, input_names=names, output_names=["y"], opset_version=17,  # type: ignore[arg-type]
            dynamic_axes={"x": axes, "y": axes}, dynamo=False, training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )  # fmt: skip
    path.write_bytes(buffer.getvalue())
    return load_onnx(path, channels=channels)


def by_relu(network: Shaped, image: Tensor) -> Tensor:
    """The shaped network with its activations as they were."""
    spec, x = network.spec, F.pixel_unshuffle(image, network.spec.unshuffle)
    currents = []
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        dilation = spec.dilations[layer]
        x = F.conv2d(
            x.double(), torch.from_numpy(weight), torch.from_numpy(bias), padding=dilation * (spec.kernel // 2),
            dilation=dilation,
        )  # fmt: skip
        x = x + sum(currents[a] for a, b in spec.edges if b == layer)
        currents.append(x)
        if layer < spec.depth:
            x = x.clamp(0, network.caps[layer])
    out = F.pixel_shuffle(x, spec.unshuffle)
    return image - out if spec.residual else out


@pytest.mark.parametrize(
    ("made", "channels", "told", "wanted"),
    [
        (lambda: DnCNN(1, 4, 3), 1, False, {"unshuffle": 1, "residual": True, "depth": 2, "kernel": 3}),
        (lambda: DnCNN(3, 4, 3), 3, False, {"unshuffle": 1, "residual": True, "channels": 3}),
        (lambda: DnCNN(1, 4, 4, batch_norm=True), 1, False, {"depth": 3}),
        (lambda: FFDNet(1, 4, 3), 1, True, {"unshuffle": 2, "residual": False}),
        (lambda: FFDNet(3, 4, 3), 3, True, {"unshuffle": 2, "residual": False}),
        (lambda: Odd(3), 3, False, {"unshuffle": 2, "residual": True, "width": 6, "dilation": (1, 2, 1, 1)}),
        (lambda: Odd(1), 1, False, {"unshuffle": 2, "kernel": 3}),
        (Summed, 1, False, {"edges": ((1, 2),), "residual": True}),
    ],
    ids=["dncnn", "dncnn colour", "dncnn batch norm", "ffdnet", "ffdnet colour", "odd colour", "odd gray", "sum edge"],
)
def test_the_shape_read_from_a_graph_computes_what_the_graph_does(
    tmp_path: Path, made: Any, channels: int, told: bool, wanted: dict[str, Any]
) -> None:
    teacher = exported(made(), tmp_path / "net.onnx", channels, told)
    network = read_network(teacher, PLAN, 0.1 if told else None)
    for key, value in wanted.items():
        assert getattr(network.spec, key) == value, key
    image = 0.3 + 0.4 * torch.rand(1, channels, 12, 20, generator=torch.Generator().manual_seed(0))
    have = by_relu(network, image)
    expected = teacher.restore(image, torch.tensor([0.1]) if told else None).double()
    inner = np.s_[..., 6:-6, 6:-6] if told else np.s_[...]  # the noise level is folded in but at the border
    torch.testing.assert_close(have[inner], expected[inner], rtol=1e-4, atol=1e-5)


def test_layers_of_other_shapes_are_filled_up_and_noted(tmp_path: Path) -> None:
    notes = read_network(exported(Odd(1), tmp_path / "net.onnx"), PLAN, None).notes
    assert len(notes) == 3 and all("filled up with zeros" in note for note in notes)


def test_many_levels_come_near_the_network_and_more_come_nearer(tmp_path: Path) -> None:
    teacher = exported(DnCNN(1, 8, 4), tmp_path / "net.onnx")
    pictures = [np.random.RandomState(k).rand(1, 32, 32).astype(np.float32) for k in range(3)]
    image = torch.from_numpy(np.random.RandomState(9).rand(1, 1, 32, 32).astype(np.float32))
    expected = teacher.restore(image) - image
    errors = []
    for levels in (2, 15):
        plan = ConvertPlan(levels=levels, input_scale=1023.0)
        student = balanced(read_network(teacher, plan, None), pictures).student
        with torch.no_grad():
            have = student_of(student).eval()(image)[0] - image
        errors.append(float((have - expected).square().mean() / expected.square().mean()))
    assert errors[1] < 0.01 and errors[1] < errors[0] / 1.5


def test_the_folder_is_a_student_with_the_loss_on_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported(DnCNN(1, 6, 3), tmp_path / "net.onnx")
    out = tmp_path / "out"
    report = convert(tmp_path / "net.onnx", out, PLAN)
    scores, loss = report["psnr_db"], report["loss_db"]
    assert loss["total"] == pytest.approx(scores["ann"] - scores["student_fixed"], abs=1e-3)
    # the weights are on the grid already: what training starts from is what was balanced
    assert loss["integers"] == pytest.approx(0, abs=0.2)
    assert json.loads((out / "convert.json").read_text())["psnr_db"] == scores
    quantized, floats = read_student(out / "student.safetensors"), read_student(out / "student-float.safetensors")
    assert quantized.quantized and not floats.quantized and quantized.spec == floats.spec
    assert quantized.meta["converted"] is True and quantized.meta["degradation"]["sigma"] == 25
    with pytest.raises(UserError, match="exists"):
        convert(tmp_path / "net.onnx", out, PLAN)
    assert main(["--json", "-q", "check", str(out), "--target", "loihi2", "--size", "16x16"]) in (0, 1)
    assert "ok" in json.loads(capsys.readouterr().out)


def graph(path: Path, nodes: list[Any], weights: dict[str, Any], shape: tuple[Any, ...] = ("b", 1, "h", "w")) -> Path:
    helper, image = onnx.helper, onnx.TensorProto.FLOAT
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", image, list(shape))],
        [helper.make_tensor_value_info("y", image, None)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_everything_that_does_not_convert_is_named_in_one_message(tmp_path: Path) -> None:
    n = onnx.helper.make_node
    w = np.ones((2, 2, 3, 3), np.float32)
    weights = {
        "w0": np.ones((2, 1, 3, 3), np.float32), "w": w, "even": np.ones((2, 2, 2, 2), np.float32),
        "last": np.ones((1, 2, 3, 3), np.float32), "up": np.ones((2, 2, 2, 2), np.float32),
    }  # fmt: skip
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        n("Conv", ["x", "w0"], ["a0"], "first", **same),
        n("LeakyRelu", ["a0"], ["b0"], "leaky"),
        n("Conv", ["b0", "w"], ["a1"], "second", strides=[2, 2], **same),
        n("Relu", ["a1"], ["b1"], "r1"),
        n("MaxPool", ["b1"], ["p1"], "pool", kernel_shape=[2, 2]),
        n("Conv", ["p1", "even"], ["a2"], "third"),
        n("Relu", ["a2"], ["b2"], "r2"),
        n("ConvTranspose", ["b2", "up"], ["t"], "up", strides=[2, 2]),
        n("Conv", ["t", "last"], ["y"], "fourth", **same),
    ]
    path = graph(tmp_path / "bad.onnx", nodes, weights)
    with pytest.raises(FindingsError) as caught:
        read_network(load_onnx(path), PLAN, None)
    said = {(finding.node, finding.rule) for finding in caught.value.findings}
    assert {
        ("leaky", "LeakyRelu between convolutions is not supported"),
        ("second", "has a stride"),
        ("pool", "MaxPool is not supported on an activation"),
        ("third", "its kernel is not square and odd"),
        ("up", "ConvTranspose is not supported on an activation"),
    } <= said
    assert caught.value.exit_code == 2


def test_a_network_that_ends_or_begins_otherwise_is_refused(tmp_path: Path) -> None:
    n = onnx.helper.make_node
    weights = {
        "w0": np.ones((2, 1, 3, 3), np.float32), "w1": np.ones((1, 2, 3, 3), np.float32),
        "one": np.ones((1, 1, 1, 1), np.float32), "half": np.array([0.5], np.float32),
    }  # fmt: skip
    same = {"pads": [1, 1, 1, 1]}
    body = [n("Conv", ["h", "w0"], ["a"], "c0", **same), n("Relu", ["a"], ["b"], "r")]
    cases = {
        "ends with an activation": [n("Identity", ["x"], ["h"]), *body, n("Conv", ["b", "w1"], ["c"], "c1", **same),
                                    n("Relu", ["c"], ["y"], "r1")],
        "adds a constant": [n("Sub", ["x", "half"], ["h"]), *body, n("Conv", ["b", "w1"], ["y"], "c1", **same)],
        "is no pixel-shuffle and residual|is no pixel-shuffle|is no residual": [
            n("Identity", ["x"], ["h"]), *body, n("Conv", ["b", "w1"], ["c"], "c1", **same),
            n("Sigmoid", ["c"], ["y"])],
        "has nothing that spikes": [n("Conv", ["x", "one"], ["y"], "c0")],
        "has no convolution": [n("Relu", ["x"], ["y"], "r")],
    }  # fmt: skip
    for place, (words, nodes) in enumerate(cases.items()):
        path = graph(tmp_path / f"{place}.onnx", nodes, weights)
        with pytest.raises(UserError, match=words):
            read_network(load_onnx(path), PLAN, None)


def test_a_told_network_needs_the_level(tmp_path: Path) -> None:
    teacher = exported(FFDNet(1, 4, 3), tmp_path / "net.onnx", told=True)
    with pytest.raises(FindingsError, match="--sigma"):
        read_network(teacher, PLAN, None)
