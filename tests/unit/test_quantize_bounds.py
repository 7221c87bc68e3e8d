"""Bounds and ranges: never exceeded by a run, reached by the worst one, and reported by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.bounds import accumulator_findings, bias_fits, current_ranges, range_findings
from neurodeploy.quantize.network import IntegerConv, IntegerInput, IntegerLif, IntegerNetwork, IntegerReadout
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from tests.random_nets import chain, even_weights


@given(st.integers(0, 10_000), st.sampled_from([(0,), (0, -50, -90)]), st.sampled_from([1, 3]))
def test_no_run_leaves_its_bounds(seed: int, levels: tuple[int, ...], steps: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [even_weights(rng, 3, 4, 3, 3, limit=20), even_weights(rng, 2, 3, 3, 3), even_weights(rng, 4, 2, 1, 1)]
    net = chain(weights, levels=levels, steps=steps, seed=seed)
    nodes = {
        name: replace(node, i_decay=1000) if isinstance(node, IntegerLif) else node for name, node in net.nodes.items()
    }
    net = replace(net, nodes=nodes)
    ranges = current_ranges(net)
    trace = Trace(steps)
    run(net, rng.integers(net.host.input_min, net.host.input_max + 1, (steps, 4, 6, 6)), observer=trace)
    for name, layer in trace.layers.items():
        low, high = ranges[f"{name}.u"]
        for step in range(steps):
            assert np.all(layer.u[step] >= (low << 6)[:, None, None])
            assert np.all(layer.u[step] <= (high << 6)[:, None, None])


def test_the_worst_input_reaches_the_bound() -> None:
    weight = np.array([[[[2, -4, 6]]]])
    nodes = {
        "input": IntegerInput("input", 1),
        "conv": IntegerConv("conv", weight),
        "lif": IntegerLif("lif", 131071, np.zeros(1, np.int64)),
        "output": IntegerReadout("output", np.zeros(1, np.int64)),
    }
    edges = (("input", "conv"), ("conv", "lif"), ("lif", "output"))
    net = IntegerNetwork(nodes, edges, HostSide(unshuffle=1))
    worst = np.where(weight[0] > 0, net.host.input_max, net.host.input_min)
    trace = Trace(1)
    run(net, worst.astype(np.int64), observer=trace)
    low, high = current_ranges(net)["conv"]
    assert trace.layers["lif"].current.max() == high[0] == 8 * 511 + 4 * 256
    assert low[0] == -8 * 256 - 4 * 511


def test_grouped_convolutions_are_bounded_by_their_own_channels() -> None:
    weight = np.array([[[[2]]], [[[4]]], [[[6]]], [[[8]]]])
    nodes = {
        "input": IntegerInput("input", 2),
        "conv": IntegerConv("conv", weight, groups=2),
        "output": IntegerReadout("output", np.zeros(1, np.int64)),
    }
    net = IntegerNetwork(nodes, (("input", "conv"), ("conv", "output")), HostSide(unshuffle=1))
    low, high = current_ranges(net, input_range=(-1, 10))["conv"]
    assert high.tolist() == [20, 40, 60, 80]
    assert low.tolist() == [-2, -4, -6, -8]


def two_convs(first_sum: int) -> IntegerNetwork:
    """A first convolution whose current can reach ``first_sum`` units with the code 511."""
    weight = np.full((1, 1, 1, 1), first_sum // 511)
    return chain([weight, np.full((1, 1, 1, 1), 2)], vth=100, host=HostSide(unshuffle=1))


def test_currents_that_could_wrap_are_reported() -> None:
    assert accumulator_findings(two_convs(511 * 256)) == []
    findings = accumulator_findings(two_convs(511 * 258))
    assert [(finding.node, finding.severity) for finding in findings] == [("lif0", "warning")]
    assert "current register" in findings[0].rule
    assert str(511 * 258) in findings[0].have
    assert accumulator_findings(two_convs(511 * 258), input_range=(0, 255)) == []
    wrapping = accumulator_findings(two_convs(511 * 20_000))
    assert [finding.node for finding in wrapping] == ["conv0", "lif0"]


def test_a_membrane_that_could_saturate_is_reported_where_it_is_remembered() -> None:
    net = two_convs(511 * 200)
    nodes = {**net.nodes, "lif0": replace(net.nodes["lif0"], v_decay=10)}
    leaky = replace(net, nodes=nodes, host=HostSide(unshuffle=1, steps=8))
    assert ["membrane" in finding.rule for finding in accumulator_findings(leaky)] == [True]
    assert accumulator_findings(replace(leaky, host=HostSide(unshuffle=1, steps=1))) == []


@pytest.mark.parametrize(
    ("change", "node", "severity"),
    [
        ({"vth": 131072}, "lif0", "error"),
        ({"vth": -1}, "lif0", "error"),
        ({"v_decay": 4097}, "lif0", "error"),
        ({"i_decay": np.array([-1])}, "lif0", "error"),
        ({"bias": np.array([4097])}, "lif0", "warning"),
        ({"bias": np.array([8192])}, "lif0", "warning"),
        ({"bias": np.array([1]), "levels": (0, 4096)}, "lif0", "warning"),
        ({"bias": np.array([0]), "levels": (0, -4097)}, "lif0", "warning"),
        ({"weight": np.full((1, 1, 1, 1), 258)}, "conv0", "error"),
        ({"weight": np.full((1, 1, 1, 1), -258)}, "conv0", "error"),
        ({"weight": np.full((1, 1, 1, 1), 3)}, "conv0", "warning"),
    ],
)
def test_numbers_outside_the_chips_fields_are_reported(change: dict, node: str, severity: str) -> None:
    net = two_convs(511 * 4)
    assert range_findings(net) == []
    spoiled = replace(net, nodes={**net.nodes, node: replace(net.nodes[node], **change)})
    assert [(finding.node, finding.severity) for finding in range_findings(spoiled)] == [(node, severity)]


@pytest.mark.parametrize("extreme", [{"vth": 131071}, {"bias": np.array([-4096])}, {"bias": np.array([8190])}])
def test_the_ends_of_the_ranges_are_allowed(extreme: dict) -> None:
    net = two_convs(511 * 4)
    edge = replace(net, nodes={**net.nodes, "lif0": replace(net.nodes["lif0"], **extreme)})
    assert range_findings(edge) == []


@given(st.integers(-(1 << 16), 1 << 16), st.integers(2, 14), st.integers(0, 8))
def test_a_bias_fits_where_a_mantissa_and_an_exponent_give_it(bias: int, bits: int, exponent: int) -> None:
    mantissas = range(-(1 << (bits - 1)), 1 << (bits - 1))
    possible = any(bias * 64 == mantissa << e for e in range(exponent + 1) for mantissa in _near(bias, e, mantissas))
    assert bool(bias_fits(np.array([bias]), bits, exponent)[0]) == possible


def _near(bias: int, exponent: int, mantissas: range) -> list[int]:
    """The mantissas that could give a bias, so that not all are tried."""
    guess = bias * 64 >> exponent
    return [mantissa for mantissa in (guess - 1, guess, guess + 1) if mantissa in mantissas]
