"""A model whose integer levels are sent in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurodeploy.model.base import Model
from neurodeploy.model.integer import IntegerModel

if TYPE_CHECKING:
    from neurodeploy.errors import Finding


@dataclass
class BurstModel(IntegerModel):
    """A network in bursts; see :mod:`neurodeploy.quantize.bursts`."""

    parameters_of: int = 0
    noticed: tuple[Finding, ...] = ()

    @property
    def parameters(self) -> int:
        """Those of the model that it was made of."""
        return self.parameters_of


def burst_model(model: Model) -> BurstModel:
    """The same model with its levels in time: the same integers come out.

    Raises:
        FindingsError: Its levels cannot be sent in bursts.
        UserError: It has no spiking network.
    """
    from neurodeploy.quantize.bursts import in_bursts

    made = in_bursts(model.integer())
    return BurstModel(
        net=made.net,
        facts=model.facts,
        kind=model.kind,
        made_for=model.size,
        parameters_of=model.parameters,
        noticed=made.findings,
    )
