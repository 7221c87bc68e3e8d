"""Integer networks as NIR graphs: lawful, the same integers again, and the same spikes where nothing decays."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.errors import FindingsError
from neurodeploy.graph.law import check_graph
from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.grid import grid_network
from neurodeploy.quantize.lower import quantize
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)
from neurodeploy.simulate.floating import run_float
from neurodeploy.simulate.reference import run
from neurodeploy.simulate.restore import restore
from tests.random_nets import chain, differences, even_weights


def with_units(net: IntegerNetwork) -> IntegerNetwork:
    """The units that the graph of a network gives it."""
    names = [name for name, node in net.nodes.items() if isinstance(node, IntegerLif | IntegerReadout)]
    return replace(net, units=dict.fromkeys(names, 2.0**-8))


@settings(max_examples=40)
@given(
    st.integers(0, 10_000),
    st.sampled_from([(0,), (0, -70), (0, -70, -300)]),
    st.sampled_from([(1, 4096), (4, 4096), (6, 0), (5, 1024)]),
    st.booleans(),
)
def test_lowering_the_graph_gives_the_integers_again(
    seed: int, levels: tuple[int, ...], time: tuple[int, int], joined: bool
) -> None:
    rng = np.random.default_rng(seed)
    steps, v_decay = time
    weights = [even_weights(rng, 3, 4, 3, 3, limit=4), even_weights(rng, 3, 3, 3, 3), even_weights(rng, 4, 3, 3, 3)]
    net = with_units(chain(weights, vth=150, levels=levels, steps=steps, v_decay=v_decay, seed=seed))
    if joined:
        net = replace(net, edges=(*net.edges, ("conv0", "lif1")))
    network = grid_network(net, (9, 11))
    assert check_graph(network.graph, "readable" if v_decay == 0 else "portable") == []
    assert differences(quantize(network), net) == []
    codes = rng.integers(0, 256, (4, 5, 6))
    if v_decay in (0, 4096):
        out = run_float(network.graph, codes, steps, network.host.dt).sum(axis=0)
        np.testing.assert_array_equal(out * 2**8, run(net, codes))


def test_the_restored_image_does_not_depend_on_the_way_back() -> None:
    rng = np.random.default_rng(0)
    host = HostSide(output_scale=0.37)
    net = chain([even_weights(rng, 3, 4, 3, 3, limit=4), even_weights(rng, 4, 3, 3, 3)], host=host)
    net = replace(net, units={"lif0": 0.1, "output": 0.02})
    image = rng.random((1, 12, 10)).astype(np.float32)
    again = quantize(grid_network(net, (12, 10)))
    np.testing.assert_allclose(restore(again, image), restore(net, image), rtol=1e-14)
    assert again.output_scale == pytest.approx(net.output_scale, rel=1e-15)


def dense_net(**changes: object) -> IntegerNetwork:
    rng = np.random.default_rng(1)
    nodes = {
        "input": IntegerInput("input", 2),
        "conv": IntegerConv("conv", even_weights(rng, 3, 2, 3, 3, limit=8), stride=(2, 2), padding=(1, 1)),
        "lif": IntegerLif("lif", 200, rng.integers(-9, 9, 3), levels=(0, -90)),
        "flat": IntegerFlatten("flat"),
        "dense": IntegerDense("dense", even_weights(rng, 5, 3 * 2 * 3)),
        "lif2": IntegerLif("lif2", 60, rng.integers(-9, 9, 5)),
        "out": IntegerDense("out", even_weights(rng, 4, 5)),
        "output": IntegerReadout("output", np.array([1, 2, 3, 4])),
    }
    nodes["lif2"] = replace(nodes["lif2"], **changes)
    net = IntegerNetwork(nodes, tuple(pairwise(nodes)), HostSide(unshuffle=1, steps=2))
    return with_units(net)


def test_strides_and_dense_layers_go_there_and_back() -> None:
    net = dense_net()
    network = grid_network(net, (4, 6))
    assert check_graph(network.graph, "readable") == []
    assert differences(quantize(network), net) == []
    codes = np.random.default_rng(0).integers(0, 256, (2, 4, 6))
    out = run_float(network.graph, codes, 2, network.host.dt).sum(axis=0)
    np.testing.assert_array_equal(out * 2**8, run(net, codes).reshape(-1))


def test_a_fading_current_becomes_a_cuba_lif() -> None:
    net = dense_net(i_decay=1024, v_decay=2048, bias=np.zeros(5, np.int64))
    network = grid_network(net, (4, 6))
    assert isinstance(network.graph.nodes["lif2"], nir.CubaLIF)
    assert differences(quantize(network), net) == []
    with pytest.raises(FindingsError, match="lif2: a bias beside a current that fades"):
        grid_network(dense_net(i_decay=1024, v_decay=2048), (4, 6))


def test_spikes_that_are_counted_directly() -> None:
    net = chain([even_weights(np.random.default_rng(0), 3, 4, 3, 3, limit=4)] * 1 + [np.full((3, 3, 1, 1), 2)], steps=3)
    nodes = {name: net.nodes[name] for name in ("input", "conv0", "lif0")}
    nodes["output"] = IntegerReadout("output", np.zeros(3, np.int64))
    edges = (("input", "conv0"), ("conv0", "lif0"), ("lif0", "output"))
    counting = replace(net, nodes=nodes, edges=edges, units={"lif0": 2.0**-8, "output": 1.0})
    network = grid_network(counting, (8, 8))
    assert differences(quantize(network), counting) == []
    codes = np.random.default_rng(0).integers(0, 256, (4, 4, 4))
    np.testing.assert_array_equal(run_float(network.graph, codes, 3, 1e-4).sum(axis=0), run(counting, codes))


def test_what_nir_cannot_say_is_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    net = chain([even_weights(rng, 3, 4, 3, 3), even_weights(rng, 3, 3, 3, 3), even_weights(rng, 4, 3, 3, 3)])
    nodes = {name: node for name, node in net.nodes.items() if name != "conv1"}
    # both layers are fed by conv0 alone, with different biases
    edges = (*(edge for edge in net.edges if "conv1" not in edge), ("conv0", "lif1"), ("lif0", "conv2"))
    with pytest.raises(FindingsError, match="lif1: its bias cannot be carried"):
        grid_network(replace(net, nodes=nodes, edges=edges), (4, 4))
    forever = {**net.nodes, "lif0": replace(net.nodes["lif0"], i_decay=0, bias=np.zeros(3, np.int64))}
    with pytest.raises(FindingsError, match="lif0: registers that never decay"):
        grid_network(replace(net, nodes=forever), (4, 4))
