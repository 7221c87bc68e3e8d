"""A student as a model: of a zoo entry, a run folder or a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neurodeploy.model.base import (
    NOMINAL_SIZE,
    Arithmetic,
    Channels,
    Facts,
    Image,
    Model,
    Restorer,
    check_device,
)

if TYPE_CHECKING:
    from neurodeploy.graph.portable import Network
    from neurodeploy.graph.student_file import StudentFile
    from neurodeploy.quantize.network import IntegerNetwork


@dataclass
class StudentModel(Model):
    """A trained student: a zoo entry, a run folder or a ``.safetensors`` file."""

    file: StudentFile
    facts: Facts
    kind: str = "student"

    @property
    def parameters(self) -> int:
        """Weights, biases, and one threshold a population and layer."""
        tensors = self.file.tensors
        layers = range(self.file.spec.depth + 1)
        return self.file.spec.depth * self.file.spec.levels + sum(
            int(tensors[f"conv{k}.{part}"].size) for k in layers for part in ("weight", "bias")
        )

    @property
    def channels(self) -> Channels:
        """1 or 3."""
        return self.file.spec.channels

    @property
    def steps(self) -> int:
        """Time steps T."""
        return self.file.spec.steps

    @property
    def default_arithmetic(self) -> Arithmetic:
        """Integers once the student is quantised."""
        return "fixed" if self.file.quantized else "float"

    def network(self, size: tuple[int, int] = NOMINAL_SIZE) -> Network:
        """The portable NIR graph."""
        from neurodeploy.graph.portable import portable_graph

        return portable_graph(self.file.spec, self.file.tensors, size, self.file.quantized)

    @cached_property
    def _integer(self) -> IntegerNetwork:
        from neurodeploy.quantize.lower import quantize

        return quantize(self.network())

    def integer(self) -> IntegerNetwork:
        """The integer network: exact for a quantised student, rounded for a float one."""
        return self._integer

    def _float(self, device: str) -> Restorer:
        """By torch where it is installed (faster, float32), else by the graph's float64 interpreter."""
        try:
            import torch
        except ImportError:
            return super()._float(device)
        from neurodeploy.networks.stored import student_of

        student = student_of(self.file).to(check_device(device)).eval()

        def run(image: Image, noise_level: float | None = None) -> NDArray[np.float64]:
            with torch.no_grad():
                batch = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None].to(device)
                restored: NDArray[np.float64] = student(batch)[0][0].double().cpu().numpy()
            return restored

        return run
