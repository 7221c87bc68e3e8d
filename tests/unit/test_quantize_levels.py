"""Integer levels: the compact layer and its populations spike alike, and folding undoes expanding."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurodeploy.errors import UserError
from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.levels import expand_levels, fold_levels
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from tests.random_nets import chain, differences, even_weights


def leveled(seed: int, levels: tuple[int, ...], *, steps: int = 1, width: int = 3) -> IntegerNetwork:
    rng = np.random.default_rng(seed)
    weights = [
        even_weights(rng, width, 4, 3, 3),
        even_weights(rng, width, width, 3, 3),
        even_weights(rng, 4, width, 3, 3),
    ]
    return chain(weights, vth=200, levels=levels, steps=steps, v_decay=4096 if steps == 1 else 900, seed=seed)


@given(st.integers(0, 1000), st.lists(st.integers(-900, 0), min_size=1, max_size=5), st.sampled_from([1, 3]))
def test_populations_spike_like_the_compact_layer(seed: int, offsets: list[int], steps: int) -> None:
    levels = (0, *sorted(offsets, reverse=True))
    net = leveled(seed, levels, steps=steps)
    codes = np.random.default_rng(seed).integers(0, 256, (4, 5, 6))
    compact, wide = Trace(steps), Trace(steps)
    expected = run(net, codes, observer=compact)
    np.testing.assert_array_equal(run(expand_levels(net), codes, observer=wide), expected)
    for name, layer in compact.layers.items():
        populations = layer.fired.reshape(steps, 1, -1, *layer.fired.shape[3:])
        np.testing.assert_array_equal(wide.layers[name].fired, populations)
        np.testing.assert_array_equal(wide.layers[name].v, layer.v.reshape(populations.shape))
    assert 0 < np.mean(compact.layers["lif0"].fired) < 1


@given(st.integers(0, 1000), st.lists(st.integers(-900, 900), min_size=0, max_size=5))
def test_folding_undoes_expanding(seed: int, offsets: list[int]) -> None:
    net = leveled(seed, (0, *offsets))
    assert differences(fold_levels(expand_levels(net)), net) == []


def test_a_binary_network_is_left_as_it_is() -> None:
    net = leveled(1, (0,), width=4)
    assert differences(expand_levels(net), net) == []
    assert differences(fold_levels(net), net) == []


def test_layers_joined_by_an_edge_fold_together() -> None:
    net = leveled(2, (0, -100, -300))
    nodes = dict(net.nodes)
    nodes["lif1"] = replace(nodes["lif1"], levels=(0, -50, -60))
    joined = replace(net, nodes=nodes, edges=(*net.edges, ("conv0", "lif1")))
    wide = expand_levels(joined)
    assert wide.nodes["conv0"].weight.shape[0] == 9
    assert differences(fold_levels(wide), joined) == []


def test_channel_decays_and_dense_layers_are_expanded_and_folded() -> None:
    rng = np.random.default_rng(0)
    nodes = {
        "input": IntegerInput("input", 2),
        "conv": IntegerConv("conv", even_weights(rng, 3, 2, 1, 1)),
        "lif": IntegerLif("lif", 50, rng.integers(-9, 9, 3), v_decay=np.array([1, 2, 3]), levels=(0, -70)),
        "flat": IntegerFlatten("flat"),
        "dense": IntegerDense("dense", even_weights(rng, 4, 12)),
        "lif2": IntegerLif("lif2", 50, rng.integers(-9, 9, 4), i_decay=np.array([9, 8, 7, 6]), levels=(0, -10, -20)),
        "out": IntegerDense("out", even_weights(rng, 2, 4)),
        "output": IntegerReadout("output", np.array([1, 2])),
    }
    net = IntegerNetwork(nodes, tuple(pairwise(nodes)), HostSide(steps=2))
    wide = expand_levels(net)
    codes = rng.integers(0, 100, (2, 2, 2))
    np.testing.assert_array_equal(run(wide, codes), run(net, codes))
    assert wide.nodes["dense"].weight.shape == (12, 24)
    assert differences(fold_levels(wide), net) == []


@pytest.mark.parametrize("spoiled", ["conv0", "conv1", "lif0"])
def test_one_deviating_number_is_enough_not_to_fold(spoiled: str) -> None:
    net = leveled(3, (0, -100))
    wide = expand_levels(net)
    nodes = dict(wide.nodes)
    node = nodes[spoiled]
    if isinstance(node, IntegerLif):
        bias = node.bias.copy()
        bias[-1] += 1
        nodes[spoiled] = replace(node, bias=bias)
    else:
        weight = node.weight.copy()
        weight[-1, -1, 0, 0] += 2
        nodes[spoiled] = replace(node, weight=weight)
    folded = fold_levels(replace(wide, nodes=nodes))
    assert folded.nodes["lif0"].levels == (0,)
    codes = np.random.default_rng(0).integers(0, 256, (4, 5, 5))
    np.testing.assert_array_equal(run(folded, codes), run(replace(wide, nodes=nodes), codes))


def test_levels_that_cannot_be_channels_are_refused() -> None:
    net = leveled(4, (0, -100))
    nodes = dict(net.nodes)
    nodes["lif1"] = replace(nodes["lif1"], levels=(0,))
    uneven = replace(net, nodes=nodes, edges=(*net.edges, ("conv0", "lif1")))
    with pytest.raises(UserError, match="lif0"):
        expand_levels(uneven)
    direct = replace(
        net,
        nodes={name: net.nodes[name] for name in ("input", "conv0", "lif0", "output")},
        edges=(("input", "conv0"), ("conv0", "lif0"), ("lif0", "output")),
    )
    with pytest.raises(UserError, match="lif0"):
        expand_levels(direct)
    assert fold_levels(direct) is direct
