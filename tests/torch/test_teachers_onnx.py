"""Teachers in ONNX files: the same numbers as the torch network they came from, and what is refused."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neurodeploy.errors import UserError
from neurodeploy.networks import winograd
from neurodeploy.networks.macs import count_macs
from neurodeploy.networks.teachers import load_teacher, onnx_evaluator
from neurodeploy.networks.teachers.dncnn import DnCNN
from neurodeploy.networks.teachers.ffdnet import FFDNet

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def graph(
    path: Path,
    *,
    shape: tuple[int | str, ...] = ("B", 1, "H", "W"),
    nodes: list[Any] | None = None,
    extra_inputs: tuple[Any, ...] = (),
    network: DnCNN | None = None,
    weights: list[Any] | None = None,
) -> str:
    """Writes ``y = x - conv2(relu(conv1(x)))`` by hand, or the given nodes between ``x`` and ``y``."""
    helper, weights = onnx.helper, weights or []
    if nodes is None:
        network = network or small()
        stack = network.model
        for k in (0, 2):
            for name, value in stack[k].named_parameters():
                weights.append(onnx.numpy_helper.from_array(value.detach().numpy(), f"{k}.{name}"))
        pads = {"pads": [1, 1, 1, 1]}
        nodes = [
            helper.make_node("Conv", ["x", "0.weight", "0.bias"], ["conv1"], **pads),
            helper.make_node("Relu", ["conv1"], ["features"]),
            helper.make_node("Conv", ["features", "2.weight", "2.bias"], ["noise"], **pads),
            helper.make_node("Sub", ["x", "noise"], ["y"]),
        ]
    image = onnx.TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "restorer",
            [helper.make_tensor_value_info("x", image, list(shape)), *extra_inputs],
            [helper.make_tensor_value_info("y", image, None)],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, str(path))
    return str(path)


def small() -> DnCNN:
    torch.manual_seed(2)
    network = DnCNN(1, 4, 2)
    nn.init.normal_(network.model[0].bias)  # type: ignore[arg-type]
    return network.eval()


def test_a_graph_gives_the_networks_numbers_and_features(tmp_path: Path) -> None:
    network = small()
    teacher = load_teacher(graph(tmp_path / "net.onnx", network=network))
    assert (teacher.name, teacher.channels, teacher.hint_points) == ("net", 1, ("features",))
    assert teacher.parameters_count == sum(p.numel() for p in network.parameters())
    assert teacher.weights_source.endswith("net.onnx") and not teacher.needs_noise_level
    x = torch.rand(3, 1, 11, 9)
    restored, seen = teacher.features(x, ["features", "conv1"])
    with torch.no_grad():
        torch.testing.assert_close(restored, network(x), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(seen["conv1"], network.model[0](x), rtol=1e-5, atol=1e-6)
    assert torch.equal(seen["features"], seen["conv1"].relu()) and list(seen) == ["features", "conv1"]
    torch.testing.assert_close(teacher.restore(x), restored)
    torch.testing.assert_close(teacher.eval().train()(x), restored)


def convolutions(*, first: dict[str, Any] | None = None, last: str = "Identity") -> tuple[list[Any], list[Any]]:
    """Nodes between ``x`` and ``y``, of every kind of convolution and of what may lie between them; their weights."""
    make, generator = onnx.helper.make_node, torch.Generator().manual_seed(3)
    shapes = {"1": (16, 1, 3, 3), "2": (32, 16, 3, 3), "3": (16, 32, 3, 3), "4": (16, 16, 3, 3), "5": (4, 8, 1, 1)}
    weights = [
        onnx.numpy_helper.from_array((torch.randn(shape, generator=generator) / 8).numpy(), name)
        for name, shape in shapes.items()
    ]
    weights.append(onnx.numpy_helper.from_array(torch.rand(32, generator=generator).numpy(), "bias"))
    nodes = [
        make("Conv", ["x", "1"], ["a"], **(first or {"pads": [1, 1, 1, 1]})),
        make("Relu", ["a"], ["b"]),
        make("Conv", ["b", "2", "bias"], ["c"], pads=[1, 1, 1, 1]),
        make("LeakyRelu", ["c"], ["d"], alpha=0.1),
        make("Conv", ["d", "3"], ["e"], pads=[2, 2, 2, 2], dilations=[2, 2]),
        make("Add", ["e", "b"], ["f"]),
        make("Conv", ["f", "4"], ["g"], strides=[2, 2], pads=[0, 1, 2, 1]),
        make("Conv", ["g", "5"], ["h"], group=2),
        make("DepthToSpace", ["h"], ["up"], blocksize=2),
        make("Sub", ["x", "up"], ["z"]),
        make(last, ["z"], ["y"]),
    ]
    return nodes, weights


@pytest.mark.parametrize(("batch", "parts"), [("B", [2] * 6 + [1] * 3), (5, [5] * 3)])
def test_the_trainer_computes_its_convolutions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int | str, parts: list[int]
) -> None:
    """By the quicker ones, in parts of a batch; all else as onnxruntime does."""
    nodes, weights = convolutions()
    x = torch.rand(5, 1, 12, 16, generator=torch.Generator().manual_seed(1))
    spec = graph(tmp_path / "net.onnx", nodes=nodes, weights=weights, shape=(batch, 1, "H", "W"))
    teacher, taken = load_teacher(spec), []
    real = winograd.conv2d

    def counted(x: Tensor, *rest: Tensor, **options: Any) -> Tensor:
        taken.append(len(x))
        return real(x, *rest, **options)

    monkeypatch.setattr(onnx_evaluator, "MOST_PIXELS", 2 * 12 * 16)
    monkeypatch.setattr(winograd, "conv2d", counted)
    winograd.convolve_by_it(teacher)
    restored, seen = teacher.features(x, ["d", "up"])
    expected, features = load_teacher(spec).features(x, ["d", "up"])
    assert taken == parts
    teacher.restore(torch.rand(5, 1, 200, 100))
    assert taken == parts  # too large for it
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(seen, features, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="onnxruntime cannot run it on an input of 5x1x11x9"):
        teacher.features(x[:, :, :11, :9], ["up"])


@pytest.mark.parametrize("changed", [{"first": {"auto_pad": "SAME_UPPER"}}, {"last": "Erf"}])
def test_what_would_be_slow_or_other_is_left_to_onnxruntime(tmp_path: Path, changed: dict[str, Any]) -> None:
    nodes, weights = convolutions(**changed)
    teacher = load_teacher(graph(tmp_path / "net.onnx", nodes=nodes, weights=weights))
    winograd.convolve_by_it(teacher)
    assert teacher.graph._evaluator is None  # type: ignore[attr-defined, union-attr]


def test_a_batch_of_one_is_looped_over_and_a_fixed_size_named(tmp_path: Path) -> None:
    dynamic = load_teacher(graph(tmp_path / "dynamic.onnx"))
    fixed = load_teacher(graph(tmp_path / "fixed.onnx", shape=(1, 1, 8, 12)))
    x = torch.rand(3, 1, 8, 12)
    restored, seen = fixed.features(x, fixed.hint_points)
    torch.testing.assert_close(restored, dynamic.restore(x))
    assert seen["features"].shape == (3, 4, 8, 12)
    with pytest.raises(UserError, match=r"one size only.*have 9 x 12, limit 8 x 12"):
        fixed.restore(torch.rand(1, 1, 9, 12))
    pairs = load_teacher(graph(tmp_path / "pairs.onnx", shape=(2, 1, "H", "W")))
    assert pairs.restore(torch.rand(4, 1, 8, 8)).shape == (4, 1, 8, 8)
    with pytest.raises(UserError, match="3 images, limit multiples of 2"):
        pairs.restore(x)


def test_channels_are_checked(tmp_path: Path) -> None:
    spec = graph(tmp_path / "net.onnx")
    with pytest.raises(UserError, match=r"gray.*have colour"):
        load_teacher(spec, channels=3)
    with pytest.raises(UserError, match=r"gray.*have colour"):
        load_teacher(f"onnx:{spec}").restore(torch.rand(1, 3, 8, 8))
    identity = [onnx.helper.make_node("Identity", ["x"], ["y"])]
    spec = graph(tmp_path / "any.onnx", shape=("B", "C", "H", "W"), nodes=identity)
    assert load_teacher(spec, channels=1).channels == 1 and load_teacher(spec).channels == 3


def test_a_graph_that_is_told_the_noise_level(tmp_path: Path) -> None:
    level = onnx.helper.make_tensor_value_info("sigma", onnx.TensorProto.FLOAT, ["B", 1, 1, 1])
    scale = [onnx.helper.make_node("Mul", ["x", "sigma"], ["y"])]
    teacher = load_teacher(graph(tmp_path / "told.onnx", nodes=scale, extra_inputs=(level,)))
    x = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(teacher.restore(x, torch.tensor([0.5, 2.0]))[1], x[1] * 2)
    with pytest.raises(UserError, match="--sigma"):
        teacher.restore(x)


def test_unknown_tensors_are_named_with_the_nearest(tmp_path: Path) -> None:
    teacher = load_teacher(graph(tmp_path / "net.onnx"))
    with pytest.raises(UserError, match=r"featurs.*did you mean features"):
        teacher.features(torch.rand(1, 1, 4, 4), ["featurs"])


def test_its_operations_count_like_those_of_the_torch_network(tmp_path: Path) -> None:
    network = small()
    count = count_macs(load_teacher(graph(tmp_path / "net.onnx", network=network)), torch.rand(2, 1, 8, 11))
    wanted = count_macs(network, torch.rand(2, 1, 8, 11))
    assert count.total == wanted.total and count.not_covered == () and count.other == {"Relu": 2 * 4 * 88, "Sub": 176}
    assert list(count.by_layer) == ["network.Conv_0", "network.Conv_2"]


def test_files_that_are_no_restorers_are_refused(tmp_path: Path) -> None:
    helper = onnx.helper
    with pytest.raises(UserError, match="no such file"):
        load_teacher(str(tmp_path / "absent.onnx"))
    for name, data in (("empty", b""), ("text", b"hello, this is no graph"), ("zeros", bytes(100))):
        (tmp_path / f"{name}.onnx").write_bytes(data)
        with pytest.raises(UserError, match="no ONNX file"):
            load_teacher(str(tmp_path / f"{name}.onnx"))
    whole = Path(graph(tmp_path / "whole.onnx")).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"no ONNX file|refuses the graph"):
        load_teacher(str(tmp_path / "cut.onnx"))
    identity = [helper.make_node("Identity", ["x"], ["y"])]
    with pytest.raises(UserError, match=r"inputs of a restorer.*\['B', 5, 4, 4\]"):
        load_teacher(graph(tmp_path / "five.onnx", shape=("B", 5, 4, 4), nodes=identity))
    with pytest.raises(UserError, match="inputs of a restorer"):
        load_teacher(graph(tmp_path / "flat.onnx", shape=("B", 3), nodes=identity))
    map_input = helper.make_tensor_value_info("m", onnx.TensorProto.FLOAT, ["B", 1, 8, 8])
    with pytest.raises(UserError, match="inputs of a restorer"):
        load_teacher(graph(tmp_path / "map.onnx", nodes=identity, extra_inputs=(map_input,)))
    pool = [helper.make_node("GlobalAveragePool", ["x"], ["y"])]
    with pytest.raises(UserError, match="not give an image of its input's size"):
        load_teacher(graph(tmp_path / "pool.onnx", nodes=pool)).restore(torch.rand(1, 1, 4, 4))
    unknown = [helper.make_node("NoSuchOperator", ["x"], ["y"])]
    with pytest.raises(UserError, match="refuses the graph"):
        load_teacher(graph(tmp_path / "unknown.onnx", nodes=unknown))


def test_a_size_that_the_graph_cannot_take_is_told(tmp_path: Path) -> None:
    helper = onnx.helper
    halves = [
        helper.make_node("SpaceToDepth", ["x"], ["small"], blocksize=2),
        helper.make_node("DepthToSpace", ["small"], ["y"], blocksize=2),
    ]
    teacher = load_teacher(graph(tmp_path / "even.onnx", nodes=halves))
    x = torch.rand(1, 1, 4, 6)
    assert torch.equal(teacher.restore(x), x)
    with pytest.raises(UserError, match=r"cannot run it on an input of 1x1x5x5|not give an image of its input's size"):
        teacher.restore(torch.rand(1, 1, 5, 5))


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = graph(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime, which is not installed; pip install 'neurodeploy\[onnx\]'"):
        load_teacher(spec)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [True, False])
def test_what_torch_exports_loads(tmp_path: Path, dynamic: bool) -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    network = FFDNet(3, 6, 3).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)  # equal biases would share one tensor in the file
    arguments: tuple[Tensor, Tensor] = (torch.rand(1, 3, 8, 10), torch.tensor([0.1]))
    size = {2: torch.export.Dim("H", min=2), 3: torch.export.Dim("W", min=2)} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            FixedLevel(network) if dynamic else network,
            arguments[:1] if dynamic else arguments,
            dynamo=True,
            verbose=False,
            dynamic_shapes=({2: 2 * size[2], 3: 2 * size[3]},) if size else None,
        )
    assert program is not None
    program.save(str(tmp_path / "f.onnx"), external_data=dynamic)
    teacher = load_teacher(str(tmp_path / "f.onnx"))
    x = torch.rand(2, 3, 12, 18) if dynamic else torch.rand(2, 3, 8, 10)
    level = torch.tensor([0.1, 0.1])
    restored, seen = teacher.features(x, teacher.hint_points, level)
    with torch.no_grad():
        torch.testing.assert_close(restored, network(x, level), rtol=1e-4, atol=1e-5)
    assert len(seen) == 2 and teacher.parameters_count == sum(p.numel() for p in network.parameters())
    assert importlib.import_module("onnxruntime").__version__


class FixedLevel(nn.Module):
    """FFDNet for one noise level, so that its batch may be looped over."""

    def __init__(self, network: FFDNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        restored: Tensor = self.network(x, torch.full((1,), 0.1))
        return restored


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Found by fuzzing: protobuf lets it through, and onnxruntime's own error is not one of the user's."""
    path = Path(graph(tmp_path / "m.onnx"))
    model = onnx.load(str(path))
    model.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info("qqqq", onnx.TensorProto.FLOAT, [7, 7]))
    path.write_bytes(model.SerializeToString().replace(b"qqqq", b"\x90qqq"))
    with pytest.raises(UserError, match=r"m\.onnx"):
        load_teacher(str(path))
