"""A network in integers as a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurodeploy.model.base import NOMINAL_SIZE, Channels, Facts, Model, picture_channels

if TYPE_CHECKING:
    from neurodeploy.graph.portable import Network
    from neurodeploy.quantize.network import IntegerNetwork


@dataclass
class IntegerModel(Model):
    """A network that is stored in integers already: a Lava ``.net``, or a bundle."""

    net: IntegerNetwork
    facts: Facts
    kind: str = "lava"
    made_for: tuple[int, int] | None = None
    """(H, W) of the image that the arrays of its file were written for."""

    @property
    def parameters(self) -> int:
        """Weights, biases, and one threshold a population and layer."""
        from neurodeploy.quantize.digits import as_trained

        net = as_trained(self.net)
        weights = sum(node.weight.size for node in net.nodes.values() if hasattr(node, "weight"))
        biases = sum(node.bias.size for node in net.nodes.values() if hasattr(node, "bias"))
        return int(weights + biases) + sum(len(node.levels) for node in net.lifs())

    @property
    def channels(self) -> Channels:
        """1 or 3."""
        return picture_channels(self.net.host, self.name)

    @property
    def size(self) -> tuple[int, int] | None:
        """That of its file."""
        return self.made_for

    @property
    def steps(self) -> int:
        """Time steps T."""
        return self.net.host.steps

    def network(self, size: tuple[int, int] = NOMINAL_SIZE) -> Network:
        """The integers as a NIR graph on its grid."""
        from neurodeploy.quantize.grid import grid_network

        return grid_network(self.net, size)

    def integer(self) -> IntegerNetwork:
        """The integers themselves."""
        return self.net
