"""A network without spikes as a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.model.base import NOMINAL_SIZE, Arithmetic, Channels, Facts, Image, Model, Restorer, check_device

if TYPE_CHECKING:
    from neurodeploy.graph.portable import Network
    from neurodeploy.networks.teachers.base import Teacher
    from neurodeploy.quantize.network import IntegerNetwork


@dataclass
class TeacherModel(Model):
    """A network without spikes: ARCH:WEIGHTS, module:Class, a ``.onnx`` file, or a zoo entry that names one."""

    spec: str
    facts: Facts
    kind: str = "teacher"

    @cached_property
    def teacher(self) -> Teacher:
        """The network itself; torch is imported here."""
        from neurodeploy.networks.teachers import load_teacher

        return load_teacher(self.spec)

    @property
    def parameters(self) -> int:
        """Numbers in all parameters, shared ones once."""
        return self.teacher.parameters_count

    @property
    def channels(self) -> Channels:
        """1 or 3."""
        channels = self.teacher.channels
        if channels not in (1, 3):
            raise UserError("restores neither gray nor RGB images", node=self.name, have=f"{channels} channels")
        return 3 if channels == 3 else 1

    @property
    def steps(self) -> None:
        """A network without time."""
        return None

    @property
    def default_arithmetic(self) -> Arithmetic:
        """Float: a teacher has no integers."""
        return "float"

    def network(self, size: tuple[int, int] = NOMINAL_SIZE) -> Network:
        """Refuses: there are no spikes in a teacher."""
        raise self._no_spikes()

    def integer(self) -> IntegerNetwork:
        """Refuses: there are no spikes in a teacher."""
        raise self._no_spikes()

    def _no_spikes(self) -> UserError:
        return UserError(
            "is a network without spikes",
            node=self.name,
            instead="distil a student from it first (neurodeploy distill RECIPE)",
        )

    def _float(self, device: str) -> Restorer:
        import torch

        teacher = self.teacher.to(check_device(device))

        def run(image: Image, noise_level: float | None = None) -> NDArray[np.float64]:
            batch = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None].to(device)
            level = None if noise_level is None else torch.tensor([noise_level], device=device)
            restored: NDArray[np.float64] = teacher.restore(batch, level)[0].double().cpu().numpy()
            return restored

        return run
