"""What a netx file is read into before it becomes a network: its blocks, one after another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNode,
    IntegerReadout,
)
from neurodeploy.targets.lava_chain import READOUT_VTH

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Read:
    """One block; no weights for a spiking input layer."""

    where: str
    weights: IntegerConv | IntegerDense | None
    neuron: IntegerLif | None
    shape: Shape
    flattened: bool = False


class Chain:
    """The blocks read so far."""

    def __init__(self) -> None:
        self.input_shape: tuple[int, int, int] | None = None
        self.blocks: list[Read] = []
        self.flattened = False

    def nodes(self) -> Iterator[IntegerNode]:
        """All nodes in order, named as the program names a student's."""
        yield IntegerInput("input", (self.input_shape or (1, 1, 1))[0])
        last = len(self.blocks) - 1
        number = 0
        for place, block in enumerate(self.blocks):
            if block.flattened:
                yield IntegerFlatten(f"flatten{number}")
            kind = "dense" if isinstance(block.weights, IntegerDense) else "conv"
            if block.weights is not None:
                yield replace(block.weights, name=f"{kind}{number}")
            neuron = block.neuron
            if neuron is not None and place == last and is_readout(neuron):
                yield IntegerReadout("output", neuron.bias)
                return
            if neuron is not None:
                yield replace(neuron, name="lif_input" if block.weights is None else f"lif{number}")
            number += block.weights is not None
        final = self.blocks[-1].neuron
        yield IntegerReadout("output", np.zeros(0 if final is None else len(final.bias), np.int64))


def is_readout(neuron: IntegerLif) -> bool:
    """Whether the last neurons only sum: they keep everything, and their threshold is the largest there is."""
    keeps = not np.any(neuron.v_decay) and bool(np.all(np.asarray(neuron.i_decay) == 4096))
    return keeps and neuron.vth == READOUT_VTH


def three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, h, w) from what a file says: one to three numbers."""
    filled = (*shape, 1, 1)[:3]
    return (int(filled[0]), int(filled[1]), int(filled[2]))


def plain_host(channels: int) -> HostSide:
    """The host side of a file that says nothing: one step, the codes are the values of the input, no residual."""
    return HostSide(channels=channels, unshuffle=1, input_scale=1.0, residual=False)
