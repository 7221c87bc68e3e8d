"""A student as a recipe describes it, with weights that nobody trained: enough to ask whether it would fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import StudentFile
from neurodeploy.model.base import Facts
from neurodeploy.model.student import StudentModel

WEIGHT_SPREAD = 20.0
"""Standard deviation of the int8 weights: about that of trained ones, so that sums have a usual size."""

FIRST_SPREAD = 4.0
"""The same of the first convolution: it sees codes up to 255, and its sums have to fit the current register."""

FIRST_THRESHOLD = 200
"""Integer threshold of the first population; population i stands at ``(2 i - 1)`` times this."""


def untrained_model(recipe: Path) -> StudentModel:
    """The student of a recipe, untrained.

    Raises:
        UserError: The recipe is not usable, or trains a network without spikes.
    """
    from neurodeploy.distill.recipe import load_recipe

    described = load_recipe(recipe)
    if not isinstance(described.student, StudentSpec):
        raise UserError("trains a network without spikes; nothing is exported from it", node=str(recipe))
    degradation = described.degradation
    meta: dict[str, Any] = {"task": described.task}
    if degradation is not None:
        meta["degradation"] = degradation.model_dump(mode="json")
    facts = Facts(f"{described.name} (untrained)", recipe, described.task, meta=meta)
    return StudentModel(file=untrained_file(described.student, meta), facts=facts)


def untrained_file(spec: StudentSpec, meta: dict[str, Any] | None = None) -> StudentFile:
    """A quantised student of this description with pseudo-random weights, the same at every call."""
    rng = np.random.RandomState(0)
    tensors: dict[str, NDArray[Any]] = {}
    for layer in range(spec.depth + 1):
        shape = spec.conv_shape(layer)
        spread = FIRST_SPREAD if layer == 0 else WEIGHT_SPREAD
        q = np.clip(np.rint(rng.standard_normal(shape) * spread), -127, 127)
        tensors[f"conv{layer}.weight"] = q.astype(np.int8)
        tensors[f"conv{layer}.bias"] = np.zeros(shape[0], np.int32)
        tensors[f"conv{layer}.step"] = np.array(2.0**-7)
        if layer < spec.depth:
            tensors[f"lif{layer}.vth"] = (FIRST_THRESHOLD * (2 * np.arange(spec.levels) + 1)).astype(np.int32)
    described = spec.model_copy(update={"norm": "none"})
    return StudentFile(spec=described, tensors=tensors, quantized=True, meta=dict(meta or {}))
