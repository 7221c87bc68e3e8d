"""Lowering: grids come over exactly, other weights closely, and what cannot be held is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import nir
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph.nir_file import read_nir
from neurodeploy.graph.portable import Network
from neurodeploy.graph.spec import HostSide, StudentSpec
from neurodeploy.quantize.grid import grid_network
from neurodeploy.quantize.lower import lower, quantize
from neurodeploy.quantize.network import IntegerConv, IntegerLif
from neurodeploy.quantize.parts import LinearPart
from neurodeploy.quantize.steps import Fed, best_step, grid_step, to_grid
from neurodeploy.simulate.floating import run_float
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from tests.random_nets import differences, random_student, student_network
from tests.shared import shared_path

SPECS = [
    StudentSpec(width=5, depth=3, levels=4, steps=1),
    StudentSpec(width=4, depth=4, levels=3, steps=1, edges=((1, 3), (2, 3)), channels=3),
    StudentSpec(width=4, depth=3, levels=1, steps=8, decay=0.25, edges=((1, 2),)),
    StudentSpec(width=4, depth=2, levels=1, steps=4, decay=1.0, dilation=(1, 2, 1), unshuffle=1),
    StudentSpec(width=4, depth=2, levels=2, steps=1, kernel=1),
    StudentSpec(width=4, depth=2, levels=2, steps=1, channels=3, noise_map=True),
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("hints", [True, False])
def test_a_quantised_student_comes_over_number_by_number(spec: StudentSpec, hints: bool) -> None:
    student = random_student(spec, 1)
    network = student_network(student, (7, 9))
    if not hints:
        for node in network.graph.nodes.values():
            node.metadata = {}
    net = quantize(network)
    tensors = student.tensors
    for layer in range(spec.depth + 1):
        node = net.nodes[f"conv{layer}"]
        assert isinstance(node, IntegerConv)
        np.testing.assert_array_equal(node.weight, 2 * tensors[f"conv{layer}.weight"].astype(np.int64))
        assert node.dilation == (spec.dilations[layer],) * 2
        if layer == spec.depth:
            continue
        lif = net.nodes[f"lif{layer}"]
        assert isinstance(lif, IntegerLif)
        vth = tensors[f"lif{layer}.vth"].astype(np.int64)
        assert (lif.v_decay, lif.i_decay) == (4096 * spec.decay, 4096)
        summed = [layer, *(source for source, target in spec.edges if target == layer)]
        bias = sum(tensors[f"conv{k}.bias"].astype(np.int64) for k in summed)
        # population i fires above vth[i]: what threshold and bias share out between them is a gauge
        for population, level in enumerate(lif.levels):
            np.testing.assert_array_equal(lif.vth - (lif.bias + level), vth[population] - bias)
    np.testing.assert_array_equal(net.readout.bias, tensors[f"conv{spec.depth}.bias"])
    assert net.output_scale == pytest.approx(float(tensors[f"conv{spec.depth}.step"]) / 2, rel=1e-15)


@pytest.mark.parametrize("spec", SPECS)
def test_writing_on_the_grid_and_lowering_is_the_identity(spec: StudentSpec) -> None:
    net = quantize(student_network(random_student(spec, 2), (8, 6)))
    assert differences(quantize(grid_network(net, (8, 6))), net) == []


@settings(max_examples=30)
@given(st.sampled_from(SPECS[:2] + SPECS[3:]), st.integers(0, 1000))
def test_integers_equal_floats_where_nothing_decays_between_steps(spec: StudentSpec, seed: int) -> None:
    student = random_student(spec, seed)
    network = student_network(student, (9, 11))
    net = quantize(network)
    image = np.random.default_rng(seed).random((spec.channels, 9, 11), np.float32)
    codes = network.host.encode(image)
    trace = Trace(spec.steps)
    total = run(net, codes, observer=trace)
    spikes: dict[str, list[np.ndarray]] = {}

    def record(*, step: int, name: str, output: np.ndarray, membrane: np.ndarray | None) -> None:
        if membrane is not None:
            spikes.setdefault(name, []).append(output)

    out = run_float(network.graph, codes, spec.steps, network.host.dt, record)
    np.testing.assert_array_equal(out.sum(axis=0), total * net.units["output"])
    for name, layer in trace.layers.items():
        populations = layer.fired.reshape(spec.steps, -1, *layer.fired.shape[3:])
        np.testing.assert_array_equal(np.stack(spikes[name]), populations)


def test_a_float_student_keeps_close_to_its_float_network() -> None:
    spec = StudentSpec(width=8, depth=3, levels=4, steps=1)
    network = student_network(random_student(spec, 3, quantized=False), (24, 24))
    image = np.random.default_rng(0).random((1, 24, 24), np.float32)
    codes = network.host.encode(image)
    calibration = [network.host.encode(np.random.default_rng(k).random((1, 32, 32), np.float32)) for k in (1, 2)]
    spikes: dict[str, np.ndarray] = {}

    def record(*, step: int, name: str, output: np.ndarray, membrane: np.ndarray | None) -> None:
        spikes[name] = output

    floats = run_float(network.graph, codes, 1, network.host.dt, record)[0]
    for given_codes in (None, calibration):
        lowering = lower(network, calibration=given_codes)
        net = lowering.net
        assert net.nodes["lif0"].levels != (0,), "four levels must be found in float weights as well"
        trace = Trace(1)
        ours = run(net, codes, observer=trace) * net.units["output"]
        # a random network amplifies what rounding flips, a layer by a factor of about four
        for layer, share in enumerate((0.01, 0.03, 0.09)):
            fired = trace.layers[f"lif{layer}"].fired
            assert np.mean(fired.reshape(-1, *fired.shape[3:]) != spikes[f"lif{layer}"]) < share
        assert np.corrcoef(ours.reshape(-1), floats.reshape(-1))[0, 1] > 0.9
        assert any(f.node == "conv1" and "rounded" in f.rule and f.severity == "note" for f in lowering.findings)


def test_calibration_weighs_the_error_with_what_the_weights_see() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 2, 1, 1)) * [[[[1.0]], [[100.0]]]]
    network = single_conv(weight)
    part = _part(weight)
    seen = rng.integers(1, 255, (2, 6, 6))
    seen[1] = 0  # the large weights see nothing
    rows = seen.reshape(2, -1).astype(np.float64)

    def current_error(step: float) -> float:
        return float(np.square((weight - step * to_grid(weight, step)).reshape(4, 2) @ rows).sum())

    plain = best_step([part], [None], 0.0)
    weighed = best_step([part], [(rows @ rows.T)[None]], 0.0)
    assert current_error(weighed) < current_error(plain)
    assert quantize(network, calibration=[seen]).units["output"] == weighed / 2


def _part(weight: np.ndarray) -> LinearPart:
    return LinearPart("conv", weight.astype(np.float32).astype(np.float64), np.zeros(len(weight)))


@given(st.integers(0, 10_000), st.floats(1e-4, 10.0))
def test_a_grid_of_any_step_is_found_again(seed: int, step: float) -> None:
    rng = np.random.default_rng(seed)
    q = rng.integers(-128, 128, (6, 4, 3, 3))
    weight = (q * np.float32(step)).astype(np.float32).astype(np.float64)
    part = replace(_part(weight), weight=weight)
    found = grid_step([part], Fed(biases=[np.zeros(6)]))
    assert found is not None
    np.testing.assert_array_equal(to_grid(weight, found) * round(step / found), q)


def test_a_wrong_hint_is_not_believed() -> None:
    part = replace(_part(np.array([[[[0.5]]], [[[0.25]]]])), step_hint=0.3)
    assert grid_step([part], Fed(biases=[np.zeros(2)])) == 0.25


def single_conv(weight: np.ndarray, bias: np.ndarray | None = None) -> Network:
    outputs, fan_in = weight.shape[:2]
    nodes = {
        "input": nir.Input({"input": np.array([fan_in, 6, 6])}),
        "conv": conv_node(weight, bias),
        "output": nir.Output({"output": np.array([outputs, 6, 6])}),
    }
    return Network(nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False), HostSide())


def conv_node(weight: np.ndarray, bias: np.ndarray | None = None, **options: object) -> nir.Conv2d:
    fields = {"stride": 1, "padding": weight.shape[2] // 2, "dilation": 1, "groups": 1, **options}
    if bias is None:
        bias = np.zeros(len(weight), np.float32)
    return nir.Conv2d(input_shape=(6, 6), weight=weight.astype(np.float32), bias=bias, **fields)


def lif_node(**changes: object) -> nir.LIF:
    fields = {
        "tau": np.full((1, 6, 6), 2e-4),
        "r": np.ones((1, 6, 6)),
        "v_leak": np.zeros((1, 6, 6)),
        "v_threshold": np.full((1, 6, 6), 1.0),
        "v_reset": np.zeros((1, 6, 6)),
    }
    return nir.LIF(**{**fields, **changes})


def two_layers(neuron: nir.NIRNode, bias: float = 0.0, steps: int = 4) -> Network:
    weight = np.full((1, 1, 1, 1), 0.5)
    nodes = {
        "input": nir.Input({"input": np.array([1, 6, 6])}),
        "conv": conv_node(weight, np.array([bias], np.float32)),
        "neuron": neuron,
        "last": conv_node(weight),
        "output": nir.Output({"output": np.array([1, 6, 6])}),
    }
    return Network(nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False), HostSide(steps=steps))


def full(value: float) -> np.ndarray:
    return np.full((1, 6, 6), value)


@pytest.mark.parametrize(
    ("neuron", "v_decay", "i_decay", "gain"),
    [
        (lif_node(), 2048, 4096, 0.5),
        (lif_node(r=full(2.0)), 2048, 4096, 1.0),
        (nir.IF(r=full(1e4), v_threshold=full(1.0)), 0, 4096, 1.0),
        (nir.IF(r=full(2e4), v_threshold=full(1.0)), 0, 4096, 2.0),
        (
            nir.CubaLIF(
                tau_syn=full(4e-4),
                tau_mem=full(2e-4),
                r=full(2.0),
                v_leak=full(0.0),
                v_threshold=full(1.0),
                w_in=full(4.0),
            ),
            2048,
            1024,
            1.0,
        ),
    ],
)
def test_neurons_map_to_decays_and_to_a_threshold_over_their_gain(
    neuron: nir.NIRNode, v_decay: int, i_decay: int, gain: float
) -> None:
    neuron.v_threshold = neuron.v_threshold + 1e-3
    net = quantize(two_layers(neuron))
    node = net.nodes["neuron"]
    assert isinstance(node, IntegerLif)
    assert (node.v_decay, node.i_decay) == (v_decay, i_decay)
    assert node.vth == int(1.001 / (gain * net.units["neuron"]))


@pytest.mark.parametrize("kind", ["lif", "if", "cuba"])
def test_leaky_integers_follow_the_floats_closely(kind: str) -> None:
    neurons: dict[str, nir.NIRNode] = {
        "lif": lif_node(tau=full(1e-3), v_threshold=full(3.05)),
        "if": nir.IF(r=full(1e4), v_threshold=full(30.05)),
        "cuba": nir.CubaLIF(
            tau_syn=full(2e-4), tau_mem=full(1e-3), r=full(1.0), v_leak=full(0.0), v_threshold=full(3.05)
        ),
    }
    network = two_layers(neurons[kind], steps=30)
    codes = np.arange(36).reshape(1, 6, 6)
    trace = Trace(30)
    net = quantize(network)
    run(net, codes, observer=trace)
    spikes = []

    def record(*, step: int, name: str, output: np.ndarray, membrane: np.ndarray | None) -> None:
        if name == "neuron":
            spikes.append(output)

    run_float(network.graph, codes, 30, 1e-4, record)
    ours, theirs = trace.layers["neuron"].fired[:, 0], np.stack(spikes)
    assert theirs.sum() > 100
    assert np.mean(ours != theirs) < 0.02


def test_thresholds_of_single_channels_become_biases_where_nothing_is_remembered() -> None:
    rng = np.random.default_rng(0)
    thresholds = np.array([1.05, 0.55, 2.05, 0.05])
    shape = (4, 6, 6)
    spread = np.broadcast_to(thresholds[:, None, None], shape)
    ones, zeros = np.ones(shape), np.zeros(shape)
    nodes = {
        "input": nir.Input({"input": np.array([2, 6, 6])}),
        "conv": conv_node(rng.integers(-9, 9, (4, 2, 3, 3)) / 128, rng.integers(-9, 9, 4) / 256),
        "lif": nir.LIF(tau=ones * 1e-4, r=ones, v_leak=zeros, v_threshold=spread, v_reset=zeros),
        "last": conv_node(rng.integers(-9, 9, (2, 4, 3, 3)) / 128),
        "output": nir.Output({"output": np.array([2, 6, 6])}),
    }
    network = Network(nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False), HostSide(steps=3))
    net = quantize(network)
    codes = rng.integers(0, 9, (2, 6, 6))
    out = run_float(network.graph, codes, 3, 1e-4).sum(axis=0)
    np.testing.assert_array_equal(run(net, codes) * net.units["output"], out)
    nodes["lif"].tau = ones * 3e-4
    with pytest.raises(FindingsError, match="lif: thresholds"):
        quantize(network)


@given(st.floats(0.05, 17.0))
def test_any_threshold_parts_the_same_currents_as_in_floats(threshold: float) -> None:
    """``v > threshold`` and ``v_int > floor(threshold / unit)`` for every current of the layer."""
    assume(abs(2 * threshold - round(2 * threshold)) > 1e-4)  # a tie, but for rounding
    network = two_layers(lif_node(tau=full(1e-4), v_threshold=full(threshold)), steps=1)
    codes = np.arange(36).reshape(1, 6, 6)
    trace = Trace(1)
    run(quantize(network), codes, observer=trace)
    np.testing.assert_array_equal(trace.layers["neuron"].fired[0, 0], 0.5 * codes > threshold)


def test_a_threshold_on_the_grid_is_kept_strict_and_reported() -> None:
    network = two_layers(lif_node(tau=np.full((1, 6, 6), 1e-4, np.float32)), steps=1)
    lowering = lower(network)
    assert lowering.net.nodes["neuron"].vth * lowering.net.units["neuron"] == 1.0
    assert any("lies on the grid" in finding.rule for finding in lowering.findings)


def test_decays_between_the_chips_steps_are_rounded_and_reported() -> None:
    lowering = lower(two_layers(lif_node(tau=full(7e-4), v_threshold=full(1.001))))
    assert lowering.net.nodes["neuron"].v_decay == round(4096 / 7)
    assert [f.node for f in lowering.findings if "rounded to 12 bits" in f.rule] == ["neuron"]


def test_real_graphs_of_others_run_like_their_floats() -> None:
    """The N-MNIST graph (convolutions, IF, sum pooling, dense): pooling folds into weights; outputs are spikes."""
    graph = read_nir(shared_path("golden/nir_graphs") / "cnn_sinabs.nir")
    for node in graph.nodes.values():
        if isinstance(node, nir.Conv2d | nir.Affine):
            node.weight = (np.rint(node.weight / np.abs(node.weight).max() * 127) / 128).astype(np.float32)
            node.bias = (np.rint(node.bias * 256) / 256).astype(np.float32)
        if isinstance(node, nir.IF):
            node.v_threshold = np.full_like(node.v_threshold, 0.5 + 2.0**-9)
    network = Network(graph, HostSide(steps=6, dt=1.0))
    net = quantize(network)
    codes = np.random.default_rng(0).integers(0, 2, (6, 2, 34, 34))
    out = run_float(graph, codes, 6, 1.0)
    assert 0 < out.mean() < 1
    np.testing.assert_array_equal(run(net, codes).reshape(-1), out.sum(axis=0))
    assert net.nodes["5"].weight.shape == (8, 16, 6, 6)
    assert net.nodes["5"].stride == (2, 2)


def test_biases_on_feedback_edges_are_refused_by_name() -> None:
    graph = read_nir(shared_path("golden/nir_graphs") / "braille_noDelay_bias_zero.nir")
    with pytest.raises(FindingsError, match=r"lif1\.w_rec: its bias arrives at lif1\.lif over a feedback edge"):
        quantize(Network(graph, HostSide(dt=1e-4)))


def broken(change: Callable[[nir.NIRGraph], None]) -> Network:
    network = two_layers(lif_node())
    change(network.graph)
    return network


def _insert(graph: nir.NIRGraph, name: str, node: nir.NIRNode, before: str) -> None:
    graph.nodes[name] = node
    source = next(edge[0] for edge in graph.edges if edge[1] == before)
    graph.edges.remove((source, before))
    graph.edges += [(source, name), (name, before)]


REFUSED: dict[str, tuple[Callable[[nir.NIRGraph], None], str]] = {
    "leak": (lambda g: g.nodes.update(neuron=lif_node(v_leak=full(0.1))), "neuron: v_leak must be 0"),
    "reset": (lambda g: g.nodes.update(neuron=lif_node(v_reset=full(0.1))), "neuron: v_reset must be 0"),
    "short tau": (lambda g: g.nodes.update(neuron=lif_node(tau=full(5e-5))), "neuron: a time constant is shorter"),
    "gain": (lambda g: g.nodes.update(neuron=lif_node(r=full(-1.0))), "neuron: the gain"),
    "negative threshold": (
        lambda g: g.nodes.update(neuron=lif_node(v_threshold=full(-1.0))),
        "neuron: a negative threshold",
    ),
    "place": (
        lambda g: g.nodes.update(neuron=lif_node(v_threshold=np.arange(36.0).reshape(1, 6, 6) + 1)),
        "neuron: v_threshold differs inside a channel",
    ),
    "mean pool": (
        lambda g: _insert(g, "pool", nir.AvgPool2d(np.array([1, 1]), np.array([1, 1]), np.array([0, 0])), "last"),
        "pool: AvgPool2d has no counterpart",
    ),
    "overlapping pool": (
        lambda g: _insert(g, "pool", nir.SumPool2d(np.array([3, 3]), np.array([1, 1]), np.array([1, 1])), "last"),
        "pool: only sum pooling without overlap",
    ),
    "two convolutions": (lambda g: _insert(g, "conv2", conv_node(np.ones((1, 1, 1, 1))), "neuron"), "conv2: takes"),
    "input to neuron": (lambda g: g.edges.append(("input", "neuron")), "neuron: takes its input from input"),
    "summed spikes": (lambda g: g.edges.append(("input", "last")), "last: only neurons and the output sum"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_chip_cannot_hold_is_named(case: str) -> None:
    change, message = REFUSED[case]
    with pytest.raises(FindingsError, match=message):
        quantize(broken(change))


def test_a_bias_into_a_filtering_synapse_is_refused() -> None:
    neuron = nir.CubaLIF(
        tau_syn=full(4e-4), tau_mem=full(2e-4), r=full(1.0), v_leak=full(0.0), v_threshold=full(1.0), w_in=full(1.0)
    )
    with pytest.raises(FindingsError, match="neuron: a bias into neurons whose synapses filter"):
        quantize(two_layers(neuron, bias=0.25))


def test_all_findings_come_at_once() -> None:
    network = broken(lambda g: g.nodes.update(neuron=lif_node(v_leak=full(0.1))))
    network.graph.edges.append(("input", "last"))
    with pytest.raises(FindingsError) as raised:
        quantize(network)
    assert {finding.node for finding in raised.value.findings} == {"neuron", "last"}


def test_biases_beyond_13_bits_are_shared_out_with_the_threshold() -> None:
    """Where nothing is remembered, bias and threshold may move together: populations are centred if that helps."""
    spec = StudentSpec(width=4, depth=2, levels=4, steps=1, input_scale=255.0)
    network = student_network(random_student(spec, 5, quantized=False), (12, 12))
    lowering = lower(network)
    first = lowering.net.nodes["lif0"]
    biases = np.add.outer(first.levels, first.bias)
    assert abs(biases.min() + biases.max()) <= 1
    assert any(f.node == "lif0" and "13 bits" in f.rule for f in lowering.findings) == (biases.max() > 4095)
    codes = network.host.encode(np.random.default_rng(0).random((1, 12, 12), np.float32))
    spikes: dict[str, np.ndarray] = {}

    def record(*, step: int, name: str, output: np.ndarray, membrane: np.ndarray | None) -> None:
        spikes[name] = output

    run_float(network.graph, codes, 1, network.host.dt, record)
    trace = Trace(1)
    run(lowering.net, codes, observer=trace)
    fired = trace.layers["lif0"].fired.reshape(spikes["lif0"].shape)
    assert np.mean(fired != spikes["lif0"]) < 0.01


def test_calibration_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="calibration codes do not fit"):
        quantize(two_layers(lif_node()), calibration=[np.zeros((3, 6, 6), np.int64)])


def test_large_currents_get_a_larger_step() -> None:
    """A first layer that adds up bright pixels must not wrap around in the 24-bit register."""
    rng = np.random.default_rng(0)
    network = two_layers(lif_node(v_threshold=full(900.3)), steps=1)
    network.graph.nodes["conv"] = conv_node(rng.random((1, 1, 5, 5)) + 0.5)
    codes = np.full((1, 6, 6), 255)
    for calibration in (None, [codes]):
        net = quantize(network, calibration=calibration)
        trace = Trace(1)
        run(net, codes, observer=trace)
        largest = trace.layers["neuron"].current.max()
        assert 60_000 < largest <= 131071
        assert np.all(trace.layers["neuron"].fired)
