"""A student in torch, and the same student as its file holds it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from neurodeploy.errors import UserError
from neurodeploy.graph.student_file import StudentFile
from neurodeploy.networks.student import SpikingStudent


@torch.no_grad()
def file_of(student: SpikingStudent, meta: Mapping[str, Any] | None = None) -> StudentFile:
    """The student as its file holds it: integers in the grid mode, floats (batch norm folded) otherwise.

    Raises:
        UserError: It has batch norms still, see :func:`neurodeploy.networks.grid.fold_norms`.
    """
    tensors: dict[str, NDArray[Any]] = {}
    spec, on_grid = student.spec, bool(student.on_grid)
    if not on_grid and any(isinstance(norm, nn.BatchNorm2d) for norm in student.norms):
        raise UserError("fold_norms() first: a student file holds no batch norm")
    for layer in range(spec.depth + 1):
        if not on_grid:
            tensors[f"conv{layer}.weight"] = student.conv(layer).weight.detach().cpu().numpy().astype(np.float32)
            tensors[f"conv{layer}.bias"] = student.bias(layer).detach().cpu().numpy().astype(np.float32)
            continue
        tensors[f"conv{layer}.weight"] = student.weight_integers(layer).cpu().numpy().astype(np.int8)
        tensors[f"conv{layer}.bias"] = student.bias_integers(layer).cpu().numpy().astype(np.int32)
        # the network on the chip receives integer codes, so the first step carries 1 / input_scale
        tensors[f"conv{layer}.step"] = np.asarray(2 * student.unit(layer), dtype=np.float64)
    for layer in range(spec.depth):
        if on_grid:
            first, spacing = student.threshold_integers(layer)
            tensors[f"lif{layer}.vth"] = (first + spacing * np.arange(spec.levels)).astype(np.int32)
        else:
            tensors[f"lif{layer}.delta"] = student.delta(layer).detach().cpu().numpy().astype(np.float32)
    return StudentFile(spec=spec, tensors=tensors, quantized=on_grid, meta=dict(meta or {}))


@torch.no_grad()
def student_of(file: StudentFile, **options: Any) -> SpikingStudent:
    """The student of a file, in the mode that it was saved in. ``options`` go to the constructor.

    Raises:
        UserError: Thresholds of the file are not evenly spaced.
    """
    spec = file.spec.model_copy(update={"norm": "none"})
    student = SpikingStudent(spec, **options)
    for layer in range(spec.depth + 1):
        weight, bias = (
            torch.from_numpy(np.asarray(file.tensors[f"conv{layer}.{part}"])) for part in ("weight", "bias")
        )
        if file.quantized:
            scale = spec.input_scale if layer == 0 else 1.0
            step = float(file.tensors[f"conv{layer}.step"]) * scale
            student.weight_steps[layer] = step
            student.bias_grains[layer] = 1 if torch.any(bias % spec.bias_grain) else spec.bias_grain
            weight, bias = weight.double() * step, bias.double() * student.unit(layer)
        student.conv(layer).weight.copy_(weight)
        student.bias(layer).copy_(bias)
    for layer in range(spec.depth):
        if file.quantized:
            spacing = _spacing(np.asarray(file.tensors[f"lif{layer}.vth"], dtype=np.int64), f"lif{layer}.vth")
            if spacing % 4 if spec.levels > 1 else (spacing - 1) % 4:  # see _spacing: that of one level is odd
                student.bias_grains[layer] = 1
            student.log_delta[layer] = math.log(spacing * student.unit(layer))
        else:
            student.log_delta[layer] = float(np.log(file.tensors[f"lif{layer}.delta"]))
    student.on_grid.fill_(file.quantized)
    return student


def _spacing(vth: NDArray[np.int64], name: str) -> int:
    """The spacing that :meth:`SpikingStudent.threshold_integers` gives these thresholds for."""
    spacing = int(vth[1] - vth[0]) if len(vth) > 1 else 2 * int(vth[0]) + 1
    if spacing < 1 or vth[0] != spacing // 2 or np.any(np.diff(vth) != spacing):
        raise UserError("thresholds are not evenly spaced", node=name, have=str(vth.tolist()))
    return spacing
