"""One small network for every operation, and the table of which target holds it, made by the checks themselves."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)
from neurodeploy.targets import get_target, target_names
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.check import check

SIZE = (8, 12)
"""Image of the sample networks, not square so that swapped axes show."""

WIDTH = 4
UNIT = 2.0**-8


def _weights(shape: tuple[int, ...], seed: int, step: int = 2) -> IntArray:
    return np.random.RandomState(seed).randint(-12, 13, shape).astype(np.int64) * step


def _conv(name: str, seed: int, *, kernel: tuple[int, int] = (3, 3), groups: int = 1, out: int = WIDTH,
          step: int = 2, **more: Any) -> IntegerConv:  # fmt: skip
    padding = more.pop("padding", tuple(side // 2 for side in kernel))
    weight = _weights((out, WIDTH // groups, *kernel), seed, step)
    return IntegerConv(name, weight, padding=padding, groups=groups, **more)


def _lif(name: str, seed: int, **more: Any) -> IntegerLif:
    bias = more.pop("bias", np.random.RandomState(seed + 100).randint(-300, 301, WIDTH).astype(np.int64))
    return IntegerLif(name, vth=more.pop("vth", 150), bias=bias, **more)


def chain(*nodes: IntegerNode, steps: int = 1, edges: tuple[tuple[str, str], ...] = ()) -> IntegerNetwork:
    """``input -> nodes -> output`` with the readout's width taken from the last node, and further edges."""
    last = nodes[-1]
    width = len(last.weight) if isinstance(last, IntegerConv | IntegerDense) else WIDTH
    bias = np.arange(width, dtype=np.int64) * 7 - 5
    row: tuple[IntegerNode, ...] = (IntegerInput("input", WIDTH), *nodes, IntegerReadout("output", bias))
    names = [node.name for node in row]
    spiking = [node.name for node in row if isinstance(node, IntegerLif | IntegerReadout)]
    return IntegerNetwork(
        nodes=dict(zip(names, row, strict=True)),
        edges=(*itertools.pairwise(names), *edges),
        host=HostSide(channels=1, unshuffle=2, steps=steps, output_scale=0.001),
        units=dict.fromkeys(spiking, UNIT),
    )


def _plain(first: IntegerConv | None = None, lif: IntegerLif | None = None, steps: int = 1) -> IntegerNetwork:
    return chain(first or _conv("conv0", 0), lif or _lif("lif0", 0), _conv("conv1", 1), steps=steps)


def _two_layers(steps: int, edges: tuple[tuple[str, str], ...] = (), **more: Any) -> IntegerNetwork:
    return chain(
        _conv("conv0", 0), _lif("lif0", 0, **more), _conv("conv1", 1), _lif("lif1", 1, **more), _conv("conv2", 2),
        steps=steps, edges=edges,
    )  # fmt: skip


def _behind_a_plain_layer(net: IntegerNetwork) -> IntegerNetwork:
    stem = IntegerLif("lif_in", vth=150, bias=np.array([-40, 30, 100, -90]))
    added: tuple[IntegerNode, ...] = (net.input, _conv("conv_in", 8), stem)
    nodes = {node.name: node for node in (*added, *net.nodes.values())}
    edges = [("lif_in" if source == net.input.name else source, target) for source, target in net.edges]
    edges += [(net.input.name, "conv_in"), ("conv_in", "lif_in")]
    return replace(net, nodes=nodes, edges=tuple(edges), units={**net.units, "lif_in": UNIT})


def _dense() -> IntegerNetwork:
    places = WIDTH * (SIZE[0] // 2) * (SIZE[1] // 2)
    dense = IntegerDense("dense1", _weights((6, places), 3))
    return chain(_conv("conv0", 0), _lif("lif0", 0), IntegerFlatten("flatten1"), dense)


@dataclass(frozen=True)
class Operation:
    """One row of the support table.

    Attributes:
        title: What the row is called.
        build: A small network that needs the operation.
    """

    title: str
    build: Callable[[], IntegerNetwork]

    def sample(self, target: str | None = None) -> Deployable:
        """The sample network, ready to be checked or exported.

        For a target that leaves the first layer to the host (``first_layer_on_host``) a plain layer stands before it.
        """
        behind = target is not None and getattr(get_target(target), "first_layer_on_host", False)
        net = self.build()
        return Deployable(name="sample", network=_behind_a_plain_layer(net) if behind else net, size=SIZE)


OPERATIONS: tuple[Operation, ...] = (
    Operation("convolution and LIF, one step", _plain),
    Operation("several time steps, no leak left", lambda: _two_layers(3)),
    Operation("LIF with leak", lambda: _two_layers(4, v_decay=1024)),
    Operation("LIF without leak (IF)", lambda: _two_layers(3, v_decay=0, vth=30, bias=np.zeros(WIDTH, np.int64))),
    Operation("one leak a channel", lambda: _two_layers(3, v_decay=np.array([0, 512, 1024, 4096]))),
    Operation("LIF with synaptic current (CUBA)", lambda: _two_layers(3, v_decay=1024, i_decay=2048)),
    Operation("integer levels (4 populations)", lambda: _plain(lif=_lif("lif0", 0, levels=(0, -150, -300, -450)))),
    Operation("sum edge", lambda: _two_layers(1, (("conv0", "lif1"),))),
    Operation("dilation", lambda: _plain(_conv("conv0", 0, dilation=(2, 2), padding=(2, 2)))),
    Operation("stride", lambda: _plain(_conv("conv0", 0, stride=(2, 2)))),
    Operation("1x1 kernel", lambda: _plain(_conv("conv0", 0, kernel=(1, 1)))),
    Operation("kernel that is not square", lambda: _plain(_conv("conv0", 0, kernel=(1, 3)))),
    Operation("groups", lambda: _plain(_conv("conv0", 0, groups=2))),
    Operation("dense layer behind a flatten", _dense),
    Operation("odd weights", lambda: _plain(_conv("conv0", 0, step=1))),
    Operation("weights beyond 8 bits", lambda: _plain(_conv("conv0", 0, step=66))),
    Operation("weights with an exponent", lambda: _plain(_conv("conv0", 0, step=64))),
    Operation("threshold beyond 17 bits", lambda: _plain(lif=_lif("lif0", 0, vth=1 << 17))),
)
"""Every operation that a support table names. A target holds one if its check has no error for the sample."""


def support_table() -> dict[str, dict[str, str]]:
    """Operation -> target -> ``""`` where the target holds it, else why not: the findings of the target's own check."""
    table: dict[str, dict[str, str]] = {}
    for operation in OPERATIONS:
        table[operation.title] = {name: refusal(operation.sample(name), name) for name in target_names()}
    return table


def refusal(sample: Deployable, target: str) -> str:
    """Why a target refuses a network, its errors in one line; empty where it does not."""
    chip = get_target(target).profile
    errors = [str(found) for found in check(sample, target, chip).findings if found.severity == "error"]
    return " | ".join(errors)
