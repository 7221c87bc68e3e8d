"""The random networks that Lava is compared with: what the compiled kernel holds of them, it computes alike."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import pytest

from neurodeploy.hardware.shapes import layer_shapes
from neurodeploy.simulate import kernel
from neurodeploy.simulate.kernel.counts import SpikeCounts
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from neurodeploy.targets import lava
from neurodeploy.targets.lava_plan import plan
from neurodeploy.targets.lava_program import program_text
from tests.random_graphs import random_codes, random_graph

SEEDS = range(32)


class _Counts:
    takes_counts = True

    def __init__(self) -> None:
        self.layers: dict[str, np.ndarray] = {}

    def codes(self, **_: Any) -> None:
        """Not looked at."""

    def layer(self, **_: Any) -> None:
        raise AssertionError("the kernel shows counts")

    def layer_counts(self, *, name: str, counts: SpikeCounts, origin: Any, extent: Any) -> None:
        del origin, extent
        self.layers[name] = counts.values[..., : counts.channels].transpose(0, 3, 1, 2).copy()


@pytest.mark.skipif(kernel.missing() is not None, reason=str(kernel.missing()))
def test_the_kernel_gives_the_spikes_and_outputs_of_the_reference() -> None:
    held = 0
    for seed in SEEDS:
        net, size = random_graph(seed)
        codes = random_codes(net, size, 1, np.random.RandomState(seed))[0]
        if kernel.declines(net, codes) is not None:
            continue
        held += 1
        trace, seen = Trace(net.host.steps), _Counts()
        want = run(net, codes, observer=trace)
        np.testing.assert_array_equal(kernel.run(net, codes, observer=seen), want, err_msg=str(seed))
        for name, layer in trace.layers.items():
            np.testing.assert_array_equal(seen.layers[name], layer.fired[:, 0], err_msg=f"{seed}: {name}")
    assert held >= 10


def test_every_one_becomes_a_program_whose_ways_are_balanced() -> None:
    delayed = 0
    for seed in SEEDS:
        net, size = random_graph(seed)
        assert lava.form_findings(net, "program") == []
        planned = plan(net)
        depths = {net.input.name: 0} | {stage.neuron.name: stage.depth for stage in planned.stages}
        for stage in planned.stages:
            assert {depths[hop.source] + hop.delay + 1 for hop in stage.hops} == {stage.depth}
            delayed += sum(hop.delay for hop in stage.hops)
        assert planned.hops == max(depths.values())
        ast.parse(program_text(net, layer_shapes(net, size), size, 16), feature_version=(3, 10))
    assert delayed > 10
