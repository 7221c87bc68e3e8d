"""The random networks that Lava is compared with: what the compiled kernel holds of them, it computes alike.

And the comparison itself: what is wrong in a simulator is found, and shrinks to a small network.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

import numpy as np
import pytest

from neurodeploy.hardware.shapes import layer_shapes
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import IntegerConv, IntegerNetwork
from neurodeploy.simulate import kernel, reference
from neurodeploy.simulate.observe import Trace
from neurodeploy.targets import lava
from neurodeploy.targets.lava_plan import plan
from neurodeploy.targets.lava_program import program_text
from neurodeploy.targets.lava_run import LavaJob, LavaRun
from tests.lava_equality import Equality
from tests.random_graphs import Case


def stand_in(jobs: Sequence[LavaJob]) -> list[LavaRun]:
    """The reference in the place of Lava: on the expanded network, as Lava gets it."""
    return [_run(expand_levels(job.network), job.codes) for job in jobs]


def _run(net: IntegerNetwork, images: np.ndarray) -> LavaRun:
    traces = [Trace(net.host.steps) for _ in images]
    output = np.stack([reference.run(net, codes, observer=trace) for codes, trace in zip(images, traces, strict=True)])
    layers = {name: [trace.layers[name] for trace in traces] for name in traces[0].layers}
    return LavaRun(
        spikes={name: np.stack([layer.fired[:, 0] for layer in found]) for name, found in layers.items()},
        u={name: np.stack([layer.u for layer in found]) for name, found in layers.items()},
        v={name: np.stack([layer.v[:, 0] for layer in found]) for name, found in layers.items()},
        output=output,
    )


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    return Equality(stand_in, networks=32, examples=48).draw()


def test_levels_and_the_kernel_are_compared_like_lava(drawn: list[Case]) -> None:
    equality = Equality(stand_in, networks=32, examples=48)
    equality.compare()
    assert equality.tally["networks"] == len(drawn) >= 20
    assert equality.tally["in the kernel too"] >= 10 or kernel.missing() is not None
    assert equality.tally["with levels"] >= 5 and equality.tally["run alone"] == 0


def test_a_wrong_simulator_is_found_and_shrinks_to_a_small_network() -> None:
    """A leak that rounds down instead of toward zero: it takes two steps and a membrane below zero to see it."""

    def wrong(jobs: Sequence[LavaJob]) -> list[LavaRun]:
        right = reference.decay
        reference.decay = lambda x, amount: (x * (4096 - amount)) >> 12
        try:
            return stand_in(jobs)
        finally:
            reference.decay = right

    equality = Equality(wrong, networks=20, examples=20)
    with pytest.raises(AssertionError, match="v of lif0, image 0"):
        equality.compare()
    smallest = equality.differs
    assert smallest is not None and equality.tally["networks that differ"] == 1
    assert len(smallest.lifs) == 1 and len(smallest.codes) == 1 and smallest.net.host.steps == 2
    assert sum(node.weight.size for node in smallest.nodes(IntegerConv)) < 50 and smallest.size == (8, 8)


def test_every_one_becomes_a_program_whose_ways_are_balanced(drawn: list[Case]) -> None:
    delayed = 0
    for case in drawn:
        net = expand_levels(case.net)
        assert lava.form_findings(net, "program") == []
        planned = plan(net)
        depths = {net.input.name: 0} | {stage.neuron.name: stage.depth for stage in planned.stages}
        for stage in planned.stages:
            assert {depths[hop.source] + hop.delay + 1 for hop in stage.hops} == {stage.depth}
            delayed += sum(hop.delay for hop in stage.hops)
        assert planned.hops == max(depths.values())
        ast.parse(program_text(net, layer_shapes(net, case.size), case.size, 16), feature_version=(3, 10))
    assert delayed > 10
