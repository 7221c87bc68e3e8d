"""A model whose integer levels are sent in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from neurodeploy.model.base import Model
from neurodeploy.model.integer import IntegerModel

if TYPE_CHECKING:
    from neurodeploy.errors import Finding

Code = Literal["populations", "bursts", "digits"]
"""How spikes carry integer levels."""


@dataclass
class CodedModel(IntegerModel):
    """A network in bursts or digits; see :mod:`neurodeploy.quantize.bursts` and :mod:`neurodeploy.quantize.digits`."""

    parameters_of: int = 0
    noticed: tuple[Finding, ...] = ()

    @property
    def parameters(self) -> int:
        """Those of the model that it was made of."""
        return self.parameters_of


def coded_model(model: Model, code: Code) -> Model:
    """The same model with its levels sent so: the same integers come out.

    Args:
        model: The model, its levels as populations.
        code: ``populations`` leaves it as it is.

    Raises:
        FindingsError: Its levels cannot be sent in time.
        UserError: It has no spiking network.
    """
    if code == "populations":
        return model
    from neurodeploy.quantize.bursts import in_bursts
    from neurodeploy.quantize.digits import in_digits

    made = in_bursts(model.integer()) if code == "bursts" else in_digits(model.integer())
    return CodedModel(
        net=made.net,
        facts=model.facts,
        kind=model.kind,
        made_for=model.size,
        parameters_of=model.parameters,
        noticed=made.findings,
    )
