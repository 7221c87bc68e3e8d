"""Teachers from ``.onnx`` files, run by onnxruntime."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neurodeploy.errors import UserError
from neurodeploy.networks.teachers.base import Teacher, nearest
from neurodeploy.networks.teachers.onnx_evaluator import MOST_PIXELS, Convolve, Evaluator, suits
from neurodeploy.networks.teachers.onnx_macs import GraphCount, count_graph

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
# Outputs of these make good hints: what a layer passes on after its activation.
_ACTIVATIONS = {"Relu", "LeakyRelu", "PRelu", "Clip", "Gelu", "Elu", "Selu", "HardSwish", "Softplus", "Mish"}
_FALLBACK = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
# Operators whose constant inputs are weights, even a single number.
_OWNERS = _FALLBACK | {
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "PRelu",
}


class OnnxNetwork(nn.Module):
    """Runs an ONNX graph on the CPU; results come back to the input's device.

    Args:
        model: The graph with its weights (an ``onnx.ModelProto``).
        path: Where it came from.

    Raises:
        UserError: onnxruntime refuses the graph, or it does not take the inputs of a restorer.
    """

    def __init__(self, model: Any, path: Path) -> None:
        super().__init__()
        session = _new_session(model, (), path)
        self.model = model
        self.path = path
        self.inputs = session.get_inputs()
        self.batch, self.channels, self.height, self.width = _image_input(self.inputs, path).shape
        self._sessions: dict[tuple[str, ...], Any] = {(): session}
        self._evaluator: Evaluator | None = None

    def forward(self, x: Tensor, *noise: Tensor) -> Tensor:
        """The graph's first output for images (B, C, H, W), and noise levels (B,) where it takes them."""
        return self.run((), x, *noise)[0]

    def run(self, points: tuple[str, ...], x: Tensor, *noise: Tensor) -> list[Tensor]:
        """The first output, and the tensors of the graph that are named.

        Raises:
            UserError: The graph takes only one size, and the images have another, or onnxruntime fails on them.
        """
        self._check_size(x)
        if points not in self._sessions:
            self._sessions[points] = _new_session(self.model, points, self.path)
        session = self._sessions[points]
        step = self.batch if isinstance(self.batch, int) else x.shape[0]
        chunks = [
            self._run_chunk(session, points, [array[start : start + step] for array in (x, *noise)])
            for start in range(0, x.shape[0], step)
        ]
        return [torch.from_numpy(np.concatenate(parts)).to(x.device) for parts in zip(*chunks, strict=True)]

    def convolve_by(self, convolve: Convolve) -> None:
        """Lets a function compute the convolutions of small pictures, where the graph is little else.

        Features may differ by rounding.
        """
        if suits(self.model):
            self._evaluator = Evaluator(self.model, convolve)

    def count_pass(self, x: Tensor, *noise: Tensor) -> GraphCount:
        """What the graph does for these inputs; :func:`neurodeploy.networks.macs.count_macs` asks for it."""
        self._check_size(x)
        return count_graph(self.model, self._feeds([x, *noise]))

    def _feeds(self, arrays: list[Tensor]) -> dict[str, NDArray[Any]]:
        return {
            info.name: _shaped(array.detach().cpu().numpy().astype(_FLOATS[info.type]), len(info.shape))
            for info, array in zip(self.inputs, arrays, strict=True)
        }

    def _run_chunk(self, session: Any, points: tuple[str, ...], arrays: list[Tensor]) -> list[NDArray[np.float32]]:
        feeds = self._feeds(arrays)
        if self._evaluator is not None and arrays[0].shape[2] * arrays[0].shape[3] <= MOST_PIXELS:
            try:
                return self._evaluator.run(points, feeds, whole=isinstance(self.batch, int))
            except Exception:  # numpy's and torch's have no common base; onnxruntime says what is wrong
                self._evaluator = None
        try:
            outputs = session.run([session.get_outputs()[0].name, *points], feeds)
        except Exception as error:  # onnxruntime's errors have no common base
            size = "x".join(str(n) for n in arrays[0].shape)
            raise UserError(
                f"onnxruntime cannot run it on an input of {size}: {_short(error)}", node=str(self.path)
            ) from error
        return [np.asarray(output, dtype=np.float32) for output in outputs]

    def _check_size(self, x: Tensor) -> None:
        for fixed, have in ((self.height, x.shape[-2]), (self.width, x.shape[-1])):
            if isinstance(fixed, int) and fixed != have:
                raise UserError(
                    "the graph takes images of one size only",
                    node=str(self.path),
                    have=f"{x.shape[-2]} x {x.shape[-1]}",
                    limit=f"{self.height} x {self.width} (height x width)",
                    instead="export it with dynamic height and width, or crop the images",
                )
        if isinstance(self.batch, int) and x.shape[0] % self.batch:
            raise UserError(
                "the graph takes batches of one size only",
                node=str(self.path),
                have=f"{x.shape[0]} images",
                limit=f"multiples of {self.batch}",
            )


class OnnxTeacher(Teacher):
    """A restorer in an ONNX graph: one image input (and perhaps the noise level), the first output the restored image.

    Hint points are names of tensors in the graph.

    Args:
        network: The graph.
        channels: What its images have where the graph leaves it open.
    """

    def __init__(self, network: OnnxNetwork, channels: int = 3) -> None:
        super().__init__(
            network,
            name=network.path.stem,
            channels=network.channels if isinstance(network.channels, int) else channels,
            hint_points=_hint_points(network.model),
            weights_source=str(network.path),
            needs_noise_level=len(network.inputs) == 2,
        )
        self.graph = network

    @property
    def parameters_count(self) -> int:
        """Numbers in the graph's floating-point tensors.

        A tensor of one number counts where a layer owns it (a gray network's last bias), and not where it is a constant
        of the arithmetic in between.
        """
        types = importlib.import_module("onnx").TensorProto
        floats = {types.FLOAT, types.FLOAT16, types.DOUBLE, types.BFLOAT16}
        graph = self.graph.model.graph
        owned = {name for node in graph.node if node.op_type in _OWNERS for name in node.input}
        sizes = [(tensor.name, math.prod(tensor.dims)) for tensor in graph.initializer if tensor.data_type in floats]
        return sum(size for name, size in sizes if size > 1 or name in owned)

    @torch.no_grad()
    def features(
        self, x: Tensor, points: Sequence[str], noise_level: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Restores images and keeps some tensors of the graph; see :meth:`Teacher.features`."""
        wanted = tuple(dict.fromkeys(points))
        known = {name for node in self.graph.model.graph.node for name in node.output}
        for point in wanted:
            if point not in known:
                raise UserError(
                    f"the graph {self.name} has no tensor of this name",
                    node=point,
                    instead=nearest(point, self.hint_points),
                )
        x = self._checked(x)
        restored, *kept = self.graph.run(wanted, x, *self._noise_arguments(noise_level, x))
        return self._same_size(restored, x), dict(zip(wanted, kept, strict=True))


def _new_session(model: Any, points: tuple[str, ...], path: Path) -> Any:
    """A session that gives the graph's own outputs and then those of the tensors named."""
    onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    outputs = {output.name for output in model.graph.output}
    extra = [point for point in points if point not in outputs]
    if extra:
        widened = onnx.ModelProto()
        widened.CopyFrom(model)
        widened.graph.output.extend(onnx.ValueInfoProto(name=point) for point in extra)
        model = widened
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        raise UserError(f"onnxruntime refuses the graph: {_short(error)}", node=str(path)) from error


def load_onnx(path: str | Path, *, channels: int | None = None) -> OnnxTeacher:
    """Loads a teacher from an ``.onnx`` file.

    Args:
        path: The file; weights kept in a file beside it are found.
        channels: What its images have where the graph leaves it open.

    Raises:
        UserError: onnx or onnxruntime is not installed; the file is missing or damaged; or its inputs and outputs are
            not those of an image restorer.
    """
    path = Path(path).expanduser()
    try:
        onnx = importlib.import_module("onnx")
        importlib.import_module("onnxruntime")
    except ImportError as error:
        raise UserError(
            f"an .onnx teacher needs {error.name}, which is not installed",
            node=str(path),
            instead="pip install 'neurodeploy[onnx]'",
        ) from error
    if not path.is_file():
        raise UserError("no such file", node=str(path))
    try:
        model = onnx.load(str(path))
    except Exception as error:  # the protobuf reader's errors have no common base
        raise UserError(f"is damaged or no ONNX file: {_short(error)}", node=str(path)) from error
    if not model.graph.node:
        raise UserError("is empty or no ONNX file", node=str(path))
    try:
        return OnnxTeacher(OnnxNetwork(model, path), channels or 3)
    except UnicodeDecodeError as error:  # a name in the graph; onnxruntime hands it on as it is
        raise UserError("holds a name that is no text", node=str(path)) from error


def _image_input(inputs: Sequence[Any], path: Path) -> Any:
    """The first input, when it is images (B, 1 or 3, H, W) and the second, if any, is one number an image."""
    images = bool(inputs) and inputs[0].type in _FLOATS and len(inputs[0].shape) == 4
    images = images and (not isinstance(inputs[0].shape[1], int) or inputs[0].shape[1] in (1, 3))
    if not images or len(inputs) > 2 or not all(_is_noise_level(info) for info in inputs[1:]):
        shapes = ", ".join(f"{info.name} {info.type} {info.shape}" for info in inputs)
        raise UserError(
            "does not take the inputs of a restorer",
            node=str(path),
            have=shapes or "no input",
            limit="images (B, 1 or 3, H, W), and at most one noise level an image (B, ...)",
        )
    return inputs[0]


def _is_noise_level(info: Any) -> bool:
    trailing = info.shape[1:]
    return info.type in _FLOATS and len(info.shape) >= 1 and not any(isinstance(n, int) and n != 1 for n in trailing)


def _shaped(array: NDArray[Any], rank: int) -> NDArray[Any]:
    """Numbers (B,) with trailing axes of 1 up to the rank; images as they are."""
    return array.reshape(array.shape + (1,) * (rank - array.ndim))


def _hint_points(model: Any) -> tuple[str, ...]:
    final = {output.name for output in model.graph.output}
    for operators in (_ACTIVATIONS, _FALLBACK):
        names = [n.output[0] for n in model.graph.node if n.op_type in operators and n.output[0] not in final]
        if names:
            return tuple(names)
    return ()


def _short(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
