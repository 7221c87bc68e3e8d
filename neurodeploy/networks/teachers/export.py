"""Writing a teacher as an ONNX graph, so that others can run the very baseline."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurodeploy import __version__
from neurodeploy.errors import UserError
from neurodeploy.extras import require
from neurodeploy.files import writing_folder
from neurodeploy.networks.teachers.base import Teacher
from neurodeploy.networks.teachers.onnx_file import OnnxTeacher

FILE, MANIFEST = "teacher.onnx", "manifest.json"
OPSET = 17
TOLERANCE = 1e-5
"""Largest difference between onnxruntime and torch that is let through, in units of the image."""

MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


class _Restore(nn.Module):
    """A teacher without the checks, which a trace cannot hold."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.network = teacher.network

    def forward(self, image: Tensor, *noise_level: Tensor) -> Tensor:
        restored: Tensor = self.network(image, *noise_level)
        return restored


def export_teacher(teacher: Teacher, out: str | Path, *, force: bool = False) -> dict[str, Any]:
    """Writes ``teacher.onnx`` and a manifest, after onnxruntime has given torch's numbers at several sizes.

    Batch, height and width are free; height and width are multiples of ``multiple`` of the manifest (1 where any size
    goes), the smallest for which that holds.

    Args:
        teacher: The teacher, on the CPU.
        out: The folder to write.
        force: Replace an existing folder.

    Returns:
        The manifest.

    Raises:
        UserError: onnx or onnxruntime is not installed, the teacher is an ONNX file already, torch cannot trace it, or
            the graph gives other numbers than torch.
    """
    if isinstance(teacher, OnnxTeacher):
        raise UserError("is an ONNX file already", node=teacher.weights_source)
    onnx, _ = require("onnx"), require("onnxruntime")
    data = _traced(teacher)
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    multiple, sizes, difference = _compared(teacher, data)
    with writing_folder(out, force=force) as folder:
        (folder / FILE).write_bytes(data)
        manifest = {
            "format": "neurodeploy-teacher",
            "schema_version": 1,
            "program": {"name": "neurodeploy", "version": __version__},
            "name": teacher.name,
            "weights": Path(teacher.weights_source).name,
            "parameters": teacher.parameters_count,
            "channels": teacher.channels,
            "inputs": ["image", *(["noise_level"] if teacher.needs_noise_level else [])],
            "outputs": ["restored"],
            "multiple": multiple,
            "compared": {"sizes": sizes, "largest_difference": difference, "limit": TOLERANCE},
            "files": [{"path": FILE, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}],
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _inputs(teacher: Teacher, batch: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    image = torch.rand((batch, teacher.channels, *size), generator=draw)
    return (image, torch.linspace(0.02, 0.2, batch)) if teacher.needs_noise_level else (image,)


def _traced(teacher: Teacher) -> bytes:
    example = _inputs(teacher, 1, (64, 128))
    names = ["image", "noise_level"][: len(example)]
    axes = {0: "batch", 2: "height", 3: "width"}
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # sizes that python looks at are fixed in a trace: the comparison below finds out which sizes go
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Restore(teacher).eval(),
                example,
                buffer,  # type: ignore[arg-type]
                input_names=names,
                output_names=["restored"],
                dynamic_axes={"image": axes, "restored": axes, **({"noise_level": {0: "batch"}} if names[1:] else {})},
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # torch's exporter raises whatever a network's own code does
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"torch cannot write it as ONNX: {first}", node=teacher.weights_source) from error
    return buffer.getvalue()


def _compared(teacher: Teacher, data: bytes) -> tuple[int, list[list[int]], float]:
    """The smallest multiple of which every size goes, the sizes tried, and the largest difference met on them."""
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    met = np.inf
    for multiple in MULTIPLES:
        least = -(-33 // multiple)
        sizes = [(multiple * least, multiple * (least + 1)), (multiple * (least + 2), multiple * least)]
        met = max(_difference(teacher, session, size) for size in sizes)
        if met <= TOLERANCE:
            return multiple, [list(size) for size in sizes], met
    raise UserError(
        "onnxruntime gives other numbers than torch",
        node=teacher.weights_source,
        have=f"{met:.3g}",
        limit=f"{TOLERANCE:g}",
    )


def _difference(teacher: Teacher, session: Any, size: tuple[int, int]) -> float:
    """The largest difference on two images of this size; infinite where the graph does not run."""
    arrays = _inputs(teacher, 2, size)
    feed = {info.name: array.numpy() for info, array in zip(session.get_inputs(), arrays, strict=True)}
    try:
        restored = session.run(None, feed)[0]
    except Exception:  # onnxruntime's errors have no common base
        return float("inf")
    wanted = teacher.restore(*arrays).numpy()
    return float(np.abs(restored - wanted).max()) if restored.shape == wanted.shape else float("inf")
