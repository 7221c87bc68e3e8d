"""Counting against a count by brute force, over tiles, and over images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurodeploy.energy.count import OperationCounter
from neurodeploy.energy.geometry import taps
from neurodeploy.energy.results import spread
from neurodeploy.errors import InternalError, UserError
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerReadout,
)
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from neurodeploy.simulate.restore import run_tiled
from tests.energy_nets import brute_force, chain, networks, student


class Both:
    """Two observers of one run."""

    def __init__(self, *observers) -> None:
        self.observers = observers

    def codes(self, **call) -> None:
        for observer in self.observers:
            observer.codes(**call)

    def layer(self, **call) -> None:
        for observer in self.observers:
            observer.layer(**call)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_counts_equal_those_of_every_spike_and_every_synapse(drawn):
    net, extent, seed = drawn
    codes = np.random.default_rng(seed).integers(-2, 12, (net.input.channels, *extent))
    counter, trace = OperationCounter(net), Trace(net.host.steps)
    run(net, codes, observer=Both(counter, trace))
    expected = brute_force(net, trace, codes)
    counts = counter.counts()
    for layer in counts.layers:
        assert layer.sop == expected.sop[layer.name], layer.name
        assert layer.sop_nonzero == expected.sop_nonzero[layer.name], layer.name
        assert layer.mac == expected.mac[layer.name], layer.name
        assert layer.mac_nonzero == expected.mac_nonzero[layer.name], layer.name
        assert layer.spikes == expected.spikes[layer.name], layer.name
        assert layer.resets == layer.spikes
        assert layer.neuron_updates_active == expected.active[layer.name], layer.name
        assert layer.neuron_updates == layer.neuron_updates_active + layer.neuron_updates_idle
        assert sum(layer.per_step["sop"]) == layer.sop
        assert sum(layer.per_step["mac"]) == layer.mac
        assert sum(layer.per_step["spikes"]) == layer.spikes
        assert sum(layer.per_step["neuron_updates_active"]) == layer.neuron_updates_active
        assert all(type(getattr(layer, key)) is int for key in ("sop", "sop_nonzero", "mac", "spikes"))
    json.dumps(counts.as_dict())


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 3), st.integers(2, 9))
def test_sums_over_tiles_equal_the_whole(seed, steps, levels, core):
    rng = np.random.default_rng(seed)
    net = student(rng, levels=levels if steps == 1 else 1, steps=steps)
    codes = rng.integers(0, 256, (1, 11, 9))
    whole, tiled = OperationCounter(net), OperationCounter(net)
    run(net, codes, observer=whole)
    run_tiled(net, codes, core=core, observer=tiled)
    assert tiled.counts().as_dict() == whole.counts().as_dict()
    assert whole.counts().total("spikes") > 0


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 3), st.integers(0, 4), st.integers(1, 3))
def test_taps_agree_with_the_definition(length, kernel, stride, padding, dilation):
    outputs = max(0, (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
    expected = np.zeros((length, kernel))
    for output in range(outputs):
        for tap in range(kernel):
            place = output * stride - padding + tap * dilation
            if 0 <= place < length:
                expected[place, tap] += 1
    assert np.array_equal(taps(length, kernel, stride, padding, dilation), expected)
    assert expected.max(initial=0) <= 1


def test_populations_count_as_hardware_and_parameters_once():
    rng = np.random.default_rng(3)
    single, triple = student(np.random.default_rng(3)), student(np.random.default_rng(3), levels=3)
    codes = rng.integers(0, 256, (1, 8, 8))
    counters = [OperationCounter(net) for net in (single, triple)]
    for net, counter in zip((single, triple), counters, strict=True):
        run(net, codes, observer=counter)
    one, three = (counter.counts() for counter in counters)
    assert three.total("mac") == 3 * one.total("mac")
    assert three.total("mac_once") == one.total("mac_once")
    assert three.layers[0].neurons == 3 * one.layers[0].neurons
    assert three.layers[1].in_bounds_fanout == 3 * one.layers[1].in_bounds_fanout
    weights = sum(node.weight.size for node in triple.nodes.values() if isinstance(node, IntegerConv))
    biases = 3 * 4 + 1
    assert three.total("parameters") == weights + biases + 3 * 3
    # conv0 three times, conv1 and conv2 between two layers of three populations, the last behind three
    shared = [triple.nodes[f"conv{place}"].weight.size for place in range(4)]
    expected = 3 * shared[0] + 9 * (shared[1] + shared[2]) + 3 * shared[3] + 3 * (3 * 4 + 1) + 1
    assert three.total("parameters_repeated") == expected


def test_analog_input_is_macs_at_every_step_and_once_stands_apart():
    net = student(np.random.default_rng(0), steps=3)
    counter = OperationCounter(net)
    run(net, np.zeros((1, 6, 5), np.int64), observer=counter)
    first = counter.counts().layers[0]
    in_bounds = (3 * 6 - 2) * (3 * 5 - 2) * 4
    assert (first.mac, first.mac_once, first.mac_nonzero) == (3 * in_bounds, in_bounds, 0)
    assert first.sop == 0
    assert first.dense_mac == in_bounds
    assert first.dense_mac_padded == 6 * 5 * 9 * 4


def test_provenance_decides_not_values():
    """Codes of 0 and 1 stay analog; a layer of spikes stays spiking."""
    net = student(np.random.default_rng(1))
    counter = OperationCounter(net)
    run(net, np.random.default_rng(2).integers(0, 2, (1, 6, 6)), observer=counter)
    row = counter.counts().as_dict()["layers"][0]
    assert row["driven_by"] == [{"name": "input", "payload": "analog"}]
    assert row["mac"] > 0
    assert row["sop"] == 0


def test_a_convolution_into_two_layers_is_hardware_twice_and_parameters_once():
    weight = np.full((2, 2, 3, 3), 2)
    nodes = [
        IntegerInput("input", 1),
        IntegerConv("conv0", np.full((2, 1, 1, 1), 2)),
        IntegerLif("lif0", 1, np.zeros(2, np.int64)),
        IntegerConv("conv1", weight, padding=(1, 1)),
        IntegerLif("lif1", 1, np.zeros(2, np.int64)),
        IntegerConv("conv2", weight, padding=(1, 1)),
        IntegerLif("lif2", 1, np.zeros(2, np.int64)),
        IntegerReadout("output", np.zeros(2, np.int64)),
    ]
    net = chain(nodes, steps=1, edges=(("conv1", "lif2"),))
    counter = OperationCounter(net)
    run(net, np.full((1, 4, 4), 9), observer=counter)
    counts = counter.counts()
    taps_in_bounds = (3 * 4 - 2) ** 2 * 2 * 2
    rows = {layer.name: layer for layer in counts.layers}
    assert rows["lif1"].sop == taps_in_bounds
    assert rows["lif2"].sop == 2 * taps_in_bounds
    assert rows["lif1"].dense_mac == rows["lif2"].dense_mac == taps_in_bounds
    assert rows["output"].sop == rows["lif2"].spikes == 32  # spikes read out: one synapse each
    assert counts.total("parameters") == 2 + 2 * weight.size + 3 * (2 + 1) + 2


def test_several_images_have_names_a_mean_and_a_spread():
    net = student(np.random.default_rng(5))
    counter = OperationCounter(net)
    for name, size in (("a", 6), ("b", 6), ("c", 8)):
        counter.begin(name)
        run(net, np.random.default_rng(size).integers(0, 256, (1, size, size)), observer=counter)
    answer = counter.counts().as_dict()
    each = [image["sop"] for image in answer["per_image"]]
    assert [image["name"] for image in answer["per_image"]] == ["a", "b", "c"]
    assert answer["total"]["sop"] == sum(each) == sum(layer["sop"] for layer in answer["layers"])
    assert answer["mean_per_image"]["sop"] == pytest.approx(sum(each) / 3)
    assert answer["spread"]["sop"]["worst"] == max(each)
    assert answer["total"]["neurons"] == 3 * 4 * 64 + 64  # as the largest image needs
    assert answer["images"] == 3


def test_images_without_names_are_told_apart():
    net = student(np.random.default_rng(5))
    counter = OperationCounter(net)
    for _ in range(2):
        run_tiled(net, np.full((1, 7, 7), 90), core=4, observer=counter)
    first, second = counter.counts().images
    assert (first.name, second.name) == ("image 1", "image 2")
    assert [first.total(key) for key in ("sop", "mac")] == [second.total(key) for key in ("sop", "mac")]


def test_a_partly_shown_image_is_not_counted():
    net = student(np.random.default_rng(5))
    counter = OperationCounter(net)
    trace = Trace(1)
    codes = np.full((1, 6, 6), 90)
    run(net, codes, observer=trace)
    counter.codes(codes=codes, origin=(0, 0), extent=(6, 6))
    layer = trace.layers["lif0"]
    counter.layer(
        step=0, name="lif0", current=layer.current[0], u=layer.u[0], v=layer.v[0], fired=layer.fired[0],
        origin=(0, 0), extent=(6, 6),
    )  # fmt: skip
    with pytest.raises(InternalError, match="lif1, lif2"):
        counter.counts()


def test_nothing_run_is_an_error():
    with pytest.raises(InternalError, match="no image"):
        OperationCounter(student(np.random.default_rng(0))).counts()


def test_a_convolution_after_a_flatten_is_refused():
    nodes = [IntegerInput("input", 1), IntegerFlatten("flat"), IntegerConv("conv", np.ones((1, 4, 1, 1), np.int64))]
    with pytest.raises(UserError, match="flatten"):
        OperationCounter(chain([*nodes, IntegerReadout("output", np.zeros(1, np.int64))], steps=1))


def test_spread_of_known_values():
    found = spread([1.0, 2.0, 3.0, 4.0])
    half = 3.182 * np.std([1, 2, 3, 4], ddof=1) / 2
    assert found["mean"] == 2.5
    assert found["ci95_high"] == pytest.approx(2.5 + half)
    assert found["ci95_low"] == pytest.approx(2.5 - half)
    assert (found["p95"], found["worst"]) == (4.0, 4.0)
    assert spread([7.0])["ci95_low"] is None
    assert spread(list(range(1, 101)))["p95"] == 95


@pytest.mark.parametrize("levels", [2, 4])
def test_folded_levels_count_as_the_expanded_network_that_the_chip_holds(levels):
    """D populations written out as D * C channels, weights repeated, give the same counts by other loops."""
    net = student(np.random.default_rng(8), levels=levels)
    expanded = expand_levels(net)
    codes = np.random.default_rng(9).integers(0, 256, (1, 10, 9))
    folded, written_out = OperationCounter(net), OperationCounter(expanded)
    run(net, codes, observer=folded)
    run(expanded, codes, observer=written_out)
    one, other = folded.counts(), written_out.counts()
    for key in (
        "sop", "sop_nonzero", "mac", "mac_nonzero", "spikes", "neurons", "neuron_updates", "neuron_updates_active",
        "bias_additions", "state_bits",
    ):  # fmt: skip
        assert [getattr(row, key) for row in one.layers] == [getattr(row, key) for row in other.layers], key
    assert one.total("parameters_repeated") == other.total("parameters")
    assert one.total("parameters") < other.total("parameters")
