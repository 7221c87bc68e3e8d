"""The float interpreter: the published trace, formulas solved by hand, and every kind of node against plain loops."""

from __future__ import annotations

from itertools import pairwise

import nir
import numpy as np
import pytest

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph.nir_file import read_nir
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.simulate.floating import run_float, smallest_margin
from tests.random_nets import random_student, student_network
from tests.shared import shared_path


def one_node(node: nir.NIRNode, inputs: tuple[int, ...], outputs: tuple[int, ...] | None = None) -> nir.NIRGraph:
    nodes = {
        "input": nir.Input({"input": np.array(inputs)}),
        "node": node,
        "output": nir.Output({"output": np.array(inputs if outputs is None else outputs)}),
    }
    return nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)


def ones(value: float = 1.0, size: int = 2) -> np.ndarray:
    return np.full(size, value)


@pytest.mark.parametrize("name", ["norse", "snntorch", "spinnaker2"])
def test_the_published_lif_trace(name: str) -> None:
    """One thousand steps of the NIR paper's neuron: spikes at rows 460, 510, 710, 760, and the recorded voltages."""
    folder = shared_path("golden/nir_lif")
    graph = read_nir(folder / "lif_norse.nir")
    arriving = np.genfromtxt(folder / "lif_norse.csv", delimiter=",")[:, 0]
    theirs = np.genfromtxt(folder / f"lif_{name}.csv", delimiter=",")
    voltages = []

    def record(*, step: int, name: str, output: np.ndarray, membrane: np.ndarray | None) -> None:
        if membrane is not None:
            voltages.append(0.0 if output[0] else membrane[0])

    out = run_float(graph, arriving[:, None], len(arriving), 1e-4, record)
    assert np.flatnonzero(out[:, 0]).tolist() == [460, 510, 710, 760]
    np.testing.assert_array_equal(np.flatnonzero(theirs[:, 2]), np.flatnonzero(out[:, 0]))
    if name == "norse":
        np.testing.assert_allclose(voltages, theirs[:, 1], atol=2e-3)


@pytest.mark.parametrize(
    ("node", "decay", "gain"),
    [
        (nir.LI(tau=ones(4e-4), r=ones(3.0), v_leak=ones(0.0)), 0.25, 0.75),
        (nir.I(r=ones(2e4)), 0.0, 2.0),
        (nir.CubaLI(tau_syn=ones(1e-4), tau_mem=ones(2e-4), r=ones(2.0), v_leak=ones(0.0), w_in=3.0), 0.5, 3.0),
    ],
)
def test_integrators_are_geometric_sums(node: nir.NIRNode, decay: float, gain: float) -> None:
    out = run_float(one_node(node, (2,)), np.array([1.0, -2.0]), 5, 1e-4)
    weights = [sum(gain * (1 - decay) ** k for k in range(step + 1)) for step in range(5)]
    np.testing.assert_allclose(out, np.outer(weights, [1.0, -2.0]), rtol=1e-12)


def test_a_leak_potential_pulls() -> None:
    node = nir.LI(tau=ones(2e-4), r=ones(), v_leak=ones(8.0))
    out = run_float(one_node(node, (2,)), np.zeros(2), 3, 1e-4)
    assert out[:, 0].tolist() == [4.0, 6.0, 7.0]


def test_a_fading_current_charges_the_membrane() -> None:
    node = nir.CubaLI(tau_syn=ones(2e-4), tau_mem=ones(1e-4), r=ones(), v_leak=ones(0.0), w_in=2.0)
    frames = np.zeros((4, 2))
    frames[0] = 8.0
    out = run_float(one_node(node, (2,)), frames, 4, 1e-4)
    assert out[:, 0].tolist() == [8.0, 4.0, 2.0, 1.0]


def test_a_spike_is_strict_and_resets_to_v_reset() -> None:
    node = nir.IF(r=ones(1e4), v_threshold=ones(3.0), v_reset=ones(-0.5))
    membranes = []

    def record(*, step: int, name: str, output: np.ndarray, membrane: np.ndarray | None) -> None:
        if membrane is not None:
            membranes.append(membrane[0])

    out = run_float(one_node(node, (2,)), np.ones(2), 5, 1e-4, record)
    assert out[:, 0].tolist() == [0, 0, 0, 1, 0]
    assert membranes == [1.0, 2.0, 3.0, 4.0, 0.5]


def test_delays_are_rounded_to_steps_and_may_differ() -> None:
    node = nir.Delay(delay=np.array([0.0, 1e-4, 3.1e-4]))
    frames = np.arange(1.0, 6.0)[:, None].repeat(3, axis=1)
    out = run_float(one_node(node, (3,)), frames, 5, 1e-4)
    assert out.T.tolist() == [[1, 2, 3, 4, 5], [0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]


def test_elementwise_and_dense_nodes() -> None:
    x = np.array([1.0, -2.0])
    weight = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    cases = [
        (nir.Scale(np.array([3.0, 5.0])), [3.0, -10.0]),
        (nir.Threshold(np.array([1.0, -3.0])), [0.0, 1.0]),
        (nir.Linear(weight), [-3.0, -5.0, -7.0]),
        (nir.Affine(weight, np.array([1.0, 1.0, 1.0])), [-2.0, -4.0, -6.0]),
    ]
    for node, expected in cases:
        out = run_float(one_node(node, (2,), (len(expected),)), x, 1, 1e-4)
        assert out[0].tolist() == expected


def loops_conv(x: np.ndarray, node: nir.Conv2d, before: tuple[int, int], after: tuple[int, int]) -> np.ndarray:
    x = np.pad(x, ((0, 0), (before[0], after[0]), (before[1], after[1])))
    outputs, fan_in, rows, columns = node.weight.shape
    stride, dilation = node.stride, node.dilation
    height = (x.shape[1] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    width = (x.shape[2] - dilation[1] * (columns - 1) - 1) // stride[1] + 1
    out = np.zeros((outputs, height, width))
    for o, i, j in np.ndindex(out.shape):
        group = o // (outputs // node.groups)
        for c, a, b in np.ndindex(fan_in, rows, columns):
            seen = x[group * fan_in + c, i * stride[0] + a * dilation[0], j * stride[1] + b * dilation[1]]
            out[o, i, j] += node.weight[o, c, a, b] * seen
    return out + node.bias[:, None, None]


@pytest.mark.parametrize(
    ("options", "before", "after"),
    [
        ({"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}, (1, 2), (1, 2)),
        ({"stride": 1, "padding": "valid", "dilation": 1}, (0, 0), (0, 0)),
        ({"stride": 1, "padding": "same", "dilation": 1}, (1, 0), (1, 1)),
        ({"stride": 1, "padding": 0, "dilation": 1, "groups": 2}, (0, 0), (0, 0)),
    ],
)
def test_convolutions_against_loops(options: dict, before: tuple[int, int], after: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    groups = options.get("groups", 1)
    node = nir.Conv2d(
        input_shape=None,
        weight=rng.standard_normal((4, 4 // groups, 3, 2)),
        bias=rng.standard_normal(4),
        **{"groups": 1, **options},
    )
    x = rng.standard_normal((4, 6, 7))
    expected = loops_conv(x, node, before, after)
    out = run_float(one_node(node, (4, 6, 7), expected.shape), x, 1, 1e-4)
    np.testing.assert_allclose(out[0], expected, rtol=1e-12)


def test_one_dimensional_convolution() -> None:
    rng = np.random.default_rng(0)
    node = nir.Conv1d(None, rng.standard_normal((3, 2, 3)), 2, 1, 2, 1, rng.standard_normal(3))
    x = rng.standard_normal((2, 9))
    padded = np.pad(x, ((0, 0), (1, 1)))
    expected = np.array([[np.sum(node.weight[o] * padded[:, i : i + 5 : 2]) for i in (0, 2, 4, 6)] for o in range(3)])
    out = run_float(one_node(node, (2, 9), (3, 4)), x, 1, 1e-4)
    np.testing.assert_allclose(out[0], expected + node.bias[:, None], rtol=1e-12)


def test_pools_and_flatten() -> None:
    x = np.arange(12.0).reshape(1, 3, 4)
    pool = (np.array([2, 2]), np.array([1, 2]), np.array([0, 0]))
    summed = [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [4 + 5 + 8 + 9, 6 + 7 + 10 + 11]]
    assert run_float(one_node(nir.SumPool2d(*pool), (1, 3, 4), (1, 2, 2)), x, 1, 1e-4)[0, 0].tolist() == summed
    mean = run_float(one_node(nir.AvgPool2d(*pool), (1, 3, 4), (1, 2, 2)), x, 1, 1e-4)[0, 0]
    assert (4 * mean).tolist() == summed
    flat = nir.Flatten({"input": None}, start_dim=0, end_dim=-1)
    assert run_float(one_node(flat, (1, 3, 4), (12,)), x, 1, 1e-4)[0].tolist() == list(range(12))
    partly = nir.Flatten({"input": None}, start_dim=1, end_dim=-1)
    assert run_float(one_node(partly, (1, 3, 4), (1, 12)), x, 1, 1e-4).shape == (1, 1, 12)


def test_feedback_carries_the_previous_step_and_not_even_a_bias_at_first() -> None:
    """The rule by which norse and SpikingJelly agree on the published recurrent graphs."""
    nodes = {
        "input": nir.Input({"input": np.array([1])}),
        "sum": nir.I(r=np.array([1e4])),
        "back": nir.Affine(np.array([[2.0]]), np.array([100.0])),
        "output": nir.Output({"output": np.array([1])}),
    }
    edges = [("input", "sum"), ("sum", "output"), ("sum", "back"), ("back", "sum")]
    out = run_float(nir.NIRGraph(nodes, edges, type_check=False), np.array([1.0]), 3, 1e-4)
    first = 1.0
    second = first + 1.0 + (2 * first + 100)
    third = second + 1.0 + (2 * second + 100)
    assert out[:, 0].tolist() == [first, second, third]


def test_the_published_recurrent_graph_runs() -> None:
    graph = read_nir(shared_path("golden/nir_graphs") / "braille_noDelay_bias_zero.nir")
    frames = (np.random.default_rng(0).random((40, 12)) < 0.3).astype(float)
    out = run_float(graph, frames, 40, 1e-4)
    assert out.shape == (40, 7)
    assert set(np.unique(out)) == {0.0, 1.0}


def test_the_smallest_margin_is_the_closest_call() -> None:
    spec = StudentSpec(width=3, depth=2, levels=2, steps=1)
    network = student_network(random_student(spec, 0), (8, 8))
    codes = network.host.encode(np.random.default_rng(0).random((1, 8, 8), np.float32))
    margin = smallest_margin(network.graph, codes, 1, 1e-4)
    least = np.inf

    def record(*, step: int, name: str, output: np.ndarray, membrane: np.ndarray | None) -> None:
        nonlocal least
        if membrane is not None:
            least = min(least, float(np.abs(membrane - network.graph.nodes[name].v_threshold).min()))

    run_float(network.graph, codes, 1, 1e-4, record)
    assert margin is not None
    assert margin.value == least
    # currents are whole units of 2^-8, the threshold lies half-way between
    halves = margin.value * 2**9
    assert round(halves) % 2 == 1
    assert halves == pytest.approx(round(halves), rel=1e-3)
    assert smallest_margin(one_node(nir.Scale(ones()), (2,)), ones(), 1, 1e-4) is None


def test_what_cannot_be_interpreted_is_refused() -> None:
    graph = one_node(nir.Scale(ones()), (2,))
    with pytest.raises(UserError, match=r"input: the input does not fit \(have \(3,\)"):
        run_float(graph, ones(size=3), 1, 1e-4)
    with pytest.raises(UserError, match="at least one time step"):
        run_float(graph, ones(), 0, 1e-4)
    graph.nodes["node"] = one_node(nir.Scale(ones()), (2,))
    with pytest.raises(FindingsError, match="node: NIRGraph"):
        run_float(graph, ones(), 1, 1e-4)
