"""Random integer networks inside the portable vocabulary, for hypothesis."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from neurodeploy.graph.spec import HostSide
from neurodeploy.hardware.shapes import layer_shapes
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)
from neurodeploy.targets.base import Deployable

UNIT = 2.0**-8


@dataclass(frozen=True)
class Sample:
    """A random network, the image size that it is written for, and an input."""

    net: IntegerNetwork
    size: tuple[int, int]
    seed: int

    def codes(self) -> Any:
        """(C, h, w), what the host makes of a random picture."""
        host = self.net.host
        return host.encode(np.random.RandomState(self.seed).rand(host.channels, *self.size))

    def deployable(self) -> Deployable:
        """The network, ready to be exported; its own input is the proof."""
        image = np.random.RandomState(self.seed).rand(self.net.host.channels, *self.size).astype(np.float32)
        return Deployable(name="random", network=self.net, size=self.size, image=image)

    @property
    def is_chain(self) -> bool:
        """No node is fed by several others."""
        return len(self.net.edges) == len(self.net.nodes) - 1


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Depth, widths, kernels, dilations, strides, paddings, levels, steps, leaks and sum edges, all of them free."""
    steps = draw(st.sampled_from([1, 1, 2, 4]))
    levels = draw(st.integers(1, 3)) if steps == 1 else 1
    host = HostSide(
        channels=draw(st.sampled_from([1, 3])), unshuffle=draw(st.sampled_from([1, 2])), steps=steps, input_scale=63.75,
        input_min=-64, input_max=128, output_scale=0.25,
    )  # fmt: skip
    v_decay = 4096 if steps == 1 else draw(st.sampled_from([4096, 2048, 1024, 409]))
    depth, seed = draw(st.integers(1, 4)), draw(st.integers(0, 2**31 - 1))
    rng = np.random.RandomState(seed)
    residual = draw(st.booleans())
    width = draw(st.integers(1, 5))
    nodes: list[IntegerNode] = [IntegerInput("input", host.network_channels)]
    before = host.network_channels
    for layer in range(depth + 1):
        kernel = draw(st.sampled_from([1, 3, 3, 5]))
        dilation = draw(st.integers(1, 2))
        reach = dilation * (kernel // 2)
        # only layers that keep the grid can be summed with one another
        padding = reach if residual else draw(st.sampled_from([reach, reach, 0, 1]))
        stride = 1 if residual else draw(st.sampled_from([1, 1, 1, 2]))
        after = host.network_channels if layer == depth else width if residual else draw(st.integers(1, 5))
        limit = max(1, 500 // (before * kernel**2)) if layer == 0 else 127
        weight = 2 * rng.randint(-min(limit, 127), min(limit, 127) + 1, (after, before, kernel, kernel))
        nodes.append(
            IntegerConv(f"conv{layer}", weight.astype(np.int64), (stride,) * 2, (padding,) * 2, (dilation,) * 2)
        )
        if layer < depth:
            shifts = np.cumsum([0, *rng.randint(1, 400, levels - 1)]) if levels > 1 else np.zeros(1, int)
            nodes.append(
                IntegerLif(
                    f"lif{layer}", vth=int(rng.randint(1, 900)), bias=rng.randint(-200, 400, after).astype(np.int64),
                    v_decay=v_decay, levels=tuple(int(-shift) for shift in shifts),
                )
            )  # fmt: skip
        before = after
    nodes.append(IntegerReadout("output", rng.randint(-50, 50, before).astype(np.int64)))
    names = [node.name for node in nodes]
    edges = list(itertools.pairwise(names))
    if residual and depth >= 3:
        edges.append(("conv1", f"lif{depth - 1}"))
    net = IntegerNetwork(
        nodes=dict(zip(names, nodes, strict=True)),
        edges=tuple(edges),
        host=host,
        units={node.name: UNIT for node in nodes if isinstance(node, IntegerLif | IntegerReadout)},
    )
    size = (2 * draw(st.integers(8, 10)), 2 * draw(st.integers(8, 10)))
    while not _fits(net, size):
        size = (size[0] * 2, size[1] * 2)
    return Sample(net, size, seed)


def _fits(net: IntegerNetwork, size: tuple[int, int]) -> bool:
    from neurodeploy.errors import UserError

    try:
        layer_shapes(net, size)
    except UserError:
        return False
    return True
