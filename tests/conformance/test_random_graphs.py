"""Random graphs of the portable vocabulary through every form that the program writes, by value and by spike.

Integers -> NIR -> integers, integers -> netx -> integers -> NIR, float graph against integers, kernel against
reference. The frameworks of others run the same graphs in ``tests/external/test_random_graphs_elsewhere.py``.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from neurodeploy.graph.law import check_graph
from neurodeploy.graph.nir_file import read_nir, write_nir
from neurodeploy.graph.portable import Network
from neurodeploy.quantize.grid import grid_network
from neurodeploy.quantize.lower import quantize
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.simulate import kernel, reference
from neurodeploy.simulate.observe import Trace
from neurodeploy.targets.bundle import equality
from neurodeploy.targets.canonical import canonical
from neurodeploy.targets.check import check
from neurodeploy.targets.equal import network_differences
from neurodeploy.targets.export import export
from neurodeploy.targets.floats import float_run
from neurodeploy.targets.lava_net import read_net
from tests.conformance.graphs import Sample, samples

met: Counter[str] = Counter()
"""What the run has come across, so that a run that shows nothing cannot pass."""


@pytest.fixture
def counted() -> Iterator[Counter[str]]:
    met.clear()
    yield met


def through_every_form(sample: Sample, folder: Path) -> None:
    net, met_here = sample.net, met
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    trace = Trace(net.host.steps)
    codes = sample.codes()
    wanted = reference.run(net, codes, observer=trace)
    spikes = {name: layer.fired.reshape(len(layer.fired), -1, *layer.fired.shape[3:])
              for name, layer in trace.layers.items()}  # fmt: skip
    met_here["layers"] += len(spikes)
    met_here["layers that spike"] += sum(bool(fired.any() and not fired.all()) for fired in spikes.values())

    network = grid_network(net, sample.size)
    assert check_graph(network.graph, "portable") == []
    write_nir(folder / "a.nir", network.graph)
    back = quantize(Network(read_nir(folder / "a.nir"), network.host))
    assert_same(net, back, "NIR -> integers")
    found = float_run(Network(read_nir(folder / "a.nir"), network.host), codes)
    if equality(net).integers_equal_float:
        met_here["floats that owe the integers"] += 1
        for name, fired in spikes.items():
            np.testing.assert_array_equal(found.spikes[name], fired, err_msg=name)
        np.testing.assert_array_equal(np.rint(found.output * net.host.steps / 2.0**-8), wanted)

    if kernel.declines(net, codes) is None:
        met_here["kernel"] += 1
        np.testing.assert_array_equal(kernel.run(net, codes), wanted)

    if sample.is_chain and check(sample.deployable(), "lava").ok:
        met_here["netx"] += 1
        bundle = export(sample.deployable(), "lava", folder / "lava")
        read = read_net(bundle.path / "network.net")
        assert_same(net, read, "netx -> integers")
        again = grid_network(read, sample.size)
        write_nir(folder / "b.nir", again.graph)
        assert_same(net, quantize(Network(read_nir(folder / "b.nir"), again.host)), "netx -> NIR -> integers")


def assert_same(net: IntegerNetwork, other: IntegerNetwork, road: str) -> None:
    assert [str(found) for found in network_differences(canonical(net), canonical(other), road)] == []


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(sample=samples())
def test_some_graphs_keep_their_values(tmp_path: Path, sample: Sample) -> None:
    through_every_form(sample, tmp_path / "case")


@pytest.mark.slow
def test_two_hundred_graphs_keep_their_values(tmp_path: Path, counted: Counter[str]) -> None:
    @settings(max_examples=200, suppress_health_check=list(HealthCheck))
    @given(sample=samples())
    def every(sample: Sample) -> None:
        counted["graphs"] += 1
        through_every_form(sample, tmp_path / "case")

    every()
    assert counted["graphs"] >= 200
    assert counted["netx"] >= 50 and counted["floats that owe the integers"] >= 50
    assert counted["layers that spike"] > counted["layers"] / 2
