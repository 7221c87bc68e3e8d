"""A NIR graph as a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from neurodeploy.graph.spec import HostSide
from neurodeploy.model.base import NOMINAL_SIZE, Arithmetic, Channels, Facts, Model, picture_channels

if TYPE_CHECKING:
    import nir

    from neurodeploy.graph.portable import Network
    from neurodeploy.quantize.network import IntegerNetwork


@dataclass
class GraphModel(Model):
    """A NIR graph, ours or of any other framework."""

    graph: nir.NIRGraph
    host: HostSide
    facts: Facts
    kind: str = "graph"

    @property
    def parameters(self) -> int:
        """Numbers in the weights and biases of the graph as it stands, repeated populations included."""
        return sum(
            int(np.asarray(value).size)
            for node in self.graph.nodes.values()
            for key in ("weight", "bias")
            if (value := getattr(node, key, None)) is not None
        )

    @property
    def channels(self) -> Channels:
        """1 or 3."""
        return picture_channels(self.host, self.name)

    @property
    def size(self) -> tuple[int, int]:
        """That of the input node, times the host's pixel-unshuffle; 1x1 for an input without a grid."""
        start = next(node for node in self.graph.nodes.values() if type(node).__name__ == "Input")
        _, height, width = (*(int(side) for side in start.input_type["input"]), 1, 1)[:3]
        return (height * self.host.unshuffle, width * self.host.unshuffle)

    @property
    def steps(self) -> int:
        """Time steps T."""
        return self.host.steps

    @property
    def default_arithmetic(self) -> Arithmetic:
        """NIR is float Euler."""
        return "float"

    def network(self, size: tuple[int, int] = NOMINAL_SIZE) -> Network:
        """The graph at the size that it was written for; another size is made where every node allows it."""
        from neurodeploy.graph.portable import Network
        from neurodeploy.graph.resize import resized

        factor = self.host.unshuffle
        grid = (-(-size[0] // factor), -(-size[1] // factor))
        return Network(graph=resized(self.graph, grid), host=self.host)

    @cached_property
    def _integer(self) -> IntegerNetwork:
        from neurodeploy.graph.portable import Network
        from neurodeploy.quantize.lower import quantize

        return quantize(Network(graph=self.graph, host=self.host))

    def integer(self) -> IntegerNetwork:
        """The integer network: exact where the graph lies on a grid, rounded elsewhere."""
        return self._integer
