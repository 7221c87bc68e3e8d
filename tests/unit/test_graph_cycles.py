"""Cycles in NIR graphs: the late edge, cycles that are refused, biases on feedback edges, graphs inside a graph."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.foreign import Told, nir_model
from neurodeploy.graph.cycles import cycle_findings, feedback_edges, late_biases, with_early_biases
from neurodeploy.graph.law import check_graph
from neurodeploy.graph.nested import flattened
from neurodeploy.graph.nir_file import read_nir
from neurodeploy.graph.portable import Network
from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.calibrate import measure
from neurodeploy.quantize.lower import lower, quantize
from neurodeploy.quantize.parts import take_apart
from neurodeploy.simulate.floating import run_float
from neurodeploy.simulate.reference import run

DT = 1e-4


def lif(size: int, tau: float = 4e-4, threshold: float = 0.7 / 4 + 2.0**-11) -> nir.LIF:
    def full(value: float) -> np.ndarray:
        return np.full(size, value, np.float32)

    return nir.LIF(tau=full(tau), r=full(1), v_leak=full(0), v_threshold=full(threshold), v_reset=full(0))


def grid(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.integers(-40, 60, shape) / 128).astype(np.float32)


def recurrent(bias: float = 0.0, tau: float = 4e-4, threshold: float = 0.7 / 4 + 2.0**-11) -> nir.NIRGraph:
    """input -> fc1 -> lif <-> w_rec, lif -> fc2 -> output."""
    rng = np.random.default_rng(0)
    nodes = {
        "input": nir.Input({"input": np.array([3])}),
        "fc1": nir.Linear(grid(rng, 5, 3)),
        "lif": lif(5, tau, threshold),
        "w_rec": nir.Affine(grid(rng, 5, 5), np.full(5, bias, np.float32)),
        "fc2": nir.Affine(grid(rng, 2, 5), grid(rng, 2)),
        "output": nir.Output({"output": np.array([2])}),
    }
    edges = [("input", "fc1"), ("fc1", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "fc2"), ("fc2", "output")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def by_hand(graph: nir.NIRGraph, x: np.ndarray, first_step_bias: bool) -> np.ndarray:
    """snnTorch's order of things for :func:`recurrent`: the recurrent weights see the spikes of the step before."""
    nodes = graph.nodes
    v, spikes, outputs = np.zeros(5), np.zeros(5), []
    for step, frame in enumerate(x):
        current = nodes["fc1"].weight.astype(float) @ frame + nodes["w_rec"].weight.astype(float) @ spikes
        current += nodes["w_rec"].bias * (first_step_bias or step > 0)
        v = v + DT / nodes["lif"].tau.astype(float) * (current - v)
        spikes = (v > nodes["lif"].v_threshold).astype(float)
        v = np.where(spikes > 0, 0, v)
        outputs.append(nodes["fc2"].weight.astype(float) @ spikes + nodes["fc2"].bias)
    return np.stack(outputs)


def frames(steps: int = 30) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 3, (steps, 3)).astype(float)


@pytest.mark.parametrize("first_step_bias", [False, True])
def test_a_bias_on_a_feedback_edge_counts_from_the_second_step_or_from_the_first(first_step_bias: bool) -> None:
    graph, x = recurrent(bias=2.0), frames()
    assert late_biases(graph) == [("w_rec", "lif")]
    want = by_hand(graph, x, first_step_bias)
    assert (want != by_hand(graph, x, not first_step_bias)).any(), "the bias makes no difference"
    chosen = with_early_biases(graph) if first_step_bias else graph
    np.testing.assert_allclose(run_float(chosen, x, len(x), DT), want, rtol=0, atol=1e-12)


def test_a_bias_that_may_count_or_not_is_refused_until_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "net.nir"
    nir.write(path, recurrent(bias=0.25))
    with pytest.raises(UserError, match=r"w_rec: its bias arrives at lif over a feedback edge.*--no-first") as caught:
        nir_model(path, Told(steps=4, dt=DT, arrays=True))
    assert caught.value.exit_code == 2
    second = nir_model(path, Told(steps=4, dt=DT, arrays=True, first_step_bias=False))
    assert np.all(second.graph.nodes["w_rec"].bias == 0.25)
    with pytest.raises(FindingsError, match=r"w_rec: its bias arrives at lif over a feedback edge, from the second"):
        second.integer()
    net = nir_model(path, Told(steps=4, dt=DT, arrays=True, first_step_bias=True)).integer()
    assert net.feedback == {("w_rec", "lif")}
    unit = net.units["lif"]
    np.testing.assert_array_equal(net.nodes["lif"].bias * unit, 0.25)


def test_a_bias_with_nowhere_to_go_is_refused() -> None:
    graph = recurrent(bias=0.25)
    graph.edges = [*graph.edges, ("fc1", "output")]
    graph.nodes["fc1"] = nir.Linear(np.ones((5, 3), np.float32))
    with pytest.raises(FindingsError, match="w_rec: its bias cannot move"):
        with_early_biases(graph)


def test_integers_run_the_recurrent_graph_as_it_says() -> None:
    """tau = dt: nothing is truncated; the threshold lies off the grid."""
    graph, x = recurrent(tau=DT, threshold=0.7 + 2.0**-9), frames()
    want = by_hand(graph, x, first_step_bias=True)
    net = quantize(Network(graph, HostSide(channels=3, unshuffle=1, steps=30, residual=False, input_scale=1.0)))
    total = run(net, x.astype(np.int64).reshape(30, 3, 1, 1)).reshape(-1) * net.units["output"]
    np.testing.assert_allclose(total, want.sum(axis=0), rtol=0, atol=1e-9)


def test_calibration_sees_what_is_fed_back() -> None:
    graph, x = recurrent(tau=DT, threshold=0.7 + 2.0**-9), frames()
    parts, findings = take_apart(graph, DT)
    assert not findings
    measured = measure(parts, [x.astype(np.int64).reshape(30, 3, 1, 1)], 30, ("fc1", "w_rec"), ("lif",))
    currents, spikes = [], np.zeros(5)
    for frame in x:
        currents.append(graph.nodes["fc1"].weight.astype(float) @ frame + graph.nodes["w_rec"].weight @ spikes)
        spikes = (currents[-1] > graph.nodes["lif"].v_threshold).astype(float)
    assert measured.peaks["lif"] == pytest.approx(np.abs(currents).max(), abs=1e-12)
    host = HostSide(channels=3, unshuffle=1, steps=30, residual=False, input_scale=1.0)
    assert lower(Network(graph, host), calibration=[x.astype(np.int64).reshape(30, 3, 1, 1)]).net.feedback


def test_the_late_edge_is_the_same_in_every_order_of_the_edges() -> None:
    graph = recurrent()
    for edges in permutations(graph.edges):
        assert feedback_edges(nir.NIRGraph(graph.nodes, list(edges), type_check=False)) == {("w_rec", "lif")}


def test_a_cycle_without_a_neuron_is_refused() -> None:
    graph = recurrent()
    graph.nodes |= {"again": nir.Linear(np.eye(5, dtype=np.float32)), "back": nir.Linear(np.eye(5, dtype=np.float32))}
    graph.edges = [edge for edge in graph.edges if edge != ("lif", "fc2")]
    graph.edges += [("lif", "again"), ("again", "back"), ("back", "again"), ("again", "fc2")]
    (finding,) = check_graph(graph, "readable")
    assert str(finding).startswith("again: the edge from back closes a cycle without a neuron")


def test_a_cycle_of_weights_alone_is_refused_when_it_is_read(tmp_path: Path) -> None:
    graph = recurrent()
    graph.nodes["fc2"] = nir.Linear(np.eye(5, dtype=np.float32))
    graph.nodes["output"] = nir.Output({"output": np.array([5])})
    graph.edges = [*graph.edges, ("fc2", "fc2")]
    path = tmp_path / "net.nir"
    nir.write(path, graph)
    with pytest.raises(FindingsError, match="fc2: the edge from fc2 closes a cycle without a neuron") as caught:
        read_nir(path)
    assert caught.value.exit_code == 2


def test_a_cycle_with_two_ways_in_is_refused_in_every_order_of_the_edges() -> None:
    """Two layers that feed each other and both see the input: which of the two is late depends on who reads it."""
    eye = nir.Linear(np.eye(3, dtype=np.float32))
    nodes = {
        "input": nir.Input({"input": np.array([3])}),
        "output": nir.Output({"output": np.array([3])}),
        **{name: eye for name in ("in1", "in2", "to1", "to2", "out")},
        "lif1": lif(3),
        "lif2": lif(3),
    }
    edges = [("input", "in1"), ("in1", "lif1"), ("input", "in2"), ("in2", "lif2"), ("lif1", "to2"), ("to2", "lif2")]
    edges += [("lif2", "to1"), ("to1", "lif1"), ("lif2", "out"), ("out", "output")]
    for order in (edges, edges[::-1], edges[2:] + edges[:2]):
        (finding,) = cycle_findings(nir.NIRGraph(nodes, order, type_check=False))
        assert finding.node in ("lif1", "lif2") and "entered at several places" in finding.rule


@given(st.integers(0, 1 << 16))
def test_a_graph_is_refused_where_the_late_edges_depend_on_the_order_of_the_edges(seed: int) -> None:
    """All orders in which a walk can leave the nodes of a small graph of neurons, against the one look at it."""
    rng = np.random.default_rng(seed)
    names = ["input", "a", "b", "c"]
    nodes = {"input": nir.Input({"input": np.array([3])}), **dict.fromkeys(names[1:], lif(3))}
    edges = [(s, t) for s in names for t in names[1:] if rng.random() < 0.45]
    if set(names) - _reached(edges):
        return
    leaving = [[edge for edge in edges if edge[0] == name] for name in names]
    seen = set()
    for orders in product(*(permutations(part) for part in leaving)):
        walked = [edge for part in orders for edge in part]
        seen.add(frozenset(feedback_edges(nir.NIRGraph(nodes, walked, type_check=False))))
    refused = list(cycle_findings(nir.NIRGraph(nodes, edges, type_check=False)))
    assert bool(refused) == (len(seen) > 1)


def _reached(edges: list[tuple[str, str]]) -> set[str]:
    found, waiting = set(), ["input"]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [target for source, target in edges if source == name]
    return found


def nested(bias: float = 0.0) -> nir.NIRGraph:
    """:func:`recurrent` as snnTorch writes it: the recurrent layer is a graph of its own."""
    flat = recurrent(bias)
    inner = nir.NIRGraph(
        {
            "input": nir.Input({"input": np.array([5])}),
            "lif": flat.nodes["lif"],
            "w_rec": flat.nodes["w_rec"],
            "output": nir.Output({"output": np.array([5])}),
        },
        [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
        type_check=False,
    )
    nodes = {name: flat.nodes[name] for name in ("input", "fc1", "fc2", "output")} | {"rec": inner}
    edges = [("input", "fc1"), ("fc1", "rec"), ("rec", "fc2"), ("fc2", "output")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def test_a_graph_inside_a_graph_is_written_out(tmp_path: Path) -> None:
    path = tmp_path / "nested.nir"
    nir.write(path, nested())
    graph = read_nir(path)
    assert set(graph.nodes) == {"input", "fc1", "rec.lif", "rec.w_rec", "fc2", "output"}
    assert feedback_edges(graph) == {("rec.w_rec", "rec.lif")}
    np.testing.assert_array_equal(run_float(graph, frames(), 30, DT), run_float(recurrent(), frames(), 30, DT))


def test_graphs_may_lie_in_graphs_and_hand_their_input_through() -> None:
    through = nir.NIRGraph(
        {"a": nir.Input({"input": np.array([3])}), "b": nir.Output({"output": np.array([3])})},
        [("a", "b")],
        type_check=False,
    )
    outer = nir.NIRGraph(
        {"i": nir.Input({"input": np.array([3])}), "deep": through, "o": nir.Output({"output": np.array([3])})},
        [("i", "deep"), ("deep", "o")],
        type_check=False,
    )
    graph = nested()
    graph.nodes["before"] = outer
    graph.edges = [("input", "before"), ("before", "fc1"), *graph.edges[1:]]
    flat = flattened(graph)
    assert set(flat.nodes) == {"input", "fc1", "rec.lif", "rec.w_rec", "fc2", "output"}
    assert ("input", "fc1") in flat.edges


def test_inner_graphs_without_ends_and_names_that_stand_twice_are_refused() -> None:
    graph = nested()
    del graph.nodes["rec"].nodes["output"]
    with pytest.raises(UserError, match="rec: a graph inside the graph needs one Output"):
        flattened(graph)
    graph = nested()
    graph.nodes["rec.lif"] = lif(5)
    with pytest.raises(UserError, match=r"rec\.lif: its name stands for two nodes"):
        flattened(graph)
