"""The law: a sound graph breaks nothing, and every broken rule is found with its node, all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import nir
import numpy as np
import pytest

from neurodeploy.errors import FindingsError
from neurodeploy.graph.cycles import feedback_edges
from neurodeploy.graph.law import check_graph, time_step
from neurodeploy.graph.order import run_order
from neurodeploy.graph.shapes import node_shapes
from neurodeploy.graph.spec import StudentSpec
from tests.random_nets import random_student, student_network


def conv(outputs: int = 2, inputs: int = 1, kernel: tuple[int, int] = (3, 3), **changes: object) -> nir.Conv2d:
    fields = {
        "input_shape": None,
        "weight": np.ones((outputs, inputs, *kernel), np.float32),
        "stride": 1,
        "padding": 1,
        "dilation": 1,
        "groups": 1,
        "bias": np.zeros(outputs, np.float32),
    }
    return nir.Conv2d(**{**fields, **changes})


def lif(channels: int = 2, **changes: float | np.ndarray) -> nir.LIF:
    fields = {"tau": 1e-4, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.5, "v_reset": 0.0, **changes}
    shape = (channels, 4, 5)
    return nir.LIF(
        **{
            key: value if isinstance(value, np.ndarray) else np.full(shape, value, np.float32)
            for key, value in fields.items()
        }
    )


def ends(channels: int) -> tuple[nir.Input, nir.Output]:
    return nir.Input({"input": np.array([1, 4, 5])}), nir.Output({"output": np.array([channels, 4, 5])})


def graph(**changes: nir.NIRNode) -> nir.NIRGraph:
    """input -> conv -> lif -> last -> output, with some nodes replaced or added."""
    first, last = ends(1)
    nodes = {"input": first, "conv": conv(), "lif": lif(), "last": conv(1, 2), "output": last}
    edges = list(pairwise(nodes))
    return nir.NIRGraph({**nodes, **changes}, edges, type_check=False)


def with_edges(
    *edges: tuple[str, str], without: tuple[tuple[str, str], ...] = (), **nodes: nir.NIRNode
) -> nir.NIRGraph:
    made = graph(**nodes)
    made.edges = [*(edge for edge in made.edges if edge not in without), *edges]
    return made


BROKEN: dict[str, tuple[Callable[[], nir.NIRGraph], str, str]] = {
    # values, in every vocabulary
    "nan": (lambda: graph(lif=lif(r=np.nan)), "lif", "not finite"),
    "infinite weight": (lambda: graph(conv=conv(weight=np.full((2, 1, 3, 3), np.inf))), "conv", "not finite"),
    "complex": (lambda: graph(conv=conv(weight=np.ones((2, 1, 3, 3), complex))), "conv", "real numbers"),
    "no array": (lambda: graph(conv=conv(bias=None)), "conv", "real numbers"),
    "text": (lambda: graph(conv=conv(bias=np.array(["a", "b"]))), "conv", "real numbers"),
    "tau 0": (lambda: graph(lif=lif(tau=0.0)), "lif", "tau must be positive"),
    "tau < 0": (lambda: graph(lif=lif(tau=-1.0)), "lif", "tau must be positive"),
    "bias length": (lambda: graph(conv=conv(bias=np.zeros(99))), "conv", "wrong length"),
    "weight axes": (lambda: graph(conv=conv(weight=np.ones((2, 1, 3)), input_shape=None)), "conv", "number of axes"),
    "empty": (lambda: graph(conv=conv(weight=np.ones((0, 1, 3, 3)), bias=np.zeros(0))), "conv", "is empty"),
    "stride 0": (lambda: graph(conv=conv(stride=np.array([0, 1]))), "conv", "stride and dilation"),
    "stride half": (lambda: graph(conv=conv(stride=np.array([1.5, 1.0]))), "conv", "stride and dilation"),
    "three strides": (lambda: graph(conv=conv(stride=np.array([1, 1, 1]))), "conv", "stride and dilation"),
    "padding": (lambda: graph(conv=conv(padding=np.array([-1, 1]))), "conv", "padding"),
    "same and stride": (lambda: graph(conv=conv(padding="same", stride=2)), "conv", "unknown padding"),
    "groups": (lambda: graph(conv=conv(groups=3)), "conv", "groups"),
    "float shape": (
        lambda: graph(input=nir.Input({"input": np.array([1.0, 4.0, 5.0])})),
        "input",
        "shape must be whole numbers",
    ),
    # edges and shapes, in every vocabulary
    "missing node": (lambda: with_edges(("conv", "nowhere")), "nowhere", "does not exist"),
    "twice": (lambda: with_edges(("conv", "lif")), "lif", "more than once"),
    "two outputs": (lambda: with_edges(("last", "out2"), out2=ends(1)[1]), "graph", "exactly one Output"),
    "two inputs": (lambda: with_edges(("in2", "conv"), in2=ends(1)[0]), "graph", "exactly one Input"),
    "into the input": (lambda: with_edges(("last", "input")), "input", "no incoming"),
    "from the output": (lambda: with_edges(("output", "conv")), "output", "no outgoing"),
    "unreachable": (lambda: with_edges(("island", "lif"), island=conv(2, 2)), "island", "no path leads to it"),
    "dead end": (lambda: with_edges(("lif", "side"), side=conv(1, 2)), "side", "no path leads from it"),
    "channels": (lambda: graph(conv=conv(2, 3)), "conv", "wrong input shape"),
    "neuron shape": (lambda: graph(lif=lif(3)), "lif", "wrong input shape"),
    "output shape": (lambda: graph(output=ends(2)[1]), "output", "another shape than it declares"),
    "summed shapes": (
        lambda: with_edges(("input", "side"), ("side", "lif"), side=conv(2, stride=2)),
        "lif",
        "another shape from side",
    ),
    "large kernel": (lambda: graph(conv=conv(kernel=(7, 7), padding=0)), "conv", "larger than its padded input"),
    "slash": (lambda: with_edges(("lif", "a/b"), ("a/b", "output"), **{"a/b": conv(1, 2)}), "a/b", "without '/'"),
}

UNPORTABLE: dict[str, tuple[Callable[[], nir.NIRGraph], str, str]] = {
    "kind": (lambda: graph(lif=nir.IF(r=np.ones((2, 4, 5)), v_threshold=np.ones((2, 4, 5)))), "lif", "portable vocab"),
    "square": (lambda: graph(conv=conv(kernel=(3, 1), padding=(1, 0))), "conv", "not square"),
    "groups": (lambda: graph(last=conv(2, 1, groups=2), output=ends(2)[1]), "last", "grouped"),
    "padding": (lambda: graph(conv=conv(padding="same")), "conv", "padding by name"),
    "float64": (lambda: graph(conv=conv(bias=np.zeros(2))), "conv", "other number types"),
    "r": (lambda: graph(lif=lif(r=2.0)), "lif", "r is ignored"),
    "leak": (lambda: graph(lif=lif(v_leak=0.5)), "lif", "leak potential"),
    "reset": (lambda: graph(lif=lif(v_reset=0.5)), "lif", "v_reset is ignored"),
    "threshold": (lambda: graph(lif=lif(v_threshold=-0.5)), "lif", "threshold must be positive"),
    "two taus": (
        lambda: graph(lif=lif(tau=np.linspace(1e-4, 2e-4, 40, dtype=np.float32).reshape(2, 4, 5))),
        "lif",
        "one tau and one threshold",
    ),
    "short tau": (lambda: graph(lif=lif(tau=9.9e-5)), "lif", "tau is shorter"),
    "feedback bias": (
        lambda: with_edges(("back", "lif"), ("lif", "back"), back=conv(2, 2, bias=np.ones(2, np.float32))),
        "back",
        "frameworks part over the first step",
    ),
    "two convolutions": (
        lambda: with_edges(("conv", "again"), ("again", "lif"), without=(("conv", "lif"),), again=conv(2, 2)),
        "again",
        "takes its input from conv",
    ),
    "summed spikes": (
        lambda: with_edges(("input", "side"), ("side", "lif2"), ("lif2", "last"), side=conv(), lif2=lif()),
        "last",
        "only a LIF or the Output sums",
    ),
}


def test_sound_graphs_break_nothing() -> None:
    spec = StudentSpec(width=3, depth=4, levels=2, steps=1, edges=((1, 3),))
    for made in (graph(), student_network(random_student(spec, 0), (5, 6)).graph):
        assert check_graph(made, "portable") == []
        assert check_graph(made, "readable") == []


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("vocabulary", ["portable", "readable"])
def test_what_no_reader_can_use_is_found(case: str, vocabulary: str) -> None:
    make, node, sentence = BROKEN[case]
    findings = check_graph(make(), vocabulary)
    assert any(finding.node == node and sentence in str(finding) for finding in findings), findings


@pytest.mark.parametrize("case", UNPORTABLE)
def test_what_is_not_portable_is_found_and_still_readable(case: str) -> None:
    make, node, sentence = UNPORTABLE[case]
    findings = check_graph(make(), "portable")
    assert any(finding.node == node and sentence in str(finding) for finding in findings), findings
    assert check_graph(make(), "readable") == []


def test_all_findings_come_at_once() -> None:
    made = graph(conv=conv(bias=np.zeros(3, np.float32)), lif=lif(tau=-1.0, v_leak=0.5), last=conv(1, 2, groups=0))
    found = {(finding.node, finding.rule) for finding in check_graph(made)}
    assert {node for node, _ in found} == {"conv", "lif", "last"}
    assert len([node for node, _ in found if node == "lif"]) == 3


def test_subgraphs_are_refused_by_name() -> None:
    findings = check_graph(graph(lif=graph()), "readable")
    assert any(f.node == "lif" and "NIRGraph is not in the readable vocabulary" in f.rule for f in findings)


@pytest.mark.parametrize(("hint", "expected"), [(1e-3, 1e-3), (None, 1e-4), ("x", 1e-4), (-1.0, 1e-4), (np.nan, 1e-4)])
def test_the_time_step_is_a_hint(hint: object, expected: float) -> None:
    made = graph()
    made.metadata = {} if hint is None else {"dt": hint}
    assert time_step(made) == expected


def test_a_tau_of_one_step_passes_in_float32() -> None:
    made = graph(lif=lif(tau=1e-4))
    assert float(made.nodes["lif"].tau[0, 0, 0]) < 1e-4
    assert check_graph(made) == []


def test_shapes_of_every_kind_of_node() -> None:
    nodes = {
        "input": nir.Input({"input": np.array([2, 9, 12])}),
        "conv": conv(3, 2, (3, 3), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        "same": conv(4, 3, (4, 4), padding="same"),
        "sum": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "mean": nir.AvgPool2d(np.array([2, 2]), np.array([1, 1]), np.array([1, 1])),
        "flat": nir.Flatten({"input": None}, start_dim=0, end_dim=-1),
        "dense": nir.Affine(np.ones((7, 60)), np.ones(7)),
        "linear": nir.Linear(np.ones((6, 7))),
        "scale": nir.Scale(np.ones(6)),
        "output": nir.Output({"output": np.array([6])}),
    }
    made = nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)
    shapes = node_shapes(made)
    assert shapes["conv"] == (3, 5, 8)
    assert shapes["same"] == (4, 5, 8)
    assert shapes["sum"] == (4, 2, 4)
    assert shapes["mean"] == (4, 3, 5)
    assert shapes["flat"] == (60,)
    assert (shapes["dense"], shapes["linear"], shapes["output"]) == ((7,), (6,), (6,))
    with pytest.raises(FindingsError, match="dense: wrong input shape"):
        nodes["dense"] = nir.Affine(np.ones((7, 61)), np.ones(7))
        node_shapes(nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False))


def test_feedback_edges_are_those_that_run_backward() -> None:
    made = with_edges(("back", "lif"), ("lif", "back"), back=conv(2, 2))
    assert feedback_edges(made) == {("back", "lif")}
    assert feedback_edges(graph()) == set()


@pytest.mark.parametrize("seed", range(20))
def test_the_running_order_is_topological_whatever_the_order_of_edges(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"n{index}" for index in range(8)]
    edges = [(names[i], names[j]) for i in range(8) for j in range(i + 1, 8) if rng.random() < 0.4]
    shuffled = [edges[index] for index in rng.permutation(len(edges))]
    order, feedback = run_order([names[index] for index in rng.permutation(8)], shuffled, "n0")
    assert sorted(order) == names
    assert feedback == set()
    assert all(order.index(source) < order.index(target) for source, target in edges)
